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
"""Settings of the bird's-eye maps."""
from __future__ import annotations

from dataclasses import dataclass

from hybrid_depth.errors import ConfigError

MAX_CELLS = 2000  # of one side: 4 million cells, 16 MB a layer


@dataclass(frozen=True)
class BevConfig:
    """What the maps hold and how they forget. Raises ConfigError on values that do not fit."""

    resolution_m: float = 0.2  # side of a cell
    size_m: float = 60.0  # side of the square window, which moves with the camera
    max_range_m: float = 30.0  # nothing farther ahead is entered or cleared
    min_height_m: float = 0.3  # over the local ground; lower is ground
    max_height_m: float = 2.0  # over the local ground; higher does not stand in the way
    max_slope: float = 0.15  # rise / run up to which the ground is followed
    sigma_half_m: float = 2.0  # a point this unsure counts half
    decay_s: float = 10.0  # time constant of forgetting what is out of view; 0 = never
    show_moving: bool = True  # mark moving things where they are now, though nothing remembers

    def __post_init__(self) -> None:
        def check(ok: bool, key: str, expected: str) -> None:
            if not ok:
                raise ConfigError(f'bev.{key} is {getattr(self, key)!r}; expected {expected}')
        check(0.01 <= self.resolution_m <= 5.0, 'resolution_m', '0.01 to 5 m')
        check(1.0 <= self.size_m <= 1000.0, 'size_m', '1 to 1000 m')
        check(2 <= self.cells <= MAX_CELLS, 'size_m', f'2 to {MAX_CELLS} times bev.resolution_m '
              f'({self.resolution_m})')
        check(0.5 <= self.max_range_m <= 1000.0, 'max_range_m', '0.5 to 1000 m')
        check(0.0 < self.min_height_m < self.max_height_m, 'min_height_m',
              f'above 0 and below bev.max_height_m ({self.max_height_m})')
        check(self.max_height_m <= 100.0, 'max_height_m', 'at most 100 m')
        check(0.0 <= self.max_slope <= 2.0, 'max_slope', '0 to 2')
        check(0.001 <= self.sigma_half_m <= 1000.0, 'sigma_half_m', '0.001 to 1000 m')
        check(0.0 <= self.decay_s <= 86400.0, 'decay_s', '0 (never) to 86400 s')

    @property
    def cells(self) -> int:
        """Cells along one side."""
        return round(self.size_m / self.resolution_m)
