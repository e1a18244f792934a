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
"""Writes ROS 2 bags for tests, with the messages of the stock type store."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import get_typestore, Stores

from hybrid_depth.drives import Drive, open_drive

STORE = get_typestore(Stores.LATEST)
CAMERA_FRAME = 'camera_optical_frame'
STORAGES = {'sqlite3': StoragePlugin.SQLITE3, 'mcap': StoragePlugin.MCAP}
LATENCY_NS = 7_000_000  # of transport: a bag's index is not the stamp
START_NS = 1_700_000_000_123_456_789
PERIOD_NS = 100_000_000
STAMPS = [START_NS + index * PERIOD_NS for index in range(4)]
HEIGHT, WIDTH = 12, 16


def make(kind: str, *values: Any) -> Any:
    """Return a message of type ``kind`` with its fields in order."""
    return STORE.types[kind](*values)


def header(stamp_ns: int, frame_id: str = CAMERA_FRAME) -> Any:
    stamp = make('builtin_interfaces/msg/Time', stamp_ns // 10**9, stamp_ns % 10**9)
    return make('std_msgs/msg/Header', stamp, frame_id)


def image(stamp_ns: int, pixels: np.ndarray, encoding: str = 'rgb8', padding: int = 0,
          frame_id: str = CAMERA_FRAME, is_bigendian: int = 0) -> Any:
    """Return (H, W) or (H, W, C) pixels as an Image, each row followed by ``padding`` bytes."""
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(height, -1)
    data = np.pad(rows, ((0, 0), (0, padding)), constant_values=0xAB)
    return make('sensor_msgs/msg/Image', header(stamp_ns, frame_id), height, width, encoding,
                is_bigendian, data.shape[1], data.reshape(-1))


def compressed(stamp_ns: int, data: np.ndarray, form: str = 'rgb8; jpeg compressed bgr8') -> Any:
    return make('sensor_msgs/msg/CompressedImage', header(stamp_ns), form,
                np.asarray(data, np.uint8).reshape(-1))


def camera_info(stamp_ns: int, width: int, height: int, focal: float = 20.0,
                D: tuple[float, ...] = ()) -> Any:
    cx, cy = width / 2 - 0.5, height / 2 - 0.5
    return make('sensor_msgs/msg/CameraInfo', header(stamp_ns), height, width, 'plumb_bob',
                np.array(D, np.float64),
                np.array([focal, 0, cx, 0, focal, cy, 0, 0, float(focal > 0)]),
                np.eye(3).reshape(-1),
                np.array([focal, 0, cx, 0, 0, focal, cy, 0, 0, 0, float(focal > 0), 0]), 0, 0,
                make('sensor_msgs/msg/RegionOfInterest', 0, 0, 0, 0, False))


def _pose(position: Iterable[float], quaternion: Iterable[float]) -> Any:
    return make('geometry_msgs/msg/Pose', make('geometry_msgs/msg/Point', *position),
                make('geometry_msgs/msg/Quaternion', *quaternion))


def odometry(stamp_ns: int, position: Iterable[float],
             quaternion: Iterable[float] = (0.0, 0.0, 0.0, 1.0), child: str = 'base_link') -> Any:
    zero = make('geometry_msgs/msg/Vector3', 0.0, 0.0, 0.0)
    return make('nav_msgs/msg/Odometry', header(stamp_ns, 'odom'), child,
                make('geometry_msgs/msg/PoseWithCovariance', _pose(position, quaternion),
                     np.zeros(36)),
                make('geometry_msgs/msg/TwistWithCovariance',
                     make('geometry_msgs/msg/Twist', zero, zero), np.zeros(36)))


def transforms(*edges: tuple[str, str, Iterable[float], Iterable[float]]) -> Any:
    """Return a TFMessage of (parent, child, translation, quaternion)."""
    return make('tf2_msgs/msg/TFMessage', [
        make('geometry_msgs/msg/TransformStamped', header(0, parent), child,
             make('geometry_msgs/msg/Transform', make('geometry_msgs/msg/Vector3', *translation),
                  make('geometry_msgs/msg/Quaternion', *quaternion)))
        for parent, child, translation, quaternion in edges])


def write_bag(path: Path, messages: Iterable[tuple[str, Any]], storage: str = 'sqlite3',
              compression: str = '', is_one_burst: bool = False) -> Path:
    """
    Write (topic, message) in order.

    Each is received LATENCY_NS after its header stamp, or all of them in one nanosecond.
    """
    connections: dict[str, Any] = {}
    bag = Writer(path, version=9, storage_plugin=STORAGES[storage])
    if compression:
        bag.set_compression(CompressionMode[compression], CompressionFormat.ZSTD)
    with bag as writer:
        for topic, message in messages:
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
            stamp = message.header.stamp if hasattr(message, 'header') else None
            stamp_ns = stamp.sec * 10**9 + stamp.nanosec if stamp else 0
            received_ns = START_NS if is_one_burst else stamp_ns + LATENCY_NS
            writer.write(connections[topic], received_ns, STORE.serialize_cdr(message, kind))
    return path


def picture(seed: int) -> np.ndarray:
    """Return a random image."""
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def depth(seed: int) -> np.ndarray:
    """Return a random depth in metres."""
    return np.random.default_rng(seed).uniform(1, 60, (HEIGHT, WIDTH)).astype(np.float32)


def camera_messages(topic: str = '/cam/image_raw', **more: Any) -> Iterator[tuple[str, Any]]:
    """Yield four images and their calibration."""
    for index, stamp_ns in enumerate(STAMPS):
        yield topic.rpartition('/')[0] + '/camera_info', camera_info(stamp_ns, WIDTH, HEIGHT)
        yield topic, image(stamp_ns, picture(index), **more)


def open_messages(tmp_path: Path, messages: Iterable[tuple[str, Any]], **more: Any) -> Drive:
    """Open a bag of these messages."""
    return open_drive(write_bag(tmp_path / 'bag', messages, 'mcap', **more))
