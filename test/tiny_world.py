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
"""Boxes on level ground, seen exactly: for tests of what is built from depth and poses."""
from __future__ import annotations

from collections.abc import Sequence
import functools

import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth.types import DepthResult

CAMERA = CameraModel(240, 180, 120.0, 120.0, 119.5, 89.5)
CAMERA_HEIGHT_M = 1.5
Box = tuple[float, float, float, float, float, float]  # x0, x1, y0, y1, z0, z1; metres
_BODY_R_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


def pose_at(x: float = 0.0, y: float = 0.0, yaw: float = 0.0, pitch: float = 0.0,
            z: float = CAMERA_HEIGHT_M) -> np.ndarray:
    """Return world_T_camera (4, 4); yaw 0 looks along x, a positive pitch down; radians."""
    (c, cp), (s, sp) = np.cos([yaw, pitch]), np.sin([yaw, pitch])
    pose = np.eye(4)
    pose[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) \
        @ np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]]) @ _BODY_R_OPTICAL
    pose[:3, 3] = x, y, z
    return pose


def world_depth(pose: np.ndarray, boxes: Sequence[Box] = (),
                camera: CameraModel = CAMERA) -> np.ndarray:
    """Return the depth (H, W) float32 of ``boxes`` on the ground z = 0; +Inf = sky."""
    return _world_depth(pose.tobytes(), tuple(boxes), camera).copy()


@functools.lru_cache(maxsize=16)
def _world_depth(pose_bytes: bytes, boxes: tuple[Box, ...], camera: CameraModel) -> np.ndarray:
    pose = np.frombuffer(pose_bytes).reshape(4, 4)
    rays = camera.rays().astype(np.float64)
    directions = np.concatenate([rays, np.ones_like(rays[..., :1])], -1) @ pose[:3, :3].T
    origin = pose[:3, 3]
    with np.errstate(divide='ignore', invalid='ignore'):
        ground = -origin[2] / directions[..., 2]
        depth = np.where(ground > 0, ground, np.inf)
        for box in boxes:
            ends = [(np.array(box[side::2]) - origin) / directions for side in (0, 1)]
            enters = np.minimum(*ends).max(-1)
            leaves = np.maximum(*ends).min(-1)
            depth = np.where((enters <= leaves) & (enters > 0), np.minimum(depth, enters), depth)
    return depth.astype(np.float32)


def seen(pose: np.ndarray, boxes: Sequence[Box] = (), *, stamp_ns: int = 10**9,
         sigma: float = 0.001, evidence: np.ndarray | None = None,
         camera: CameraModel = CAMERA, frame_id: str = 'camera') -> DepthResult:
    """Return what a perfect pipeline makes of that, with ``sigma`` metres everywhere."""
    return result_of(world_depth(pose, boxes, camera), stamp_ns=stamp_ns, sigma=sigma,
                     evidence=evidence, camera=camera, frame_id=frame_id)


def result_of(depth: np.ndarray, *, stamp_ns: int = 10**9, sigma: float = 0.001,
              evidence: np.ndarray | None = None, camera: CameraModel = CAMERA,
              frame_id: str = 'camera') -> DepthResult:
    """Return ``depth`` (H, W) as a result."""
    sigma_m = np.where(np.isfinite(depth), np.float32(sigma), np.float32(np.nan))
    return DepthResult(depth, sigma_m, np.zeros(depth.shape, bool),
                       np.full((*depth.shape, 3), 90, np.uint8), camera, stamp_ns, frame_id,
                       'posed', evidence=evidence)
