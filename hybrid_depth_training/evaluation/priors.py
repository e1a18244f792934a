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
"""What depth can be had without looking at the image: the bars that a model must clear."""
from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hybrid_depth.camera import CameraModel
from hybrid_depth_training.data import DepthSample, load

_GRID = (24, 80)  # cells over the rays of a street camera, rows and columns
_RAY_SPAN = (0.35, 0.9)  # largest |y/z| and |x/z| the grid covers
_REAL = ('drive', 'kitti_odometry', 'sevenscenes')  # datasets of the real world


def flat_ground(camera: CameraModel, camera_height_m: float, max_m: float = 80.0) -> np.ndarray:
    """
    Depth of an endless flat road under a level camera.

    Returns (H, W) float32 metres along +Z: ``camera_height_m`` / ray_y below the horizon,
    ``max_m`` above.
    """
    ray_y = camera.rays()[..., 1]
    depth = np.full(ray_y.shape, max_m, np.float32)
    below = ray_y > camera_height_m / max_m
    depth[below] = camera_height_m / ray_y[below]
    return depth


class PositionPrior:
    """Median depth of the training frames for each direction of view."""

    def __init__(self, samples: Iterable[DepthSample]) -> None:
        cells: list[list[np.ndarray]] = [[] for _ in range(_GRID[0] * _GRID[1])]
        for sample in samples:
            has_truth = np.isfinite(sample.depth_m)
            cell = _cells(sample.camera)[has_truth]
            depth = sample.depth_m[has_truth]
            order = np.argsort(cell, kind='stable')
            starts = np.searchsorted(cell[order], np.arange(len(cells) + 1))
            for index in np.flatnonzero(np.diff(starts)):
                part = depth[order[starts[index]:starts[index + 1]]]
                cells[index].append(part[:: max(1, len(part) // 50)])
        medians = np.array([np.median(np.concatenate(parts)) if parts else np.nan
                            for parts in cells])
        self._depth_m = _fill(medians.reshape(_GRID))

    def depth(self, camera: CameraModel) -> np.ndarray:
        """Return (H, W) float32 metres for every pixel of ``camera``."""
        return self._depth_m.reshape(-1)[_cells(camera)].astype(np.float32)


def real_sources(config_path: Path) -> list[dict[str, Any]]:
    """Return the entries of a training configuration that are recordings of the real world."""
    return [source for source in yaml.safe_load(config_path.read_text())['sources']
            if source['dataset'] in _REAL]


def position_prior(config_path: Path, group: str) -> PositionPrior:
    """
    Make the prior of the real frames that a training configuration learns from.

    Sources of ``group`` only, without what they hold out.
    """
    from hybrid_depth_training.views import split  # torch, which the rest does without
    return PositionPrior(
        recording[index] for source in real_sources(config_path) if source['group'] == group
        for recording, index in split(
            load(source['dataset'], source['path'], **source.get('options', {})),
            source.get('hold_out', 0.1))[0])


def _cells(camera: CameraModel) -> np.ndarray:
    """Return the grid cell of every pixel, (H, W) int."""
    rays = camera.rays()
    index = np.zeros(rays.shape[:2], int)
    for axis, (count, span) in ((1, (_GRID[0], _RAY_SPAN[0])), (0, (_GRID[1], _RAY_SPAN[1]))):
        cell = ((rays[..., axis] / span + 1) / 2 * count).astype(int)
        index = index * count + np.clip(cell, 0, count - 1)
    return index


def _fill(grid: np.ndarray) -> np.ndarray:
    """Give empty cells the value of the nearest row below that has one, else above."""
    filled = grid.copy()
    for row in range(len(grid) - 2, -1, -1):
        filled[row] = np.where(np.isnan(filled[row]), filled[row + 1], filled[row])
    for row in range(1, len(grid)):
        filled[row] = np.where(np.isnan(filled[row]), filled[row - 1], filled[row])
    return np.where(np.isnan(filled), np.nanmedian(grid), filled)
