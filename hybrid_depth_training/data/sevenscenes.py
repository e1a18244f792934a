# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""7-Scenes style RGB-D folders: ``NAME.color.jpg`` and ``NAME.depth.png`` in one folder."""
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth.errors import DriveError
from hybrid_depth_training.data import DepthSample


def load(path: Path) -> list[DepthSample]:
    """Load every image that has a depth image (millimetres, 0 and 65535 = none)."""
    path = Path(path)
    depth_paths = sorted(path.glob('*.depth.png'))
    if not depth_paths:
        raise DriveError(f'{path} holds no *.depth.png; expected a 7-Scenes style folder')
    K = np.loadtxt(path / 'camera-intrinsics.txt')
    samples = []
    for depth_path in depth_paths:
        name = depth_path.name.removesuffix('.depth.png')
        image = cv2.imread(str(path / f'{name}.color.jpg'), cv2.IMREAD_COLOR)
        raw = cv2.imread(str(depth_path), cv2.IMREAD_UNCHANGED)
        if image is None or raw is None:
            raise DriveError(f'{path / name} cannot be read as an image and its depth')
        depth = raw.astype(np.float32) / 1000
        depth[(raw == 0) | (raw == 65535)] = np.nan
        camera = CameraModel.from_K(K, image.shape[1], image.shape[0])
        samples.append(DepthSample(name, cv2.cvtColor(image, cv2.COLOR_BGR2RGB), camera, depth,
                                   False))
    return samples
