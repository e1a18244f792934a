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
from __future__ import annotations

import numpy as np
import pytest

from hybrid_depth.colour import depth_to_rgb, FAR_RGB, INVALID_RGB
from hybrid_depth.errors import ConfigError


def colours(*values: float) -> list[tuple[int, ...]]:
    rgb = depth_to_rgb(np.array([values], np.float32), 1.0, 80.0)
    assert rgb.shape == (1, len(values), 3)
    assert rgb.dtype == np.uint8
    return [tuple(int(c) for c in pixel) for pixel in rgb[0]]


def test_near_is_red_and_far_is_blue() -> None:
    near, far = colours(1.3, 55.0)
    assert near[0] > near[2]
    assert far[2] > far[0]


def test_no_depth_has_colours_that_the_map_has_not() -> None:
    invalid, beyond = colours(np.nan, np.inf)
    assert (invalid, beyond) == (INVALID_RGB, FAR_RGB)
    ramp = colours(*np.geomspace(1, 80, 2000))
    assert len(set(ramp)) > 250
    assert not {INVALID_RGB, FAR_RGB} & set(ramp)


def test_outside_the_range_the_end_colours_continue() -> None:
    assert colours(0.2, -np.inf) == colours(1.0, 1.0)
    assert colours(500.0) == colours(80.0)


def test_equal_factors_are_equal_steps() -> None:
    # the middle of the map is the geometric mean of the range
    middle = colours(np.sqrt(80.0))[0]
    whole = colours(*np.geomspace(80, 1, 256))
    assert middle in whole[126:130]


@pytest.mark.parametrize(('low', 'high'), [(0.0, 10.0), (5.0, 5.0), (1.0, np.inf),
                                           (np.nan, 5.0)])
def test_a_range_that_is_none(low: float, high: float) -> None:
    with pytest.raises(ConfigError):
        depth_to_rgb(np.ones((2, 2), np.float32), low, high)
