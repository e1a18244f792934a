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
from small_graphs import answers, kinds, model_of, node

from hybrid_depth.runtime.lighter import lighten

RNG = np.random.default_rng(0)
CHANNELS = 24


def random(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def block(*more: onnx.NodeProto, outputs: tuple[str, ...] = ('y',)) -> onnx.ModelProto:
    """Return what stands in a transformer: norm, three parts of one product, scale, sum, norm."""
    nodes = [
        node('LayerNormalization', ['x', 'gamma', 'beta'], ['n'], name='norm'),
        node('MatMul', ['n', 'w_joined'], ['p'], name='joined'),
        node('Add', ['p', 'b_joined'], ['j'], name='joined_bias'),
        node('Split', ['j'], ['q', 'k', 'v'], name='split', axis=2),
        node('Mul', ['q', 'k'], ['qk'], name='qk'),
        node('Sub', ['qk', 'v'], ['qkv'], name='qkv'),
        node('MatMul', ['qkv', 'w'], ['m'], name='product'),
        node('Add', ['b', 'm'], ['a'], name='bias'),
        node('Mul', ['a', 'layer_scale'], ['s'], name='scale'),
        node('Add', ['x', 's'], ['r'], name='residual'),
        node('LayerNormalization', ['r', 'gamma', 'beta'], ['y'], name='last'), *more]
    return model_of(nodes, [1, 'rows', CHANNELS], list(outputs), {
        'gamma': random(CHANNELS), 'beta': random(CHANNELS), 'w_joined': random(CHANNELS, 72),
        'b_joined': random(72), 'w': random(CHANNELS, CHANNELS), 'b': random(CHANNELS),
        'layer_scale': random(CHANNELS)})


def test_less_to_do_and_the_same_values() -> None:
    model, x = block(), random(1, 37, CHANNELS)
    expected, = answers(model, x)
    assert lighten(model) == 3
    assert kinds(model) == {'LayerNormalization': 2, 'MatMul': 4, 'Add': 4, 'Mul': 1, 'Sub': 1,
                            'Sum': 1}
    np.testing.assert_allclose(answers(model, x)[0], expected, rtol=1e-4, atol=1e-4)
    assert not {'w', 'b', 'layer_scale', 'w_joined'} & {
        weight.name for weight in model.graph.initializer}


def test_what_others_read_stays() -> None:
    """The bias before the scale, the joined parts and the sum before the norm are read twice."""
    model = block(*(node('Exp', [name], [f'{name}2']) for name in 'ajr'),
                  outputs=('y', 'a2', 'j2', 'r2'))
    before = kinds(model)
    x = random(1, 5, CHANNELS)
    expected = answers(model, x)
    assert lighten(model) == 0
    assert kinds(model) == before
    for found, right in zip(answers(model, x), expected, strict=True):
        np.testing.assert_array_equal(found, right)
    assert lighten(block(outputs=('y', 'a', 'j', 'r'))) == 0  # outputs of the graph are read


def test_weights_that_another_product_shares_stay_for_it() -> None:
    model = block(node('MatMul', ['x', 'w'], ['other']), outputs=('y', 'other'))
    x = random(1, 5, CHANNELS)
    expected = answers(model, x)
    assert lighten(model) == 3
    for found, right in zip(answers(model, x), expected, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-4)


def test_a_sum_with_weights_is_one_product() -> None:
    def sums(factor: np.ndarray) -> onnx.ModelProto:
        return model_of([
            node('Mul', ['x', 'factor'], ['m'], name='mul'),
            node('Reshape', ['m', 'flat'], ['f'], name='reshape'),
            node('MatMul', ['ones', 'f'], ['y'], name='sum')], [1, 5, 2, 'w'], ['y'],
            {'factor': factor, 'flat': np.array([1, 5, -1]),
             'ones': np.ones((1, 1, 5), np.float32)})
    x = random(1, 5, 2, 3)
    model = sums(random(1, 5, 1, 1))
    expected = answers(model, x)
    assert lighten(model) == 1
    assert kinds(model) == {'Reshape': 1, 'MatMul': 1}
    np.testing.assert_allclose(answers(model, x)[0], expected[0], rtol=1e-5, atol=1e-6)
    other = sums(random(1, 5, 2, 1))  # of another axis too
    assert lighten(other) == 0
    assert kinds(other)['Mul'] == 1
