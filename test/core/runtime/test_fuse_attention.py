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
"""Attention as one operator: the same answer, and only where it is the form that is known."""
from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper, TensorProto
import onnxruntime
import pytest

from hybrid_depth.runtime.fuse_attention import fuse_attention

HEADS, WIDTH = 3, 8
CHANNELS = HEADS * WIDTH


def attention(order: tuple[int, int, int] = (0, 1, 2), opset: int = 17) -> onnx.ModelProto:
    """Return self-attention of what is joined in ``order``: queries, keys, values."""
    node = helper.make_node
    names = [('q', 'k', 'v')[index] for index in order]
    nodes = [node('Reshape', ['x', 'form'], ['parts'], name='parts')]
    for place, name in enumerate(names):
        nodes += [
            node('Slice', ['parts', f'i{place}', f'i{place + 1}', 'i2'], [f'{name}_slice'],
                 name=f'{name}_slice'),
            node('Squeeze', [f'{name}_slice', 'i2'], [f'{name}_rows'], name=f'{name}_rows'),
            node('Transpose', [f'{name}_rows'], [name], name=name,
                 perm=[0, 2, 3, 1] if name == 'k' else [0, 2, 1, 3])]
    nodes += [
        node('Mul', ['q', 'scale'], ['scaled'], name='scaled'),
        node('MatMul', ['scaled', 'k'], ['scores'], name='scores'),
        node('Softmax', ['scores'], ['shares'], name='shares', axis=-1),
        node('MatMul', ['shares', 'v'], ['heads'], name='heads'),
        node('Transpose', ['heads'], ['together'], name='together', perm=[0, 2, 1, 3]),
        node('Reshape', ['together', 'flat'], ['y'], name='flat')]
    constants = {'form': np.array([1, -1, 3, HEADS, WIDTH]), 'flat': np.array([1, -1, CHANNELS]),
                 'scale': np.array(0.3, np.float32)} | {
                     f'i{index}': np.array([index]) for index in range(4)}
    graph = helper.make_graph(
        nodes, 'attention',
        [helper.make_tensor_value_info('x', TensorProto.FLOAT, [1, 'rows', 3 * CHANNELS])],
        [helper.make_tensor_value_info('y', TensorProto.FLOAT, [1, 'rows', CHANNELS])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid('', opset)], ir_version=8)


def answer(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    found: np.ndarray = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=['CPUExecutionProvider']).run(None, {'x': x})[0]
    return found


@pytest.mark.parametrize('opset', [17, 18])
def test_one_operator_gives_the_same(opset: int) -> None:
    x = np.random.default_rng(0).standard_normal((1, 37, 3 * CHANNELS)).astype(np.float32)
    model = attention(opset=opset)
    expected = answer(model, x)
    assert fuse_attention(model) == 1
    assert [node.op_type for node in model.graph.node] == ['Split', 'MultiHeadAttention']
    np.testing.assert_allclose(answer(model, x), expected, rtol=1e-4, atol=1e-5)


def test_other_forms_stay() -> None:
    another_order = attention((1, 0, 2))
    read_twice = attention()
    read_twice.graph.output.append(helper.make_tensor_value_info('again', TensorProto.FLOAT, None))
    read_twice.graph.node.append(helper.make_node('Exp', ['shares'], ['again'], name='again'))
    for model in (another_order, read_twice):
        before = model.SerializeToString()
        assert fuse_attention(model) == 0
        assert model.SerializeToString() == before
