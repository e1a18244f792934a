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
What a sensor_msgs/CameraInfo says about the pixels of an image.

Anything with the fields of the message will do: rclpy's class or a bag reader's.
"""
from __future__ import annotations

import re
from typing import Any

from hybrid_depth.camera import CameraModel

RECTIFIED_MODES = ('auto', 'true', 'false')
_RECT_NAME = re.compile(r'(^|[/_])rect(ified)?([/_]|$)')


def is_rectified(info: Any, mode: str, image_topic: str) -> tuple[bool, str]:
    """
    Decide whether images on ``image_topic`` are rectified, and say why.

    ``mode`` is one of RECTIFIED_MODES. A rectified image's intrinsics are in P and D does not
    apply; otherwise they are in K. Without distortion the two agree unless a stereo rectification
    is in P, which then does not speak of these pixels: so a zero D alone keeps K.
    """
    if mode != 'auto':
        return mode == 'true', f"parameter 'rectified' is '{mode}'"
    if _RECT_NAME.search(image_topic):
        return True, f"the topic name {image_topic} says 'rect'"
    if not any(info.d):
        if info.k[0] == 0.0 and info.p[0] != 0.0:
            return True, 'D is all zero and only P holds intrinsics'
        return False, 'D is all zero, so the pixels need no undistortion; K applies'
    return False, 'D is not zero and the topic name does not say rect; K and D apply'


def camera_from_info(info: Any, rectified: bool) -> CameraModel:
    """Return the camera of the delivered image (after ROI and binning). Raises BadFrame."""
    roi = info.roi
    return CameraModel.from_calibration(
        info.width, info.height, list(info.k), list(info.d), list(info.p), info.distortion_model,
        rectified=rectified, binning=(info.binning_x, info.binning_y),
        roi=(roi.x_offset, roi.y_offset, roi.width, roi.height))
