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
"""Clouds for costmaps: dense ones without NaN, and rays that meet nothing, to clear by."""
from __future__ import annotations

import numpy as np

from hybrid_depth.cloud import PackedCloud
from hybrid_depth.types import DepthResult

_BITS = 21  # of one axis of a voxel's key: 2 million voxels


def dense_points(cloud: PackedCloud, target_T_camera: np.ndarray,
                 voxel_m: float = 0.0) -> np.ndarray:
    """
    Return the points of ``cloud`` that exist, (N, 4) float32: x, y, z in metres and rgb.

    They are in the frame that ``target_T_camera`` (4, 4) leads to. Of the points in a cube of
    ``voxel_m`` of that frame one stays, not their mean: it is a place that was measured. 0 = all.
    """
    points = np.frombuffer(cloud.data, np.float32).reshape(-1, 4)
    points = points.take(np.flatnonzero(np.isfinite(points[:, 2])), axis=0)
    pose = np.asarray(target_T_camera, np.float32)
    x, y, z = (points[:, axis].copy() for axis in range(3))
    for axis, row in enumerate(pose[:3]):
        points[:, axis] = row[0] * x + row[1] * y + row[2] * z + row[3]
    return points if voxel_m <= 0 else _one_of_each_voxel(points, voxel_m)


def _one_of_each_voxel(points: np.ndarray, voxel_m: float) -> np.ndarray:
    key = np.zeros(len(points), np.int64)
    for axis in range(3):
        place = np.floor(points[:, axis] * np.float32(1 / voxel_m)).astype(np.int64)
        key = (key << _BITS) | (place + (1 << (_BITS - 1)))
    # neighbours in a row are mostly of one voxel: without them there is much less to sort
    first = np.flatnonzero(np.diff(key, prepend=-1))
    return points.take(first[np.unique(key[first], return_index=True)[1]], axis=0)


def clearing_points(result: DepthResult, clearing_range_m: float, stride: int = 1,
                    max_range_m: float = 0.0) -> np.ndarray:
    """
    Return where rays that meet nothing are at ``clearing_range_m`` from the camera.

    (N, 3) float32 metres in the optical frame. Those are the rays whose depth is +Inf, and with a
    ``max_range_m`` those that end beyond it; of every ``stride``-th row and column. Beside depth
    edges nothing is cleared.
    """
    depth = result.depth_m[::stride, ::stride]
    far = np.isposinf(depth)
    if max_range_m > 0:
        with np.errstate(invalid='ignore'):
            far |= depth > max_range_m
    far &= ~result.edge[::stride, ::stride]
    rays = result.camera.rays()[::stride, ::stride][far]
    rays = rays[np.isfinite(rays).all(axis=1)]
    points = np.ones((len(rays), 3), np.float32)
    points[:, :2] = rays
    points *= np.float32(clearing_range_m) / np.linalg.norm(points, axis=1, keepdims=True)
    return points
