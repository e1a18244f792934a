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
"""The ground as a plane in a depth map: how far below the camera it is, and how sure that is."""
from __future__ import annotations

from dataclasses import dataclass
import math

import numpy as np

from hybrid_depth.spread import block_median

_LOWEST_RAY = math.sin(math.radians(4.0))  # flatter rays see the ground too far away, if at all
_BIN = 0.05  # of ln(height), when looking for the level that most rays meet
_NEAR_LEVEL = 0.15  # of ln(height): pixels that may belong to the ground before the first fit
_FITS = 5
_MAX_TILT_DEG = 8.0  # between the fitted plane and gravity: hills, nodding, an unknown pitch
_MIN_SHARE = 0.25  # of the rays that look down must meet the plane, or it is not the ground
_MAX_BELOW = 0.1  # of them may end clearly below it


@dataclass(frozen=True)
class GroundPlane:
    """The plane ``down . X = height`` in the camera's optical frame."""

    down: np.ndarray  # (3,) float64 unit vector, away from the camera
    height: float  # in the units of the depth map
    sigma: float  # of ln(height), from how well the parts of the ground agree with each other


def fit_ground(depth: np.ndarray, rays: np.ndarray, down: np.ndarray) -> GroundPlane | None:
    """
    Fit the ground plane in ``depth`` (H, W), NaN = none; None where there is no such plane.

    ``rays`` (H, W, 2) are x/z and y/z of the pixels, ``down`` (3,) is the direction of gravity in
    the optical frame. The inverse depth of a plane is linear in the rays, ``1/z = m . (x, y, 1)``
    with ``m = down / height``: a linear fit of relative errors, repeated on what lies near it. It
    starts from the lowest level that many rays meet, since nothing lies below the ground.
    """
    directions = np.concatenate([rays, np.ones_like(rays[..., :1])], axis=-1).astype(np.float64)
    sinking = directions @ down
    candidate = np.isfinite(depth) & (depth > 0) & np.isfinite(sinking)
    candidate &= sinking > _LOWEST_RAY * np.linalg.norm(directions, axis=-1)
    if np.count_nonzero(candidate) < 50:
        return None
    points = directions[candidate] * depth[candidate][:, None]  # (n, 3)
    log_level = np.log(points @ down)
    is_ground = np.abs(log_level - _lowest_level(log_level)) < _NEAR_LEVEL
    for _ in range(_FITS):
        if np.count_nonzero(is_ground) < _MIN_SHARE * len(points):
            return None
        m = np.linalg.lstsq(points[is_ground], np.ones(np.count_nonzero(is_ground)),
                            rcond=None)[0]
        residual = np.abs(points @ m - 1)
        spread = 1.4826 * float(np.median(residual[is_ground]))
        is_ground = residual < min(max(2.5 * spread, 0.02), _NEAR_LEVEL)
    height = 1 / float(np.linalg.norm(m))
    normal = m * height
    if normal @ down < math.cos(math.radians(_MAX_TILT_DEG)) or \
            np.count_nonzero(is_ground) < _MIN_SHARE * len(points) or \
            np.mean(points @ m > 1 + _NEAR_LEVEL) > _MAX_BELOW:
        return None
    log_height = np.full(depth.shape, np.nan)
    with np.errstate(invalid='ignore'):
        log_height[candidate] = np.where(is_ground, np.log(points @ normal), np.nan)
    estimate = block_median(log_height, np.isfinite(log_height).astype(np.float64))
    return None if estimate is None else GroundPlane(normal, height, estimate[1])


def _lowest_level(log_level: np.ndarray) -> float:
    """Return the lowest level (largest ln(height)) that about as many pixels share as any."""
    low, high = np.percentile(log_level, [1, 99])
    edges = np.arange(low - 2 * _BIN, high + 3 * _BIN, _BIN)
    counts = np.convolve(np.histogram(log_level, edges)[0], np.ones(3), 'same')
    lowest = np.flatnonzero(counts >= 0.5 * counts.max())[-1]
    while lowest > 0 and counts[lowest - 1] > counts[lowest]:
        lowest -= 1  # from the flank to the peak
    return float(edges[lowest] + _BIN / 2)
