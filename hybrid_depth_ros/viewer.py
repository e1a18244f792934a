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
Show what the depth node publishes in the rerun viewer, live: ``ros2 run hybrid_depth_ros viewer``.

For machines without RViz. A listener like any other: where it lags it sees fewer frames, and
while it runs the node computes for it.
"""
from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from typing import Any

from nav_msgs.msg import OccupancyGrid
import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from hybrid_depth.camera_info import camera_from_info, is_rectified
from hybrid_depth.errors import BadFrame, HybridDepthError
from hybrid_depth.recording import FrameLog, import_rerun
from hybrid_depth.types import Evidence
from hybrid_depth_ros.conversions import stamp_to_ns
from hybrid_depth_ros.diagnostics import ThrottledWarnings
from hybrid_depth_ros.encodings import decode_image
from hybrid_depth_ros.parameters import IMAGE_TRANSPORTS
from hybrid_depth_ros.qos import input_qos

_PENDING = 8  # images and depths that wait for each other
_PALETTE = {Evidence.SINGLE_FRAME: (90, 90, 90), Evidence.MATCHED: (0, 160, 80),
            Evidence.EPIPOLE: (70, 70, 200), Evidence.OCCLUDED: (200, 140, 0),
            Evidence.MOVING: (220, 30, 30)}
# occupancy -1 to 100 -> grey, as map viewers have it: unknown between, occupied black
_GREYS = np.array([*(round(255 - 2.55 * value) for value in range(101)), *[128] * 155], np.uint8)


class Viewer(Node):
    """
    Passes messages of the node called ``source`` on to a rerun.RecordingStream.

    Image, depth and camera_info are put together by their stamp, which is one and the same.
    """

    def __init__(self, stream: Any, source: str, is_compressed: bool, max_m: float) -> None:
        super().__init__('hybrid_depth_viewer')
        self._rr, self._stream = import_rerun(), stream
        self._log = FrameLog(stream, max_m, path_length=1)
        self._parts: dict[int, dict[str, Any]] = {}  # by stamp, oldest first
        self._warnings = ThrottledWarnings(logging.getLogger(__name__))
        self.shown = 0  # frames
        image = self.resolve_topic_name('image')
        self._listen('image', CompressedImage if is_compressed else Image,
                     f'{image}/compressed' if is_compressed else 'image')
        self._listen('depth', Image, f'{source}/depth/image')
        self._listen('camera_info', CameraInfo, f'{source}/depth/camera_info')
        self.create_subscription(Image, f'{source}/depth/sigma', self._show_sigma, input_qos(1))
        self.create_subscription(Image, f'{source}/depth/evidence', self._show_evidence,
                                 input_qos(1))
        self.create_subscription(OccupancyGrid, f'{source}/bev/occupancy', self._show_map,
                                 input_qos(1))
        stream.log('depth/evidence', self._rr.AnnotationContext(
            [(int(value), value.name, colour) for value, colour in _PALETTE.items()]), static=True)

    def _listen(self, part: str, message_type: Any, topic: str) -> None:
        def take(message: Any) -> None:
            stamp_ns = stamp_to_ns(message.header.stamp)
            parts = self._parts.setdefault(stamp_ns, {})
            parts[part] = message
            if len(parts) == 3:
                del self._parts[stamp_ns]
                self._show_frame(stamp_ns, **parts)
            elif len(self._parts) > _PENDING:
                del self._parts[next(iter(self._parts))]
        self.create_subscription(message_type, topic, take, input_qos(_PENDING))

    def _show_frame(self, stamp_ns: int, image: Any, depth: Image,
                    camera_info: CameraInfo) -> None:
        try:
            camera = camera_from_info(camera_info, is_rectified(camera_info, 'auto', '')[0])
            image_rgb = decode_image(image)
            if (image_rgb.shape[1], image_rgb.shape[0]) != (camera.width, camera.height):
                raise BadFrame('size_mismatch', 'image and depth differ in size; set the '
                               "parameter resolution of the node to 'camera'")
            self._log.add(stamp_ns, image_rgb, camera, _floats(depth))
        except BadFrame as error:
            self._warnings.warn(error.reason, str(error))
            return
        if not self.shown:
            self._stream.send_blueprint(self._blueprint())
        self.shown += 1

    def _show_sigma(self, message: Image) -> None:
        self._at(message)
        self._stream.log('sigma', self._rr.DepthImage(_floats(message), meter=1.0,
                                                      colormap='Magma'))

    def _show_evidence(self, message: Image) -> None:
        self._at(message)
        values = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
        self._stream.log('depth/evidence',
                         self._rr.SegmentationImage(values[:, :message.width]))

    def _show_map(self, message: OccupancyGrid) -> None:
        self._at(message)
        values = np.frombuffer(message.data, np.uint8).reshape(message.info.height,
                                                               message.info.width)
        # x points up and y to the left
        self._stream.log('map', self._rr.Image(_GREYS[values].T[::-1, ::-1]))

    def _at(self, message: Any) -> None:
        self._stream.set_time('time', timestamp=np.datetime64(
            stamp_to_ns(message.header.stamp), 'ns'))

    def _blueprint(self) -> Any:
        b = self._rr.blueprint
        views = {'image': 'world/camera/image', 'depth': 'depth', 'sigma': 'sigma',
                 'evidence': 'depth/evidence', 'map': 'map'}
        return b.Blueprint(b.Horizontal(
            b.Spatial3DView(origin='world', name='cloud'),
            b.Grid(*(b.Spatial2DView(origin=origin, name=name)
                     for name, origin in views.items())), column_shares=[1, 1]),
            collapse_panels=True)


def _floats(message: Image) -> np.ndarray:
    return np.frombuffer(message.data, '<f4').reshape(message.height, message.width)


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Return the options; ends the process with status 2 where they are wrong."""
    parser = argparse.ArgumentParser(prog='viewer', description=__doc__.split('\n\n')[0].strip())
    where = parser.add_mutually_exclusive_group()
    where.add_argument('--connect', metavar='URL', help='to a viewer that runs elsewhere, say '
                       'rerun+http://192.168.1.2:9876/proxy; without it one is started here')
    where.add_argument('--serve', action='store_true', help='wait for viewers: rerun '
                       'rerun+http://<this machine>:9876/proxy')
    where.add_argument('--save', metavar='FILE', help='into an .rrd file')
    parser.add_argument('--node', default='hybrid_depth', help='name of the depth node, with its '
                        'camera where it has several: hybrid_depth/front')
    parser.add_argument('--image-transport', choices=IMAGE_TRANSPORTS, default='raw',
                        help='as the parameter of the node')
    parser.add_argument('--max-depth', type=float, default=80.0, help='metres, of the colours')
    parser.add_argument('--memory', default='1GiB', help='of the viewer, before it forgets')
    return parser.parse_args(argv)


def open_stream(options: argparse.Namespace) -> Any:
    """Return a stream that leads where the options say. Raises ConfigError without rerun."""
    stream = import_rerun().RecordingStream('hybrid_depth')
    if options.save:
        stream.save(options.save)
    elif options.connect:
        stream.connect_grpc(options.connect)
    elif options.serve:
        print(stream.serve_grpc(server_memory_limit=options.memory), flush=True)
    else:
        stream.spawn(memory_limit=options.memory)
    return stream


def main(argv: list[str] | None = None) -> int:
    """Show until SIGINT or SIGTERM; 0 = done, 2 = it cannot be shown."""
    argv = sys.argv if argv is None else ['viewer', *argv]
    options = parse_arguments(remove_ros_args(argv)[1:])
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        stream = open_stream(options)
    except (HybridDepthError, RuntimeError, OSError, ValueError) as error:
        print(f'viewer: {error}', file=sys.stderr)
        return 2
    rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
    viewer = Viewer(stream, options.node, options.image_transport == 'compressed',
                    options.max_depth)
    executor = SingleThreadedExecutor()
    executor.add_node(viewer)
    try:
        while rclpy.ok() and not stop.is_set():
            executor.spin_once(timeout_sec=0.2)
    except ExternalShutdownException:
        pass
    finally:
        executor.shutdown()
        viewer.destroy_node()
        rclpy.try_shutdown()
        stream.flush()
        stream.disconnect()
    return 0


if __name__ == '__main__':
    sys.exit(main())
