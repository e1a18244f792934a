# Copyright 2026 The hybrid_depth_ros authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""A graph of opset 18 says the same in opset 17, and weights in half precision lose nothing."""
import numpy as np
import pytest

pytest.importorskip('torch', reason='the training extra is not installed')
import onnx
from onnx import helper, numpy_helper, TensorProto
import onnxruntime

from hybrid_depth.errors import ContractError
from hybrid_depth_training.deploy.onnx_rewrite import as_opset_17, cast_image_first, store_in_half


def model_of(nodes, constants=(), opset=18, axes=3) -> onnx.ModelProto:
    x = helper.make_tensor_value_info('x', TensorProto.FLOAT, ['n', 3, 4])
    y = helper.make_tensor_value_info('y', TensorProto.FLOAT, list('abc')[:axes])
    graph = helper.make_graph(
        nodes, 'g', [x], [y],
        [numpy_helper.from_array(value, name) for name, value in constants])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid('', opset)], ir_version=8)


def run_onnx(model: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    return session.run(None, {'x': x})[0]


@pytest.mark.parametrize('name', ['ReduceMax', 'ReduceMean', 'ReduceL2'])
def test_reductions_of_opset_18_become_those_of_17(name):
    model = model_of([helper.make_node(name, ['x', 'axes'], ['y'], keepdims=0,
                                       noop_with_empty_axes=0)], [('axes', np.array([-1]))],
                     axes=2)
    expected = run_onnx(model)
    model = as_opset_17(model)
    assert model.opset_import[0].version == 17
    onnx.checker.check_model(model, full_check=True)
    assert list(model.graph.node[0].input) == ['x']
    np.testing.assert_array_equal(run_onnx(model), expected)
    assert expected.shape == (2, 3)


def test_resize_without_new_attributes_becomes_that_of_17():
    model = model_of([helper.make_node(
        'Resize', ['x', '', 'scales'], ['y'], mode='linear', antialias=0,
        coordinate_transformation_mode='half_pixel', keep_aspect_ratio_policy='stretch')],
        [('scales', np.array([1, 1, 2], np.float32))])
    expected = run_onnx(model)
    model = as_opset_17(model)
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(run_onnx(model), expected)
    assert expected.shape == (2, 3, 8)


@pytest.mark.parametrize('node', [
    helper.make_node('Resize', ['x', '', 'scales'], ['y'], mode='linear', antialias=1),
    helper.make_node('ReduceMax', ['x', 'unknown'], ['y']),
    helper.make_node('Mish', ['x'], ['y']),
    helper.make_node('Pad', ['x', 'pads', '', 'axes'], ['y'])])
def test_operators_without_an_equal_in_opset_17_are_refused(node):
    model = model_of([node], [('scales', np.ones(3, np.float32)), ('pads', np.zeros(6, np.int64))])
    with pytest.raises(ContractError, match=f'{node.op_type}.*opset 17'):
        as_opset_17(model)


def test_pad_of_all_axes_is_that_of_17():
    model = model_of([helper.make_node('Pad', ['x', 'pads'], ['y'], mode='constant')],
                     [('pads', np.array([0, 0, 1, 0, 2, 0], np.int64))])
    expected = run_onnx(model)
    model = as_opset_17(model)
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_array_equal(run_onnx(model), expected)


def test_models_of_other_opsets():
    model = model_of([helper.make_node('Relu', ['x'], ['y'])], opset=17)
    assert as_opset_17(model).SerializeToString() == model.SerializeToString()


def test_newer_opsets_are_refused():
    model = model_of([helper.make_node('Gelu', ['x'], ['y'])], opset=20)
    with pytest.raises(ContractError):
        as_opset_17(model)


def test_only_weights_that_half_precision_holds_exactly_are_stored_in_it():
    exact = np.round(np.random.default_rng(1).normal(size=(4, 2048)), 2).astype(np.float16) \
        .astype(np.float32)
    inexact = exact + np.float32(1e-6)
    small = np.ones((4, 4), np.float32)
    weights = {'exact': exact, 'inexact': inexact, 'small': small}
    model = model_of([helper.make_node('MatMul', ['x', name], [name + '_y'])
                      for name in weights] + [helper.make_node('Identity', ['exact_y'], ['y'])],
                     list(weights.items()), opset=17)
    expected = run_onnx(model)
    size = len(model.SerializeToString())
    store_in_half(model)
    onnx.checker.check_model(model)
    stored = {value.name: value.data_type for value in model.graph.initializer}
    assert stored == {'exact_half': TensorProto.FLOAT16, 'inexact': TensorProto.FLOAT,
                      'small': TensorProto.FLOAT}
    assert len(model.SerializeToString()) < size - 0.4 * exact.nbytes
    np.testing.assert_array_equal(run_onnx(model), expected)


def of_bytes(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    x = helper.make_tensor_value_info('x', TensorProto.UINT8, [1, 2, 5, 3])
    y = helper.make_tensor_value_info('y', TensorProto.FLOAT, list('abcd'))
    graph = helper.make_graph(nodes, 'g', [x], [y], [
        numpy_helper.from_array(np.array(1), 'one')])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)


def test_an_image_of_bytes_is_cast_before_it_is_moved():
    """Shape and the values stay; every other reader of the image reads its Cast."""
    model = of_bytes(
        helper.make_node('Shape', ['x'], ['sizes']),
        helper.make_node('Gather', ['sizes', 'one'], ['height']),
        helper.make_node('Cast', ['height'], ['height_f'], to=TensorProto.FLOAT),
        helper.make_node('Transpose', ['x'], ['planes'], perm=[0, 3, 1, 2]),
        helper.make_node('Cast', ['planes'], ['floats'], to=TensorProto.FLOAT),
        helper.make_node('Cast', ['x'], ['as_it_is'], to=TensorProto.FLOAT),
        helper.make_node('ReduceMax', ['as_it_is'], ['most'], keepdims=0),
        helper.make_node('Sub', ['floats', 'most'], ['less']),
        helper.make_node('Mul', ['less', 'height_f'], ['y']))
    image = np.random.default_rng(0).integers(0, 256, (1, 2, 5, 3), np.uint8)

    def run() -> np.ndarray:
        return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {'x': image})[0]
    expected = run()
    cast_image_first(model)
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_array_equal(run(), expected)
    assert {node.op_type for node in model.graph.node if 'x' in node.input} == {'Cast'}
    before = len(model.graph.node)
    cast_image_first(model)  # once more changes nothing
    np.testing.assert_array_equal(run(), expected)
    assert len(model.graph.node) == before


def test_computing_with_bytes_is_refused():
    model = of_bytes(helper.make_node('Add', ['x', 'x'], ['sum']),
                     helper.make_node('Cast', ['sum'], ['y'], to=TensorProto.FLOAT))
    with pytest.raises(ContractError, match=r'computes with bytes.*Add'):
        cast_image_first(model)
    model = of_bytes(helper.make_node('Cast', ['x'], ['y'], to=TensorProto.FLOAT16))
    with pytest.raises(ContractError, match='something else than float32'):
        cast_image_first(model)
