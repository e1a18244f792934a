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
"""Typed graphs: which node computes in what, and what depth comes of it."""
from __future__ import annotations

from itertools import pairwise
from typing import Any

from half_arithmetic import run_rounded as run
import numpy as np
import onnx
from onnx import helper, numpy_helper, TensorProto
import onnxruntime
import pytest

from hybrid_depth.contract import read_spec
from hybrid_depth.drives import open_drive
from hybrid_depth.errors import BackendUnavailable, ContractError
from hybrid_depth.models import find_model
from hybrid_depth.preprocess import network_view, to_network
from hybrid_depth.runtime.precision import (
    check_share,
    FP16_SHARE,
    geometry_layers,
    half_share,
    resolve,
    single_layers,
    typed,
)
from hybrid_depth.runtime.trt.build import with_static_shapes

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
WIDTH = 640


def small_model(nodes: list[onnx.NodeProto], inputs: dict[str, Any], outputs: dict[str, Any],
                weights: dict[str, Any]) -> onnx.ModelProto:
    """Return a graph; ``inputs`` and ``outputs``: name -> shape, float32 (uint8 for 'image')."""
    kinds = {'image': TensorProto.UINT8}
    graph = helper.make_graph(
        nodes, 'g',
        *([helper.make_tensor_value_info(name, kinds.get(name, FLOAT), shape)
           for name, shape in shapes.items()] for shapes in (inputs, outputs)),
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), outputs.split(), f'{kind}:{outputs}',
                            **attributes)


def sweep_model() -> onnx.ModelProto:
    """
    Look up image features at projected columns, in the manner of a plane sweep.

    Column c of one row of WIDTH is seen at c + K[0, 2] + 0.25 and looked up at the nearest; then
    the value is put in proportion to how far the look-up was from it.
    """
    return small_model([
        node('Cast', 'image', 'levels', to=FLOAT),
        node('Conv', 'levels kernel', 'table_4d'),
        node('Reshape', 'table_4d flat', 'table'),
        node('Range', 'zero end one', 'columns'),
        node('Slice', 'K starts ends', 'cx_3d'),
        node('Reshape', 'cx_3d scalar', 'cx'),
        node('Add', 'columns cx', 'moved'),
        node('Add', 'moved quarter', 'u'),
        node('Round', 'u', 'near'),
        node('Clip', 'near zero last', 'inside'),
        node('Cast', 'inside', 'cell', to=TensorProto.INT64),
        node('Gather', 'table cell', 'found', axis=0),
        node('Sub', 'u near', 'fraction'),
        node('Mul', 'found fraction', 'weighted'),
        node('Reshape', 'weighted back', 'depth'),
    ], {'image': [1, 1, 1, WIDTH], 'K': [1, 3, 3]}, {'depth': [1, 1, 1, WIDTH]}, {
        'kernel': np.ones((1, 1, 1, 1), np.float32), 'flat': [-1], 'scalar': [1],
        'zero': np.float32(0), 'one': np.float32(1), 'end': np.float32(WIDTH),
        'last': np.float32(WIDTH - 1), 'quarter': np.float32(0.25), 'starts': [0, 0, 2],
        'ends': [1, 1, 3], 'back': [1, 1, 1, WIDTH]})


def attention_model() -> onnx.ModelProto:
    """One block of a transformer, and a head that gives log depth."""
    weights = {'w_q': np.eye(4), 'w_k': np.eye(4), 'w_v': np.eye(4), 'w_out': np.full((4, 1), .25),
               'gain': np.ones(4), 'shift': np.zeros(4), 'root': np.array(0.5)}
    return small_model([
        node('LayerNormalization', 'x gain shift', 'norm', axis=-1),
        node('MatMul', 'norm w_q', 'q'), node('MatMul', 'norm w_k', 'k'),
        node('MatMul', 'norm w_v', 'v'), node('Mul', 'q root', 'q_scaled'),
        node('Transpose', 'k', 'k_t', perm=[0, 2, 1]), node('MatMul', 'q_scaled k_t', 'scores'),
        node('Softmax', 'scores', 'share', axis=-1), node('MatMul', 'share v', 'mixed'),
        node('Add', 'x mixed', 'y'), node('MatMul', 'y w_out', 'log_depth'),
        node('Exp', 'log_depth', 'depth'),
    ], {'x': [1, 6, 4]}, {'depth': [1, 6, 1]},
        {name: value.astype(np.float32) for name, value in weights.items()})


def types(model: onnx.ModelProto) -> dict[str, int]:
    """Return node -> type of its first output."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    known = {value.name: value.type.tensor_type.elem_type
             for value in (*graph.value_info, *graph.output)}
    return {node.name: known[node.output[0]] for node in graph.node}


def sweep_inputs() -> dict[str, np.ndarray]:
    K = np.eye(3, dtype=np.float32)[None]
    K[0, 0, 2] = 7.125
    return {'image': np.random.default_rng(0).integers(1, 255, (1, 1, 1, WIDTH), np.uint8), 'K': K}


@pytest.mark.parametrize('precision', ['fp16', 'fp16_safe'])
def test_look_ups_land_where_they_did(precision: str) -> None:
    model = sweep_model()
    onnx.checker.check_model(typed(model, precision))
    inputs = sweep_inputs()
    expected = run(model, inputs)['depth']
    np.testing.assert_allclose(run(typed(model, precision), inputs)['depth'], expected, rtol=2e-3)
    kinds = types(typed(model, precision))
    assert kinds['Conv:table_4d'] == (HALF if precision == 'fp16' else FLOAT)
    for name in ('Range:columns', 'Add:moved', 'Round:near', 'Clip:inside', 'Sub:fraction'):
        assert kinds[name] == FLOAT, name


def test_an_index_that_the_network_chose_is_exact() -> None:
    """Look-ups at places that come from a trained layer: from there on they are coordinates."""
    model = small_model([
        node('Conv', 'x kernel', 'chosen'), node('Mul', 'chosen wide', 'column'),
        node('Add', 'column half', 'shifted'),
        node('Cast', 'shifted', 'cell', to=TensorProto.INT64),
        node('Gather', 'table cell', 'depth', axis=0),
    ], {'x': [1, 1, 1, 4]}, {'depth': [1, 1, 1, 4]}, {
        'kernel': np.ones((1, 1, 1, 1), np.float32), 'wide': np.float32(WIDTH),
        'half': np.float32(0.5), 'table': np.arange(2 * WIDTH, dtype=np.float32)})
    kinds = types(typed(model, 'fp16'))
    assert kinds['Conv:chosen'] == HALF
    assert kinds['Mul:column'] == kinds['Add:shifted'] == FLOAT


def test_a_grid_of_pixels_is_exact() -> None:
    model = small_model([
        node('Range', 'zero end one', 'columns'), node('Add', 'columns x', 'moved'),
        node('Round', 'moved', 'near'), node('Sub', 'moved near', 'depth'),
    ], {'x': [1]}, {'depth': [WIDTH]}, {'zero': np.float32(0), 'one': np.float32(1),
                                        'end': np.float32(WIDTH)})
    found = run(typed(model, 'fp16'), {'x': np.array([0.3], np.float32)})['depth']
    np.testing.assert_allclose(found, 0.3, atol=1e-3)


def test_the_argument_stays_and_types_at_the_edge_too() -> None:
    model = sweep_model()
    before = model.SerializeToString()
    for precision in ('fp32', 'fp16', 'fp16_safe'):
        result = typed(model, precision)
        assert [(v.name, v.type.tensor_type.elem_type) for v in result.graph.input] == \
            [('image', TensorProto.UINT8), ('K', FLOAT)]
        assert [v.type.tensor_type.elem_type for v in result.graph.output] == [FLOAT]
    assert model.SerializeToString() == before
    expected = run(model, sweep_inputs())['depth']
    np.testing.assert_array_equal(run(typed(model, 'fp32'), sweep_inputs())['depth'], expected)


def test_islands_of_fp16_safe() -> None:
    model = attention_model()
    half, safe = (types(typed(model, name)) for name in ('fp16', 'fp16_safe'))
    assert all(kind == HALF for name, kind in half.items() if not name.startswith('to_'))
    single = {name for name, kind in safe.items() if kind == FLOAT and not name.startswith('to_')}
    assert single == {'LayerNormalization:norm', 'MatMul:scores', 'Softmax:share',
                      'MatMul:log_depth', 'Exp:depth'}
    x = np.random.default_rng(0).standard_normal((1, 6, 4)).astype(np.float32)
    expected = run(model, {'x': x})['depth']
    for name in ('fp16', 'fp16_safe'):
        np.testing.assert_allclose(run(typed(model, name), {'x': x})['depth'], expected, rtol=5e-3)


def test_sums_that_are_products_with_ones_are_sums() -> None:
    model = small_model([
        node('MatMul', 'ones x', 'sum'), node('MatMul', 'weight x', 'layer'),
        node('Add', 'sum layer', 'y'), node('MatMul', 'y last', 'depth')],
        {'x': [1, 6, 4]}, {'depth': [1, 1, 1]},
        {'ones': np.ones((1, 1, 6), np.float32), 'weight': np.full((1, 1, 6), 2, np.float32),
         'last': np.full((4, 1), 3, np.float32)})
    half, safe = (types(typed(model, name)) for name in ('fp16', 'fp16_safe'))
    assert half['MatMul:sum'] == HALF
    assert (safe['MatMul:sum'], safe['MatMul:layer']) == (FLOAT, HALF)


def test_the_way_to_a_look_up_goes_on_past_products_of_constants_and_coordinates() -> None:
    """Pixels of points are often such a product; the depth it was made with is exact as well."""
    model = small_model([
        node('MatMul', 'x layer', 'log_depth'), node('Exp', 'log_depth', 'z'),
        node('Mul', 'z K', 'moved'), node('MatMul', 'factors moved', 'pixels'),
        node('Cast', 'pixels', 'cell', to=TensorProto.INT64),
        node('Gather', 'table cell', 'depth', axis=0)],
        {'x': [1, 4], 'K': [1, 3]}, {'depth': [2, 3, 1]},
        {'layer': np.ones((4, 1), np.float32), 'factors': np.ones((2, 1), np.float32),
         'table': np.ones((9, 1), np.float32)})
    found = types(typed(model, 'fp16'))
    assert {name for name, kind in found.items() if kind == FLOAT} >= {
        'MatMul:pixels', 'Mul:moved', 'Exp:z'}
    assert found['MatMul:log_depth'] == HALF


def test_an_exact_chain_is_not_rounded_on_its_way() -> None:
    """Between two nodes of an island there is no Cast, which is what a listed node would get."""
    graph = typed(sweep_model(), 'fp16').graph
    names = {name for node in graph.node if node.op_type == 'Cast' for name in node.output}
    assert not any(name.startswith(('columns', 'moved', 'u_as', 'near', 'inside'))
                   for name in names)


def test_weights_stored_in_half_and_constants_become_weights() -> None:
    model = attention_model()
    stored = numpy_helper.from_array(np.eye(4, dtype=np.float16), 'w_q_half')
    model.graph.initializer.append(stored)
    model.graph.initializer.remove(next(w for w in model.graph.initializer if w.name == 'w_q'))
    model.graph.node.insert(0, node('Cast', 'w_q_half', 'w_q', to=FLOAT))
    root = next(w for w in model.graph.initializer if w.name == 'root')
    model.graph.node.insert(0, helper.make_node('Constant', [], ['root'], value=root))
    model.graph.initializer.remove(root)
    x = np.ones((1, 6, 4), np.float32)
    for precision, kind in (('fp32', FLOAT), ('fp16', HALF)):
        result = typed(model, precision)
        onnx.checker.check_model(result)
        assert [n.op_type for n in result.graph.node].count('Cast') == 2 * (precision == 'fp16')
        assert {w.data_type for w in result.graph.initializer} == {kind}
        np.testing.assert_allclose(run(result, {'x': x})['depth'],
                                   run(attention_model(), {'x': x})['depth'], rtol=5e-3)


def test_bytes_become_numbers_before_anything_else() -> None:
    model = small_model([node('Transpose', 'image', 'moved', perm=[0, 3, 1, 2]),
                         node('Cast', 'moved', 'depth', to=FLOAT)],
                        {'image': [1, 2, 3, 1]}, {'depth': [1, 1, 2, 3]}, {})
    for precision in ('fp32', 'fp16'):
        graph = typed(model, precision).graph
        assert [n.op_type for n in graph.node if 'image' in n.input] == ['Cast']
        image = np.arange(6, dtype=np.uint8).reshape(1, 2, 3, 1)
        found = run(typed(model, precision), {'image': image})['depth']
        np.testing.assert_array_equal(found[0, 0], image[0, :, :, 0])
    model.graph.node.insert(0, node('Add', 'image image', 'twice'))
    with pytest.raises(ContractError, match='computes with the bytes'):
        typed(model, 'fp32')


def test_scales_of_a_resize_and_weights_for_both_types() -> None:
    model = small_model([
        node('Resize', 'x  scales', 'big', mode='nearest'),
        node('Add', 'big two', 'half_sum'), node('Softmax', 'half_sum', 'share'),
        node('Add', 'share two', 'depth'),
    ], {'x': [1, 1, 2, 2]}, {'depth': [1, 1, 4, 4]},
        {'scales': np.array([1, 1, 2, 2], np.float32), 'two': np.float32(2)})
    model.graph.node[0].input[:] = ['x', '', 'scales']
    for precision in ('fp16', 'fp16_safe'):
        onnx.checker.check_model(typed(model, precision), full_check=True)
        x = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
        np.testing.assert_allclose(run(typed(model, precision), {'x': x})['depth'],
                                   run(model, {'x': x})['depth'], rtol=2e-3)


@pytest.mark.parametrize(('value', 'is_weight', 'refused'), [
    (1e6, True, True), (1e6, False, False), (-np.inf, True, False)])
def test_numbers_beyond_half_precision(value: float, is_weight: bool, refused: bool) -> None:
    weight = np.array([1, value] if is_weight else value, np.float32)
    bound = 'Max' if np.isinf(value) else 'Min'
    model = small_model([node(bound, 'x limit', 'depth')], {'x': [2]}, {'depth': [2]},
                        {'limit': weight})
    if refused:
        with pytest.raises(ContractError, match=r"'limit' holds 1e\+06.*use precision fp32"):
            typed(model, 'fp16')
        return
    x = np.array([1, 2], np.float32)
    np.testing.assert_array_equal(run(typed(model, 'fp16'), {'x': x})['depth'],
                                  run(model, {'x': x})['depth'])


def test_graphs_that_cannot_be_typed() -> None:
    with pytest.raises(ContractError, match="'int8_mix'; expected fp32, fp16"):
        typed(attention_model(), 'int8_mix')
    branch = attention_model()
    inner = helper.make_graph([], 'then', [], [])
    branch.graph.node.append(helper.make_node('If', ['x'], ['z'], then_branch=inner,
                                              else_branch=inner))
    with pytest.raises(ContractError, match='has a If, whose branches'):
        typed(branch, 'fp16')
    unknown = attention_model()
    unknown.graph.node.append(helper.make_node('Mystery', ['x'], ['z'], domain='somewhere'))
    with pytest.raises(ContractError, match='cannot be inferred'):
        typed(unknown, 'fp16')


def test_share_of_half_precision() -> None:
    model = attention_model()
    assert half_share(model) == 0.0
    assert half_share(typed(model, 'fp16')) == 1.0
    assert half_share(typed(model, 'fp16_safe')) == pytest.approx(4 / 6)
    check_share(0.95, 'fp16', 'this')
    check_share(0.1, 'fp16_safe', 'this')
    with pytest.raises(BackendUnavailable, match=r'this was to be fp16, but only 94%'):
        check_share(0.94, 'fp16', 'this')


@pytest.mark.parametrize(('asked', 'device', 'found'), [
    ('auto', 'cpu', 'fp32'), ('auto', 'gpu', 'fp16'), ('fp32', 'gpu', 'fp32'),
    ('fp16_safe', 'gpu', 'fp16_safe'), ('int8_mix', 'cpu', 'int8_mix')])
def test_what_a_precision_means(asked: str, device: str, found: str) -> None:
    assert resolve(asked, device) == found


@pytest.mark.parametrize(('asked', 'device', 'match'), [
    ('int8_mix', 'gpu', 'of no use on a GPU'), ('fp16', 'cpu', 'of no use on a CPU'),
    ('bf16', 'cpu', 'AVX512-BF16'), ('bf16', 'gpu', '8 significant bits')])
def test_a_precision_that_is_refused(asked: str, device: str, match: str) -> None:
    with pytest.raises(BackendUnavailable, match=match):
        resolve(asked, device)


def matching_model(layers: int) -> onnx.ModelProto:
    """Pass an image through so many layers to what is matched, then one more to depth."""
    names = [f'x{index}' for index in range(layers)] + ['features']
    chain = [step for before, after in pairwise(names)
             for step in (node('Conv', f'{before} kernel', f'{after}_raw'),
                          node('Relu', f'{after}_raw', after))]
    return small_model(
        [node('Cast', 'image', 'x0', to=FLOAT), *chain, node('Conv', 'features kernel', 'y'),
         node('Relu', 'y', 'depth')],
        {'image': [1, 1, 4, 4]}, {'features': [1, 1, 4, 4], 'depth': [1, 1, 4, 4]},
        {'kernel': np.ones((1, 1, 1, 1), np.float32)})


@pytest.mark.parametrize(('layers', 'single'), [(39, 2), (59, 3), (18, 0)])
def test_first_layers_before_matching_as_far_as_the_share_allows(layers: int, single: int) -> None:
    model = matching_model(layers)
    graph = typed(model, 'fp16')
    assert half_share(graph) >= FP16_SHARE
    assert single_layers(graph) == {f'Conv:x{index}_raw' for index in range(1, single + 1)}
    if single:
        kinds = types(graph)
        assert kinds['Relu:x1'] == FLOAT
        assert kinds[f'Relu:x{single}'] == HALF  # rounded once, after the last of them
    safe = single_layers(typed(model, 'fp16_safe'))
    assert safe == {name for name in types(model) if name.startswith('Conv')}


def test_without_matching_the_first_layer_alone_and_for_safety() -> None:
    model = matching_model(40)
    model.graph.output.remove(model.graph.output[0])
    assert not single_layers(typed(model, 'fp16'))
    assert single_layers(typed(model, 'fp16_safe')) == {'Conv:x1_raw', 'Conv:y'}


def features_alone(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the part of ``model`` that makes features of an image."""
    wanted, nodes = {'features'}, []
    for one in reversed(model.graph.node):
        if not wanted.isdisjoint(one.output):
            wanted.update(one.input)
            nodes.append(one)
    graph = helper.make_graph(
        nodes[::-1], 'features', [value for value in model.graph.input if value.name in wanted],
        [value for value in model.graph.output if value.name == 'features'],
        [weight for weight in model.graph.initializer if weight.name in wanted])
    return helper.make_model(graph, opset_imports=model.opset_import,
                             ir_version=model.ir_version)


def run_exactly(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options,
                                           providers=['CPUExecutionProvider'])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


SLOW = pytest.mark.slow


@pytest.mark.parametrize(('name', 'size', 'precision'), [
    ('compact', (192, 640), 'fp16'), ('compact', (288, 448), 'fp16_safe'),
    *(pytest.param('compact', size, 'fp16_safe', marks=SLOW)
      for size in ((192, 640), (256, 480), (288, 416)))])
def test_the_shipped_model_in_half_precision(name: str, size: tuple[int, int],
                                             precision: str) -> None:
    """A street without much texture, and frames before it whose features are in half as well."""
    path = find_model(name)
    spec = read_spec(path)
    model = with_static_shapes(onnx.load(path), spec, size)
    geometry = geometry_layers(model)
    assert geometry
    result = typed(model, precision)
    if precision == 'fp16':
        assert half_share(result, geometry) >= FP16_SHARE
    drive = open_drive('synthetic:8')
    frames = [drive.frame(index) for index in (16, 14, 11, 7, 2)[:1 + spec.sources]]
    views = [network_view(frame.camera, size) for frame in frames]
    images = [to_network(frame.image_rgb, view)
              for frame, view in zip(frames, views, strict=True)]
    world_T_source = np.array([frame.world_T_camera for frame in frames[1:]])
    feed = {'image': images[0], 'K': views[0].K,
            'source_T_target': (np.linalg.inv(world_T_source) @ frames[0].world_T_camera)
            .astype(np.float32)[None], 'source_valid': np.ones((1, spec.sources), np.float32)}
    exact, half = (
        runs(graph, feed | {'source_features': np.stack([
            runs(features_alone(graph), {'image': image})['features'] for image in images[1:]],
            axis=1)})
        for runs, graph in ((run_exactly, model), (run, result)))
    for output in ('depth', 'single_depth'):
        error = np.abs(half[output] / exact[output] - 1).mean()
        assert error < 0.005, (output, error)
