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
Free, occupied or unknown: log-odds of each cell of the window, over time.

What stands over the ground occupies its cell. Free are the cells whose ground is seen, and those
before the nearest obstacle of each vertical slice of the view that a ray crosses so low that it
would have met whatever stands there; one that meets nothing does so up to the largest range. Of
what is behind an obstacle, too close to be in view, or looked over, nothing is said.
"""
from __future__ import annotations

from dataclasses import dataclass
import math

import numpy as np

from hybrid_depth.bev.config import BevConfig
from hybrid_depth.bev.view import column_of, View
from hybrid_depth.bev.window import Window

# OctoMap's sensor model (Hornung et al. 2013): p(hit) 0.7, p(miss) 0.4, clamped to 0.12 .. 0.97
HIT, MISS = 0.85, -0.4
LEAST, MOST = -2.0, 3.5
KNOWN = 0.2  # less than this from even odds is unknown
UNKNOWN, FREE, OCCUPIED = -1, 0, 100
_FULL_POINTS = 2.0  # points in a cell that make a whole hit; one alone may be noise
_BLOCKING = 2  # points that end a slice's free space
_MOVING_NS = 500_000_000  # what a camera saw move is not there any more after so long


@dataclass(frozen=True)
class _Moving:
    """Cells of the map, (N,) rows and columns, in which a camera saw something move."""

    stamp_ns: int
    row: np.ndarray
    column: np.ndarray


@dataclass(frozen=True)
class Heights:
    """What the rays of a view meet; (N,) bool, each a subset of the rays within range."""

    ground: np.ndarray  # the ground itself
    obstacle: np.ndarray  # what stands over it, no higher than what hangs above the robot


def heights_of(view: View, ground: np.ndarray, config: BevConfig) -> Heights:
    """Tell ground from obstacles by the height over ``ground`` (N,), relative to the camera."""
    over = view.z - ground
    with np.errstate(invalid='ignore'):
        within = (view.ahead <= config.max_range_m) & ~view.is_edge
        is_ground = within & (over < config.min_height_m)
        # a point that is a sigma away from being ground is neither
        obstacle = within & (over > config.min_height_m + view.sigma_z) \
            & (over <= config.max_height_m)
    return Heights(is_ground, obstacle)


def weight_of(sigma: np.ndarray, config: BevConfig) -> np.ndarray:
    """Return how much points of this ``sigma``, metres, count: 1 = fully, half at sigma_half_m."""
    return 1 / (1 + np.square(sigma * np.float32(1 / config.sigma_half_m)))


class Occupancy:
    """Log-odds of the cells of a window, (cells, cells) float32, 0 = unknown."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.log_odds = np.zeros((window.cells, window.cells), np.float32)
        self._moving: dict[str, _Moving] = {}  # by camera

    def move(self, window: Window) -> None:
        """Follow the robot: whole cells enter, unknown, and leave."""
        self.log_odds = self.window.moved(self.log_odds, window, 0.0)
        self.window = window

    def update(self, view: View, ground: np.ndarray, elapsed_s: float,
               config: BevConfig) -> None:
        """Add what ``view`` shows over ``ground`` (N,), ``elapsed_s`` after the one before."""
        n = self.window.cells
        heights = heights_of(view, ground, config)
        cell = cells_of(view, self.window)
        in_window = cell >= 0
        fixed = np.flatnonzero(heights.obstacle & in_window & ~view.is_moving)
        weight = weight_of(view.sigma, config)
        hits = _cell_weight(cell[fixed], weight[fixed], n * n)
        moving = np.unique(cell[heights.obstacle & in_window & view.is_moving])
        row, column = np.divmod(moving, n)
        self._moving[view.camera] = _Moving(view.stamp_ns, row + self.window.row,
                                            column + self.window.column)
        seen = np.flatnonzero(heights.ground & in_window)
        free = _cell_weight(cell[seen], weight[seen], n * n).reshape(n, n)
        block, cast = self._cast(view, ground, heights, config)
        np.maximum(free[block], cast, out=free[block])
        free.ravel()[hits > 0] = 0  # whoever stands there, stands on ground
        free.ravel()[moving] = 0
        change = (HIT * hits).reshape(n, n)
        change += MISS * free
        if config.decay_s and elapsed_s > 0:
            kept = math.exp(-elapsed_s / config.decay_s)
            self.log_odds *= np.where(change == 0, np.float32(kept), np.float32(1))
        self.log_odds += change
        np.clip(self.log_odds, LEAST, MOST, out=self.log_odds)

    def _cast(self, view: View, ground: np.ndarray, heights: Heights, config: BevConfig,
              ) -> tuple[tuple[slice, slice], np.ndarray]:
        """Return a block of cells, and the weight of each one's being free by the rays over it."""
        size = self.window.resolution_m
        bins = math.ceil(config.max_range_m / size) + 1

        def histogram(rays: np.ndarray, distance: np.ndarray) -> np.ndarray:
            place = np.clip(distance * np.float32(1 / size), 0, bins - 1).astype(np.int32)
            flat = view.column[rays] * np.int32(bins) + place
            return np.bincount(flat, minlength=view.columns * bins).reshape(-1, bins)
        inside = view.column >= 0
        # an obstacle may be a sigma nearer than it seems
        rays = np.flatnonzero(heights.obstacle & inside)
        is_before = np.cumsum(histogram(rays, view.ahead[rays] - view.sigma[rays]), 1) < _BLOCKING
        # a ray has met what stands there where it runs lower than the lowest obstacle
        rays = np.flatnonzero(inside & ~view.is_edge & np.isfinite(ground))
        level, slope = ground[rays] + np.float32(config.min_height_m), view.slope[rays]
        with np.errstate(divide='ignore', invalid='ignore'):
            crossing = level / slope  # where the ray is as high
        sinks = slope < 0
        first = np.where(sinks & (level < 0), crossing, 0)
        last = np.minimum(view.ahead[rays], np.float32(config.max_range_m))
        last = np.where(sinks, last, np.where(level > 0, np.minimum(last, crossing), 0))
        some = last > first
        rays, first, last = rays[some], first[some], last[some]
        # bins that a ray runs through from its first to before its last
        running = np.cumsum(histogram(rays, first) - histogram(rays, last), 1)
        table = (running > 0) & is_before
        reach = np.flatnonzero(table.any(0))
        where, ahead, slot = self._cells_ahead(view, (reach[-1] + 1) * size if len(reach) else 0.0)
        place = np.clip(ahead * np.float32(1 / size), 0, bins - 1).astype(np.int32)
        free = table.ravel()[np.maximum(slot, 0) * np.int32(bins) + place] & (slot >= 0)
        return where, free * weight_of(ahead * np.float32(_relative_sigma(view)), config)

    def _cells_ahead(self, view: View, far: float,
                     ) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
        """Return the block of cells that the view may reach, their distance and column."""
        window, size = self.window, self.window.resolution_m
        x0, y0 = window.origin
        rays = view.column[view.column >= 0]
        spread = (np.array([rays.min(), rays.max() + 1]) - view.columns / 2) * view.column_step \
            if rays.size else np.zeros(2)
        hx, hy = view.heading
        corners_x = np.array([0.0, *(far * (hx - spread * hy))]) + (view.position[0] - x0)
        corners_y = np.array([0.0, *(far * (hy + spread * hx))]) + (view.position[1] - y0)

        def limits(corners: np.ndarray) -> slice:
            low = min(max(math.floor(corners.min() / size), 0), window.cells)
            return slice(low, min(max(math.ceil(corners.max() / size), low), window.cells))
        rows, columns = limits(corners_y), limits(corners_x)
        dx = (np.arange(columns.start, columns.stop) + 0.5) * size + (x0 - view.position[0])
        dy = (np.arange(rows.start, rows.stop) + 0.5) * size + (y0 - view.position[1])
        ahead = (dy * hy).astype(np.float32)[:, None] + (dx * hx).astype(np.float32)
        across = (dy * hx).astype(np.float32)[:, None] - (dx * hy).astype(np.float32)
        with np.errstate(all='ignore'):
            ratio = np.where(ahead > 0, across / ahead, np.float32(np.inf))
        return (rows, columns), ahead, column_of(ratio, view.columns, view.column_step)

    def values(self, config: BevConfig) -> np.ndarray:
        """
        Return (cells, cells) int8 as nav_msgs/OccupancyGrid has it.

        -1 = unknown, else 0 to 100: the probability, stretched so that the clamped ends of the
        log-odds are exactly 0 and 100. Moving things are 100 where they are now.
        """
        low, high = (1 / (1 + math.exp(-end)) for end in (LEAST, MOST))
        probability = 1 / (1 + np.exp(-self.log_odds))
        result = np.rint((probability - np.float32(low)) * np.float32(100 / (high - low)))
        result[np.abs(self.log_odds) < KNOWN] = UNKNOWN
        if config.show_moving:
            now_ns = max((moving.stamp_ns for moving in self._moving.values()), default=0)
            for moving in self._moving.values():
                if now_ns - moving.stamp_ns <= _MOVING_NS:
                    row, column = moving.row - self.window.row, moving.column - self.window.column
                    inside = (np.minimum(row, column) >= 0) \
                        & (np.maximum(row, column) < self.window.cells)
                    result[row[inside], column[inside]] = OCCUPIED
        return result.astype(np.int8)


def cells_of(view: View, window: Window) -> np.ndarray:
    """Return the flat index of each point's cell, (N,) int32; -1 = outside, or no point."""
    x0, y0 = window.origin
    scale = np.float32(1 / window.resolution_m)
    with np.errstate(invalid='ignore'):
        column = np.floor((view.x + np.float32(view.position[0] - x0)) * scale)
        row = np.floor((view.y + np.float32(view.position[1] - y0)) * scale)
        inside = (column >= 0) & (column < window.cells) & (row >= 0) & (row < window.cells)
        return np.where(inside, row * np.float32(window.cells) + column, -1).astype(np.int32)


def _cell_weight(cell: np.ndarray, weight: np.ndarray, size: int) -> np.ndarray:
    """
    Return what the points of each cell weigh together, (size,) float32, at most 1.

    Their errors are those of one frame and not independent: many points count no more than two.
    """
    count = np.bincount(cell, minlength=size)
    total = np.bincount(cell, weight, minlength=size)
    return (total / np.maximum(count, _FULL_POINTS)).astype(np.float32)


def _relative_sigma(view: View) -> float:
    """Return the median sigma / depth; 0 where nothing has a depth."""
    known = np.isfinite(view.depth)
    return float(np.median(view.sigma[known] / view.depth[known])) if known.any() else 0.0
