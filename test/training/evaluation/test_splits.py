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
"""What moves and what is near the epipole, in scenes where both are known."""
import numpy as np
import pytest

from hybrid_depth.camera import CameraModel
from hybrid_depth.drives import Drive, DriveFrame
from hybrid_depth_training.evaluation.splits import (
    epipole_angle,
    MOVING,
    split_frame,
    STATIC,
    UNKNOWN,
)

CAMERA = CameraModel(200, 60, 120.0, 120.0, 99.5, 20.0)
STEP_M = 1.2


def scene(index: int, box_at: float, rng: np.random.Generator) -> DriveFrame:
    """Return a street seen from ``STEP_M * index``: house fronts, and a box on the road."""
    rays = CAMERA.rays()
    with np.errstate(divide='ignore'):
        depth = np.fmin(np.where(rays[..., 1] > 0, 1.6 / rays[..., 1], np.inf),
                        5.0 / np.abs(rays[..., 0]))
    z = box_at - STEP_M * index
    on_box = (np.abs(rays[..., 0] * z) < 1) & (rays[..., 1] * z < 1.5) & (rays[..., 1] * z > -0.5)
    depth = np.where(on_box, np.fmin(depth, z), depth)
    # a LiDAR: a third of the pixels, with noise
    depth = np.where(rng.random(depth.shape) < 0.35, depth * rng.normal(1, 0.003, depth.shape),
                     np.nan)
    pose = np.eye(4)
    pose[2, 3] = STEP_M * index
    return DriveFrame(str(index), index, np.zeros((60, 200, 3), np.uint8), CAMERA, pose,
                      np.where(depth < 70, depth, np.nan).astype(np.float32))


def split(box_at: list[float]):
    rng = np.random.default_rng(3)
    frames = [scene(index, at, rng) for index, at in enumerate(box_at)]
    drive = Drive('d', CAMERA, tuple(range(len(frames))), frames.__getitem__, None)
    result = split_frame(drive, [0, 1, 2], 1, 80.0)
    rays = CAMERA.rays()
    z = box_at[1] - STEP_M
    on_box = (np.abs(rays[..., 0] * z) < 0.9) & (rays[..., 1] * z < 1.4) & \
        (rays[..., 1] * z > -0.4)
    mask = np.isfinite(frames[1].depth_m)
    return result, on_box[mask] & (np.abs(frames[1].depth_m[mask] - z) < 0.3)


@pytest.mark.parametrize('speed_m', [1.2, 1.0, -1.0])
def test_a_car_that_moves_is_moving_and_the_street_is_not(speed_m):
    result, box = split([12, 12 + speed_m, 12 + 2 * speed_m])
    # its wheels, near the road, and its outline are left open
    assert np.mean(result.motion[box] == MOVING) > 0.5
    assert np.mean(result.motion[box] == STATIC) < 0.15
    assert np.mean(result.motion[~box] == MOVING) < 0.02
    assert np.mean(result.motion[~box] == STATIC) > 0.8


def test_a_parked_car_stands_still():
    result, box = split([12, 12, 12])
    assert np.mean(result.motion[box] == STATIC) > 0.95
    assert not np.any(result.motion == MOVING)


def test_without_a_second_measurement_nobody_knows():
    frame = scene(0, 12, np.random.default_rng(3))
    drive = Drive('d', CAMERA, (0,), lambda index: frame, None)
    result = split_frame(drive, [0], 0, 80.0)
    assert (result.motion == UNKNOWN).all()
    assert result.is_near_epipole is None


def test_the_epipole_is_where_the_camera_drives_to():
    source_T_target = np.eye(4)
    source_T_target[2, 3] = STEP_M  # the target is ahead of the source
    angle = epipole_angle(CAMERA, source_T_target)
    row, column = np.unravel_index(angle.argmin(), angle.shape)
    assert (column, row) == (pytest.approx(99.5, abs=0.6), pytest.approx(20, abs=0.6))
    assert angle[20, 99 + 21] == pytest.approx(np.degrees(np.arctan(20.5 / 120)), abs=0.01)
    sideways = np.eye(4)
    sideways[0, 3] = 1.0
    assert epipole_angle(CAMERA, sideways)[20, 99] == pytest.approx(90, abs=0.3)
    result, _ = split([12, 12, 12])
    assert 0.005 < np.mean(result.is_near_epipole) < 0.1
