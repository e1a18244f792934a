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
"""Camera images for a measurement, kept in memory: a few views of a painted street."""
from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth.drives import open_drive

SIZES = ((640, 480), (1280, 720), (1920, 1080))
_COUNT = 4


def camera(size: tuple[int, int]) -> CameraModel:
    """Return an ordinary camera of (width, height), 71 degrees wide."""
    width, height = size
    return CameraModel(width, height, 0.7 * width, 0.7 * width, width / 2 - 0.5, height / 2 - 0.5)


def street_views(count: int = _COUNT) -> list[np.ndarray]:
    """Render views of the synthetic street, (H, W, 3) uint8 RGB."""
    drive = open_drive('synthetic')
    return [drive.frame(index).image_rgb for index in range(count)]


def images(views: Sequence[np.ndarray], size: tuple[int, int]) -> list[np.ndarray]:
    """Return ``views`` at (width, height); they fill it, at the cost of their proportions."""
    return [cv2.resize(view, size, interpolation=cv2.INTER_CUBIC) for view in views]


def resolution(size: tuple[int, int]) -> str:
    """Return (width, height) as a key of the figures."""
    return f'{size[0]}x{size[1]}'
