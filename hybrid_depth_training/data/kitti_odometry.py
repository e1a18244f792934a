# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""KITTI odometry stereo pairs; the truth is semi-global matching with a left-right check."""
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth.errors import DriveError
from hybrid_depth_training.data import DepthSample

_DISPARITIES = 128
_FAR_M = 120.0  # matched beyond this counts as "nothing within range"
_BLOCK = 5


def load(path: Path) -> list[DepthSample]:
    """
    Load a sequence folder with ``image_0``, ``image_1`` and ``calib_P0_P1.txt``.

    The calibration holds the two 3x4 projection matrices, one per line. Raises DriveError.
    """
    path = Path(path)
    calibration = path / 'calib_P0_P1.txt'
    if not calibration.is_file():
        raise DriveError(f'{path} is no KITTI odometry folder: {calibration.name} is missing')
    P0, P1 = np.loadtxt(calibration).reshape(2, 3, 4)
    focal_baseline = float(P0[0, 3] - P1[0, 3])
    samples = []
    for left_path in sorted((path / 'image_0').iterdir()):
        left = cv2.imread(str(left_path), cv2.IMREAD_GRAYSCALE)
        right = cv2.imread(str(path / 'image_1' / left_path.name), cv2.IMREAD_GRAYSCALE)
        if left is None or right is None or left.shape != right.shape:
            raise DriveError(f'{left_path} and its right image cannot be read as a pair')
        camera = CameraModel.from_K(P0[:, :3], left.shape[1], left.shape[0])
        samples.append(DepthSample(f'{path.name}/{left_path.stem}',
                                   cv2.cvtColor(left, cv2.COLOR_GRAY2RGB), camera,
                                   stereo_depth(left, right, focal_baseline), False))
    return samples


def stereo_depth(left: np.ndarray, right: np.ndarray, focal_baseline: float) -> np.ndarray:
    """
    Match two rectified (H, W) uint8 images.

    ``focal_baseline`` in pixel metres. Returns (H, W) float32 metres, NaN where the two directions
    of matching disagree by more than a pixel, +Inf beyond 120 m.
    """
    def match(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        matcher = cv2.StereoSGBM_create(
            minDisparity=0, numDisparities=_DISPARITIES, blockSize=_BLOCK, P1=8 * _BLOCK**2,
            P2=32 * _BLOCK**2, uniquenessRatio=10, speckleWindowSize=100, speckleRange=2,
            mode=cv2.STEREO_SGBM_MODE_SGBM_3WAY)
        # the matcher has no answer in the first columns: give it some that are cut off again
        pad = ((0, 0), (_DISPARITIES, 0))
        padded = matcher.compute(np.pad(first, pad, 'edge'), np.pad(second, pad, 'edge'))
        return padded[:, _DISPARITIES:].astype(np.float32) / 16
    disparity = match(left, right)
    from_right = match(right[:, ::-1], left[:, ::-1])[:, ::-1]
    rows, columns = np.indices(disparity.shape)
    target = columns - np.round(disparity).astype(int)
    agrees = (disparity > 0) & (target >= 0)
    agrees &= np.abs(from_right[rows, np.clip(target, 0, columns.max())] - disparity) <= 1
    depth = np.full(disparity.shape, np.nan, np.float32)
    depth[agrees] = focal_baseline / disparity[agrees]
    depth[depth > _FAR_M] = np.inf
    return depth
