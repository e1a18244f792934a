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
Messages <-> core types, as pure functions.

Anything with the fields of the ROS message will do, so these run on rclpy's classes and on those
of a bag reader alike. What fills a message writes into the one it is given.
"""
from __future__ import annotations

import array
from typing import Any

import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth.camera_info import camera_from_info

_IDENTITY = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]


def stamp_to_ns(stamp: Any) -> int:
    """Return a builtin_interfaces/Time as nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def calibration_key(info: Any) -> tuple[object, ...]:
    """Return what must be equal for two camera_info messages to mean the same camera."""
    roi = info.roi
    return (info.width, info.height, info.distortion_model, tuple(info.d), tuple(info.k),
            tuple(info.r), tuple(info.p), info.binning_x, info.binning_y,
            roi.x_offset, roi.y_offset, roi.width, roi.height, info.header.frame_id)


def fill_camera_info(message: Any, camera: CameraModel, source: Any, rectified: bool) -> None:
    """
    Describe ``camera``, the pixels of our outputs, in the CameraInfo ``message``.

    ``source`` is the input's camera_info. Where the output is distorted as the input is, D, the
    model and R stay, and P is scaled like K; else D is empty, R the identity and P repeats K, with
    the scaled stereo baseline of a rectified source. ROI and binning are consumed: the output is a
    camera of its own.
    """
    message.width, message.height = camera.width, camera.height
    message.k = [float(value) for value in camera.K.ravel()]
    message.binning_x = message.binning_y = 0
    message.roi.x_offset = message.roi.y_offset = 0
    message.roi.width = message.roi.height = 0
    message.roi.do_rectify = False
    projection = camera
    if camera.is_distorted:
        message.distortion_model = camera.distortion_model
        message.d = list(camera.D)
        message.r = [float(value) for value in source.r] if any(source.r) else list(_IDENTITY)
        projection = camera_from_info(source, rectified=True).resized(camera.width, camera.height)
    else:
        message.distortion_model = 'plumb_bob'
        message.d = []
        message.r = list(_IDENTITY)
    shift_x = shift_y = 0.0
    if (rectified or camera.is_distorted) and source.p[0] and source.p[5]:
        shift_x = source.p[3] * projection.fx / source.p[0]
        shift_y = source.p[7] * projection.fy / source.p[5]
    message.p = [projection.fx, 0.0, projection.cx, shift_x,
                 0.0, projection.fy, projection.cy, shift_y,
                 0.0, 0.0, 1.0, 0.0]


def set_data(message: Any, buffer: array.array[int]) -> None:
    """
    Make ``buffer`` (typecode 'B') the data of ``message`` itself, not a copy of it.

    The public setter copies on some distributions; the field behind it does not.
    """
    if hasattr(message, '_data'):
        message._data = buffer
    else:
        message.data = buffer


def fill_float_image(message: Any, values: np.ndarray) -> None:
    """
    Write ``values``, (H, W) float32, into the Image ``message`` as 32FC1.

    The message's own buffer is used again while the size stays the same; the header is not
    touched.
    """
    _fill_image(message, values, '32FC1', '<f4')


def fill_byte_image(message: Any, values: np.ndarray) -> None:
    """Write ``values``, (H, W) uint8, into the Image ``message`` as mono8; likewise."""
    _fill_image(message, values, 'mono8', 'u1')


def fill_millimetre_image(message: Any, values: np.ndarray) -> None:
    """Write ``values``, (H, W) uint16, into the Image ``message`` as 16UC1; likewise."""
    _fill_image(message, values, '16UC1', '<u2')


def _fill_image(message: Any, values: np.ndarray, encoding: str, dtype: str) -> None:
    height, width = values.shape
    if (message.height, message.width, message.encoding) != (height, width, encoding):
        message.height, message.width = height, width
        message.encoding = encoding
        message.is_bigendian = 0
        message.step = np.dtype(dtype).itemsize * width
        set_data(message, array.array('B', bytes(message.step * height)))
    np.copyto(np.frombuffer(message.data, dtype=dtype).reshape(height, width), values)


def odometry_sample(message: Any) -> tuple[int, list[float], list[float], list[float],
                                           list[float]]:
    """
    Return what PoseBuffer.insert takes from a nav_msgs/Odometry.

    Stamp in ns, quaternion x y z w, position in metres, linear and angular velocity in the child
    frame in m/s and rad/s. Nothing is checked here.
    """
    position, rotation = message.pose.pose.position, message.pose.pose.orientation
    linear, angular = message.twist.twist.linear, message.twist.twist.angular
    return (stamp_to_ns(message.header.stamp),
            [rotation.x, rotation.y, rotation.z, rotation.w],
            [position.x, position.y, position.z],
            [linear.x, linear.y, linear.z], [angular.x, angular.y, angular.z])
