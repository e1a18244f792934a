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
"""The synthetic drive: depth, poses and pictures must agree, and repeat."""
from __future__ import annotations

import cv2
import numpy as np
import pytest

from hybrid_depth.drives import open_drive
from hybrid_depth.drives.ground import Ground
from hybrid_depth.drives.render import cast_street, render
from hybrid_depth.drives.solids import RayGrid
from hybrid_depth.drives.street import make_street
from hybrid_depth.drives.synthetic import ego_pose, render_random
from hybrid_depth.errors import DriveError

FRAMES = (0, 1, 30)


@pytest.fixture(scope='module')
def drive():
    return open_drive('synthetic:3')


@pytest.fixture(scope='module')
def frames(drive):
    return {index: drive.frame(index) for index in FRAMES}


def test_shape_of_the_drive(drive, frames):
    frame = frames[1]
    assert len(drive) == 60
    assert drive.stamps_ns[1] - drive.stamps_ns[0] == 100_000_000
    assert frame.stamp_ns == drive.stamps_ns[1]
    assert frame.image_rgb.shape == (192, 640, 3)
    assert frame.image_rgb.dtype == np.uint8
    assert frame.depth_m.shape == (192, 640)
    assert frame.depth_m.dtype == np.float32
    assert not np.isnan(frame.depth_m).any()
    assert frame.camera == drive.camera


def test_same_seed_same_pixels_in_any_order(frames):
    again = open_drive('synthetic:3').frame(30)
    assert np.array_equal(again.image_rgb, frames[30].image_rgb)
    assert np.array_equal(again.depth_m, frames[30].depth_m)


def test_another_seed_is_another_street(frames):
    other = open_drive('synthetic:4').frame(0)
    difference = np.abs(other.image_rgb.astype(int) - frames[0].image_rgb).mean()
    assert difference > 10


def test_the_road_ahead_is_the_ground_plane(drive, frames):
    """Where a ray meets the road, its point lies at height 0; on the pavement at the kerb's."""
    frame = frames[0]
    points = _world_points(frame)
    road = frame.depth_m[-4:, 300:340]
    heights = points[-4:, 300:340, 2]
    assert np.isfinite(road).all()
    assert np.abs(heights).max() < 1e-4


def test_every_finite_point_is_on_or_above_the_ground(frames):
    for frame in frames.values():
        points = _world_points(frame)
        seen = np.isfinite(frame.depth_m)
        assert points[seen][:, 2].min() > -1e-3
        assert frame.depth_m[seen].max() <= 1000.0


def test_sky_is_infinite_and_above(frames):
    for frame in frames.values():
        sky = np.isinf(frame.depth_m)
        assert not sky[-40:].any()
        assert sky.any()


def test_ground_casting_agrees_with_the_layout():
    """Each ground hit lies at 0 on the road, at kerb height beyond it, between on a kerb face."""
    street = make_street(5)
    grid = RayGrid((np.arange(320) - 160) / 150.0, (np.arange(120) - 40) / 150.0,
                   ego_pose(street, 1.0))
    hits = cast_street(street.ground, street.static, grid)
    v, u = np.nonzero((hits.solid < 0) & (hits.inverse_depth > 1 / 60))
    directions = np.stack([grid.x[u], grid.y[v], np.ones(len(u))], -1) \
        @ grid.world_T_camera[:3, :3].T
    points = grid.world_T_camera[:3, 3] + directions / hits.inverse_depth[v, u][:, None]
    raised = street.ground.is_raised(points[:, 0], points[:, 1])
    height, kerb = points[:, 2], street.ground.kerb_m
    on_road, on_pavement = np.abs(height) < 1e-9, np.abs(height - kerb) < 1e-9
    assert on_road.sum() > 1000
    assert on_pavement.sum() > 500
    assert not raised[on_road].any()
    assert raised[on_pavement].all()
    face = ~on_road & ~on_pavement
    assert face.sum() > 10
    assert ((height[face] > -1e-9) & (height[face] < kerb)).all()
    lateral = np.abs(street.ground.lateral(points[face, 0], points[face, 1]))
    edge = np.minimum(np.abs(lateral - street.ground.road_half_m),
                      np.abs(street.ground.from_crossing(points[face, 0])))
    assert edge.max() < 1e-3


def test_motion_is_that_of_a_car(drive, frames):
    moved = np.linalg.inv(frames[0].world_T_camera) @ frames[1].world_T_camera
    assert moved[2, 3] == pytest.approx(0.8, abs=0.06)
    assert np.abs(moved[:2, 3]).max() < 0.06
    R = frames[30].world_T_camera[:3, :3]
    assert np.abs(R.T @ R - np.eye(3)).max() < 1e-12
    assert np.linalg.det(R) > 0
    assert 1.5 < frames[30].world_T_camera[2, 3] < 1.8


def test_picture_warped_by_depth_and_pose_matches_the_other_picture(frames):
    """Static pixels of frame 1 fetched from frame 0 must look alike, without the pose not."""
    first, second = frames[0], frames[1]
    warped, valid = _warp(first, second)
    difference = np.abs(warped.astype(int) - second.image_rgb).mean(axis=2)
    still = np.abs(first.image_rgb.astype(int) - second.image_rgb).mean(axis=2)
    assert valid.mean() > 0.5
    assert np.median(difference[valid]) < 4
    assert difference[valid].mean() < 0.5 * still[valid].mean()


def test_depth_warped_between_frames_agrees(frames):
    """The depth that frame 1 sees of a static point is its distance computed from frame 0."""
    first, second = frames[0], frames[1]
    points = _world_points(first)[np.isfinite(first.depth_m) & (first.depth_m < 60)]
    local = (points - second.world_T_camera[:3, 3]) @ second.world_T_camera[:3, :3]
    local = local[local[:, 2] > 1]
    uv = np.round(second.camera.project(local)).astype(int)
    inside = (uv >= 0).all(1) & (uv[:, 0] < 640) & (uv[:, 1] < 192)
    seen = second.depth_m[uv[inside, 1], uv[inside, 0]]
    # outlines and moving cars differ; the half pixel of rounding bounds the rest
    assert np.median(np.abs(seen / local[inside, 2] - 1)) < 0.005


def test_moving_cars_move():
    street = make_street(3, 48.0)
    mover = street.movers[0]
    before, after = mover.at(street.ground, 0.0), mover.at(street.ground, 1.0)
    moved = np.linalg.norm(after.origin[0] - before.origin[0])
    assert moved == pytest.approx(abs(mover.speed_mps), rel=0.05)


def test_depth_does_not_depend_on_the_resolution_of_the_picture(drive):
    """A pixel's depth is that of the ray through its centre: half the pixels, the same rays."""
    street = make_street(3, 48.0)
    pose = ego_pose(street, 0.0)
    camera = drive.camera.cropped(0, 0, 639, 192)
    _, depth = render(street, camera, pose, 0.0)
    _, coarse = render(street, camera.resized(213, 64), pose, 0.0)
    # the middle of each 3x3 block of pixels is a pixel centre of both; rounding may send a ray
    # along an outline to either side
    assert np.isclose(coarse, depth[1::3, 1::3], rtol=1e-4).mean() > 0.995


@pytest.mark.parametrize('size', [(96, 320), (120, 160)])
def test_random_views_for_training(size):
    image_rgb, depth_m, K, pose = render_random(12, size)
    assert image_rgb.shape == (*size, 3)
    assert depth_m.shape == size
    assert 1.1 < pose[2, 3] < 2.1
    assert K[0, 0] == K[1, 1]
    assert np.isfinite(depth_m).mean() > 0.5
    again = render_random(12, size)
    assert np.array_equal(again[0], image_rgb)


def test_random_view_with_a_given_focal_length():
    _, _, K, _ = render_random(12, (96, 160), 123.0)
    assert K[0, 0] == 123.0


def test_seed_that_is_no_number():
    with pytest.raises(DriveError, match='synthetic:NUMBER'):
        open_drive('synthetic:abc')


def test_frame_out_of_range(drive):
    with pytest.raises(DriveError, match='frames 0 to 59'):
        drive.frame(60)


def test_centre_line_and_lateral_are_inverse():
    ground: Ground = make_street(8).ground
    for x, lateral in ((0.0, 2.0), (35.0, -7.5), (120.0, 0.0)):
        px, py, _ = ground.at(x, lateral)
        assert float(ground.lateral(np.float64(px), np.float64(py))) == pytest.approx(lateral)


def _world_points(frame):
    rays = frame.camera.rays().astype(np.float64)
    local = np.concatenate([rays, np.ones((*rays.shape[:2], 1))], -1)
    with np.errstate(invalid='ignore'):
        local = local * frame.depth_m[..., None].astype(np.float64)
        return local @ frame.world_T_camera[:3, :3].T + frame.world_T_camera[:3, 3]


def _warp(source, target):
    """Fetch the source picture into the target's pixels; valid where the source sees the same."""
    points = _world_points(target)
    local = (points - source.world_T_camera[:3, 3]) @ source.world_T_camera[:3, :3]
    near = np.isfinite(target.depth_m) & (target.depth_m < 60)
    uv = np.zeros((*target.depth_m.shape, 2), np.float32)
    uv[near] = source.camera.project(local[near])
    warped = cv2.remap(source.image_rgb, uv[..., 0], uv[..., 1], cv2.INTER_LINEAR)
    depth = cv2.remap(source.depth_m, uv[..., 0], uv[..., 1], cv2.INTER_NEAREST)
    inside = (uv[..., 0] > 0) & (uv[..., 0] < 639) & (uv[..., 1] > 0) & (uv[..., 1] < 191)
    with np.errstate(invalid='ignore', divide='ignore'):
        same = np.abs(depth / local[..., 2] - 1) < 0.02
    return warped, near & inside & same
