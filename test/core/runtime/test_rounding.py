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
from onnx import helper
import pytest

from hybrid_depth.runtime import rounding
from hybrid_depth.runtime.rounding import gram_of, HIGHEST, rounded

RNG = np.random.default_rng(0)


def test_inputs_that_go_together_make_up_for_each_other() -> None:
    """150 inputs of 10 causes: rounding each weight by itself is three times as far off."""
    inputs = RNG.standard_normal((400, 10)) @ RNG.standard_normal((10, 150)) \
        + 0.05 * RNG.standard_normal((400, 150))
    matrix = (20 * RNG.standard_normal((150, 8))).clip(-60, 60).astype(np.float32)
    found = rounded(matrix, inputs.T @ inputs)
    assert found.dtype == np.int8
    assert np.abs(found).max() <= HIGHEST
    error, of_nearest = (np.std(inputs @ (integers - matrix))
                         for integers in (found, np.round(matrix)))
    assert error < of_nearest / 3


def test_inputs_that_do_not_leave_the_nearest_integers() -> None:
    matrix = (20 * RNG.standard_normal((70, 5))).clip(-60, 60).astype(np.float32)
    np.testing.assert_array_equal(rounded(matrix, np.diag(RNG.uniform(1, 2, 70))),
                                  np.round(matrix))
    np.testing.assert_array_equal(rounded(matrix, np.zeros((70, 70))), np.round(matrix))


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = RNG.standard_normal((90, 50)) @ RNG.standard_normal((50, 50))
    matrix = (20 * RNG.standard_normal((50, 3))).clip(-60, 60).astype(np.float32)
    at_once = rounded(matrix, inputs.T @ inputs)
    monkeypatch.setattr(rounding, '_BLOCK', 7)
    assert np.mean(rounded(matrix, inputs.T @ inputs) == at_once) > 0.98


@pytest.mark.parametrize(('pads', 'strides', 'dilations'), [
    ([1, 1, 1, 1], [1, 1], [1, 1]), ([0, 1, 2, 0], [2, 1], [1, 1]),
    ([2, 2, 2, 2], [1, 2], [2, 1])])
def test_gram_of_a_convolution(pads: list[int], strides: list[int], dilations: list[int]) -> None:
    """Weights times it times weights is the sum of squares of what the convolution makes."""
    from onnx.reference import ReferenceEvaluator
    x = RNG.standard_normal((2, 3, 9, 11)).astype(np.float32)
    kernel = RNG.standard_normal((1, 3, 3, 3)).astype(np.float32)
    node = helper.make_node('Conv', ['x', 'w'], ['y'], pads=pads, strides=strides,
                            dilations=dilations)
    y, = ReferenceEvaluator(node).run(None, {'x': x, 'w': kernel})
    weights = kernel.reshape(-1)
    assert weights @ gram_of(node, kernel.shape, x) @ weights == pytest.approx(
        np.sum(y ** 2), rel=1e-4)


def test_gram_of_a_product_and_few_of_many_places(monkeypatch: pytest.MonkeyPatch) -> None:
    x = RNG.standard_normal((1, 30, 5)).astype(np.float32)
    node = helper.make_node('MatMul', ['x', 'w'], ['y'])
    np.testing.assert_allclose(gram_of(node, (5, 4), x), x[0].T @ x[0], rtol=1e-5)
    monkeypatch.setattr(rounding, '_MOST_PLACES', 10)
    np.testing.assert_allclose(gram_of(node, (5, 4), x), x[0, ::3].T @ x[0, ::3], rtol=1e-5)
