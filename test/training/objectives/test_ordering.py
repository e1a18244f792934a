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
"""Ladders rise, lie on truth, and follow the rules of the lane task."""
import numpy as np
from planes import plane_depth
import pytest

from hybrid_depth.camera import CameraModel
from hybrid_depth.errors import ConfigError
from hybrid_depth_training.objectives.ordering import (
    depth_ladders,
    ground_depth,
    lane_ladders,
    lane_map,
)

CAMERA = CameraModel(160, 96, 120.0, 120.0, 80.0, 40.0)
# a lane as TuSimple annotates it: from the top, -2 where it is not there
ROWS = np.arange(160, 720, 10)


def lane(first: int, count: int, start: float = 600.0) -> np.ndarray:
    """Return a TuSimple lane of ``count`` points whose topmost is at row 160 + 10 * first."""
    u = np.full(len(ROWS), -2.0)
    u[first:first + count] = start - 3.0 * np.arange(count)
    return np.stack([u, ROWS], axis=1)


def ladder_depths(depth_m: np.ndarray, ladders: np.ndarray) -> np.ndarray:
    u, v = ladders.astype(int).transpose(2, 0, 1)
    return depth_m[v, u]


@pytest.mark.parametrize('along', ['anywhere', 'columns'])
@pytest.mark.parametrize('share', [1.0, 0.1])
def test_ladders_rise_by_the_gap_and_lie_on_truth(along, share):
    rng = np.random.default_rng(0)
    depth = np.exp(rng.uniform(0, 4, (96, 160))).astype(np.float32)
    depth[rng.random(depth.shape) > share] = np.nan
    depth[:10] = np.inf
    ladders = depth_ladders(depth, 20, rng, along, min_log_gap=0.1)
    assert ladders.shape == (20, 7, 2)
    values = ladder_depths(depth, ladders)
    assert np.isfinite(values).all()
    assert (np.diff(np.log(values), axis=1) >= 0.1).all()
    width = np.ptp(ladders[..., 0], axis=1)
    assert (width <= 4).all() if along == 'columns' else (width > 4).all()


def test_no_ladder_where_depth_does_not_vary():
    rng = np.random.default_rng(0)
    depth = plane_depth(CAMERA, (0.0, 0.0, 1.0), 5.0).astype(np.float32)
    assert depth_ladders(depth, 3, rng).shape == (0, 7, 2)
    assert depth_ladders(np.full((8, 8), np.nan), 3, rng).shape == (0, 7, 2)


def test_ladders_depend_on_the_random_state_only():
    depth = np.geomspace(1, 50, 96)[:, None].repeat(20, axis=1)
    first, again, other = (depth_ladders(depth, 2, np.random.default_rng(seed))
                           for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_unknown_axis_is_named():
    with pytest.raises(ConfigError, match='rows'):
        depth_ladders(np.ones((4, 4)), 1, np.random.default_rng(0), 'rows')


@pytest.mark.parametrize('pitch', [0.0, 0.1])
def test_ground_is_the_plane_of_gravity_and_height(pitch):
    down = (0.0, np.cos(pitch), np.sin(pitch))
    depth = ground_depth(CAMERA.K, 96, 160, 1.5, down)
    expected = plane_depth(CAMERA, down, 1.5)
    seen = np.isfinite(depth)
    np.testing.assert_allclose(depth[seen], expected[seen], rtol=1e-5)
    horizon = CAMERA.cy - CAMERA.fy * np.tan(pitch)  # rows above it never meet the ground
    assert not seen[:int(horizon) + 1].any()
    assert seen[-1].all()
    ladders = depth_ladders(depth, 5, np.random.default_rng(0), 'columns')
    assert len(ladders) == 5
    # up the image = farther
    assert (np.diff(ladders[..., 1], axis=1) < 0).all()


def test_lane_points_follow_the_interval_rule():
    # 20 points: interval (20 - 1) // 6 = 3, so the points 0, 3, ..., 18 of the annotation
    (literal,) = lane_ladders(lane_map([lane(10, 20)], 720, 1280), 'literal')
    np.testing.assert_array_equal(literal[:, 1], 260 + 30 * np.arange(7))
    np.testing.assert_array_equal(literal[:, 0], 600 - 9 * np.arange(7))
    # the nearest is the lowest in the image, and comes first
    (near_first,) = lane_ladders(lane_map([lane(10, 20)], 720, 1280))
    np.testing.assert_array_equal(near_first, literal[::-1])


@pytest.mark.parametrize(('count', 'interval'), [(7, 1), (12, 1), (13, 2), (56, 9)])
def test_interval_is_an_integer_division(count, interval):
    (ladder,) = lane_ladders(lane_map([lane(0, count)], 720, 1280), 'literal')
    assert (np.diff(ladder[:, 1]) == 10 * interval).all()
    assert ladder[0, 1] == 160


def test_lanes_of_fewer_than_seven_points_are_dropped():
    lanes = [lane(5, 6), lane(0, 10, start=630.0), np.zeros((0, 2))]
    ladders = lane_ladders(lane_map(lanes, 720, 1280))
    assert len(ladders) == 1
    assert ladders[0, -1, 0] == 630


def test_seven_are_chosen_among_what_a_crop_leaves():
    marks = lane_map([lane(0, 21)], 720, 1280)
    marks[:300] = np.nan  # the far 14 of 21 points are cut off
    (ladder,) = lane_ladders(marks)
    np.testing.assert_array_equal(ladder[:, 1], 360 - 10 * np.arange(7))


def test_lanes_travel_through_a_moved_sample():
    pytest.importorskip('cv2')
    from hybrid_depth_training.augment import AugmentConfig, make_view
    from hybrid_depth_training.data import DepthSample
    camera = CameraModel(1280, 720, 1000.0, 1000.0, 640.0, 360.0)
    sample = DepthSample('lane', np.zeros((720, 1280, 3), np.uint8), camera,
                         lane_map([lane(5, 50), lane(5, 50, start=900.0)], 720, 1280), True)
    view = make_view(sample, (224, 384), AugmentConfig(zoom=1.3, roll_deg=2, flip=1.0),
                     np.random.default_rng(3))
    ladders = lane_ladders(view.depth_m)
    assert len(ladders) >= 1
    for ladder in ladders:
        assert (np.diff(ladder[:, 1]) < 0).all()
        assert (np.diff(ladder[:, 0]) < 0).all()  # mirrored: without the flip it rises


def test_unknown_order_is_named():
    with pytest.raises(ConfigError, match='far_first'):
        lane_ladders(np.full((4, 4), np.nan), 'far_first')
