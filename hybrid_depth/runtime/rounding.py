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
"""
Rounding weights to integers so that what they make of real inputs changes least.

Rounding each weight by itself is best only for inputs that have nothing to do with each other.
Here the weights are rounded one after another, and those still to come make up for the error so
far (GPTQ, Frantar et al. 2023; as Babai's nearest plane, that is from the last row on with the
Cholesky factor of the inputs' products).
"""
from __future__ import annotations

from typing import Any

import numpy as np

HIGHEST = 63  # 7 bits: CPUs without VNNI add products of 8 bits in 16, where those overflow
_DAMPING = 0.01  # of the mean square of inputs: what few frames say of them is not exact
_BLOCK = 64  # rows whose effect on all the others is computed at once
_MOST_PLACES = 1024  # of a frame: neighbours say nearly the same


def rounded(matrix: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """
    Return ``matrix`` (inputs, outputs), in steps, as int8 within +-HIGHEST.

    ``gram`` (inputs, inputs) holds the sums of products of the inputs.
    """
    gram = gram.astype(np.float64)
    least = _DAMPING * max(float(gram.diagonal().mean()), 1e-30)
    factor = np.linalg.cholesky(gram + least * np.eye(len(gram))).T.astype(np.float32)
    factor /= factor.diagonal()[:, None].copy()
    error = np.zeros(matrix.shape, np.float32)  # of the rows that are done
    result = np.zeros(matrix.shape, np.int8)
    for end in range(len(matrix), 0, -_BLOCK):
        start = max(end - _BLOCK, 0)
        wanted = matrix[start:end] + factor[start:end, end:] @ error[end:]
        for row in range(end - 1, start - 1, -1):
            best = wanted[row - start] + factor[row, row + 1:end] @ error[row + 1:end]
            result[row] = np.clip(np.round(best), -HIGHEST, HIGHEST)
            error[row] = matrix[row] - result[row]
    return result


def gram_of(node: Any, shape: tuple[int, ...], x: np.ndarray) -> np.ndarray:
    """Return the sums of products of what each weight, of ``shape``, of a node meets in ``x``."""
    rows = x.reshape(-1, x.shape[-1]) if node.op_type == 'MatMul' else _patches(node, shape, x)
    rows = rows[::-(-len(rows) // _MOST_PLACES)]
    found: np.ndarray = rows.T @ rows
    return found


def _patches(conv: Any, shape: tuple[int, ...], x: np.ndarray) -> np.ndarray:
    """Return what a Conv of images sees at each place: (places, channels * height * width)."""
    values = {one.name: list(one.ints) for one in conv.attribute}
    top, left, bottom, right = values.get('pads', [0] * 4)
    padded = np.pad(x, [(0, 0), (0, 0), (top, bottom), (left, right)])
    down, across = values.get('dilations', [1, 1])
    reach = ((shape[2] - 1) * down + 1, (shape[3] - 1) * across + 1)
    steps = values.get('strides', [1, 1])
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, (2, 3))
    windows = windows[:, :, ::steps[0], ::steps[1], ::down, ::across]
    every = max(1, windows[:, 0, :, :, 0, 0].size // _MOST_PLACES)
    places = np.arange(0, windows[:, 0, :, :, 0, 0].size, every)
    chosen = windows.transpose(0, 2, 3, 1, 4, 5)[
        np.unravel_index(places, (len(x), *windows.shape[2:4]))]
    return np.ascontiguousarray(chosen).reshape(len(places), -1)
