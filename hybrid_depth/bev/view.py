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
"""A depth image as rays in the gravity-aligned map frame: what one frame tells the maps."""
from __future__ import annotations

from dataclasses import dataclass
import functools
import math

import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth.types import DepthResult, Evidence

_PIXELS = 30_000  # that are looked at, about: the same cost for every camera
_WIDEST = 4.0  # lateral / forward: rays more than 76 degrees off ahead are in no column
_FARTHEST_M = 1e5  # beyond is nothing
_SMEAR = 1.2  # ratio of the depths on both sides of a pixel, from which on it is between things
_COLUMN_PIXELS = 1.5  # of these pixels to a column, so that none stays without a ray


@dataclass(frozen=True)
class View:
    """
    N rays from the camera, metres; all arrays (N,).

    'ahead' is where the camera looks, horizontally; 'across' is to its left. Heights are relative
    to the camera. A ray that sees nothing within range has depth +Inf; rays without a measurement
    are left out.
    """

    camera: str  # its optical frame
    stamp_ns: int
    position: np.ndarray  # (3,) float64 of the camera in the map
    heading: np.ndarray  # (2,) float64 unit vector, ahead
    x: np.ndarray  # float32, of the point, relative to the camera, along the map's axes
    y: np.ndarray
    z: np.ndarray
    depth: np.ndarray  # float32; +Inf = nothing there
    sigma: np.ndarray  # float32, of the depth; where it is not known as large as that
    ahead: np.ndarray  # float32, distance of the point; +Inf likewise
    slope: np.ndarray  # float32, rise per metre ahead
    column: np.ndarray  # int32, which of ``columns`` vertical slices it is in, -1 = none
    columns: int
    column_step: float  # across / ahead, width of a column; the middle one looks straight ahead
    is_edge: np.ndarray  # bool, where depth slides from one thing to another
    is_moving: np.ndarray  # bool
    sigma_z: np.ndarray  # float32, the part of sigma that is height


def look(result: DepthResult, map_T_camera: np.ndarray) -> View:
    """
    Return the rays of ``result``, of every n-th row and column: about 30 000.

    ``map_T_camera`` (4, 4) float64 metres; z of the map points up.
    """
    camera = result.camera
    stride = max(1, round(math.sqrt(camera.width * camera.height / _PIXELS)))
    pick = slice(stride // 2, None, stride)
    depth = result.depth_m[pick, pick]
    is_edge = (result.edge[pick, pick] | _is_smeared(depth)).ravel()
    depth = depth.ravel()
    directions = _directions(camera, stride)
    R = np.asarray(map_T_camera, np.float64)[:3, :3]
    heading = _heading(R)
    keep = np.flatnonzero((depth > 0) & np.isfinite(directions[0]))  # NaN and -Inf tell nothing
    depth = depth[keep]
    depth[depth > _FARTHEST_M] = np.inf
    turned = R.astype(np.float32) @ directions[:, keep]
    ahead = turned[0] * np.float32(heading[0]) + turned[1] * np.float32(heading[1])
    across = turned[1] * np.float32(heading[0]) - turned[0] * np.float32(heading[1])
    # the middle of the picture has the widest pixels
    step = _COLUMN_PIXELS * stride / camera.fx
    evidence = result.evidence
    is_moving = np.zeros(len(keep), bool) if evidence is None else \
        evidence[pick, pick].ravel()[keep] == Evidence.MOVING
    sigma = result.sigma_m[pick, pick].ravel()[keep].astype(np.float32)
    sigma = np.where((sigma >= 0) & (sigma < depth), sigma, depth)
    sigma = np.minimum(sigma, np.float32(_FARTHEST_M))
    with np.errstate(all='ignore'):
        ratio = np.where(ahead > 0, across / ahead, np.float32(np.inf))
        widest = np.max(np.abs(ratio), where=np.abs(ratio) <= _WIDEST, initial=0.0)
        columns = 2 * int(np.ceil(widest / step)) + 1
        return View(
            result.frame_id, result.stamp_ns, np.asarray(map_T_camera, np.float64)[:3, 3],
            heading, turned[0] * depth, turned[1] * depth, turned[2] * depth, depth, sigma,
            ahead * depth, turned[2] / ahead, column_of(ratio, columns, step), columns, step,
            is_edge[keep], is_moving, np.abs(turned[2]) * sigma)


def column_of(ratio: np.ndarray, columns: int, step: float) -> np.ndarray:
    """Return the column, int32, of places whose across / ahead is ``ratio``; -1 = none."""
    with np.errstate(invalid='ignore'):
        index = np.floor(ratio * np.float32(1 / step) + np.float32(columns / 2))
        return np.where((index >= 0) & (index < columns), index, -1).astype(np.int32)


def _is_smeared(depth: np.ndarray) -> np.ndarray:
    """
    Return where (h, w) depth slides from one thing to another: points that fly between them.

    Across rows only: the ground far off changes as fast from row to row. What is one pixel wide
    has the same background on both sides, and stays.
    """
    result = np.zeros(depth.shape, bool)
    with np.errstate(all='ignore'):
        ratio = depth[:, 2:] / depth[:, :-2]
        result[:, 1:-1] = np.isfinite(ratio) & ((ratio > _SMEAR) | (ratio < 1 / _SMEAR))
    return result


def _heading(R: np.ndarray) -> np.ndarray:
    """Return where the camera looks, horizontally; straight down: where its picture's top is."""
    for direction in (R[:2, 2], -R[:2, 1]):
        length = float(np.hypot(*direction))
        if length > 0.1:
            return direction / length
    return np.array([1.0, 0.0])


@functools.lru_cache(maxsize=4)
def _directions(camera: CameraModel, stride: int) -> np.ndarray:
    """Return x/z, y/z and 1 of every ``stride``-th pixel, (3, n) float32."""
    rays = camera.rays()[stride // 2::stride, stride // 2::stride].reshape(-1, 2)
    directions = np.ones((3, len(rays)), np.float32)
    directions[:2] = rays.T
    return directions
