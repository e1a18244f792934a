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
"""TF as a robot has it: tf2_ros' own broadcasters, a real node, tf2_ros' own listener."""
from __future__ import annotations

from collections.abc import Iterator
import math
from typing import Any

from geometry_msgs.msg import TransformStamped
from node_bench import Bench, PosedFake
import numpy as np
import pytest
from rclpy.parameter import Parameter
from ros_messages import FRAME, grey_image, odometry, time_message

from hybrid_depth.poses import make_pose
from hybrid_depth_ros.pose_source import BASE_FRAME

tf2_ros = pytest.importorskip('tf2_ros', reason='tf2_ros is not installed')
MS = 1_000_000
OPTICAL = (-0.5, 0.5, -0.5, 0.5)  # x right, y down, z forward, in a frame of x forward, z up
UPRIGHT = (0.0, 0.0, 0.0, 1.0)
pytestmark = pytest.mark.usefixtures('ros')


def link(parent: str, child: str, shift: tuple[float, float, float],
         rotation: tuple[float, float, float, float] = UPRIGHT,
         stamp_ns: int = 0) -> TransformStamped:
    made = TransformStamped(child_frame_id=child)
    made.header.frame_id, made.header.stamp = parent, time_message(stamp_ns)
    to, turn = made.transform.translation, made.transform.rotation
    to.x, to.y, to.z = shift
    turn.x, turn.y, turn.z, turn.w = rotation
    return made


MAST = link(BASE_FRAME, 'camera_link', (0.4, 0.0, 1.2))
LENS = link('camera_link', FRAME, (0.0, 0.1, 0.0), OPTICAL)


def pan(angle: float) -> tuple[float, float, float, float]:
    return 0.0, 0.0, math.sin(angle / 2), math.cos(angle / 2)


class Robot(Bench):
    """A bench that is a robot with TF: what tf2_ros broadcasts, and what it listens to."""

    def __init__(self, **parameters: Any) -> None:
        super().__init__(PosedFake, **parameters)
        self.bolts = tf2_ros.StaticTransformBroadcaster(self.client)
        self.joints = tf2_ros.TransformBroadcaster(self.client)
        self.buffer = tf2_ros.Buffer()
        self.listener = tf2_ros.TransformListener(self.buffer, self.client)

    def bolt(self, *links: TransformStamped) -> None:
        """Broadcast static transforms and wait until the node and the listener have them."""
        self.bolts.sendTransform(list(links))
        known = self.node._session.poses['']._lookup_extrinsic.__self__._transforms
        last = links[-1]
        self.until(lambda: known.lookup(last.header.frame_id, last.child_frame_id) is not None)

    def turn(self, *joints: TransformStamped) -> None:
        """Broadcast moving transforms and wait until the node has the last of them."""
        known = self.node._session.poses['']._lookup_extrinsic.__self__._transforms
        for joint in joints:
            self.joints.sendTransform(joint)
        last = joints[-1].header.stamp
        stamp_ns = last.sec * 10**9 + last.nanosec
        self.until(lambda: known._newest_ns.get(joints[-1].child_frame_id) == stamp_ns)

    def frame_at(self, stamp_ms: int) -> Any:
        """Send an image and return the frame that the pipeline got."""
        self.send_and_wait(grey_image(stamp_ns=stamp_ms * MS))
        return self.pipeline.frames[-1]


def drive(robot: Robot, *xs: float, at_ms: int = 2000) -> None:
    robot.tell(*(odometry((at_ms + 100 * index) * MS, x, child=BASE_FRAME)
                 for index, x in enumerate(xs)))


@pytest.fixture
def robot(ros: None) -> Iterator[Robot]:
    made = Robot()
    made.start('depth/image')
    made.calibrate()
    yield made
    made.close()


@pytest.fixture
def head(ros: None) -> Iterator[Robot]:
    """Return a robot whose camera turns on its mast."""
    made = Robot(extrinsic__moving=True, odom__max_wait_ms=20.0)
    made.start('depth/image')
    made.calibrate()
    yield made
    made.close()


def test_the_camera_is_where_a_chain_of_static_transforms_has_it(robot: Robot) -> None:
    drive(robot, 1.0, 2.0)
    assert robot.frame_at(2010).odom_T_camera is None  # nobody has said where the camera sits
    robot.diagnosed(lambda _, values: values['odometry.state'].startswith('no_extrinsic'))
    robot.bolt(MAST, LENS)
    frame = robot.frame_at(2050)
    np.testing.assert_allclose(
        frame.odom_T_camera, make_pose(OPTICAL, (1.5 + 0.4, 0.1, 1.2)), atol=1e-9)
    np.testing.assert_allclose(frame.down_camera, [0, 1, 0], atol=1e-9)


def test_tf_that_was_latched_before_the_node_came_counts(ros: None) -> None:
    robot = Robot()
    try:
        robot.bolts.sendTransform([MAST, LENS])
        robot.spin(0.1)
        robot.start('depth/image')
        robot.calibrate()
        drive(robot, 1.0, 2.0)
        known = robot.node._session.poses['']._lookup_extrinsic.__self__._transforms
        robot.until(lambda: known.lookup(BASE_FRAME, FRAME) is not None)
        assert robot.frame_at(2050).odom_T_camera[2, 3] == pytest.approx(1.2)
    finally:
        robot.close()


def test_tf_wins_over_the_parameters_and_begins_a_new_epoch() -> None:
    robot = Robot(extrinsic__rotation=list(OPTICAL), extrinsic__translation=[0.0, 0.0, 9.0])
    try:
        robot.start('depth/image')
        robot.calibrate()
        drive(robot, 1.0, 2.0)
        first = robot.frame_at(2010)
        assert first.odom_T_camera[2, 3] == pytest.approx(9.0)
        robot.bolt(MAST, LENS)
        second = robot.frame_at(2020)
        assert second.odom_T_camera[2, 3] == pytest.approx(1.2)
        assert second.pose_epoch != first.pose_epoch  # poses of two mountings do not mix
    finally:
        robot.close()


def test_a_head_that_turns_is_interpolated_and_a_gap_costs_the_pose_only(head: Robot) -> None:
    drive(head, *(0.0 for _ in range(12)))
    head.bolt(LENS)
    head.turn(*(link(BASE_FRAME, 'camera_link', (0.4, 0.0, 1.2), pan(0.1 * step),
                     (2000 + 100 * step) * MS) for step in range(4)))
    straight, turned = head.frame_at(2000), head.frame_at(2150)
    base_T_head = make_pose(pan(0.15), (0.4, 0.0, 1.2))
    np.testing.assert_allclose(turned.odom_T_camera,
                               base_T_head @ make_pose(OPTICAL, (0.0, 0.1, 0.0)), atol=1e-6)
    assert turned.pose_epoch == straight.pose_epoch
    assert head.frame_at(2600).odom_T_camera is None  # TF has stopped: no place, no guess
    head.diagnosed(lambda _, values: values['odometry.no_tf'] == '1')
    head.turn(link(BASE_FRAME, 'camera_link', (0.4, 0.0, 1.2), pan(0.3), 2700 * MS))
    again = head.frame_at(2700)
    assert again.odom_T_camera is not None
    assert again.pose_epoch == straight.pose_epoch


def test_tf_of_a_recording_that_loops(head: Robot) -> None:
    head.bolt(LENS)
    for lap in range(2):
        drive(head, 0.0, 0.0, at_ms=8000)
        head.turn(*(link(BASE_FRAME, 'camera_link', (0.4 + lap, 0.0, 1.2), UPRIGHT,
                         (8000 + 100 * step) * MS) for step in range(2)))
        assert head.frame_at(8050).odom_T_camera[0, 3] == pytest.approx(0.4 + lap)
        # the clock goes back by more than disorder would explain
        head.turn(link(BASE_FRAME, 'camera_link', (0.4, 0.0, 1.2), UPRIGHT, 1000 * MS))


def test_what_is_published_is_in_frames_that_a_listener_knows(robot: Robot) -> None:
    drive(robot, 1.0, 2.0)
    assert robot.node.set_parameters([Parameter('cloud.voxel_m', value=0.0)])[0].successful
    for stamp_ms, x in ((2000, 1.0), (2100, 2.0)):  # what a robot's localisation says as well
        robot.joints.sendTransform(
            link('odom', BASE_FRAME, (x, 0.0, 0.0), UPRIGHT, stamp_ms * MS))
    robot.bolt(MAST, LENS)
    robot.listen('points', 'points_filtered', 'bev/occupancy')
    robot.until(lambda: robot.node.count_subscribers('/hybrid_depth/bev/occupancy') > 0)
    grid = robot.send_and_wait(grey_image(stamp_ns=2050 * MS), 'bev/occupancy')
    robot.until(lambda: bool(robot.received['points'] and robot.received['points_filtered']))
    robot.until(lambda: robot.buffer.can_transform('odom', FRAME, time_message(2100 * MS)))
    filtered = robot.received['points_filtered'][-1]
    stamp = filtered.header.stamp
    mount = robot.buffer.lookup_transform(filtered.header.frame_id, FRAME, stamp).transform
    cloud = robot.received['points'][-1]
    seen = np.frombuffer(cloud.data, '<f4').reshape(-1, 4)[:, :3]
    seen = seen[np.isfinite(seen).all(axis=1)]
    turn, shift = mount.rotation, mount.translation
    base_T_camera = make_pose((turn.x, turn.y, turn.z, turn.w), (shift.x, shift.y, shift.z))
    moved = seen @ base_T_camera[:3, :3].T + base_T_camera[:3, 3]
    points = np.frombuffer(filtered.data, '<f4').reshape(filtered.width, -1)[:, :3]
    np.testing.assert_allclose(points, moved, atol=1e-4)
    place = robot.buffer.lookup_transform(grid.header.frame_id, FRAME, grid.header.stamp)
    origin, size = grid.info.origin.position, grid.info.width * grid.info.resolution
    camera_x, camera_y = place.transform.translation.x, place.transform.translation.y
    assert (camera_x, camera_y) == pytest.approx((1.9, 0.1))
    assert abs(origin.x + size / 2 - camera_x) < 2 * grid.info.resolution
    assert abs(origin.y + size / 2 - camera_y) < 2 * grid.info.resolution
