# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Training data: every dataset becomes a list of DepthSample, through one table.

Adding a dataset: a file here with ``load(path, **options) -> list[DepthSample]`` and a row in
DATASETS.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hybrid_depth.camera import CameraModel


@dataclass(frozen=True)
class DepthSample:
    """One image with truth, at the resolution it was recorded in."""

    name: str
    image_rgb: np.ndarray  # (H, W, 3) uint8
    camera: CameraModel  # pinhole, of these pixels
    depth_m: np.ndarray  # (H, W) float32; NaN = no truth, +Inf = nothing within range
    is_sparse: bool  # single LiDAR returns: moved as points, no gradients between neighbours


def _drive(path: str, **options: object) -> list[DepthSample]:
    from hybrid_depth_training.data import drive
    return drive.load(path, **options)


def _kitti_odometry(path: str, **options: object) -> list[DepthSample]:
    from hybrid_depth_training.data import kitti_odometry
    return kitti_odometry.load(Path(path), **options)


def _sevenscenes(path: str, **options: object) -> list[DepthSample]:
    from hybrid_depth_training.data import sevenscenes
    return sevenscenes.load(Path(path), **options)


def _synthetic(path: str, **options: object) -> list[DepthSample]:
    from hybrid_depth_training.data import synthetic
    return synthetic.load(path, **options)


DATASETS: dict[str, Callable[..., list[DepthSample]]] = {
    'drive': _drive,  # whatever hybrid_depth.drives opens, with truth
    'kitti_odometry': _kitti_odometry,  # stereo pairs, truth by matching
    'sevenscenes': _sevenscenes,
    'synthetic': _synthetic,
}
