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
from __future__ import annotations

import numpy as np
import onnx
import pytest
from small_graphs import answers, kinds, model_of, node

from hybrid_depth.runtime.join_sums import join_sums

RNG = np.random.default_rng(0)


def sum_of_two(*more: onnx.NodeProto, stride: int = 1, outputs: tuple[str, ...] = ('y',),
               ) -> onnx.ModelProto:
    """Return Conv(16 + 4 channels joined) + Conv(3 channels)."""
    same = {'pads': [1, 1, 1, 1], 'kernel_shape': [3, 3]}
    nodes = [
        node('Slice', ['x', 'i0', 'i16', 'i1'], ['first'], name='first'),
        node('Slice', ['x', 'i16', 'i20', 'i1'], ['second'], name='second'),
        node('Slice', ['x', 'i20', 'i23', 'i1'], ['few_in'], name='few_in'),
        node('Concat', ['first', 'second'], ['many_in'], name='many_in', axis=1),
        node('Conv', ['many_in', 'w_many', 'b_many'], ['many_out'], name='many',
             strides=[1, 1], **same),
        node('Conv', ['few_in', 'w_few'], ['few_out'], name='few', strides=[stride, stride],
             **same),
        node('Add', ['few_out', 'many_out'], ['y'], name='sum'), *more]
    return model_of(nodes, [1, 23, 'height', 'width'], list(outputs), {
        **{f'i{index}': np.array([index]) for index in (0, 1, 16, 20, 23)},
        'w_many': RNG.standard_normal((8, 20, 3, 3)).astype(np.float32),
        'b_many': RNG.standard_normal(8).astype(np.float32),
        'w_few': RNG.standard_normal((8, 3, 3, 3)).astype(np.float32)})


def test_one_convolution_gives_the_same() -> None:
    model = sum_of_two()
    x = RNG.standard_normal((1, 23, 9, 12)).astype(np.float32)
    expected, = answers(model, x)
    join_sums(model, ['many'])
    assert kinds(model) == {'Slice': 3, 'Pad': 1, 'Concat': 1, 'Conv': 1}
    conv, = (one for one in model.graph.node if one.op_type == 'Conv')
    weights = {one.name: tuple(one.dims) for one in model.graph.initializer}
    assert conv.name == 'many'
    assert weights[conv.input[1]] == (8, 24, 3, 3)  # 23, and one that fills the block
    assert not {'w_many', 'w_few', 'b_many'} & set(weights)
    np.testing.assert_allclose(answers(model, x)[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('model', [
    sum_of_two(stride=2), sum_of_two(node('Exp', ['few_out'], ['z']), outputs=('y', 'z')),
    sum_of_two(outputs=('y', 'many_out'))], ids=['strides', 'read twice', 'an output'])
def test_others_stay(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    join_sums(model, ['many'])
    assert model.SerializeToString() == before


def test_no_other_layers_are_joined() -> None:
    model = sum_of_two()
    before = model.SerializeToString()
    join_sums(model, ['another'])
    assert model.SerializeToString() == before
