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
"""Depth results as one picture: image, depth, uncertainty, view from above, truth and error."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import TypeGuard

import cv2
import numpy as np

from hybrid_depth.birdseye import birds_eye, view_range
from hybrid_depth.errors import ConfigError
from hybrid_depth.lettering import INK_RGB, PALE_RGB, shorten, text_width, write
from hybrid_depth.scales import (
    BEYOND_RANGE,
    depth_scale,
    DepthScale,
    legend,
    NO_DEPTH,
    share_scale,
    ShareScale,
)

WIDTH = 2200  # pixels of every montage
DEPTH, SIGMA, TRUTH, ERROR = 'depth', 'sigma / depth', 'truth', '|depth - truth| / truth'
IMAGE = 'image'
ABOVE = "bird's-eye view"
NUMBERS = ''  # the cell that is left over

_MARGIN = 24
_GAP = 10  # between panels
_CAPTION = 24  # above every panel
_HEADER = 34  # above every frame
_FOOT = 18  # below every frame
_WIDE = 2.0  # images of this aspect and wider are stacked
_SPARSE = 0.3  # a map with values on fewer pixels is drawn as dots


@dataclass(frozen=True)
class MontageRow:
    """One frame. What is None, or has no value in it, gets no panel."""

    name: str
    image_rgb: np.ndarray | None  # (H, W, 3) uint8
    depth_m: np.ndarray  # (H, W) float32; NaN = invalid, +Inf = beyond range
    sigma_m: np.ndarray | None = None  # (H, W) float32, one standard deviation
    points: np.ndarray | None = None  # (h, w, 3) or (N, 3) float32, optical frame, NaN = none
    truth_m: np.ndarray | None = None  # (H, W) float32; NaN = no truth, +Inf = sky


@dataclass(frozen=True)
class _Layout:
    """Where the panels of one frame go: ``lines`` x ``columns`` cells, the cloud beside them."""

    panels: tuple[str, ...]  # line by line; NUMBERS where a cell is left over
    lines: int
    columns: int
    abreast: int  # frames side by side
    cell: tuple[int, int]  # width and height of a panel
    above: tuple[int, int] | None  # of the bird's-eye view

    @property
    def block(self) -> tuple[int, int]:
        """Width and height of one frame."""
        width = self.columns * (self.cell[0] + _GAP) - _GAP
        if self.above:
            width += _GAP + self.above[0]
        return width, _HEADER + self.lines * (self.cell[1] + _CAPTION) + _FOOT


def montage(rows: Sequence[MontageRow], title: str, max_m: float = 80.0) -> np.ndarray:
    """
    Draw ``rows`` below each other, all on the same colour scales; (H, WIDTH, 3) uint8 RGB.

    The scales follow the data: depth ends at ``max_m`` metres or at a round number below, where
    the frames hold nothing farther. Raises ConfigError where there is no row or the arrays of a
    row differ in size.
    """
    _check(rows, max_m)
    layout = _layout(rows)
    maps = [_maps(row, max_m) for row in rows]
    scales: dict[str, DepthScale | ShareScale] = {}
    depths = [m[key] for m in maps for key in (DEPTH, TRUTH) if key in m]
    scales[DEPTH] = scales[TRUTH] = depth_scale(depths, max_m)
    for key, colormap in ((SIGMA, cv2.COLORMAP_VIRIDIS), (ERROR, cv2.COLORMAP_PLASMA)):
        if key in layout.panels:
            scales[key] = share_scale([m[key] for m in maps if key in m], f'{key} (%)', colormap)
    shown = [scales[key] for key in (DEPTH, SIGMA, ERROR) if key in scales]
    foot = legend(shown, (NO_DEPTH, BEYOND_RANGE), WIDTH - 2 * _MARGIN)
    top = 64
    width, height = layout.block
    bands = math.ceil(len(rows) / layout.abreast)
    picture = np.full((top + bands * height + foot.shape[0] + _MARGIN, WIDTH, 3), 255, np.uint8)
    write(picture, shorten(title, 18, WIDTH - 2 * _MARGIN), _MARGIN, 22, 18, INK_RGB, bold=True)
    reaches = _reaches(rows, max_m)
    for number, (row, values) in enumerate(zip(rows, maps, strict=True)):
        band, place = divmod(number, layout.abreast)
        x = _MARGIN + place * (WIDTH - _MARGIN - width - _MARGIN if layout.abreast > 1 else 0)
        y = top + band * height
        _draw_frame(picture[y:y + height, x:x + width], row, values, scales, layout,
                    reaches[number])
    y = top + bands * height
    picture[y:y + foot.shape[0], _MARGIN:WIDTH - _MARGIN] = foot
    return picture


def _check(rows: Sequence[MontageRow], max_m: float) -> None:
    if not rows:
        raise ConfigError('a montage of no frames was asked for; give at least one')
    if not 0 < max_m < np.inf:
        raise ConfigError(f'max_m is {max_m}; expected a positive number of metres')
    for row in rows:
        size = row.depth_m.shape
        for key in ('image_rgb', 'sigma_m', 'truth_m'):
            values = getattr(row, key)
            if values is not None and values.shape[:2] != size:
                raise ConfigError(f'{key} of {row.name} is {values.shape[:2]}, its depth {size}; '
                                  'expected the same height and width')


def _layout(rows: Sequence[MontageRow]) -> _Layout:
    """Choose the cells so that the page is full and the panels are as large as can be."""
    panels = [IMAGE] if any(row.image_rgb is not None for row in rows) else []
    panels.append(DEPTH)
    if any(_has_values(row.sigma_m) for row in rows):
        panels.append(SIGMA)
    if any(_has_values(row.truth_m) for row in rows):
        panels += [TRUTH, ERROR]
    aspect = float(np.median([r.depth_m.shape[1] / r.depth_m.shape[0] for r in rows]))
    lines, abreast = 1, 1
    if aspect >= _WIDE:
        lines = len(panels) if len(panels) <= 3 else 2
        abreast = min(2, len(rows)) if len(panels) <= 3 else 1
    columns = math.ceil(len(panels) / lines)
    if len(panels) < lines * columns:
        panels.insert(columns, NUMBERS)  # so that the truth is right below the depth
    # the bird's-eye view is as high as all the lines together, and nearly as wide
    share = (0.85 if lines > 1 else 1.0) if any(_has_values(r.points) for r in rows) else 0.0
    between = (lines - 1) * _CAPTION
    room = (WIDTH - 2 * _MARGIN - (abreast - 1) * 3 * _GAP) / abreast - columns * _GAP
    cell_width = (room - share * between) / (columns + share * lines / aspect)
    cell = (int(cell_width), max(1, round(cell_width / aspect)))
    height = lines * cell[1] + between
    above = (int(share * height), height) if share else None
    return _Layout(tuple(panels), lines, columns, abreast, cell, above)


def _has_values(values: np.ndarray | None) -> TypeGuard[np.ndarray]:
    return values is not None and bool(np.isfinite(values).any())


def _maps(row: MontageRow, max_m: float) -> dict[str, np.ndarray]:
    """Return the maps of ``row`` by panel, (H, W) float; only those with values."""
    maps = {DEPTH: row.depth_m}
    with np.errstate(invalid='ignore', divide='ignore'):
        if _has_values(row.sigma_m):
            share = row.sigma_m / row.depth_m
            maps[SIGMA] = np.where(np.isfinite(share), share, np.nan)
        if _has_values(row.truth_m):
            share = np.abs(row.depth_m - row.truth_m) / row.truth_m
            counts = np.isfinite(share) & (row.truth_m <= max_m)
            maps[TRUTH], maps[ERROR] = row.truth_m, np.where(counts, share, np.nan)
    return maps


def _reaches(rows: Sequence[MontageRow], max_m: float) -> list[float]:
    """Return how far each bird's-eye view reaches: all as far, but for a room among streets."""
    own = [view_range(row.points, max_m) if _has_values(row.points) else 0.0 for row in rows]
    return [max(own) if 2.5 * reach >= max(own) else reach for reach in own]


def _draw_frame(block: np.ndarray, row: MontageRow, maps: dict[str, np.ndarray],
                scales: dict[str, DepthScale | ShareScale], layout: _Layout,
                reach_m: float) -> None:
    """Draw one frame into ``block``, a view of the page."""
    name = shorten(row.name, 13, block.shape[1] - 2 * _GAP)
    write(block, name, 0, 8, 13, INK_RGB, bold=True)
    if NUMBERS not in layout.panels:
        x = text_width(name, 13) + 28
        write(block, shorten(',  '.join(_facts(maps)), 11, block.shape[1] - x), x, 9, 11, PALE_RGB)
    for number, key in enumerate(layout.panels):
        line, column = divmod(number, layout.columns)
        x = column * (layout.cell[0] + _GAP)
        y = _HEADER + line * (layout.cell[1] + _CAPTION)
        if key == NUMBERS:
            for fact in _facts(maps):
                y += 26
                write(block, shorten(fact, 12, layout.cell[0]), x, y, 12, PALE_RGB)
            continue
        if key == IMAGE and row.image_rgb is not None:
            panel = _fitted(row.image_rgb, layout.cell)
        elif key in maps:
            panel = _map_panel(maps[key], scales[key], layout.cell)
        else:
            continue
        _place(block, panel, key, x, y)
    if layout.above and _has_values(row.points):
        view = birds_eye(row.points, _point_colours(row), layout.above, reach_m)
        _place(block, view, ABOVE, layout.columns * (layout.cell[0] + _GAP), _HEADER)


def _place(block: np.ndarray, panel: np.ndarray, caption: str, x: int, y: int) -> None:
    write(block, shorten(caption, 11, panel.shape[1]), x, y + 6, 11, PALE_RGB)
    y += _CAPTION
    block[y:y + panel.shape[0], x:x + panel.shape[1]] = panel


def _facts(maps: dict[str, np.ndarray]) -> list[str]:
    """Return the numbers of one frame, for people."""
    depth = maps[DEPTH][np.isfinite(maps[DEPTH])]
    if not depth.size:
        return ['no depth']
    facts = [f'depth {depth.min():.1f} to {depth.max():.1f} m, median {np.median(depth):.1f} m']
    if SIGMA in maps and np.isfinite(maps[SIGMA]).any():
        facts.append(f'median sigma {100 * np.nanmedian(maps[SIGMA]):.1f} %')
    error = maps[ERROR][np.isfinite(maps[ERROR])] if ERROR in maps else np.empty(0)
    if error.size:
        facts.append(f'mean error {100 * error.mean():.1f} %, median '
                     f'{100 * np.median(error):.1f} %')
        facts.append(f'truth on {100 * error.size / maps[ERROR].size:.0f} % of the pixels')
    return facts


def _point_colours(row: MontageRow) -> np.ndarray | None:
    """Return the image colour of every point of an organised cloud."""
    if row.image_rgb is None or row.points is None or row.points.ndim != 3:
        return None
    height, width = row.points.shape[:2]
    return cv2.resize(row.image_rgb, (width, height), interpolation=cv2.INTER_AREA)


def _fit(shape: tuple[int, ...], cell: tuple[int, int]) -> tuple[int, int]:
    """Return the largest width and height with the aspect of ``shape`` within ``cell``."""
    scale = min(cell[0] / shape[1], cell[1] / shape[0])
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))


def _fitted(rgb: np.ndarray, cell: tuple[int, int]) -> np.ndarray:
    size = _fit(rgb.shape, cell)
    shrinks = size[0] < rgb.shape[1]
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def _map_panel(values: np.ndarray, scale: DepthScale | ShareScale,
               cell: tuple[int, int]) -> np.ndarray:
    """Colour a map in the size of ``cell``; single values, as of a LiDAR, become dots."""
    some = ~np.isnan(values)
    if some.mean() >= _SPARSE:
        size = _fit(values.shape, cell)
        shrinks = size[0] < values.shape[1]
        rgb = scale.to_rgb(values)
        return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if shrinks else
                          cv2.INTER_NEAREST)
    width, height = _fit(values.shape, cell)
    v, u = np.nonzero(some)
    dots = values[v, u]
    order = np.argsort(-dots, kind='stable')  # the nearest is painted last
    v, u, dots = v[order], u[order], dots[order]
    small = np.full((height, width), np.nan, np.float32)
    row = ((v + 0.5) * height / values.shape[0]).astype(np.int64)
    column = ((u + 0.5) * width / values.shape[1]).astype(np.int64)
    for dx, dy in ((1, 1), (1, 0), (0, 1), (0, 0)):  # 2 x 2 pixels each, so that it is seen
        small[np.minimum(row + dy, height - 1), np.minimum(column + dx, width - 1)] = dots
    return scale.to_rgb(small)
