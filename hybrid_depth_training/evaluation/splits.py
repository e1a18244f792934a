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
Which truth pixels moved by themselves, and which lie near the epipole; from truth and poses.

Nobody labelled what moves. A measured point is carried along the camera's motion into the frames
before and after: where the sensor measured the same depth there, the point stood still; where it
measured something farther on the same ray, the point is gone, so it moved.
"""
from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth.drives import Drive, DriveFrame
from hybrid_depth.poses import inverse

STATIC, MOVING, UNKNOWN = 0, 1, 2
NEAR_EPIPOLE_DEG = 5.0
TOLERANCE_M, TOLERANCE = 0.3, 0.03  # of two depths of one point: metres, and a share of depth
_REACH = 3  # pixels around a carried point that its depth is looked for in
_MIN_SEEN = 3  # measurements there, to say that a point is gone
_PATCH = 8  # pixels around a point that must agree that it moves
_MIN_AGREE = 0.6
_MIN_STEP_M = 0.02  # between frames; below it there is no epipole


@dataclass(frozen=True)
class Splits:
    """Of the (n,) pixels with truth of one frame, in row-major order."""

    motion: np.ndarray  # (n,) uint8: STATIC, MOVING, UNKNOWN
    is_near_epipole: np.ndarray | None  # (n,) bool; None = the camera stood still, or no pose


def truth_mask(depth_m: np.ndarray, max_m: float) -> np.ndarray:
    """Return the pixels (H, W) that are measured at, as ``depth_metrics`` takes them."""
    return (depth_m >= 1e-3) & (depth_m <= max_m)


def split_frame(drive: Drive, frames: list[int], place: int, max_m: float) -> Splits:
    """Split the truth of ``frames[place]``, whose neighbours in ``frames`` are looked at too."""
    frame = drive.frame(frames[place])
    mask = truth_mask(frame.depth_m, max_m)
    others = [drive.frame(frames[i]) for i in (place - 1, place + 1) if 0 <= i < len(frames)]
    motion = np.full(np.count_nonzero(mask), UNKNOWN, np.uint8)
    if frame.world_T_camera is not None and others:
        motion = _motion(frame, mask, [o for o in others if o.world_T_camera is not None])
    return Splits(motion, _near_epipole(drive, frames[place], frame, mask))


def epipole_angle(camera: CameraModel, source_T_target: np.ndarray) -> np.ndarray:
    """Return the angle (H, W) in degrees between each pixel's ray and the camera's motion."""
    rays = camera.rays()
    rays = np.concatenate([rays, np.ones_like(rays[..., :1])], axis=-1)
    direction = inverse(source_T_target)[:3, 3]
    cosine = np.abs(rays @ direction) / (np.linalg.norm(rays, axis=-1)
                                         * np.linalg.norm(direction))
    return np.degrees(np.arccos(np.minimum(cosine, 1.0)))


def _near_epipole(drive: Drive, index: int, frame: DriveFrame,
                  mask: np.ndarray) -> np.ndarray | None:
    before = drive.frame(index - 1).world_T_camera if index else None
    if before is None or frame.world_T_camera is None:
        return None
    source_T_target = inverse(before) @ frame.world_T_camera
    if np.linalg.norm(source_T_target[:3, 3]) < _MIN_STEP_M:
        return None
    return epipole_angle(frame.camera, source_T_target)[mask] < NEAR_EPIPOLE_DEG


def _motion(frame: DriveFrame, mask: np.ndarray, others: list[DriveFrame]) -> np.ndarray:
    rays = frame.camera.rays()[mask]
    depth = frame.depth_m[mask].astype(np.float64)
    points = np.column_stack([rays * depth[:, None], depth])
    stood, gone = np.zeros((2, len(depth)), bool)
    for other in others:
        other_T_frame = inverse(other.world_T_camera) @ frame.world_T_camera
        here, away = _compare(points @ other_T_frame[:3, :3].T + other_T_frame[:3, 3], other)
        stood |= here
        gone |= away
    motion = np.full(len(depth), UNKNOWN, np.uint8)
    motion[stood] = STATIC
    motion[gone & ~stood] = MOVING
    alone = (motion == MOVING) & (_share_moving(motion, mask) < _MIN_AGREE)
    motion[alone] = UNKNOWN  # edges and poles, that the sensor met once and missed once
    return motion


def _compare(points: np.ndarray, other: DriveFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return which points ``other`` measured at their place, and which it saw through, (n,)."""
    z = np.maximum(points[:, 2], 1e-6)
    camera = other.camera
    column = np.rint(points[:, 0] / z * camera.fx + camera.cx).astype(np.int64)
    row = np.rint(points[:, 1] / z * camera.fy + camera.cy).astype(np.int64)
    inside = (points[:, 2] > 0.1) & (column >= 0) & (column < camera.width) & (row >= 0) \
        & (row < camera.height)
    padded = np.pad(other.depth_m, _REACH, constant_values=np.nan)
    row, column = np.where(inside, row, 0) + _REACH, np.where(inside, column, 0) + _REACH
    tolerance = np.maximum(TOLERANCE_M, TOLERANCE * z)
    same, farther, seen = np.zeros((3, len(z)), np.int64)
    for dy in range(-_REACH, _REACH + 1):
        for dx in range(-_REACH, _REACH + 1):
            off = padded[row + dy, column + dx] - z
            with np.errstate(invalid='ignore'):
                seen += ~np.isnan(off)
                same += np.abs(off) <= tolerance
                farther += off > tolerance
    return inside & (same > 0), inside & (seen >= _MIN_SEEN) & (farther == seen)


def _share_moving(motion: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the share of moving among the decided pixels around each pixel with truth, (n,)."""
    counts = []
    for chosen in (motion == MOVING, motion != UNKNOWN):
        image = np.zeros(mask.shape, np.float32)
        image[mask] = chosen
        size = 2 * _PATCH + 1
        counts.append(cv2.boxFilter(image, cv2.CV_32F, (size, size), normalize=False,
                                    borderType=cv2.BORDER_CONSTANT)[mask])
    return counts[0] / np.maximum(counts[1], 1)
