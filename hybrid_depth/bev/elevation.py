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
"""Height of the surface in each cell, with its variance: one Kalman filter a cell."""
from __future__ import annotations

import numpy as np

from hybrid_depth.bev.config import BevConfig
from hybrid_depth.bev.occupancy import cells_of
from hybrid_depth.bev.view import View
from hybrid_depth.bev.window import Window

LAYERS = ('elevation', 'variance', 'elevation_max', 'n_points')
_LEAST_VARIANCE = 0.01 ** 2  # m^2 of one frame: below the size of what a cell rounds off
_GROWTH_PER_S = 0.02 ** 2  # m^2 per second: odometry drifts
_FALL = 0.3  # share by which the highest point sinks to a lower one seen now


class Elevation:
    """
    Layers over a window, each (cells, cells) float32.

    elevation: metres, z of the map; variance: m^2; elevation_max: metres, of the highest point;
    n_points: how many points a frame have told, summed over frames. NaN (n_points: 0) = never
    seen. Only points up to ``max_height_m`` over the local ground count: a bridge is not ground.
    """

    def __init__(self, window: Window) -> None:
        self.window = window
        shape = (window.cells, window.cells)
        self.layers = {name: np.full(shape, _empty(name), np.float32) for name in LAYERS}

    def move(self, window: Window) -> None:
        """Follow the robot: whole cells enter, empty, and leave."""
        self.layers = {name: self.window.moved(layer, window, _empty(name))
                       for name, layer in self.layers.items()}
        self.window = window

    def update(self, view: View, ground: np.ndarray, elapsed_s: float,
               config: BevConfig) -> None:
        """Add what ``view`` shows over ``ground`` (N,), ``elapsed_s`` after the one before."""
        cell = cells_of(view, self.window)
        with np.errstate(invalid='ignore'):
            # what moves by itself is no ground, but ground may look as if it moved
            highest = np.where(view.is_moving, np.float32(config.min_height_m),
                               np.float32(config.max_height_m))
            use = np.flatnonzero((cell >= 0) & (view.ahead <= config.max_range_m) & ~view.is_edge
                                 & (view.z - ground <= highest))
        cell, z = cell[use], view.z[use].astype(np.float64)
        if not len(cell):
            return
        own = np.square(view.sigma_z[use]) + _LEAST_VARIANCE
        # cells that this frame sees, without gaps: the arrays below are as long as there are any
        size = self.window.cells ** 2
        count = np.bincount(cell, minlength=size)
        seen = np.flatnonzero(count)
        slot = np.zeros(size, np.int32)
        slot[seen] = np.arange(len(seen), dtype=np.int32)
        slot = slot[cell]
        n = count[seen]
        weight = np.bincount(slot, 1 / own)
        mean = np.bincount(slot, z / own) / weight
        spread = np.bincount(slot, np.square(z - mean[slot]) / own) / weight
        top = np.full(len(seen), -np.inf)
        np.maximum.at(top, slot, z)
        # the errors of a frame's points go together: more points do not make it surer
        self._fuse(seen, mean + view.position[2], n / weight + spread,
                   top + view.position[2], n, elapsed_s)

    def _fuse(self, seen: np.ndarray, mean: np.ndarray, variance: np.ndarray,
              highest: np.ndarray, n: np.ndarray, elapsed_s: float) -> None:
        """Fuse one frame's cells ``seen``, all (M,) like the rest."""
        flat = {name: layer.reshape(-1) for name, layer in self.layers.items()}
        flat['variance'] += np.float32(_GROWTH_PER_S * max(elapsed_s, 0.0))
        is_new = np.isnan(flat['elevation'][seen])
        before = np.where(is_new, mean, flat['elevation'][seen])
        prior = np.where(is_new, np.inf, flat['variance'][seen])
        with np.errstate(invalid='ignore'):
            gain = np.where(is_new, 1.0, prior / (prior + variance))
        flat['elevation'][seen] = before + gain * (mean - before)
        flat['variance'][seen] = gain * variance  # = prior * variance / (prior + variance)
        top = np.where(is_new, highest, flat['elevation_max'][seen])
        flat['elevation_max'][seen] = np.where(highest >= top, highest,
                                               top + _FALL * (highest - top))
        flat['n_points'][seen] += n


def _empty(layer: str) -> float:
    return 0.0 if layer == 'n_points' else float('nan')
