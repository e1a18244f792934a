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
A camera in this process, the node and a listener in others, joined by ROS 2 topics.

The images lie in memory as finished messages, so that playing them costs no more than publishing.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
from pathlib import Path
import sys
import time
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, Image

from hybrid_depth.errors import HybridDepthError
from hybrid_depth_ros.bench.frames import camera, images
from hybrid_depth_ros.bench.machine import ProcessMeter
from hybrid_depth_ros.bench.statistics import read_arrivals, stream_figures
from hybrid_depth_ros.conversions import stamp_to_ns
from hybrid_depth_ros.drive_messages import camera_info_message, image_message, time_message
from hybrid_depth_ros.processes import Children

START_S = 90.0  # a busy machine needs long to import and to load a model
_ANSWER_S = 30.0
_SETTLE_S = 0.3  # for what is still on its way when the last image of a stream was sent


class ChainError(HybridDepthError):
    """The processes did not come together."""


class Chain:
    """One node, measured from both ends. Use as a context; the domain is that of os.environ."""

    def __init__(self, environment: Mapping[str, str], out: Path,
                 views: Sequence[np.ndarray], parameters: Mapping[str, object]) -> None:
        self._out = out
        self._views = views
        self._times = out / 'times.jsonl'
        self._arrivals = out / 'arrivals.txt'
        self._children = Children(environment, out)
        self._command = [sys.executable, '-m', 'hybrid_depth_ros.bench.node',
                         '--times', str(self._times), '--ros-args']
        for name, value in parameters.items():
            self._command += ['-p', f'{name}:={value}']
        self._frames: list[Image] = []

    def __enter__(self) -> Chain:
        self._children.__enter__()
        for path in (self._times, self._arrivals):
            path.unlink(missing_ok=True)  # of an earlier run
        self._children.start('node', self._command)
        self._started = ['node']
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node('bench_camera')
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._image = self._node.create_publisher(Image, 'image', 1)
        self._info = self._node.create_publisher(CameraInfo, 'camera_info', 1)
        self._answers: set[int] = set()
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.try_shutdown()
        self._children.__exit__()

    def show(self, size: tuple[int, int]) -> None:
        """Be a camera of (width, height) from now on."""
        self._frames = [image_message(image, 0) for image in images(self._views, size)]
        self._camera_info = camera_info_message(camera(size), 0)

    def meter(self) -> ProcessMeter:
        """Return a meter of the node, started now."""
        return ProcessMeter(self._children.pid('node'))

    def until_ready(self) -> None:
        """Wait until the node takes camera_info. Raises ChainError."""
        end = time.monotonic() + START_S
        while not self._info.get_subscription_count():
            self._check(end, 'the node does not listen to camera_info')
            time.sleep(0.05)

    def listen(self, topics: Sequence[str]) -> None:
        """Start the listener, and wait until the first image was answered. Raises ChainError."""
        self._children.start('listener', [
            sys.executable, '-m', 'hybrid_depth_ros.listener', '--out', str(self._arrivals),
            '--topics', *topics])
        self._started.append('listener')
        self._node.create_subscription(
            CameraInfo, '/hybrid_depth/depth/camera_info',
            lambda message: self._answers.add(stamp_to_ns(message.header.stamp)),
            QoSProfile(depth=10))
        end = time.monotonic() + START_S
        while not self._arrivals.is_file() or not read_arrivals(self._arrivals, topics[0]):
            self._check(end, 'nothing arrives at the listener')
            self._send(0)
            self._spin(0.2)

    def step(self, count: int, seconds: float) -> list[dict]:
        """
        Send images one by one, each when the one before was answered; return the node's times.

        ``count`` of them, or as many as ``seconds`` allow, but at least three. The first is not
        among them: the model may have been loaded for it. Raises ChainError.
        """
        self._wait_for_answer(self._send(0))
        before = self._times.read_text().count('\n')
        end = time.monotonic() + seconds
        for index in range(count):
            if index >= 3 and time.monotonic() > end:
                break
            self._wait_for_answer(self._send(index))
            self._spin(0.02)  # clouds come after camera_info, and a camera pauses, too
        return [json.loads(line) for line in self._times.read_text().splitlines()[before:]]

    def play(self, hz: float, seconds: float) -> dict[str, Any]:
        """Send images at a fixed rate; return what came of them, and what the node used."""
        meter = self.meter()
        start, sent = time.time_ns(), []
        for index in range(max(3, round(hz * seconds))):
            _sleep_until(start + round(1e9 * index / hz))
            sent.append(self._send(index))
        _sleep_until(start + round(1e9 * len(sent) / hz))
        played = 1e-9 * (time.time_ns() - start)
        cpu_percent = meter.cpu_percent()
        time.sleep(_SETTLE_S)
        self._check(time.monotonic() + 1, '')
        arrivals = read_arrivals(self._arrivals, 'depth/image') if self._arrivals.is_file() else []
        return {'hz': round(hz, 2), **stream_figures(sent, arrivals, played),
                'cpu_percent': cpu_percent, 'rss_mib': meter.rss_mib()}

    def _send(self, index: int) -> int:
        frame = self._frames[index % len(self._frames)]
        stamp_ns = time.time_ns()
        frame.header.stamp = self._camera_info.header.stamp = time_message(stamp_ns)
        self._info.publish(self._camera_info)
        self._image.publish(frame)
        return stamp_ns

    def _wait_for_answer(self, stamp_ns: int) -> None:
        end = time.monotonic() + _ANSWER_S
        while stamp_ns not in self._answers:
            self._check(end, 'an image was not answered')
            self._executor.spin_once(timeout_sec=0.1)
        self._answers.clear()

    def _spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def _check(self, end: float, problem: str) -> None:
        for name in self._started:
            if self._children.status(name) is not None:
                raise ChainError(f'the {name} ended early; see {self._children.log(name)}')
        if time.monotonic() > end:
            raise ChainError(f'{problem}; see the logs in {self._out}')


def _sleep_until(moment_ns: int) -> None:
    time.sleep(max(0.0, 1e-9 * (moment_ns - time.time_ns())))
