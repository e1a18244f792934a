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
"""A depth node and a client that is camera, odometry and listener, in one process."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
import threading
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Vector3Stamped
from nav_msgs.msg import OccupancyGrid, Odometry
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from ros_messages import camera_info, FRAME, grey_image
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from tiny_model import POSED, tiny_depth, tiny_spec

from hybrid_depth.camera import CameraModel
from hybrid_depth.types import DepthResult, Frame
from hybrid_depth_ros import depth_node
from hybrid_depth_ros.bev_outputs import elevation_type

TYPES = {'depth/image': Image, 'depth/image_raw': Image,
         'depth/image/compressedDepth': CompressedImage, 'depth/camera_info': CameraInfo,
         'depth/sigma': Image, 'depth/evidence': Image, 'scale': Vector3Stamped,
         'points': PointCloud2, 'points_filtered': PointCloud2, 'points_clearing': PointCloud2,
         'bev/occupancy': OccupancyGrid, 'bev/elevation': elevation_type()}
PATIENCE_S = 60.0  # with what a busy machine will do in the end; only failures take it


class FakePipeline:
    """A pipeline that is as slow and as broken as a test needs."""

    backend_description = 'fake'

    def __init__(self, config: Any) -> None:
        self.config = config
        self.spec = tiny_spec()
        self.frames: list[Frame] = []
        self.is_closed = self.is_free = False
        self.delay_s = 0.0
        self.error: Exception | None = None
        self.gate: threading.Event | None = None
        self.warm_gate: threading.Event | None = None  # likewise, of warm_up
        self.was_hurried: bool | None = None
        self.more: dict[str, Any] = {}  # fields of the next results

    def backend_facts(self) -> dict[str, str]:
        return {}

    def backend_complaint(self) -> str:
        return ''

    def configure(self, config: Any) -> None:
        self.config = config

    def warm_up(self, camera: CameraModel, is_hurried: Callable[[], bool]) -> None:
        self.warmed_up_for = camera
        if self.warm_gate is not None:
            self.warm_gate.wait(PATIENCE_S)
        self.was_hurried = is_hurried()

    def free(self) -> None:
        self.is_free = True

    def close(self) -> None:
        self.is_closed = True

    def for_another_camera(self) -> FakePipeline:
        return type(self)(self.config)

    def run(self, frame: Frame, extras: Any = ()) -> DepthResult:
        self.is_free = False
        self.frames.append(frame)
        self.extras = extras
        if self.gate is not None:
            self.gate.wait(PATIENCE_S)
        time.sleep(self.delay_s)
        if self.error is not None:
            raise self.error
        depth_m = tiny_depth(frame.image_rgb, frame.camera.fx)
        depth_m[0, 0], depth_m[0, 1] = np.nan, np.inf
        result = DepthResult(depth_m, depth_m * 0.1, np.zeros(depth_m.shape, bool),
                             frame.image_rgb, frame.camera, frame.stamp_ns, frame.frame_id,
                             'single_frame', {'total': 1.0})
        return replace(result, **self.more)


class PosedFake(FakePipeline):
    """A fake whose model wants poses."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.spec = tiny_spec(**POSED)


class Bench:
    """Everything a node test needs; ``close`` it."""

    def __init__(self, make_pipeline: Any = None, cli_args: list[str] | None = None,
                 **parameters: Any) -> None:
        self.pipelines: list[Any] = []

        def remember(config: Any) -> Any:
            self.pipelines.append((make_pipeline or FakePipeline)(config))
            return self.pipelines[-1]
        overrides = [Parameter(name.replace('__', '.'), value=value)
                     for name, value in parameters.items()]
        depth_node._TICK_S = 0.2  # tests need not wait a second for diagnostics
        self.node = depth_node.DepthNode(remember, parameter_overrides=overrides,
                                         cli_args=cli_args)
        self.client = rclpy.create_node('client')
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.executor.add_node(self.client)
        qos = QoSProfile(depth=100)
        self.images = self.client.create_publisher(Image, 'image', qos)
        self.infos = self.client.create_publisher(CameraInfo, 'camera_info', qos)
        self.odometry = self.client.create_publisher(Odometry, 'odom', qos)
        self.received: dict[str, list[Any]] = {topic: [] for topic in TYPES}
        self.diagnostics: list[Any] = []
        self.client.create_subscription(
            DiagnosticArray, '/diagnostics', lambda m: self.diagnostics.append(m.status[0]), qos)
        self.listeners: dict[str, Any] = {}
        self.stamp_ns = 10**9

    @property
    def pipeline(self) -> Any:
        return self.pipelines[-1]

    def listen(self, *topics: str) -> None:
        """Subscribe to outputs of the node."""
        for topic in topics:
            message_type = TYPES.get(topic) or TYPES[topic.partition('/')[2]]  # of a camera
            self.listeners[topic] = self.client.create_subscription(
                message_type, f'/hybrid_depth/{topic}',
                self.received.setdefault(topic, []).append, QoSProfile(depth=100))

    def ignore(self, topic: str) -> None:
        self.client.destroy_subscription(self.listeners.pop(topic))

    def start(self, *topics: str) -> None:
        """Activate the node and connect all; ends when an image would arrive."""
        assert self.node.start()
        self.listen(*topics)
        self.until(lambda: self.images.get_subscription_count() > 0
                   and self.infos.get_subscription_count() > 0
                   and self.odometry.get_subscription_count() > 0)

    def until(self, condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
        """Spin until ``condition``; fail after ``timeout_s``."""
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, 'waited in vain'
            self.executor.spin_once(timeout_sec=0.02)

    def spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.02)

    def calibrate(self, info: CameraInfo | None = None) -> None:
        """Publish camera_info and wait until the node knows it."""
        state = self.node._resources.cameras[0].source.state
        self.infos.publish(info or camera_info())
        self.until(lambda: self.node._resources.cameras[0].source.state is not state)

    def send(self, image: Image | None = None, stamp_ns: int | None = None) -> Image:
        """Publish an image, stamped 0.1 s after the one before unless it says otherwise."""
        if image is None:
            self.stamp_ns = stamp_ns or self.stamp_ns + 100_000_000
            image = grey_image(stamp_ns=self.stamp_ns)
        self.images.publish(image)
        return image

    def tell(self, *messages: Odometry) -> None:
        """Publish odometry and wait until the node has taken it."""
        poses = self.node._session.poses['']

        def taken() -> int:
            return sum(poses._counts.values())
        before = taken()
        for message in messages:
            self.odometry.publish(message)
        self.until(lambda: taken() >= before + len(messages))

    def send_and_wait(self, image: Image | None = None, topic: str = 'depth/image') -> Any:
        """Publish an image and return what comes out on ``topic``."""
        count = len(self.received[topic])
        self.send(image)
        self.until(lambda: len(self.received[topic]) > count)
        return self.received[topic][-1]

    def drops(self) -> dict[str, int]:
        return dict(self.node._resources.cameras[0].stats.snapshot().drops)

    def send_bad(self, image: Image | None, reason: str) -> None:
        """Publish an image that must be dropped for ``reason``, and nothing come out."""
        before = self.drops().get(reason, 0)
        count = len(self.received['depth/image'])
        self.send(image)
        self.until(lambda: self.drops().get(reason, 0) == before + 1)
        assert len(self.received['depth/image']) == count

    def diagnosed(self, condition: Callable[[Any, dict[str, str]], bool],
                  since: int | None = None) -> None:
        """
        Wait for a diagnostic status, with its values as a dictionary, that fits.

        ``since``: the length of ``diagnostics`` from which on they count, default: now.
        """
        seen = len(self.diagnostics) if since is None else since
        self.until(lambda: any(
            condition(status, {entry.key: entry.value for entry in status.values})
            for status in self.diagnostics[seen:]))

    def close(self) -> None:
        for pipeline in self.pipelines:
            for gate in (getattr(pipeline, name, None) for name in ('gate', 'warm_gate')):
                if gate is not None:
                    gate.set()
        self.executor.shutdown()
        self.node.destroy_node()
        self.client.destroy_node()


__all__ = ['FRAME', 'Bench', 'FakePipeline', 'PosedFake', 'camera_info', 'grey_image']
