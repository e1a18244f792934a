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
"""Heights of exact and of noisy scenes."""
from __future__ import annotations

import math

import numpy as np
import pytest
from tiny_world import CAMERA, pose_at, result_of, seen, world_depth

from hybrid_depth.bev import BevConfig, BevMaps
from hybrid_depth.bev.elevation import Elevation
from hybrid_depth.types import Evidence

CELL = 0.5
CONFIG = BevConfig(resolution_m=CELL, size_m=30.0, max_range_m=14.0)
TABLE = (6.1, 7.4, 1.1, 2.4, 0.0, 0.8)


def at(elevation: Elevation, layer: str, x: float, y: float) -> float:
    x0, y0 = elevation.window.origin
    return float(elevation.layers[layer][math.floor((y - y0) / CELL),
                                         math.floor((x - x0) / CELL)])


@pytest.mark.parametrize('floor_z', [0.0, 7.25])
def test_ground_and_table_have_their_heights(floor_z: float) -> None:
    maps = BevMaps(CONFIG)
    pose = pose_at()
    result = seen(pose, [TABLE])
    pose[2, 3] += floor_z  # the same scene where the ground is not at zero
    maps.show(result, pose)
    elevation = maps.elevation()
    assert at(elevation, 'elevation', 4.2, -0.3) == pytest.approx(floor_z, abs=0.01)
    assert at(elevation, 'elevation_max', 6.7, 1.7) == pytest.approx(floor_z + 0.8, abs=0.01)
    assert at(elevation, 'n_points', 6.7, 1.7) >= 3
    assert math.isnan(at(elevation, 'elevation', 11.0, 3.2))  # hidden
    assert at(elevation, 'n_points', 11.0, 3.2) == 0
    # a face has all heights in one cell, and its variance says so
    assert at(elevation, 'variance', 6.2, 1.7) > 20 * at(elevation, 'variance', 4.2, -0.3)


def test_variance_is_what_the_noise_leaves() -> None:
    rng = np.random.default_rng(3)
    maps = BevMaps(CONFIG)
    pose = pose_at()
    exact = world_depth(pose)
    errors, variances = [], []
    for index in range(20):
        # of one frame all points err alike, as a scale does
        depth = (exact * (1 + rng.normal(0, 0.05))).astype(np.float32)
        result = result_of(depth, stamp_ns=10**9 + index * 10**8)
        result.sigma_m[:] = 0.05 * depth
        maps.show(result, pose, camera_height_m=1.5)
        elevation = maps.elevation()
        errors.append(abs(at(elevation, 'elevation', 5.2, 0.2)))
        variances.append(at(elevation, 'variance', 5.2, 0.2))
    assert variances[-1] < variances[0] / 4
    assert errors[-1] < 3 * math.sqrt(variances[-1]) + 0.03


def test_bridges_and_moving_things_are_no_surface() -> None:
    pose = pose_at()
    maps = BevMaps(CONFIG)
    maps.show(seen(pose, [(6.1, 7.4, -1.0, 1.0, 2.5, 3.0)]), pose)
    assert at(maps.elevation(), 'elevation_max', 6.7, 0.2) < 0.1
    evidence = np.full((CAMERA.height, CAMERA.width), Evidence.MOVING, np.uint8)
    maps = BevMaps(CONFIG)
    maps.show(seen(pose, [TABLE], evidence=evidence), pose)
    assert math.isnan(at(maps.elevation(), 'elevation', 6.7, 1.7))
    assert at(maps.elevation(), 'elevation', 4.2, -0.3) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize('step', [CELL, 0.21])
def test_heights_stay_where_they_are_as_the_robot_moves(step: float) -> None:
    maps = BevMaps(CONFIG)
    for index in range(8):
        pose = pose_at(x=step * index)
        maps.show(seen(pose, [TABLE], stamp_ns=10**9 + index * 10**8), pose)
        elevation = maps.elevation()
    assert at(elevation, 'elevation_max', 6.7, 1.7) == pytest.approx(0.8, abs=0.02)
    assert at(elevation, 'elevation_max', 5.7, 1.7) == pytest.approx(0.0, abs=0.02)


def test_what_was_put_away_sinks_again() -> None:
    pose = pose_at()
    maps = BevMaps(CONFIG)
    for index in range(12):
        maps.show(seen(pose, [TABLE] if index == 0 else [], stamp_ns=10**9 + index * 10**8), pose)
        elevation = maps.elevation()
    assert at(elevation, 'elevation_max', 6.7, 1.7) < 0.05
