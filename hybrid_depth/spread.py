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
"""Averages of image maps whose neighbouring pixels err together."""
from __future__ import annotations

import numpy as np

_GRID = (6, 8)  # blocks over the image; within one, errors count as one error
_MIN_BLOCKS = 8  # fewer are a corner of the image
_MIN_WEIGHT = 4.0  # of a block, in pixels that count fully


def block_median(values: np.ndarray, weights: np.ndarray) -> tuple[float, float] | None:
    """
    Return the weighted median of ``values`` (H, W), NaN = none, and its standard error.

    Depth errors are alike over whole surfaces, so n pixels are not n measurements. The standard
    error comes from the spread of the medians of image blocks (cluster-robust): 1.2533 std /
    sqrt(n), n the effective number of blocks. None where fewer than eight blocks have a say.
    """
    height, width = values.shape
    is_used = np.isfinite(values) & (weights > 0)
    row = np.arange(height) * _GRID[0] // height
    column = np.arange(width) * _GRID[1] // width
    block = row[:, None] * _GRID[1] + column[None, :]
    medians, shares = [], []
    for index in np.unique(block[is_used]):
        inside = is_used & (block == index)
        share = float(weights[inside].sum())
        if share >= _MIN_WEIGHT:
            medians.append(weighted_median(values[inside], weights[inside]))
            shares.append(share)
    if len(medians) < _MIN_BLOCKS:
        return None
    middle = weighted_median(values[is_used], weights[is_used])
    parts = np.array(shares) / sum(shares)
    effective = max(2.0, 1 / float((parts**2).sum()))
    # the median of distances: some blocks may be wholly wrong (a moving car)
    distance = 1.4826 * weighted_median(np.abs(np.array(medians) - middle), parts)
    return middle, float(1.2533 * distance / np.sqrt(effective - 1))


def weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    """Return the value with half of the weight on either side; interpolated between two."""
    order = np.argsort(values)
    ordered, weight = values[order], weights[order]
    centre = np.cumsum(weight) - weight / 2
    return float(np.interp(weight.sum() / 2, centre, ordered))
