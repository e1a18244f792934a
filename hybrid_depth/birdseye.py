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
"""A point cloud seen from above: the camera at the bottom, forward up."""
from __future__ import annotations

import math
from typing import TypeVar

import cv2
import numpy as np

from hybrid_depth.lettering import text_width, write

GROUND_RGB = (24, 27, 32)
RING_RGB = (96, 102, 112)
EGO_RGB = (255, 196, 0)
TEXT_RGB = (214, 218, 224)
# What is higher is left out: ceilings and crowns of trees would hide what a robot can bump into.
ABOVE_CAMERA_M = 0.5

_BELOW_EGO = 0.06  # share of the height
_ABOVE_RANGE = 0.04
FINE_STEPS = (1, 1.5, 2, 3, 4, 5, 6, 8)
_RING_LABEL_DEG = 55.0  # right of forward: out of most cameras' view, so no point is under it


Metres = TypeVar('Metres', float, np.ndarray)


def nice_up(value: float, steps: tuple[float, ...]) -> float:
    """Return the smallest ``steps`` times a power of ten not below ``value``, positive."""
    power = 10.0 ** math.floor(math.log10(value))
    return next((s * power for s in steps if s * power >= value * (1 - 1e-9)), 10 * power)


def nice_down(value: float, steps: tuple[float, ...]) -> float:
    """Return the largest ``steps`` times a power of ten not above ``value``, positive."""
    power = 10.0 ** math.floor(math.log10(value))
    return next((s * power for s in reversed(steps) if s * power <= value * (1 + 1e-9)), power)


def view_range(points: np.ndarray, max_m: float) -> float:
    """Return how far forward a view of ``points`` (..., 3) should reach, at most ``max_m``."""
    z = points[..., 2]
    z = z[np.isfinite(z) & (z > 0)]
    if not z.size:
        return max_m
    return min(max_m, nice_up(float(np.percentile(z, 88)), FINE_STEPS))


def pixel_of(x_m: Metres, z_m: Metres, size: tuple[int, int],
             range_m: float) -> tuple[Metres, Metres]:
    """Return column and row of places in a view of ``size`` (width, height) pixels."""
    width, height = size
    scale = _pixels_per_metre(height, range_m)
    return width / 2 + x_m * scale, height * (1 - _BELOW_EGO) - z_m * scale


def birds_eye(points: np.ndarray, colours: np.ndarray | None, size: tuple[int, int],
              range_m: float) -> np.ndarray:
    """
    Draw ``points`` from above into a picture of ``size`` (width, height); uint8 RGB.

    What it takes:
        points: (N, 3) or (h, w, 3) metres in the optical frame, NaN = none
        colours: uint8 RGB of the same leading shape; None = by height
        size: width and height, pixels
        range_m: how far forward the view reaches
    """
    width, height = size
    picture = np.empty((height, width, 3), np.uint8)
    picture[:] = GROUND_RGB
    xyz = np.asarray(points, np.float32).reshape(-1, 3)
    keep = np.isfinite(xyz).all(axis=1) & (xyz[:, 1] > -ABOVE_CAMERA_M) & (xyz[:, 2] > 0)
    xyz = xyz[keep]
    if colours is None:
        rgb = _by_height(xyz[:, 1])
    else:
        # lifted: asphalt in shade would not show on the dark ground
        rgb = np.clip(colours.reshape(-1, 3)[keep] * 1.1 + 28.0, 0, 255).astype(np.uint8)
    order = np.argsort(-xyz[:, 1], kind='stable')  # the highest is painted last
    xyz, rgb = xyz[order], rgb[order]
    column, row = pixel_of(xyz[:, 0], xyz[:, 2], size, range_m)
    column, row = np.floor(column).astype(np.int64), np.floor(row).astype(np.int64)
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        inside = (column + dx >= 0) & (column + dx < width) & (row + dy >= 0) & (row + dy < height)
        picture[row[inside] + dy, column[inside] + dx] = rgb[inside]
    _draw_rings(picture, range_m)
    return picture


def ring_distances(range_m: float) -> tuple[float, ...]:
    """Return the radii of the rings, metres, such as 10, 20 and 40."""
    largest = nice_up(range_m / 2.01, (1, 2, 4, 5, 6, 8))
    return tuple(r for r in (largest / 4, largest / 2, largest, 1.5 * largest, 2 * largest)
                 if r <= range_m)


def _pixels_per_metre(height: int, range_m: float) -> float:
    return height * (1 - _BELOW_EGO - _ABOVE_RANGE) / range_m


def _by_height(y: np.ndarray) -> np.ndarray:
    """Colour by height, (N, 3) uint8: y (N,) metres points down."""
    if not y.size:
        return np.empty((0, 3), np.uint8)
    low, high = np.percentile(-y, [2, 98])
    share = np.clip((-y - low) / max(high - low, 1e-3), 0, 1)
    bgr = cv2.applyColorMap(np.rint(255 * share).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    return bgr.reshape(-1, 3)[:, ::-1]


def _draw_rings(picture: np.ndarray, range_m: float) -> None:
    height, width = picture.shape[:2]
    size = (width, height)
    scale = _pixels_per_metre(height, range_m)
    ego = tuple(round(v) for v in pixel_of(0, 0, size, range_m))
    text_px = max(8.0, min(11.0, height / 30))
    for radius in ring_distances(range_m):
        r = round(radius * scale)
        cv2.ellipse(picture, ego, (r, r), 0, 180, 360, RING_RGB, 1, cv2.LINE_AA)
        label = f'{radius:g} m'
        wide = text_width(label, text_px)
        aside = min(r * math.sin(math.radians(_RING_LABEL_DEG)), width / 2 - wide / 2 - 6)
        y = ego[1] - math.sqrt(max(r * r - aside * aside, 0)) - text_px / 2
        write(picture, label, ego[0] + aside - wide / 2, y, text_px, TEXT_RGB, halo=GROUND_RGB)
    s = max(5, round(height / 45))
    arrow = np.array([(ego[0], ego[1] - 2 * s), (ego[0] - s, ego[1]), (ego[0] + s, ego[1])])
    cv2.fillPoly(picture, [arrow], EGO_RGB, cv2.LINE_AA)
