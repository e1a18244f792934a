# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Frames with truth of any drive that the core can open (KITTI raw, image folder, bag)."""
from __future__ import annotations

import numpy as np

from hybrid_depth.drives import open_drive
from hybrid_depth.errors import DriveError
from hybrid_depth_training.data import DepthSample

_SPARSE_BELOW = 0.25  # share of pixels with truth; LiDAR gives about 0.04, RGB-D 0.5 and more


def load(path: str) -> list[DepthSample]:
    """Load every frame of the drive at ``path`` that has truth. Raises DriveError if none has."""
    samples = []
    for frame in open_drive(path):
        if frame.depth_m is None:
            continue
        share = np.mean(~np.isnan(frame.depth_m))
        samples.append(DepthSample(frame.name, frame.image_rgb, frame.camera.pinhole(),
                                   frame.depth_m, bool(share < _SPARSE_BELOW)))
    if not samples:
        raise DriveError(f'no frame of {path} has ground-truth depth to train on')
    return samples
