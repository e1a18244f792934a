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
"""Messages that cameras and odometry sources send, for tests."""
from __future__ import annotations

import array
from collections.abc import Sequence

from builtin_interfaces.msg import Time
from nav_msgs.msg import Odometry
import numpy as np
from sensor_msgs.msg import CameraInfo, Image

FRAME = 'camera_optical_frame'
# exactly the network size of the tiny model, so that its depth comes out unresized
WIDTH, HEIGHT = 128, 96


def time_message(stamp_ns: int) -> Time:
    """Return nanoseconds as a message."""
    return Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)


def to_buffer(values: np.ndarray) -> array.array:
    """Return the bytes of an array as message data."""
    buffer = array.array('B')
    buffer.frombytes(np.ascontiguousarray(values).tobytes())
    return buffer


def image_message(pixels: np.ndarray, encoding: str = 'rgb8', *, stamp_ns: int = 10**9,
                  frame_id: str = FRAME, padding: int = 0, is_bigendian: int = 0) -> Image:
    """Return (H, W) or (H, W, C) pixels as an Image, each row followed by ``padding`` bytes."""
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(height, -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=0xAB)
    message = Image(height=height, width=width, encoding=encoding, step=padded.shape[1],
                    is_bigendian=is_bigendian, data=to_buffer(padded))
    message.header.stamp = time_message(stamp_ns)
    message.header.frame_id = frame_id
    return message


def grey_image(value: int = 100, *, width: int = WIDTH, height: int = HEIGHT,
               **more: object) -> Image:
    """Return a plain rgb8 image."""
    return image_message(np.full((height, width, 3), value, np.uint8), **more)


def camera_info(width: int = WIDTH, height: int = HEIGHT, focal: float = 100.0,
                D: Sequence[float] = (), frame_id: str = FRAME,
                model: str = 'plumb_bob') -> CameraInfo:
    """Return the calibration of a camera whose K and P agree."""
    cx, cy = width / 2 - 0.5, height / 2 - 0.5
    info = CameraInfo(width=width, height=height, distortion_model=model, d=list(D),
                      k=[focal, 0., cx, 0., focal, cy, 0., 0., 1.],
                      r=[1., 0., 0., 0., 1., 0., 0., 0., 1.],
                      p=[focal, 0., cx, 0., 0., focal, cy, 0., 0., 0., 1., 0.])
    info.header.frame_id = frame_id
    return info


def odometry(stamp_ns: int, x: float = 0.0, child: str = FRAME, w: float = 1.0) -> Odometry:
    """Return odometry at x metres, not turned."""
    message = Odometry(child_frame_id=child)
    message.header.stamp = time_message(stamp_ns)
    message.header.frame_id = 'odom'
    message.pose.pose.position.x = x
    message.pose.pose.orientation.w = w
    return message
