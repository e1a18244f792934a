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
"""The player: what it plans, how it reads ahead, and what arrives on real topics."""
from __future__ import annotations

import argparse
import itertools
import json
import random
import threading
import time

from nav_msgs.msg import Odometry
import numpy as np
import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, Image

from hybrid_depth.camera import CameraModel
from hybrid_depth.drives import Drive, DriveFrame
from hybrid_depth.errors import DriveError
from hybrid_depth_ros import player
from hybrid_depth_ros.conversions import stamp_to_ns

CAMERA = CameraModel(8, 6, 10.0, 10.0, 3.5, 2.5)


def make_drive(stamps_ns: list[int], has_pose: bool = True) -> Drive:
    """Return a drive whose camera moves 1 m along its axis from frame to frame."""
    def load(index: int) -> DriveFrame:
        pose = np.eye(4)
        pose[2, 3] = index
        return DriveFrame(f'{index:06d}', stamps_ns[index], np.full((6, 8, 3), index, np.uint8),
                          CAMERA, pose if has_pose else None, None)
    return Drive('made', CAMERA, tuple(stamps_ns), load, None)


STAMPS = [10**9, 10**9 + 100_000_000, 10**9 + 250_000_000]

SIX = make_drive([10**9 + i * 50_000_000 for i in range(6)])


def planned(drive: Drive, **changes):
    options = {'limit': 0, 'is_looping': False, 'rate': 1.0, **changes}
    return player.planned_frames(drive, options['limit'], options['is_looping'], options['rate'])


@pytest.mark.parametrize('rate', [0.5, 1.0, 2.0])
def test_recorded_intervals_are_kept(rate):
    frames = list(planned(make_drive(STAMPS), rate=rate))
    assert [frame.offset_ns for frame in frames] == [0, round(1e8 / rate), round(2.5e8 / rate)]
    # 1 m in that time: the velocity fits the stamps that are published, not the recorded ones
    speeds = [frame.odometry.twist.twist.linear.x for frame in frames]
    assert speeds == pytest.approx([0.0, 10 * rate, rate / 0.15])


def test_limit_and_no_poses():
    frames = list(planned(make_drive(STAMPS, has_pose=False), limit=2))
    assert [frame.name for frame in frames] == ['000000', '000001']
    assert [frame.odometry for frame in frames] == [None, None]


def test_loop_goes_on_in_time_and_jumps_back_in_space():
    frames = list(itertools.islice(planned(make_drive(STAMPS), is_looping=True), 5))
    offsets = [frame.offset_ns for frame in frames]
    assert offsets == sorted(set(offsets))
    assert [frame.index for frame in frames] == [0, 1, 2, 0, 1]
    assert [frame.odometry.pose.pose.position.x for frame in frames] == [0, 1, 2, 0, 1]
    assert frames[3].odometry.twist.twist.linear.x == 0.0


@pytest.mark.parametrize(('room', 'reads'), [(2 * 1024**3, 3), (10, 7)])
def test_a_lap_is_read_once_where_it_fits(monkeypatch, room, reads):
    monkeypatch.setattr(player, 'READ_AHEAD_BYTES', room)
    made = make_drive(STAMPS)
    asked = []
    drive = Drive('made', CAMERA, tuple(STAMPS),
                  lambda index: asked.append(index) or made.frame(index), None)
    frames = list(itertools.islice(planned(drive, is_looping=True), 7))
    assert len(asked) == reads
    gaps = [b.offset_ns - a.offset_ns for a, b in itertools.pairwise(frames)]
    assert gaps[:2] == gaps[3:5]
    assert gaps[2] == gaps[1]  # from the last of a lap to the first of the next


def test_play_in_a_loop_starts_when_one_lap_is_read(domain, made_player, monkeypatch):
    asked = []
    monkeypatch.setattr(player, 'wait_for_listeners', lambda *_: asked.append(1) or 'nobody')
    stop = threading.Event()
    threading.Timer(20, stop.set).start()  # or it would read on and on
    assert player.run(made_player, make_drive(STAMPS), options(loop=True), stop) == 1
    assert asked


@pytest.mark.parametrize('stamps', [[5, 5], [5, 4]])
def test_stamps_that_do_not_increase_are_refused(stamps):
    with pytest.raises(DriveError, match='000001 is not later'):
        list(planned(make_drive(stamps)))


def test_read_ahead_stops_at_its_depth_and_keeps_the_order():
    taken = []

    def count():
        for number in range(10):
            taken.append(number)
            yield number
    ahead = player.ReadAhead(count(), depth=3)
    assert ahead.is_full.wait(60)
    time.sleep(0.05)
    assert len(taken) == 4  # three waiting, one in hand
    assert list(ahead) == list(range(10))


def test_read_ahead_hands_on_an_error():
    def broken():
        yield 1
        raise DriveError('frame 2 is cut short')
    frames = iter(player.ReadAhead(broken(), depth=5))
    assert next(frames) == 1
    with pytest.raises(DriveError, match='cut short'):
        next(frames)


def test_bad_arguments_are_refused(capsys):
    for arguments in (['--rate', '0'], ['--limit', '-1']):
        with pytest.raises(SystemExit) as error:
            player.parse_arguments(arguments)
        assert error.value.code == 2
        assert 'expected' in capsys.readouterr().err


@pytest.fixture
def domain(monkeypatch):
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    return random.randint(1, 101)


class Listener:
    """A subscriber to all that the player publishes, in a context and a thread of its own."""

    def __init__(self, domain: int, more=()) -> None:
        self.messages = {'image': [], 'camera_info': [], 'odom': []}
        self.arrivals = []
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain,
                   signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node('listener', context=self._context)
        for topic, kind in (('image', Image), ('camera_info', CameraInfo), ('odom', Odometry)):
            self._node.create_subscription(kind, topic, self._taker(topic), 50)
        for kind, topic, take, qos in more:
            self._node.create_subscription(kind, topic, take, qos)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._is_done = threading.Event()
        self._thread = threading.Thread(target=self._spin)
        self._thread.start()

    def _taker(self, topic):
        def take(message):
            if topic == 'image':
                self.arrivals.append(time.time_ns())
            self.messages[topic].append(message)
        return take

    def _spin(self):
        while not self._is_done.is_set():
            self._executor.spin_once(timeout_sec=0.05)

    def close(self):
        self._is_done.set()
        self._thread.join()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)


@pytest.fixture
def made_player(domain):
    rclpy.init(domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
    node = player.DrivePlayer()
    yield node
    node.destroy_node()
    rclpy.shutdown()


def options(**changes) -> argparse.Namespace:
    result = player.parse_arguments(['--settle', '0.3', '--timeout', '60'])
    for key, value in changes.items():
        setattr(result, key, value)
    return result


def test_what_is_reported_is_what_arrives(domain, made_player, tmp_path):
    listener = Listener(domain)
    try:
        report_path = tmp_path / 'new' / 'played.json'
        arguments = options(report=report_path)
        assert player.run(made_player, SIX, arguments, threading.Event()) == 0
    finally:
        listener.close()
    report = json.loads(report_path.read_text())
    assert report['frames_published'] == 6
    assert report['is_complete'] is True
    stamps = [frame['stamp_ns'] for frame in report['frames']]
    assert [b - a for a, b in itertools.pairwise(stamps)] == [50_000_000] * 5
    assert [frame['name'] for frame in report['frames']] == [f'{i:06d}' for i in range(6)]
    got = {topic: [stamp_to_ns(message.header.stamp) for message in messages]
           for topic, messages in listener.messages.items()}
    assert got['image'] == stamps
    assert got['odom'] == stamps
    assert got['camera_info'][-6:] == stamps  # before them, those that let the node get ready
    assert len(got['camera_info']) > 6
    assert {m.header.frame_id for m in listener.messages['image']} == {report['frame_id']}
    assert [m.data[0] for m in listener.messages['image']] == list(range(6))
    # never published before the time that it claims
    assert all(arrival >= stamp for arrival, stamp in
               zip(listener.arrivals, stamps, strict=True))


def test_gives_up_when_nobody_listens(made_player, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(player, 'TELL_AFTER_S', 0.0)
    arguments = options(timeout=0.5, report=tmp_path / 'played.json')
    assert player.run(made_player, SIX, arguments, threading.Event()) == 1
    assert not arguments.report.exists()
    said = capfd.readouterr().err
    assert said.count('waiting: nobody subscribes to /image') == 1, said
    assert said.count('gave up after 0 s: nobody subscribes to /image') == 1, said


def test_waits_for_a_node_that_is_not_there(domain, made_player):
    listener = Listener(domain)
    try:
        arguments = options(timeout=1.5, wait_active='no_such_node')
        assert player.run(made_player, SIX, arguments, threading.Event()) == 1
    finally:
        listener.close()
    assert listener.messages['image'] == []


def test_unreadable_drive_is_one_line_and_status_2(capfd, monkeypatch, domain):
    monkeypatch.setenv('ROS_DOMAIN_ID', str(domain))
    monkeypatch.setattr(player.signal, 'signal', lambda *_: None)  # pytest keeps its own
    monkeypatch.setattr(player.rclpy, 'init', lambda **_: pytest.fail('ROS was started'))
    assert player.main(['--drive', '/no/such/drive']) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith('player:')]
    assert len(errors) == 1
    assert '/no/such/drive' in errors[0]


def test_tf_says_what_odometry_says(domain, made_player):
    messages = pytest.importorskip('tf2_msgs.msg', reason='tf2_msgs is not installed')
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    moving, static = [], []
    listener = Listener(domain, [(messages.TFMessage, '/tf', moving.append, 50),
                                 (messages.TFMessage, '/tf_static', static.append, latched)])
    try:
        assert player.run(made_player, SIX, options(), threading.Event()) == 0
    finally:
        listener.close()
    transforms = [message.transforms[0] for message in moving]
    assert [stamp_to_ns(transform.header.stamp) for transform in transforms] == [
        stamp_to_ns(message.header.stamp) for message in listener.messages['odom']]
    assert [transform.transform.translation.x for transform in transforms] == [
        message.pose.pose.position.x for message in listener.messages['odom']]
    assert {(t.header.frame_id, t.child_frame_id) for t in transforms} == {('odom', 'base_link')}
    # published before we listened: latched
    camera = static[0].transforms[0]
    assert (camera.header.frame_id, camera.child_frame_id) == (
        'base_link', 'camera_optical_frame')
