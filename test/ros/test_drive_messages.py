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
"""A drive's frames as messages: frames of reference, velocities, calibration."""
from __future__ import annotations

import ast

import cv2
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
from planes import CAMERAS
import pytest

from hybrid_depth.camera_info import camera_from_info
from hybrid_depth_ros import demo, drive_messages


def pose(rotvec=(0, 0, 0), position=(0, 0, 0)) -> np.ndarray:
    result = np.eye(4)
    result[:3, :3] = cv2.Rodrigues(np.array(rotvec, float))[0]
    result[:3, 3] = position
    return result


def test_image_keeps_pixels_and_layout():
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    message = drive_messages.image_message(image, 1_500_000_007)
    assert (message.height, message.width, message.step) == (2, 3, 9)
    assert (message.encoding, message.is_bigendian) == ('rgb8', 0)
    assert message.header.frame_id == 'camera_optical_frame'
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (1, 500_000_007)
    assert bytes(message.data) == image.tobytes()


def test_image_that_is_not_contiguous():
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)[:, ::2]
    assert bytes(drive_messages.image_message(image, 0).data) == image.tobytes()


@pytest.mark.parametrize('name', CAMERAS)
def test_camera_info_gives_the_camera_back(name):
    message = drive_messages.camera_info_message(CAMERAS[name], 5)
    assert camera_from_info(message, rectified=False) == CAMERAS[name]


def test_odom_is_the_first_body_and_x_is_forward():
    """A camera that moves along its own z, in whatever world, is a body that moves along x."""
    world = pose((0.3, -2.0, 0.4), (100, -20, 5))
    first, second = drive_messages.base_poses([world, world @ pose(position=(0.5, -0.2, 2.0))])
    np.testing.assert_allclose(first, np.eye(4), atol=1e-12)
    # right is -y, down is -z
    np.testing.assert_allclose(second[:3, 3], [2.0, -0.5, 0.2], atol=1e-12)
    np.testing.assert_allclose(second[:3, :3], np.eye(3), atol=1e-12)


def test_a_camera_that_turns_right_is_a_body_with_negative_yaw():
    _, second = drive_messages.base_poses([np.eye(4), pose((0, 0.2, 0))])
    rotvec = cv2.Rodrigues(second[:3, :3])[0].reshape(3)
    np.testing.assert_allclose(rotvec, [0, 0, -0.2], atol=1e-12)


def test_poses_that_are_missing_stay_missing():
    assert drive_messages.base_poses([None, None]) == [None, None]
    poses = drive_messages.base_poses([None, pose(position=(0, 0, 3)), None])
    assert poses[0] is None
    assert poses[2] is None
    np.testing.assert_allclose(poses[1], np.eye(4), atol=1e-12)


def test_twist_is_in_the_body_and_per_second():
    before = pose((0, 0, np.pi / 2), (7, 7, 0))  # looks along odom's y
    after = before @ pose((0, 0, 0.05), (1.0, 0, 0))
    twist = drive_messages.body_twist(before, after, 0.1)
    np.testing.assert_allclose(twist[3:], [0, 0, 0.5], atol=1e-9)
    np.testing.assert_allclose(twist[:3], 10 * np.array([np.cos(0.05), -np.sin(0.05), 0]),
                               atol=1e-9)


@settings(deadline=None)
@given(st.lists(st.floats(-3.1, 3.1), min_size=3, max_size=3))
def test_odometry_carries_the_pose(rotvec):
    expected = pose(rotvec, (1, -2, 3))
    message = drive_messages.odometry_message(expected, np.arange(6.0), 9)
    q = message.pose.pose.orientation
    assert q.w >= 0
    assert q.x**2 + q.y**2 + q.z**2 + q.w**2 == pytest.approx(1.0)
    # what the quaternion does to the axes, by its definition q v q*
    axis, w = np.array([q.x, q.y, q.z]), q.w
    turned = [v + 2 * np.cross(axis, np.cross(axis, v) + w * v) for v in np.eye(3)]
    np.testing.assert_allclose(np.transpose(turned), expected[:3, :3], atol=1e-9)
    p = message.pose.pose.position
    assert (p.x, p.y, p.z) == (1.0, -2.0, 3.0)
    assert (message.header.frame_id, message.child_frame_id) == ('odom', 'base_link')
    assert message.twist.twist.linear.y == 1.0
    assert message.twist.twist.angular.z == 5.0
    transform = drive_messages.odometry_transform_message(message)
    assert transform.transform.rotation == message.pose.pose.orientation
    assert transform.transform.translation.z == 3.0


def test_half_turn_has_a_unit_quaternion():
    quaternion = drive_messages.quaternion_message(np.diag([1.0, -1.0, -1.0]))
    assert abs(quaternion.x) == pytest.approx(1.0)
    assert quaternion.w == pytest.approx(0.0, abs=1e-9)


def test_demo_tells_the_node_the_extrinsic_that_the_player_publishes():
    rotation = drive_messages.camera_transform_message(0).transform.rotation
    np.testing.assert_allclose([rotation.x, rotation.y, rotation.z, rotation.w],
                               ast.literal_eval(demo.OPTICAL_ROTATION), atol=1e-9)
