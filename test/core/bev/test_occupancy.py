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
"""Free, occupied and unknown cells of exact scenes."""
from __future__ import annotations

from dataclasses import replace
import math

import numpy as np
from planes import CAMERAS
import pytest
from tiny_world import Box, CAMERA, pose_at, result_of, seen, world_depth

from hybrid_depth.bev import BevConfig, BevMaps
from hybrid_depth.bev.occupancy import OCCUPIED, UNKNOWN
from hybrid_depth.bev.view import look
from hybrid_depth.camera import CameraModel
from hybrid_depth.types import Evidence

CELL = 0.5
CONFIG = BevConfig(resolution_m=CELL, size_m=30.0, max_range_m=14.0, decay_s=0.0)
# front face at x = 6.1, in the cells of x 6.0 to 6.5, y 1.0 to 2.5: left, and one cell off any
# symmetry
BOX: Box = (6.1, 7.4, 1.1, 2.4, 0.0, 1.6)  # higher than the camera, which thus sees no top
MS = 1_000_000


class Grid:
    """Values by place."""

    def __init__(self, maps: BevMaps) -> None:
        occupancy = maps.occupancy()
        self.values = occupancy.values(maps.config)
        self.window = occupancy.window

    def at(self, x: float, y: float) -> int:
        x0, y0 = self.window.origin
        return int(self.values[math.floor((y - y0) / CELL), math.floor((x - x0) / CELL)])

    def occupied(self) -> set[tuple[float, float]]:
        """Return the lower corners of occupied cells."""
        rows, columns = np.nonzero(self.values > 65)
        x0, y0 = self.window.origin
        return {(x0 + column * CELL, y0 + row * CELL)
                for row, column in zip(rows.tolist(), columns.tolist(), strict=True)}


def grid_of(*boxes: Box, pose: np.ndarray | None = None, frames: int = 4,
            config: BevConfig = CONFIG, **more: float) -> Grid:
    pose = pose_at() if pose is None else pose
    maps = BevMaps(config)
    for index in range(frames):
        maps.show(seen(pose, boxes, stamp_ns=10**9 + 100 * MS * index, **more), pose)
        grid = Grid(maps)
    return grid


FACE = {(6.0, 1.0), (6.0, 1.5), (6.0, 2.0)}
# the side that faces the middle of the picture
SIDE = {(6.5, 1.0), (7.0, 1.0)}


def test_the_face_of_a_box_is_occupied_to_the_cell() -> None:
    occupied = grid_of(BOX).occupied()
    assert occupied >= FACE
    assert occupied <= FACE | SIDE


def test_left_is_more_y_in_more_rows() -> None:
    grid = grid_of(BOX)
    rows, _ = np.nonzero(grid.values > 65)
    assert rows.min() > 30 == grid.values.shape[0] // 2
    mirrored = grid_of((6.1, 7.4, -2.4, -1.1, 0.0, 1.2))
    assert (np.nonzero(mirrored.values > 65)[0] < 30).all()


def test_ground_before_it_is_free_and_what_is_behind_unknown() -> None:
    grid = grid_of(BOX)
    for x, y in ((3.0, 0.0), (5.0, 1.5), (5.5, 1.7), (9.0, -1.0), (10.0, 0.2)):
        assert 0 <= grid.at(x, y) < 20
    for x, y in ((9.0, 2.3), (11.0, 3.2), (13.5, 4.0), (8.0, 2.2)):
        assert grid.at(x, y) == UNKNOWN


def test_nothing_is_said_of_what_is_not_in_view() -> None:
    grid = grid_of(BOX)
    assert grid.at(0.7, 0.0) == UNKNOWN  # below the picture
    assert grid.at(-3.0, 0.0) == UNKNOWN
    assert grid.at(2.0, 5.0) == UNKNOWN  # beside it
    assert grid.at(14.8, 0.0) == UNKNOWN  # beyond max_range_m


@pytest.mark.parametrize('yaw', [0.0, 0.5, math.pi / 2, 2.5, -2.0])
def test_the_map_turns_neither_with_the_camera_nor_with_its_pitch(yaw: float) -> None:
    pole = (6.0 * math.cos(yaw), 6.0 * math.sin(yaw))
    box: Box = (pole[0] - 0.3, pole[0] + 0.3, pole[1] - 0.3, pole[1] + 0.3, 0.0, 1.5)
    occupied = grid_of(box, pose=pose_at(yaw=yaw, pitch=0.15)).occupied()
    assert occupied
    for x, y in occupied:
        assert box[0] - CELL < x < box[1]
        assert box[2] - CELL < y < box[3]


@pytest.mark.parametrize('step', [CELL, 0.13, -0.37])
def test_motion_in_whole_and_fractional_cells(step: float) -> None:
    maps = BevMaps(CONFIG)
    for index in range(6):
        pose = pose_at(x=index * step, y=-0.4 * index * step)
        maps.show(seen(pose, [BOX], stamp_ns=10**9 + 100 * MS * index), pose)
        grid = Grid(maps)
    assert FACE <= grid.occupied() <= FACE | SIDE
    window = grid.window
    assert window.origin[0] / CELL == round(window.origin[0] / CELL)


def test_places_that_leave_the_window_are_forgotten() -> None:
    maps = BevMaps(CONFIG)
    for index, x in enumerate((0.0, 0.0, 0.0, 40.0, 0.0)):
        pose = pose_at(x=x, yaw=0.0 if index < 4 else math.pi)
        maps.show(seen(pose, [BOX], stamp_ns=10**9 + index), pose)
        grid = Grid(maps)
    assert not grid.occupied()


@pytest.mark.parametrize(('z0', 'z1', 'is_obstacle'), [
    (0.0, 0.2, False), (0.0, 0.5, True), (2.2, 3.0, False), (1.7, 3.0, True)])
def test_obstacles_are_told_by_their_height(z0: float, z1: float, is_obstacle: bool) -> None:
    # far enough that all of it is in view
    assert bool(grid_of((6.1, 7.4, -1.4, 1.4, z0, z1)).occupied()) is is_obstacle


def test_a_slope_is_ground_and_what_stands_on_it_is_not() -> None:
    config = replace(CONFIG, max_slope=0.15)
    tilt = math.atan(0.1)  # the world of a robot that drives level towards a hill of 10 %
    up = pose_at(pitch=tilt)
    bare = result_of(world_depth(up, []))
    maps = BevMaps(config)
    level = pose_at()  # the map's z is not the hill's
    for index in range(4):
        maps.show(replace(bare, stamp_ns=10**9 + index), level)
        grid = Grid(maps)
    assert not grid.occupied()
    assert 0 <= grid.at(8.0, 0.0) < 20


def test_unsure_points_count_little() -> None:
    sure, unsure = (grid_of(BOX, frames=1, sigma=sigma) for sigma in (0.001, 4.0))
    assert sure.at(6.2, 1.7) > 65
    assert unsure.at(6.2, 1.7) < 60
    assert sure.at(3.5, 0.0) < 40
    assert unsure.at(3.5, 0.0) == UNKNOWN  # free, but too little to say so


def test_log_odds_are_clamped_so_that_the_map_can_change_its_mind() -> None:
    maps = BevMaps(CONFIG)
    for index in range(22):
        boxes = [BOX] if index < 12 else []
        maps.show(seen(pose_at(), boxes, stamp_ns=10**9 + index), pose_at())
        grid = Grid(maps)
        if index == 11:
            assert grid.at(6.2, 1.7) == OCCUPIED
    assert grid.at(6.2, 1.7) < 50


def test_moving_things_are_where_they_are_now_and_nowhere_else() -> None:
    evidence = np.full((CAMERA.height, CAMERA.width), Evidence.MOVING, np.uint8)
    maps = BevMaps(CONFIG)
    pose = pose_at()
    for index in range(5):
        shift = 1.0 * index
        box: Box = (6.1, 7.4, 1.1 - shift, 2.4 - shift, 0.0, 1.2)
        maps.show(seen(pose, [box], stamp_ns=10**9 + index, evidence=evidence), pose)
        grid = Grid(maps)
    assert grid.at(6.2, -2.2) == OCCUPIED  # 1.7 - 4
    assert not any(y > -1.0 for _, y in grid.occupied())
    maps.configure(replace(CONFIG, show_moving=False))
    assert not Grid(maps).occupied()


def test_what_one_camera_sees_move_stays_until_it_looks_again_or_is_lost() -> None:
    evidence = np.full((CAMERA.height, CAMERA.width), Evidence.MOVING, np.uint8)
    maps = BevMaps(CONFIG)
    back = pose_at(x=-0.7, yaw=math.pi)  # which moves the window by two cells
    maps.show(seen(pose_at(), [BOX], evidence=evidence, frame_id='front'), pose_at())
    assert Grid(maps).at(6.2, 1.7) == OCCUPIED
    for ms, is_there in ((50, True), (900, False)):
        maps.show(seen(back, stamp_ns=10**9 + ms * MS, frame_id='back'), back)
        assert (Grid(maps).at(6.2, 1.7) == OCCUPIED) is is_there
    maps.show(seen(pose_at(), [BOX], evidence=evidence, stamp_ns=2 * 10**9, frame_id='front'),
              pose_at())
    maps.show(seen(pose_at(), [], evidence=evidence, stamp_ns=2 * 10**9, frame_id='front'),
              pose_at())
    assert Grid(maps).at(6.2, 1.7) != OCCUPIED


def test_moving_things_still_hide_what_is_behind() -> None:
    evidence = np.full((CAMERA.height, CAMERA.width), Evidence.MOVING, np.uint8)
    maps = BevMaps(CONFIG)
    maps.show(seen(pose_at(), [BOX], evidence=evidence), pose_at())
    assert Grid(maps).at(9.0, 2.3) == UNKNOWN


def test_rays_that_meet_nothing_clear_up_to_the_largest_range() -> None:
    low = 0.25  # a small robot: its level rays are lower than the lowest obstacle
    pose = pose_at(z=low)
    depth = world_depth(pose)
    depth[np.isfinite(depth) & (depth > 5.0)] = np.nan  # dark floor: no measurement
    maps = BevMaps(CONFIG)
    for index in range(3):
        maps.show(result_of(depth, stamp_ns=10**9 + index), pose, camera_height_m=low)
        grid = Grid(maps)
    assert 0 <= grid.at(11.0, 0.0) < 20
    assert grid.at(14.8, 0.0) == UNKNOWN


def test_the_sky_alone_says_nothing_of_the_ground() -> None:
    depth = np.full((CAMERA.height, CAMERA.width), np.inf, np.float32)
    depth[CAMERA.height // 2:] = np.nan
    maps = BevMaps(CONFIG)
    maps.show(result_of(depth), pose_at(), camera_height_m=1.5)
    assert (Grid(maps).values == UNKNOWN).all()
    nothing = BevMaps(CONFIG)
    nothing.show(result_of(np.full_like(depth, np.nan)), pose_at())
    assert (Grid(nothing).values == UNKNOWN).all()


def test_a_low_obstacle_is_not_cleared_by_rays_over_it() -> None:
    kerb: Box = (6.1, 6.9, -3.0, 3.0, 0.0, 0.6)
    grid = grid_of(kerb, frames=8)
    assert grid.at(6.2, 0.0) == OCCUPIED
    assert grid.at(7.2, 0.0) == UNKNOWN  # in its shadow
    beyond = [grid.at(x, 0.0) for x in (11.7, 12.2, 12.7, 13.2, 13.7)]  # ground seen over it
    assert max(beyond) < 35
    assert max(beyond) >= 0


@pytest.mark.parametrize('decay_s', [0.0, 2.0])
def test_what_is_out_of_view_is_forgotten_in_time(decay_s: float) -> None:
    config = replace(CONFIG, decay_s=decay_s)
    maps = BevMaps(config)
    for index in range(4):
        maps.show(seen(pose_at(), [BOX], stamp_ns=10**9 + index), pose_at())
        before = Grid(maps)
    assert before.at(6.2, 1.7) > 65
    odds = maps.occupancy().log_odds.max()
    away = pose_at(yaw=math.pi)
    maps.show(seen(away, stamp_ns=3 * 10**9), away)
    assert maps.occupancy().log_odds.max() == pytest.approx(
        odds * (math.exp(-2 / decay_s) if decay_s else 1), rel=1e-4)
    maps.show(seen(away, stamp_ns=60 * 10**9), away)
    assert Grid(maps).at(6.2, 1.7) == (UNKNOWN if decay_s else before.at(6.2, 1.7))


def test_asking_twice_enters_a_frame_once() -> None:
    maps = BevMaps(CONFIG)
    maps.show(seen(pose_at(), [BOX]), pose_at())
    first = maps.occupancy().log_odds.copy()
    maps.elevation()
    np.testing.assert_array_equal(maps.occupancy().log_odds, first)


def test_other_cells_empty_the_map_and_other_heights_do_not() -> None:
    maps = BevMaps(CONFIG)
    maps.show(seen(pose_at(), [BOX]), pose_at())
    maps.occupancy()
    maps.configure(replace(CONFIG, min_height_m=0.4))
    assert (maps.occupancy().log_odds != 0).any()
    maps.configure(replace(CONFIG, size_m=20.0))
    away = pose_at(yaw=math.pi)
    maps.show(seen(away, stamp_ns=2 * 10**9), away)
    assert maps.occupancy().log_odds.shape == (40, 40)
    assert Grid(maps).at(6.2, 1.7) == UNKNOWN


@pytest.mark.parametrize('name', ['plumb_bob', 'fisheye'])
def test_distorted_cameras_see_the_same_world(name: str) -> None:
    camera = CAMERAS[name]
    maps = BevMaps(CONFIG)
    for index in range(4):
        maps.show(seen(pose_at(), [BOX], stamp_ns=10**9 + index, camera=camera), pose_at())
        grid = Grid(maps)
    assert FACE <= grid.occupied() <= FACE | SIDE
    assert 0 <= grid.at(5.2, 0.1) < 20
    assert grid.at(9.0, 2.3) == UNKNOWN


def test_two_cameras_make_one_map() -> None:
    maps = BevMaps(CONFIG)
    left: Box = (-2.4, -1.1, 6.1, 7.4, 0.0, 1.6)
    for index in range(8):
        pose = pose_at(yaw=(index % 2) * math.pi / 2, z=1.5 - 0.5 * (index % 2))
        maps.show(seen(pose, [BOX, left], stamp_ns=10**9 + index, frame_id=f'camera{index % 2}'),
                  pose)
        grid = Grid(maps)
    assert grid.occupied() >= FACE
    assert {(-1.5, 6.0), (-2.0, 6.0)} <= grid.occupied()
    assert 0 <= grid.at(0.1, 5.2) < 20


@pytest.mark.parametrize('seed', range(8))
def test_no_depth_image_breaks_the_maps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.array([np.nan, np.inf, -np.inf, 0.0, -1.0, 1e-6, 1e30, 0.5, 3.0, 10.0],
                      np.float32)
    depth = rng.choice(values, (CAMERA.height, CAMERA.width)).astype(np.float32)
    result = result_of(depth)
    result.sigma_m[:] = rng.choice(values, depth.shape)
    maps = BevMaps(CONFIG)
    pose = pose_at(*rng.normal(0, 1e5, 2), yaw=rng.uniform(-3, 3), pitch=rng.uniform(-1.6, 1.6))
    maps.show(result, pose)
    grid = Grid(maps)
    assert np.isfinite(maps.occupancy().log_odds).all()
    assert grid.values.min() >= UNKNOWN
    assert grid.values.max() <= OCCUPIED
    layers = maps.elevation().layers
    is_empty = np.isnan(layers['elevation'])
    assert (layers['n_points'][is_empty] == 0).all()
    assert (layers['variance'][~is_empty] > 0).all()


@pytest.mark.parametrize('size', [(1242, 375), (640, 192), (1080, 1920), (3840, 2160), (320, 240)])
def test_every_camera_costs_about_the_same(size: tuple[int, int]) -> None:
    width, height = size
    camera = CameraModel(width, height, width, width, width / 2, height / 2)
    view = look(result_of(np.full((height, width), 5.0, np.float32), camera=camera), pose_at())
    assert 15_000 < len(view.depth) < 80_000
