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
"""
Play a recorded drive as a camera and an odometry source, at its recorded rate.

Publishes ``image`` (rgb8), ``camera_info`` and ``odom``, and /tf and /tf_static where tf2_msgs is
installed. Frame i is stamped ``start + (recorded stamp i - recorded stamp 0) / rate`` on this
machine's clock and published at that moment, so the intervals are the recorded ones and "arrival
minus stamp" is the end-to-end latency. Images are read ahead, so that neither the disk nor a
renderer disturbs the rate. With --loop the drive starts again after its last frame: time goes on,
the pose jumps back.
"""
from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
import json
import math
import os
from pathlib import Path
import queue
import signal
import sys
import threading
import time

from geometry_msgs.msg import TransformStamped
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from nav_msgs.msg import Odometry
import numpy as np
import rclpy
from rclpy.client import Client
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo, Image

from hybrid_depth.drives import Drive, open_drive
from hybrid_depth.errors import DriveError, HybridDepthError
from hybrid_depth_ros.drive_messages import (
    base_poses,
    body_twist,
    CAMERA_FRAME,
    camera_info_message,
    camera_transform_message,
    image_message,
    odometry_message,
    odometry_transform_message,
    time_message,
)

READ_AHEAD_BYTES = 2 * 1024**3
TELL_AFTER_S = 3.0  # of waiting for listeners, which needs no word where all just starts


@dataclass(frozen=True)
class PlannedFrame:
    """One frame ready to be published; its messages still want their stamp."""

    index: int  # in the drive
    name: str
    offset_ns: int  # after the first frame, at the recorded rate
    image: Image
    camera_info: CameraInfo
    odometry: Odometry | None


def planned_frames(drive, limit: int, is_looping: bool, rate: float) -> Iterator[PlannedFrame]:
    """
    Return the frames of all laps, at most ``limit`` where that is not 0.

    Where a lap fits into READ_AHEAD_BYTES it is read once only: what renders or decodes more
    slowly than it plays would fall behind, lap by lap. Raises DriveError where the recorded stamps
    do not increase.
    """
    lap: Iterable[PlannedFrame] = _lap_frames(drive, rate)
    start_ns, offset_ns, interval_ns, count = 0, 0, 10**8, 0
    while True:
        kept: list[PlannedFrame] = []
        for frame in lap:
            if frame.offset_ns:
                interval_ns = start_ns + frame.offset_ns - offset_ns
            offset_ns = start_ns + frame.offset_ns
            yield replace(frame, offset_ns=offset_ns)
            count += 1
            if limit and count >= limit:
                return
            if is_looping and len(drive) * len(frame.image.data) <= READ_AHEAD_BYTES:
                kept.append(frame)
        if not is_looping:
            return
        start_ns = offset_ns + interval_ns
        lap = kept or _lap_frames(drive, rate)


def _lap_frames(drive, rate: float) -> Iterator[PlannedFrame]:
    """Read the drive frame by frame and turn it into messages."""
    offset_ns = 0
    previous_stamp = None
    previous_pose = None
    first_pose = None
    for index in range(len(drive)):
        frame = drive.frame(index)
        interval_ns = 0
        if previous_stamp is not None:
            interval_ns = round((frame.stamp_ns - previous_stamp) / rate)
            if interval_ns <= 0:
                raise DriveError(f'{drive.name}: the stamp of frame {frame.name} is not later '
                                 'than that of the frame before; mend its stamps')
        offset_ns += interval_ns
        if first_pose is None:
            first_pose = frame.world_T_camera
        pose = base_poses([first_pose, frame.world_T_camera])[1]
        odometry = None
        if pose is not None:
            twist = np.zeros(6)
            if previous_pose is not None:
                twist = body_twist(previous_pose, pose, interval_ns * 1e-9)
            odometry = odometry_message(pose, twist, 0)
        yield PlannedFrame(index, frame.name, offset_ns, image_message(frame.image_rgb, 0),
                           camera_info_message(frame.camera, 0), odometry)
        previous_stamp, previous_pose = frame.stamp_ns, pose


class ReadAhead:
    """Run an iterator in a thread, at most ``depth`` items ahead of who takes them."""

    def __init__(self, items: Iterator[PlannedFrame], depth: int) -> None:
        self.is_full = threading.Event()  # set when reading further has to wait, or is done
        self._items = items
        self._queue: queue.Queue = queue.Queue(maxsize=depth)
        threading.Thread(target=self._read, name='read-ahead', daemon=True).start()

    def _read(self) -> None:
        try:
            for item in self._items:
                self._put(item)
            self._put(None)
        except HybridDepthError as error:
            self._put(error)
        self.is_full.set()

    def _put(self, item: object) -> None:
        if self._queue.full():
            self.is_full.set()
        self._queue.put(item)

    def __iter__(self) -> Iterator[PlannedFrame]:
        while True:
            item = self._queue.get()
            if item is None:
                return
            if isinstance(item, HybridDepthError):
                raise item
            yield item


class DrivePlayer(Node):
    """Publishers of one camera and one odometry source."""

    def __init__(self) -> None:
        super().__init__('drive_player')
        self.image = self.create_publisher(Image, 'image', 5)
        self.camera_info = self.create_publisher(CameraInfo, 'camera_info', 5)
        self.odom = self.create_publisher(Odometry, 'odom', 50)
        try:
            from tf2_msgs.msg import TFMessage
        except ImportError:
            self.get_logger().info('tf2_msgs is not installed: /tf and /tf_static are not '
                                   'published, so RViz cannot place the cloud in odom')
            self.make_tf = None
            return
        self.make_tf = lambda transform: TFMessage(transforms=[transform])
        self.tf = self.create_publisher(TFMessage, '/tf', 50)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.tf_static = self.create_publisher(TFMessage, '/tf_static', latched)
        static: TransformStamped = camera_transform_message(self.get_clock().now().nanoseconds)
        self.tf_static.publish(self.make_tf(static))

    def publish(self, frame: PlannedFrame, stamp_ns: int) -> None:
        """Publish one frame: pose first, so that it is known when the image arrives."""
        stamp = time_message(stamp_ns)
        if frame.odometry is not None:
            frame.odometry.header.stamp = stamp
            self.odom.publish(frame.odometry)
            if self.make_tf:
                self.tf.publish(self.make_tf(odometry_transform_message(frame.odometry)))
        frame.camera_info.header.stamp = stamp
        self.camera_info.publish(frame.camera_info)
        frame.image.header.stamp = stamp
        self.image.publish(frame.image)

    def missing_listeners(self, info_listeners: int) -> str:
        """Return what is not connected yet, empty when all is."""
        if self.image.get_subscription_count() < 1:
            return (f'nobody subscribes to {self.image.topic_name}; the depth node does once '
                    'somebody subscribes to one of its outputs (RViz, ros2 topic hz)')
        found = self.camera_info.get_subscription_count()
        if found < info_listeners:
            return f'{self.camera_info.topic_name} has {found} of {info_listeners} subscribers'
        return ''


def wait_for_listeners(player: DrivePlayer, frame: PlannedFrame, arguments: argparse.Namespace,
                       stop: threading.Event) -> str:
    """
    Wait until the listeners are matched and the node is active; return what is missing.

    camera_info of the first frame goes out meanwhile, and for ``--settle`` seconds after, so that
    a node can load its model for that size before the first image.
    """
    deadline = time.monotonic() + arguments.timeout
    client: Client | None = None
    if arguments.wait_active:
        client = player.create_client(GetState, f'{arguments.wait_active}/get_state')
    missing = 'nothing was checked'
    complete_s = None  # since when nothing is missing
    tell_s = time.monotonic() + TELL_AFTER_S
    while not stop.wait(0.1) and time.monotonic() < deadline:
        frame.camera_info.header.stamp = player.get_clock().now().to_msg()
        player.camera_info.publish(frame.camera_info)
        missing = ''
        if client is not None and complete_s is None:
            missing = node_not_active(player, client)
        missing = missing or player.missing_listeners(arguments.wait_listeners)
        if missing:
            complete_s = None
            if time.monotonic() >= tell_s:
                tell_s = math.inf
                player.get_logger().warning(f'waiting: {missing}')
            continue
        complete_s = complete_s or time.monotonic()
        if time.monotonic() - complete_s >= arguments.settle:
            break
    return missing


def node_not_active(player: DrivePlayer, client) -> str:
    """Ask a lifecycle node for its state; return why it is not active, empty when it is."""
    if not client.wait_for_service(timeout_sec=0.2):
        return f'{client.srv_name} is not there'
    future = client.call_async(GetState.Request())
    rclpy.spin_until_future_complete(player, future, timeout_sec=1.0)
    if not future.done():
        return f'{client.srv_name} does not answer'
    state = future.result().current_state
    return '' if state.id == State.PRIMARY_STATE_ACTIVE else f'the node is {state.label}'


def play(player: DrivePlayer, frames: Iterator[PlannedFrame], stop: threading.Event) -> dict:
    """Publish every frame at its time; return the report that a recorder accounts by."""
    start_ns = time.time_ns() + 200_000_000
    published = []
    latest_ms = 0.0
    for frame in frames:
        stamp_ns = start_ns + frame.offset_ns
        if stop.wait(max(0.0, (stamp_ns - time.time_ns()) * 1e-9)):
            break
        latest_ms = max(latest_ms, (time.time_ns() - stamp_ns) * 1e-6)
        player.publish(frame, stamp_ns)
        published.append({'stamp_ns': stamp_ns, 'name': frame.name, 'index': frame.index})
    return {'frames_published': len(published), 'frame_id': CAMERA_FRAME,
            'is_complete': not stop.is_set(), 'latest_publish_ms': round(latest_ms, 3),
            'frames': published}


def write_report(path: Path, report: dict) -> None:
    """Write JSON so that a reader sees either nothing or all of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix('.partial')
    partial.write_text(json.dumps(report, indent=1))
    os.replace(partial, path)


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='player', description=__doc__.split('\n\n')[0].strip())
    parser.add_argument('--drive', default='synthetic', help='folder, recording, or synthetic')
    parser.add_argument('--rate', type=float, default=1.0, help='2 plays twice as fast')
    parser.add_argument('--limit', type=int, default=0, help='frames to play; 0 means all')
    parser.add_argument('--loop', action='store_true', help='start again after the last frame')
    parser.add_argument('--wait-listeners', type=int, default=1,
                        help='subscribers of camera_info to wait for')
    parser.add_argument('--wait-active', default='', metavar='NODE',
                        help='lifecycle node to wait for until it is active')
    parser.add_argument('--settle', type=float, default=2.0,
                        help='seconds of camera_info alone before the first image')
    parser.add_argument('--timeout', type=float, default=60.0, help='seconds to wait for them')
    parser.add_argument('--report', type=Path, help='JSON file to write: what was published')
    arguments = parser.parse_args(argv)
    if not 0.01 <= arguments.rate <= 100.0:
        parser.error(f'--rate is {arguments.rate}; expected 0.01 to 100')
    if arguments.limit < 0:
        parser.error(f'--limit is {arguments.limit}; expected 0 or more')
    return arguments


def run(player: DrivePlayer, drive: Drive, arguments: argparse.Namespace,
        stop: threading.Event) -> int:
    """Read, wait, play, report. Returns the exit status."""
    first = next(planned_frames(drive, 1, False, arguments.rate))
    depth = max(2, min(len(drive), READ_AHEAD_BYTES // len(first.image.data)))
    ahead = ReadAhead(
        planned_frames(drive, arguments.limit, arguments.loop, arguments.rate), depth)
    player.get_logger().info(f'reading {drive.name}: {len(drive)} frames')
    while not ahead.is_full.wait(0.1):
        if stop.is_set():
            return 0
    missing = wait_for_listeners(player, first, arguments, stop)
    if missing and not stop.is_set():
        player.get_logger().error(f'gave up after {arguments.timeout:.0f} s: {missing}')
        return 1
    player.get_logger().info(f'playing {drive.name} at {arguments.rate:g} x its recorded rate')
    report = {'drive': drive.name, 'rate': arguments.rate, **play(player, iter(ahead), stop)}
    player.get_logger().info(f'published {report["frames_published"]} frames')
    if arguments.report:
        write_report(arguments.report, report)
    # a reliable writer that leaves takes its unacknowledged samples with it
    stop.wait(0.5)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Play a drive; 0 when it was played, 1 when nobody listened, 2 when it cannot be read."""
    argv = sys.argv if argv is None else ['player', *argv]
    arguments = parse_arguments(remove_ros_args(argv)[1:])
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        # before ROS is there: Fast DDS can crash where a process ends while it still discovers
        drive = open_drive(arguments.drive)
        rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
        player = DrivePlayer()
        try:
            return run(player, drive, arguments, stop)
        finally:
            player.destroy_node()
            rclpy.try_shutdown()
    except HybridDepthError as error:
        print(f'player: {error}', file=sys.stderr)
        return 2


if __name__ == '__main__':
    sys.exit(main())
