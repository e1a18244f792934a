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
from small_graphs import answers, kinds, model_of, node

from hybrid_depth.runtime.quantise_products import product_of, quantise_products

RNG = np.random.default_rng(0)


def test_products_of_the_same_values_quantise_them_once() -> None:
    x = RNG.standard_normal((1, 40, 64)).astype(np.float32)
    matrices = [RNG.standard_normal((64, 48)).astype(np.float32) for _ in range(3)]
    model = model_of([node('MatMul', ['x', f'w{index}'], [f'y{index}'], name=f'product{index}')
                      for index in range(3)], [1, 'rows', 64], ['y0', 'y1', 'y2'],
                     {f'w{index}': matrix for index, matrix in enumerate(matrices)})
    expected = answers(model, x)
    products = {f'product{index}': product_of(matrices[index], x[0].T @ x[0])
                for index in (0, 2)}
    assert all(np.abs(one.integers).max() == 63 for one in products.values())  # 7 bits
    quantise_products(model, products)
    counts = kinds(model)
    assert counts['DynamicQuantizeLinear'] == counts['MatMul'] == 1
    assert counts['MatMulInteger'] == 2
    assert {'w0', 'w1', 'w2'} & {one.name for one in model.graph.initializer} == {'w1'}
    found = answers(model, x)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-5, atol=1e-5)
    for index in (0, 2):
        error = np.abs(found[index] - expected[index]).mean() / expected[index].std()
        assert 1e-4 < error < 0.015


def test_each_output_has_a_scale_of_its_own() -> None:
    matrix = (RNG.standard_normal((32, 2)) * [0.01, 100]).astype(np.float32)
    product = product_of(matrix, np.eye(32))
    np.testing.assert_allclose(product.integers * product.scale, matrix,
                               atol=0.51 * np.abs(matrix).max(axis=0).max() / 63)
    np.testing.assert_allclose(product.scale, np.abs(matrix).max(axis=0) / 63, rtol=1e-6)
