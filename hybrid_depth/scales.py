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
"""Colour scales of a montage, and their legend."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import math

import cv2
import numpy as np

from hybrid_depth.birdseye import FINE_STEPS, nice_down, nice_up
from hybrid_depth.colour import depth_to_rgb, FAR_RGB, INVALID_RGB
from hybrid_depth.lettering import INK_RGB, text_width, WHITE_RGB, write

_TEXT_PX = 11
_BAR = (420, 18)  # width and height
_HEIGHT = 64  # of the legend
_GAP = 56


@dataclass(frozen=True)
class DepthScale:
    """Logarithmic, as colour.depth_to_rgb has it."""

    min_m: float
    max_m: float
    label: str = 'depth (m)'

    def to_rgb(self, depth_m: np.ndarray) -> np.ndarray:
        """Colour (H, W) metres; uint8 RGB."""
        return depth_to_rgb(depth_m, self.min_m, self.max_m)

    def bar(self, width: int) -> np.ndarray:
        """Return the colours from near to far, (1, width, 3)."""
        return self.to_rgb(np.geomspace(self.min_m, self.max_m, width)[None])

    def ticks(self) -> list[tuple[float, str]]:
        """Return share of the bar and label of every tick."""
        decades = range(math.floor(math.log10(self.min_m)), math.ceil(math.log10(self.max_m)) + 1)
        values = [s * 10.0 ** d for d in decades for s in (1, 2, 5)]
        room = (self.max_m / self.min_m) ** 0.08  # a label that is nearer to an end is left out
        values = [v for v in values if self.min_m * room < v < self.max_m / room]
        whole = math.log(self.max_m / self.min_m)
        return [(math.log(v / self.min_m) / whole, f'{v:g}')
                for v in (self.min_m, *values, self.max_m)]


@dataclass(frozen=True)
class ShareScale:
    """Linear from nothing to ``max_share``; above, the end colour continues."""

    max_share: float
    label: str
    colormap: int

    def to_rgb(self, share: np.ndarray) -> np.ndarray:
        """Colour (H, W) shares; NaN is black; uint8 RGB."""
        index = np.rint(255 * np.nan_to_num(np.clip(share / self.max_share, 0, 1)))
        rgb = cv2.cvtColor(cv2.applyColorMap(index.astype(np.uint8), self.colormap),
                           cv2.COLOR_BGR2RGB)
        rgb[np.isnan(share)] = INVALID_RGB
        return rgb

    def bar(self, width: int) -> np.ndarray:
        """Return the colours from nothing to ``max_share``, (1, width, 3)."""
        return self.to_rgb(np.linspace(0, self.max_share, width)[None])

    def ticks(self) -> list[tuple[float, str]]:
        """Return share of the bar and label of every tick."""
        ends = [(i / 4, f'{100 * self.max_share * i / 4:g}') for i in range(4)]
        return [*ends, (1.0, f'{100 * self.max_share:g}+')]


def depth_scale(depths_m: Sequence[np.ndarray], max_m: float) -> DepthScale:
    """Return the scale that shows all of ``depths_m`` well: a room's is not a street's."""
    finite = [d[np.isfinite(d) & (d > 0)] for d in depths_m]
    values = np.concatenate([v[::max(1, v.size // 20000)] for v in finite] or [np.empty(0)])
    if not values.size:
        return DepthScale(max_m / 80, max_m)
    low, high = np.percentile(values, [0.5, 99])
    top = min(max_m, nice_up(float(high), FINE_STEPS))
    bottom = nice_down(max(float(low), top / 200), FINE_STEPS)
    return DepthScale(min(bottom, top / 2), top)


def share_scale(shares: Sequence[np.ndarray], label: str, colormap: int) -> ShareScale:
    """Return the scale of relative errors, 10 to 100 % at its end."""
    finite = [s[np.isfinite(s)] for s in shares]
    values = np.concatenate([v[::max(1, v.size // 20000)] for v in finite] or [np.empty(0)])
    high = float(np.percentile(values, 90)) if values.size else 0.2
    # steps whose quarters, the ticks, are round
    return ShareScale(min(nice_up(max(high, 0.1), (1, 2, 4, 6, 8)), 1.0), label, colormap)


def legend(scales: Sequence[DepthScale | ShareScale], swatches: Sequence[tuple[str, tuple]],
           width: int) -> np.ndarray:
    """
    Draw the bars of ``scales`` and the plain colours ``swatches`` (label, RGB) in a line.

    It wraps at ``width``; returns (H, width, 3) uint8.
    """
    items = [_bar(scale) for scale in scales] + [_swatch(*entry) for entry in swatches]
    lines: list[list[np.ndarray]] = [[]]
    for item in items:
        used = sum(i.shape[1] + _GAP for i in lines[-1])
        if lines[-1] and used + item.shape[1] > width:
            lines.append([])
        lines[-1].append(item)
    picture = np.full((_HEIGHT * len(lines), width, 3), 255, np.uint8)
    for number, line in enumerate(lines):
        x = 0
        for item in line:
            shown = item[:, :width - x]
            picture[number * _HEIGHT:(number + 1) * _HEIGHT, x:x + shown.shape[1]] = shown
            x += item.shape[1] + _GAP
    return picture


NO_DEPTH = ('no value (NaN)', INVALID_RGB)
BEYOND_RANGE = ('beyond range or sky (+Inf)', FAR_RGB)


def _bar(scale: DepthScale | ShareScale) -> np.ndarray:
    width, height = _BAR
    picture = np.full((_HEIGHT, width + 24, 3), 255, np.uint8)
    write(picture, scale.label, 0, 2, _TEXT_PX, INK_RGB, bold=True)
    picture[22:22 + height, :width] = scale.bar(width)
    for share, label in scale.ticks():
        x = round(share * (width - 1))
        picture[22 + height:22 + height + 5, x:x + 1] = INK_RGB
        left = min(max(0, x - text_width(label, _TEXT_PX - 1) / 2), picture.shape[1])
        write(picture, label, left, 22 + height + 8, _TEXT_PX - 1, INK_RGB)
    return picture


def _swatch(label: str, colour: tuple[int, int, int]) -> np.ndarray:
    picture = np.full((_HEIGHT, 40 + text_width(label, _TEXT_PX), 3), WHITE_RGB, np.uint8)
    cv2.rectangle(picture, (0, 22), (27, 39), colour, cv2.FILLED)
    cv2.rectangle(picture, (0, 22), (27, 39), INK_RGB, 1)
    write(picture, label, 36, 26, _TEXT_PX, INK_RGB)
    return picture
