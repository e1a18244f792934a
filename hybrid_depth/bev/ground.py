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
The ground around the robot as a surface: how high it lies at every point of a view.

Sectors of the view are followed outwards from under the camera. In each sector the lowest points
of every stretch are taken for the ground as far as it rises or falls no steeper than a robot
drives; where nothing low is seen, as behind a wall, the ground goes on as it was.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import math

import numpy as np

from hybrid_depth.bev.view import View

_SECTORS = 32
_FIRST_M = 1.0  # stretches: the first ends here, each of the next is longer by ...
_GROWTH = 1.12
_FEW = 3  # points of a stretch that say less than what lies before it
_NEAR_M = 15.0  # where the height of the camera is read off the view
_START_SHARE = 0.3  # of the sectors: their nearest ground counts, the others may face a wall


def ground_height(view: View, max_range_m: float, max_slope: float, thickness_m: float,
                  start: Callable[[float | None], float | None],
                  ) -> np.ndarray:
    """
    Return the height of the ground at each ray of ``view``, relative to the camera.

    (N,) float32 metres; for a ray without a point, that of the farthest stretch. ``thickness_m``:
    what is less high over the lowest point may be ground. ``start`` is told the height of the
    camera over the ground that the view shows, None = cannot be told, and returns the one to start
    from; where that is None all heights are NaN.
    """
    stretches = 1 + math.ceil(math.log(max(max_range_m, 2 * _FIRST_M) / _FIRST_M)
                              / math.log(_GROWTH))
    with np.errstate(invalid='ignore', divide='ignore'):
        place = np.log(np.maximum(view.ahead, _FIRST_M) / np.float32(_FIRST_M)) \
            * np.float32(1 / math.log(_GROWTH))
    place = np.minimum(place, np.float32(stretches - 1))
    stretch = place.astype(np.int32)
    seen = view.column[view.column >= 0]
    if not seen.size:
        return np.full(len(view.depth), np.nan, np.float32)
    first, last = int(seen.min()), int(seen.max())
    sector = (np.maximum(view.column, 0) - first) * _SECTORS // (last - first + 1)
    sector = np.clip(sector, 0, _SECTORS - 1)
    cell = sector * stretches + stretch
    usable = np.flatnonzero((view.column >= 0) & (view.ahead <= max_range_m) & ~view.is_edge)
    size = _SECTORS * stretches
    lowest = np.full((_SECTORS, stretches), np.inf, np.float32)
    np.minimum.at(lowest.reshape(-1), cell[usable], view.z[usable])
    camera_height_m = start(_camera_height(lowest, stretches))
    if camera_height_m is None:
        return np.full(len(view.depth), np.nan, np.float32)
    width = (last - first + 1) / _SECTORS * view.column_step  # of a sector, across / ahead
    steps = _Steps(max_slope, thickness_m / 2, width)
    profile = _follow(lowest, camera_height_m, steps)
    # the lowest of noisy points lies too low: their mean does not
    low = usable[view.z[usable] < profile.ravel()[cell[usable]] + np.float32(thickness_m)]
    count = np.bincount(cell[low], minlength=size).reshape(profile.shape)
    total = np.bincount(cell[low], view.z[low], minlength=size).reshape(profile.shape)
    profile = np.where(count >= _FEW, total / np.maximum(count, 1), profile).astype(np.float32)
    # between the middles of stretches, linearly
    before = np.clip(np.floor(place - np.float32(0.5)), 0, stretches - 2).astype(np.int32)
    share = np.clip(place - np.float32(0.5) - before, 0, 1)
    flat, index = profile.ravel(), sector * stretches + before
    return flat[index] * (1 - share) + flat[index + 1] * share


def _camera_height(lowest: np.ndarray, stretches: int) -> float | None:
    """Return how far below the camera the nearest ground of the lowest sectors is."""
    near = min(stretches, 1 + math.ceil(math.log(_NEAR_M / _FIRST_M) / math.log(_GROWTH)))
    filled = np.isfinite(lowest[:, :near])
    found = lowest[filled.any(axis=1), filled.argmax(axis=1)[filled.any(axis=1)]]
    if not found.size:
        return None
    height = -float(np.quantile(found, _START_SHARE))
    return height if height > 0 else None


@dataclass(frozen=True)
class _Steps:
    """How far the ground may rise or fall from one place to the next."""

    max_slope: float
    most_m: float  # from one stretch to the next known one: more is a thing, not the ground
    sector: float  # width of a sector, across / ahead


def _follow(lowest: np.ndarray, camera_height_m: float, steps: _Steps) -> np.ndarray:
    """Return the surface (sectors, stretches) through ``lowest`` (+Inf = none)."""
    profile = np.empty_like(lowest)
    level = np.full(len(lowest), -camera_height_m, np.float32)
    sectors = np.arange(len(lowest), dtype=np.float32)
    distance = _FIRST_M
    since = np.full(len(lowest), distance, np.float32)  # metres since the last known ground
    for index in range(lowest.shape[1]):
        here = lowest[:, index]
        limit = np.minimum(since * np.float32(steps.max_slope), np.float32(steps.most_m))
        known = np.isfinite(here)
        level = np.where(known, np.clip(here, level - limit, level + limit), level)
        # nor does it rise faster from one sector to the next: a car beside the road is no hill
        rise = sectors * np.float32(steps.sector * distance * steps.max_slope)
        level = np.minimum.accumulate(level - rise) + rise
        level = (np.minimum.accumulate((level + rise)[::-1]) - rise[::-1])[::-1]
        profile[:, index] = level
        length = distance * (_GROWTH - 1)
        since = np.where(known, np.float32(length), since + np.float32(length))
        distance += length
    return profile
