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
Camera motion between two small images, where the depth of one of them is known.

Inverse compositional Gauss-Newton (Baker and Matthews, Lucas-Kanade 20 years on, IJCV 2004): how
the target's pixels change with the motion is worked out once, and the steps taken in the source
are undone in the motion. Brightness and contrast are normalised locally.
"""
from __future__ import annotations

import cv2
import numpy as np

from hybrid_depth.poses import inverse

_STILL = 5e-4  # radians, or median depths: a twentieth of a pixel
_MAX_POINTS = 800
_MIN_DEVIATION = 3.0  # grey levels; less is noise
_DIAGONAL = np.diag_indices(6)
CLIP = 2.0  # of an error: beyond, the pixel does not match at all


def normalised(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the image less its local mean, over its local deviation, and the deviation."""
    image = grey.astype(np.float32)
    mean = cv2.blur(image, (7, 7))
    deviation = np.sqrt(np.maximum(cv2.blur(image * image, (7, 7)) - mean * mean, 0))
    return (image - mean) / (deviation + 4), deviation


class Template:
    """The target: its textured points, and how their values change with the camera's motion."""

    def __init__(self, grey: np.ndarray, depth_m: np.ndarray, rays: np.ndarray) -> None:
        normal, deviation = normalised(grey)
        usable = (deviation > _MIN_DEVIATION) & np.isfinite(depth_m) & (depth_m > 0)
        usable[:2] = usable[-2:] = False
        usable[:, :2] = usable[:, -2:] = False
        index = np.flatnonzero(usable)
        if len(index) > _MAX_POINTS:
            index = index[np.linspace(0, len(index) - 1, _MAX_POINTS).astype(int)]
        height, width = grey.shape
        # pinhole: u is affine in x/z
        focal_u = (width - 1) / (rays[0, -1, 0] - rays[0, 0, 0])
        focal_v = (height - 1) / (rays[-1, 0, 1] - rays[0, 0, 1])
        self._K = np.array([[focal_u, 0, -focal_u * rays[0, 0, 0]],
                            [0, focal_v, -focal_v * rays[0, 0, 1]], [0, 0, 1]])
        self._last = np.array([[width - 1], [height - 1]], np.float32)
        z = depth_m.ravel()[index]
        x, y = rays.reshape(-1, 2)[index].T
        self._points = np.stack([x * z, y * z, z])  # (3, N) float32
        self._unit_m = float(np.median(z)) if len(z) else 1.0  # makes shift and turn comparable
        self._value = normal.ravel()[index]
        slope_u, slope_v = (cv2.Sobel(normal, cv2.CV_32F, *order, ksize=3).ravel()[index]
                            * np.float32(focal / 8)
                            for order, focal in (((1, 0), focal_u), ((0, 1), focal_v)))
        near, none = np.float32(self._unit_m) / z, np.zeros_like(x)
        # d(x/z, y/z) / d(shift, turn) of the point, (6, N)
        self._slope = slope_u * np.stack([near, none, -x * near, -x * y, 1 + x * x, -y]) \
            + slope_v * np.stack([none, near, -y * near, -1 - y * y, x * y, x])

    def __len__(self) -> int:
        return self._points.shape[1]

    def error(self, source: np.ndarray, source_T_target: np.ndarray) -> float:
        """Return the mean clipped error of the pixels in view; CLIP where few are."""
        difference, is_seen = self._difference(source, source_T_target)
        if 2 * np.count_nonzero(is_seen) <= len(is_seen):
            return CLIP
        return float(np.minimum(np.abs(difference[is_seen]), CLIP).mean())

    def align(self, source: np.ndarray, source_T_target: np.ndarray, steps: int) -> np.ndarray:
        """Return the motion near ``source_T_target`` that suits the images best."""
        T = source_T_target
        for _ in range(steps):
            difference, is_seen = self._difference(source, T)
            size = np.abs(difference)
            # Huber's weight, and none for what does not match at all
            weight = np.float32(0.5) / np.maximum(size, np.float32(0.5))
            weight *= is_seen & (size < CLIP)
            weighted = self._slope * weight
            H = (weighted @ self._slope.T).astype(np.float64)
            H[_DIAGONAL] = H[_DIAGONAL] * 1.001 + 1e-6  # keeps what the images do not tell at 0
            step = np.linalg.solve(H, weighted @ difference)
            change = np.eye(4)
            change[:3, :3] = cv2.Rodrigues(step[3:])[0]
            change[:3, 3] = step[:3] * self._unit_m
            T = T @ inverse(change)
            if np.abs(step).max() < _STILL:
                break
        return T

    def _difference(self, source: np.ndarray,
                    source_T_target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return source minus target at each point, and whether the source sees it."""
        if not len(self):
            return np.zeros(0, np.float32), np.zeros(0, bool)
        P = (self._K @ source_T_target[:3]).astype(np.float32)
        projected = P[:, :3] @ self._points
        projected += P[:, 3:]
        z = projected[2]
        uv = projected[:2] / np.maximum(z, np.float32(1e-3))
        # into the image, as remap counts in 16 bits; what that moves was not in it
        inside = np.minimum(np.maximum(uv, np.float32(0)), self._last)
        is_seen = (z > 1e-3) & (inside == uv).all(axis=0)
        value = cv2.remap(source, inside[0], inside[1], cv2.INTER_LINEAR,
                          borderMode=cv2.BORDER_REPLICATE).ravel()
        return value - self._value, is_seen
