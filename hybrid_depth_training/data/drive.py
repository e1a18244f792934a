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
Any drive that the core can open: KITTI raw, image folder, ROS 2 bag (sqlite3 or MCAP), synthetic.

A bag needs one camera with its camera_info. Poses come from nav_msgs/Odometry and the mounting in
/tf_static, truth from a depth image of the same view; either may be absent: see
hybrid_depth.drives.bag, which reads it.
"""
from __future__ import annotations

import functools
import logging
import os
from pathlib import Path

import cv2
import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth.drives import Drive, DriveFrame, open_drive
from hybrid_depth.preprocess import content_seen, network_view
from hybrid_depth_training.data import DepthSample, Recording

_log = logging.getLogger(__name__)
_SPARSE_BELOW = 0.25  # share of pixels with truth; LiDAR gives about 0.04, RGB-D 0.5 and more
_SATURATED = 250
_SKY_SHARE = 0.002  # of the image, that a patch of sky covers at least
_SKY_STEP = 3  # LiDAR has no return from the sky: label every third pixel, not to outweigh it


def load(path: str, sky: bool = False) -> list[Recording]:
    """
    Load the drive at ``path`` as one recording, whose targets are the frames with truth.

    ``sky`` labels overexposed sky as beyond range (see ``overexposed_sky``). Images of distorted
    cameras are undistorted. Every frame is read once here, to see what it has. Raises DriveError.
    """
    drive = _opened(path, os.getpid())
    poses, targets = [], []
    for index, frame in enumerate(drive):
        poses.append(frame.world_T_camera)
        if frame.depth_m is not None and not np.isnan(frame.depth_m).all():
            targets.append(index)
    _log.info('%s: %d frames, %d with truth, %d with a pose', path, len(drive), len(targets),
              sum(pose is not None for pose in poses))
    return [Recording(Path(path).name, functools.partial(_read, path, sky), poses, targets)]


@functools.lru_cache(maxsize=8)
def _opened(path: str, process: int) -> Drive:
    """Open a drive once in each process: the open file of a bag cannot be shared."""
    return open_drive(path)


def _read(path: str, sky: bool, index: int) -> DepthSample:
    frame = _opened(path, os.getpid()).frame(index)
    image_rgb, depth = _undistorted(frame)
    share = np.mean(~np.isnan(depth))
    if sky and share > 0:
        thin = np.zeros(depth.shape, bool)
        thin[::_SKY_STEP, ::_SKY_STEP] = True
        depth = np.where(overexposed_sky(image_rgb, depth) & thin, np.float32(np.inf), depth)
    return DepthSample(frame.name, image_rgb, frame.camera.pinhole(), depth,
                       bool(share < _SPARSE_BELOW), frame.world_T_camera)


def _undistorted(frame: DriveFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return image and depth as a pinhole camera of the same K sees them."""
    depth = frame.depth_m
    if depth is None:
        depth = np.full(frame.image_rgb.shape[:2], np.nan, np.float32)
    if not frame.camera.is_distorted:
        return frame.image_rgb, depth
    map_u, map_v, seen = _undistort_maps(frame.camera)
    image_rgb = cv2.remap(frame.image_rgb, map_u, map_v, cv2.INTER_LINEAR,
                          borderMode=cv2.BORDER_REPLICATE)
    depth = cv2.remap(depth, map_u, map_v, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT,
                      borderValue=float('nan'))
    return image_rgb, np.where(seen, depth, np.float32(np.nan))


@functools.lru_cache(maxsize=4)
def _undistort_maps(camera: CameraModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each pinhole pixel lies in the image of ``camera``, and whether it saw it; (H, W)."""
    size = camera.height, camera.width
    rays = camera.pinhole().rays().reshape(-1, 2)
    points = np.concatenate([rays, np.ones((len(rays), 1), np.float32)], axis=1)
    uv = camera.project(points).reshape(*size, 2).astype(np.float32)
    return (np.ascontiguousarray(uv[..., 0]), np.ascontiguousarray(uv[..., 1]),
            content_seen(network_view(camera, size)))


def overexposed_sky(image_rgb: np.ndarray, depth_m: np.ndarray) -> np.ndarray:
    """
    Find sky that the camera saw as white.

    Saturated patches that begin in the upper third of the image and from which the LiDAR got next
    to no return. ``image_rgb`` (H, W, 3) uint8, ``depth_m`` (H, W), NaN = no return; returns
    (H, W) bool. Blue or grey sky is not found: nothing tells it from a wall without returns.
    """
    saturated = (image_rgb.min(axis=2) >= _SATURATED).astype(np.uint8)
    saturated = cv2.morphologyEx(saturated, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(saturated)
    area, top = boxes[:, cv2.CC_STAT_AREA], boxes[:, cv2.CC_STAT_TOP]
    returns = np.bincount(labels[np.isfinite(depth_m)], minlength=count)
    is_sky = (area > _SKY_SHARE * saturated.size) & (returns <= 1e-3 * area) \
        & (top < image_rgb.shape[0] // 3)
    is_sky[0] = False  # label 0 is everything else
    return is_sky[labels]
