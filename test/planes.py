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
"""Planes as exact ground truth, and cameras of every kind to look at them."""
from __future__ import annotations

import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth.preprocess import NetworkView

CAMERAS = {
    'plain': CameraModel(310, 94, 180.0, 180.0, 152.0, 43.0),
    'tall': CameraModel(120, 200, 150.0, 155.0, 61.0, 97.0),
    'plumb_bob': CameraModel(320, 240, 260.0, 262.0, 161.0, 118.0, 'plumb_bob',
                             (-0.2, 0.05, 0.001, -0.0005, 0.0)),
    'rational': CameraModel(320, 240, 260.0, 262.0, 161.0, 118.0, 'rational_polynomial',
                            (0.3, 0.1, 0.0005, -0.0003, 0.01, 0.6, 0.2, 0.02)),
    'fisheye': CameraModel(320, 240, 150.0, 150.0, 160.0, 119.0, 'equidistant',
                           (0.02, -0.01, 0.003, -0.001)),
}


def plane_depth(camera: CameraModel, normal: tuple[float, float, float],
                distance_m: float) -> np.ndarray:
    """Return the depth (H, W) float32 of the plane ``normal . X = distance_m``; NaN = behind."""
    rays = camera.rays().astype(np.float64)
    facing = rays[..., 0] * normal[0] + rays[..., 1] * normal[1] + normal[2]
    with np.errstate(divide='ignore', invalid='ignore'):
        depth = distance_m / facing
    return np.where(depth > 0, depth, np.nan).astype(np.float32)


def network_plane(view: NetworkView, normal: tuple[float, float, float],
                  distance_m: float) -> np.ndarray:
    """Return the same plane as an ideal network would see it, (height, width) float32."""
    padded = view.content.cropped(-view.left, -view.top, view.width, view.height)
    return plane_depth(padded, normal, distance_m)
