# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Frames with truth of any drive that the core can open (KITTI raw, image folder, bag)."""
from __future__ import annotations

import cv2
import numpy as np

from hybrid_depth.drives import open_drive
from hybrid_depth.errors import DriveError
from hybrid_depth_training.data import DepthSample

_SPARSE_BELOW = 0.25  # share of pixels with truth; LiDAR gives about 0.04, RGB-D 0.5 and more
_SATURATED = 250
_SKY_SHARE = 0.002  # of the image, that a patch of sky covers at least
_SKY_STEP = 3  # LiDAR has no return from the sky: label every third pixel, not to outweigh it


def load(path: str, sky: bool = False) -> list[DepthSample]:
    """
    Load every frame of the drive at ``path`` that has truth. Raises DriveError if none has.

    ``sky`` labels overexposed sky as beyond range (see ``overexposed_sky``).
    """
    samples = []
    for frame in open_drive(path):
        if frame.depth_m is None:
            continue
        depth = frame.depth_m
        share = np.mean(~np.isnan(depth))
        if sky:
            thin = np.zeros(depth.shape, bool)
            thin[::_SKY_STEP, ::_SKY_STEP] = True
            depth = np.where(overexposed_sky(frame.image_rgb, depth) & thin, np.float32(np.inf),
                             depth)
        samples.append(DepthSample(frame.name, frame.image_rgb, frame.camera.pinhole(), depth,
                                   bool(share < _SPARSE_BELOW)))
    if not samples:
        raise DriveError(f'no frame of {path} has ground-truth depth to train on')
    return samples


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
