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
"""The classical plane sweep on textured planes whose depth and motion are exact."""
from dataclasses import replace

import cv2
import numpy as np
from planes import plane_depth
import pytest

from hybrid_depth.camera import CameraModel
from hybrid_depth.drives import open_drive
from hybrid_depth.errors import BadFrame
from hybrid_depth.poses import inverse
from hybrid_depth_training.evaluation.plane_sweep import plane_sweep, STREET

CAMERA = CameraModel(240, 128, 160.0, 160.0, 119.5, 60.0)
CONFIG = replace(STREET, near_m=3.0, far_m=40.0, planes=48, width=240)
NORMAL, DISTANCE = np.array([0.1, 0.35, 0.93]), 8.0  # a slope, 7 to 14 m away


def texture(points: np.ndarray) -> np.ndarray:
    """Return grey values (H, W) of a pattern on the plane, as fine as a few pixels."""
    coarse = np.random.default_rng(4).integers(0, 256, (512, 512), np.uint8)
    smooth = cv2.GaussianBlur(coarse, (0, 0), 1.0)
    pattern = cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX)
    u, v = (points[..., axis].astype(np.float32) * 14 + 256 for axis in (0, 1))
    return cv2.remap(pattern, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def view(world_T_camera: np.ndarray) -> np.ndarray:
    """Render the plane (in the world = the target camera) from a camera elsewhere."""
    rays = CAMERA.rays()
    rays = np.concatenate([rays, np.ones_like(rays[..., :1])], axis=-1) @ world_T_camera[:3, :3].T
    origin = world_T_camera[:3, 3]
    along = (DISTANCE - NORMAL @ origin) / (rays @ NORMAL)
    grey = texture(origin + along[..., None] * rays)
    return cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)


def pose(x: float, y: float, z: float, turn: float = 0.0) -> np.ndarray:
    result = np.eye(4)
    result[:3, :3] = cv2.Rodrigues(np.array([0.3 * turn, turn, -0.2 * turn]))[0]
    result[:3, 3] = (x, y, z)
    return result


TARGET = view(np.eye(4))
TRUTH = plane_depth(CAMERA, tuple(NORMAL), DISTANCE)
SOURCES = [pose(-0.5, 0.1, -0.3, 0.01), pose(0.4, 0.0, -1.0, -0.02)]


def sweep(poses: list[np.ndarray], told: list[np.ndarray] | None = None):
    told = poses if told is None else told
    return plane_sweep(TARGET, CAMERA, [view(p) for p in poses], [inverse(p) for p in told],
                       CONFIG)


@pytest.mark.parametrize('count', [1, 2])
def test_a_sloping_plane_is_measured_in_metres(count):
    depth, is_sure = sweep(SOURCES[:count])
    assert depth.shape == is_sure.shape == TRUTH.shape
    assert depth.dtype == np.float32
    error = np.abs(depth - TRUTH) / TRUTH
    assert is_sure.mean() > 0.6
    assert np.mean(error[is_sure] < 0.05) > 0.97
    assert np.median(error[is_sure]) < 0.015  # the planes are 4 to 9 % of the depth apart


def test_metres_come_from_the_motion():
    told = [p.copy() for p in SOURCES]
    for p in told:
        p[:3, 3] *= 1.5
    depth, is_sure = sweep(SOURCES, told)
    assert np.median((depth / TRUTH)[is_sure]) == pytest.approx(1.5, rel=0.02)


def test_the_epipole_is_not_sure():
    """Straight ahead nothing moves in the image, whatever its depth."""
    _, is_sure = sweep([pose(0, 0, -0.8), pose(0, 0, -1.5)])
    column, row = round(CAMERA.cx), round(CAMERA.cy)
    assert not is_sure[row - 3:row + 4, column - 3:column + 4].any()
    assert is_sure[100:, :60].mean() > 0.5


def test_standing_still_or_without_texture_nothing_is_sure():
    assert not sweep([np.eye(4)])[1].any()
    blank = np.full_like(TARGET, 90)
    _, is_sure = plane_sweep(blank, CAMERA, [blank], [inverse(SOURCES[0])], CONFIG)
    assert not is_sure.any()


def test_wrong_poses_leave_little_sure():
    _, right = sweep(SOURCES)
    _, wrong = sweep(SOURCES, [SOURCES[1], SOURCES[0]])
    assert wrong.mean() < 0.5 * right.mean()


def test_a_rendered_street():
    drive = open_drive('synthetic')
    frames = [drive.frame(index) for index in (20, 19, 18)]
    target = frames[0]
    depth, is_sure = plane_sweep(
        target.image_rgb, target.camera, [f.image_rgb for f in frames[1:]],
        [inverse(f.world_T_camera) @ target.world_T_camera for f in frames[1:]],
        replace(STREET, planes=64, width=320))
    near = is_sure & (target.depth_m < 60)
    error = np.abs(depth - target.depth_m)[near] / target.depth_m[near]
    assert near.mean() > 0.2
    assert np.median(error) < 0.06


def test_sources_and_poses_must_come_together():
    with pytest.raises(BadFrame, match='at least one'):
        plane_sweep(TARGET, CAMERA, [], [], CONFIG)
