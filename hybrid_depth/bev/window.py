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
"""The square window that the maps share: where its cells are, and how it follows the robot."""
from __future__ import annotations

from dataclasses import dataclass
import math

import numpy as np


@dataclass(frozen=True)
class Window:
    """
    A square of whole cells in the map frame.

    Arrays over it are (cells, cells), indexed [row, column]: columns grow with x, rows with y, and
    [0, 0] is the cell with the least x and y. The cell of a place is floor(place / resolution) in
    every window, so a cell that stays in view keeps its content exactly.
    """

    resolution_m: float
    cells: int  # of one side
    column: int  # of the map's cell at [0, 0]: it begins at x = column * resolution_m
    row: int

    @classmethod
    def around(cls, x: float, y: float, resolution_m: float, cells: int) -> Window:
        """Return the window whose middle cell holds (x, y), metres."""
        return cls(resolution_m, cells, math.floor(x / resolution_m) - cells // 2,
                   math.floor(y / resolution_m) - cells // 2)

    @property
    def origin(self) -> tuple[float, float]:
        """Outer corner of cell [0, 0]: x and y, metres."""
        return self.column * self.resolution_m, self.row * self.resolution_m

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of the window: x and y, metres."""
        half = self.cells * self.resolution_m / 2
        return self.origin[0] + half, self.origin[1] + half

    def moved(self, layer: np.ndarray, new: Window, fill: float) -> np.ndarray:
        """Return ``layer`` of this window as one of ``new``; cells that were not in it: fill."""
        down, right = new.row - self.row, new.column - self.column
        if down == right == 0:
            return layer
        result = np.full_like(layer, fill)
        n = self.cells
        if abs(down) < n and abs(right) < n:
            result[max(0, -down):n - max(0, down), max(0, -right):n - max(0, right)] = \
                layer[max(0, down):n - max(0, -down), max(0, right):n - max(0, -right)]
        return result
