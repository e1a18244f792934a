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
"""The window moves in whole cells, and a cell that stays keeps its content."""
from __future__ import annotations

import numpy as np
import pytest

from hybrid_depth.bev import BevConfig, Window
from hybrid_depth.errors import ConfigError


def test_middle_cell_holds_the_camera() -> None:
    window = Window.around(1.1, -0.1, 0.5, 5)
    assert (window.column, window.row) == (0, -3)
    assert window.origin == (0.0, -1.5)
    assert window.centre == (1.25, -0.25)


@pytest.mark.parametrize(('x', 'same'), [(0.0, True), (0.499, True), (0.5, False),
                                         (-0.001, False)])
def test_fractions_of_a_cell_do_not_move_it(x: float, same: bool) -> None:
    assert (Window.around(x, 0.0, 0.5, 6) == Window.around(0.0, 0.0, 0.5, 6)) is same


@pytest.mark.parametrize(('right', 'up'), [(1, 0), (0, 1), (-2, 3), (3, -1), (-4, -4), (7, 0)])
def test_content_stays_in_its_place(right: int, up: int) -> None:
    n = 5
    old, new = Window(0.5, n, 10, -20), Window(0.5, n, 10 + right, -20 + up)
    layer = np.arange(n * n, dtype=np.float32).reshape(n, n)
    moved = old.moved(layer, new, -1.0)
    for row in range(n):
        for column in range(n):
            before = (row + up, column + right)
            expected = layer[before] if min(before) >= 0 and max(before) < n else -1
            assert moved[row, column] == expected


@pytest.mark.parametrize(('change', 'word'), [
    ({'resolution_m': 0.0}, 'resolution_m'), ({'size_m': 1000.0, 'resolution_m': 0.05}, 'size_m'),
    ({'min_height_m': 3.0}, 'min_height_m'), ({'decay_s': float('nan')}, 'decay_s'),
    ({'max_range_m': -1.0}, 'max_range_m'), ({'sigma_half_m': 0.0}, 'sigma_half_m'),
])
def test_settings_that_do_not_fit(change: dict[str, float], word: str) -> None:
    with pytest.raises(ConfigError, match=f'bev.{word}'):
        BevConfig(**change)
