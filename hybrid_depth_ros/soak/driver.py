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
"""A camera and an odometry source that can be told to misbehave, and the listener of the depth."""
from __future__ import annotations

from dataclasses import dataclass
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import Odometry
import numpy as np
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image

from hybrid_depth_ros.drive_messages import (
    camera_info_message,
    image_message,
    odometry_message,
    time_message,
)
from hybrid_depth_ros.soak import scene
from hybrid_depth_ros.soak.oracle import Account, Oracle, Sent, Stamp, stamp_of

PERIOD_S = 0.05
_NODE = '/hybrid_depth'


@dataclass
class Shot:
    """All that a robot sends for one moment; a fault may change any of it before it is sent."""

    image: Image
    info: CameraInfo
    odometry: list[Odometry]
    image_rgb: np.ndarray


class Driver(Node):
    """One robot: publishers, its clock, and everything that the node says."""

    def __init__(self, oracle: Oracle) -> None:
        super().__init__('soak_driver')
        self.oracle = oracle
        self.camera = scene.CAMERAS['front']
        self.clock_offset_ns = 0  # of the robot's clock, added to every stamp
        self.number = 0  # of the next image
        self.sent = 0  # images published, whatever is in them
        self.right: set[Stamp] = set()  # stamps of outputs that were right
        self.status: dict[str, str] = {}  # values of the newest diagnostics
        self.status_count = 0
        self.process: dict[str, str] = {}  # likewise, of the process
        self.problems: list[str] = []
        self._start_ns = time.time_ns()
        self._slot = time.monotonic()
        self.images = self.create_publisher(Image, 'image', 5)
        self.infos = self.create_publisher(CameraInfo, 'camera_info', 5)
        self.odometry = self.create_publisher(Odometry, 'odom', 50)
        self.create_subscription(Image, f'{_NODE}/depth/image', self._on_depth, 50)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self._client: Any = self.create_client(ChangeState, f'{_NODE}/change_state')
        self._spinner = SingleThreadedExecutor()
        self._spinner.add_node(self)

    # what is sent

    def shot(self) -> Shot:
        """Return the next moment of the undisturbed robot."""
        self.number = (self.number + 1) % (1 << 16)
        stamp_ns = time.time_ns() + self.clock_offset_ns
        image_rgb = scene.image_of(self.number, self.camera)
        odometry = [self.odometry_at(stamp_ns - round(back * 1e9 * PERIOD_S))
                    for back in (0.5, 0.0)]
        return Shot(image_message(image_rgb, stamp_ns),
                    camera_info_message(self.camera, stamp_ns), odometry, image_rgb)

    def odometry_at(self, stamp_ns: int) -> Odometry:
        """Return the true odometry of a moment by the robot's clock: of the camera itself."""
        seconds = (stamp_ns - self.clock_offset_ns - self._start_ns) * 1e-9
        pose = np.eye(4)
        pose[2, 3] = scene.position_m(seconds)
        twist = np.array([0, 0, scene.speed_mps(seconds), 0, 0, 0])
        message = odometry_message(pose, twist, stamp_ns)
        message.child_frame_id = scene.FRAME
        return message

    def send(self, shot: Shot, *, image: bool = True, info: bool = True, odometry: bool = True,
             sent: Sent | None = None) -> None:
        """Publish a shot; ``sent`` where other than its depth may come out."""
        if odometry:
            for message in shot.odometry:
                self.odometry.publish(message)
        if info:
            self.infos.publish(shot.info)
        if image:
            self.oracle.expect(stamp_of(shot.image), sent or self.expected(shot))
            self.images.publish(shot.image)
            self.sent += 1

    def expected(self, shot: Shot, copies: int = 1) -> Sent:
        """Return what a well-formed shot must give."""
        return Sent(shot.image.header.frame_id, shot.image.width, shot.image.height,
                    shot.image_rgb, (shot.info.k[0],), copies)

    def good(self) -> Stamp:
        """Send an undisturbed shot; return the stamp of its image."""
        shot = self.shot()
        self.send(shot)
        return stamp_of(shot.image)

    def restamp(self, shot: Shot, stamp_ns: int) -> None:
        """Give all messages of a shot the stamp ``stamp_ns``."""
        for message in (shot.image, shot.info, *shot.odometry[-1:]):
            message.header.stamp = time_message(stamp_ns)

    # time

    def spin(self, seconds: float) -> None:
        """Take what comes for so long."""
        end = time.monotonic() + seconds
        while True:
            rest = end - time.monotonic()
            self._spinner.spin_once(timeout_sec=max(0.0, rest))
            if rest <= 0:
                return

    def until(self, condition: Any, timeout_s: float) -> bool:
        """Spin until ``condition()``; return whether it came true in time."""
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end:
                return False
            self._spinner.spin_once(timeout_sec=0.02)
        return True

    def next_slot(self) -> None:
        """Spin until the next image is due, at a steady rate; a slot that was missed is gone."""
        self._slot = max(self._slot + PERIOD_S, time.monotonic())
        self.spin(self._slot - time.monotonic())

    # what comes

    def change_state(self, transition: int, timeout_s: float = 10.0) -> bool | None:
        """Ask for a lifecycle transition; return whether it succeeded, None = no answer."""
        request = ChangeState.Request(transition=Transition(id=transition))
        future = self._client.call_async(request)
        if not self.until(future.done, timeout_s):
            self._client.remove_pending_request(future)
            return None
        return bool(future.result().success)

    def is_service_there(self) -> bool:
        """Return whether the node's lifecycle can be changed."""
        return self._client.service_is_ready()

    def image_readers(self) -> set[bytes]:
        """Return the identities of all subscriptions of the image."""
        return {bytes(info.endpoint_gid)
                for info in self.get_subscriptions_info_by_topic(self.images.topic_name)}

    def fresh_status(self, timeout_s: float = 5.0) -> dict[str, str] | None:
        """Return the values of a diagnostic status made after now; None where none comes."""
        seen = self.status_count
        return self.status if self.until(lambda: self.status_count > seen, timeout_s) else None

    def account(self) -> Account | None:
        """Return the node's count of images once it stands still; None where it does not tell."""
        last = None
        for _ in range(8):
            values = self.fresh_status()
            if values is None or 'frames_received' not in values:
                return None
            account = Account.of(values)
            if account == last and account.received == account.processed + account.dropped:
                return account
            last = account
        return last

    def _on_depth(self, message: Image) -> None:
        if self.oracle.judge(message):
            self.right.add(stamp_of(message))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == f'{_NODE}: depth':
                self.status = {entry.key: entry.value for entry in status.values}
                self.status_count += 1
                problem = Account.of(self.status).problem()
                if problem:
                    self.problems.append(problem)
            elif status.name == f'{_NODE}: process':
                self.process = {entry.key: entry.value for entry in status.values}

    def close(self) -> None:
        """Leave ROS."""
        self._spinner.shutdown()
        self.destroy_node()
