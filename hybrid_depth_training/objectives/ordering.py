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
Patch ladders: seven points of an image, ordered from near to far.

They are what the coarse stage of Hybrid-depth (Zhang et al., ICCV 2025) learns from: the order of
depth, never depth itself. It can be had without a range sensor: along a lane marking, or on flat
ground, whatever is higher in the image is farther. Where there is depth of any kind (LiDAR, RGB-D,
stereo), its order serves as well.

Points are pixels [u, v], pixel centres at integers. All functions are numpy: drawing a few points
needs no accelerator.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hybrid_depth.errors import ConfigError

RUNGS = 7  # points of a ladder, one for each word from "very close" to "very distant"
AXES = ('anywhere', 'columns')
ORDERS = ('near_first', 'literal')
_CANDIDATES = 256  # points that are tried for one ladder
_TRIES = 4  # per ladder asked for: where depth varies too little there is none
_LANE_STRIDE = 1000.0  # more than a lane has points


def depth_ladders(depth_m: np.ndarray, count: int, rng: np.random.Generator,
                  along: str = 'anywhere', min_log_gap: float = 0.08) -> np.ndarray:
    """
    Draw up to ``count`` ladders from a map of depth.

    ``depth_m`` (H, W), any unit; NaN, Inf and 0 are never used. Any two points of a ladder differ
    by at least ``min_log_gap`` in the logarithm of depth, so that the noise of the sensor does not
    decide their order. ``along`` is 'anywhere' in the image or 'columns': all near one image
    column, as a lane or the ground gives them. Returns (L, 7, 2) float32, L <= ``count``: fewer
    where depth varies too little. Raises ConfigError for an unknown ``along``.
    """
    if along not in AXES:
        raise ConfigError(f'ladders along {along!r}; known: {AXES}')
    rows, columns = np.nonzero(np.isfinite(depth_m) & (depth_m > 0))
    ladders: list[np.ndarray] = []
    if not len(rows):
        return np.zeros((0, RUNGS, 2), np.float32)
    log_depth = np.log(depth_m[rows, columns].astype(np.float64))
    half_band = max(1, depth_m.shape[1] // 64)  # LiDAR hits no single column often enough
    for _ in range(_TRIES * count):
        if len(ladders) == count:
            break
        usable = np.arange(len(rows))
        if along == 'columns':
            column = columns[rng.integers(len(columns))]
            usable = np.flatnonzero(np.abs(columns - column) <= half_band)
        tried = rng.choice(usable, min(_CANDIDATES, len(usable)), replace=False)
        chosen = _apart(log_depth[tried], min_log_gap)
        if len(chosen) == RUNGS:
            picked = tried[chosen]
            ladders.append(np.stack([columns[picked], rows[picked]], axis=1))
    return np.array(ladders, np.float32).reshape(-1, RUNGS, 2)


def _apart(values: np.ndarray, gap: float) -> np.ndarray:
    """Return the indices of the first seven ``values`` that are ``gap`` apart, smallest first."""
    chosen: list[int] = []
    for index, value in enumerate(values):
        if all(abs(value - values[other]) >= gap for other in chosen):
            chosen.append(index)
            if len(chosen) == RUNGS:
                break
    return np.array(sorted(chosen, key=lambda index: values[index]), int)


def ground_depth(K: np.ndarray, height: int, width: int, camera_height_m: float,
                 down_camera: Sequence[float] = (0.0, 1.0, 0.0),
                 max_m: float = 80.0) -> np.ndarray:
    """
    Return the depth of flat ground, (H, W) float32 metres; NaN above it and beyond ``max_m``.

    z = h / (down . K^-1 [u, v, 1]), with h = ``camera_height_m`` and ``down_camera`` the direction
    of gravity in the optical frame (unit vector; from the robot's pose, level camera by default).
    Whatever stands on the ground is nearer than the ground it hides, so going up an image column
    depth still never falls: the order of a ladder along a column holds unless something hangs
    above it.
    """
    v, u = np.indices((height, width))
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(K).T
    sinking = rays @ np.asarray(down_camera, np.float64)
    depth = np.full((height, width), np.nan, np.float32)
    below = sinking > camera_height_m / max_m
    depth[below] = camera_height_m / sinking[below]
    return depth


def lane_map(lanes: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """
    Write annotated lanes as a sparse map that travels through a DepthSample in place of depth.

    ``lanes``: (N, 2) points [u, v] each, in the order of the annotation (TuSimple: from the top of
    the image, so far first); those with u < 0 are not there. Returns (H, W) float32: 1000 * lane +
    position in the lane, both counted from 1, NaN elsewhere. These are no metres: only
    ``lane_ladders`` can read them. The whole lane is kept, not seven of its points, so that the
    seven are chosen among those that a crop leaves.
    """
    marks = np.full((height, width), np.nan, np.float32)
    for number, lane in enumerate(lanes, start=1):
        points = np.asarray(lane, np.float64).reshape(-1, 2)
        u, v = np.round(points).astype(int).T
        inside = (points[:, 0] >= 0) & (u < width) & (v >= 0) & (v < height)
        marks[v[inside], u[inside]] = number * _LANE_STRIDE + 1 + np.flatnonzero(inside)
    return marks


def lane_ladders(marks: np.ndarray, order: str = 'near_first') -> np.ndarray:
    """
    Return one ladder for each lane of ``lane_map`` that has at least seven points: (L, 7, 2).

    Of N points those at j * ((N - 1) // 6), j = 0..6, in the order of the annotation, are taken,
    as Hybrid-depth takes them. ``order`` 'near_first' turns them around, since TuSimple annotates
    from the far end; 'literal' leaves them as the published code does, which then pairs "very
    close" with the farthest point. Raises ConfigError for an unknown ``order``.
    """
    if order not in ORDERS:
        raise ConfigError(f'order of lane points {order!r}; known: {ORDERS}')
    v, u = np.nonzero(~np.isnan(marks))
    values = marks[v, u].astype(np.int64)
    ladders = []
    for number in np.unique(values // int(_LANE_STRIDE)):
        members = np.flatnonzero(values // int(_LANE_STRIDE) == number)
        members = members[np.argsort(values[members])]
        interval = (len(members) - 1) // (RUNGS - 1)
        if interval == 0:
            continue
        picked = members[np.arange(RUNGS) * interval]
        if order == 'near_first':
            picked = picked[::-1]
        ladders.append(np.stack([u[picked], v[picked]], axis=1))
    return np.array(ladders, np.float32).reshape(-1, RUNGS, 2)
