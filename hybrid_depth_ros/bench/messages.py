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
"""Messages to arrays and back, and clouds: what the node does against the plain ways to do it."""
from __future__ import annotations

from collections.abc import Callable
from functools import partial
import importlib

import cv2
import numpy as np
from sensor_msgs.msg import Image, PointCloud2, PointField

from hybrid_depth.camera import CameraModel
from hybrid_depth.cloud import CloudPacker, FIELDS
from hybrid_depth.types import DepthResult
from hybrid_depth_ros.bench.statistics import median_ms, ratio
from hybrid_depth_ros.conversions import fill_float_image
from hybrid_depth_ros.drive_messages import image_message
from hybrid_depth_ros.encodings import decode_image

STRIDES = (1, 2)


def naive_decode(message: Image) -> np.ndarray:
    """Turn a bgr8 Image into RGB as one does it without thinking: by bytes, with a copy."""
    pixels = np.frombuffer(bytes(message.data), np.uint8)
    return pixels.reshape(message.height, message.width, 3)[..., ::-1].copy()


def naive_image(values: np.ndarray) -> Image:
    """Make a new 32FC1 message for every image, its data by tobytes."""
    height, width = values.shape
    return Image(height=height, width=width, encoding='32FC1', step=4 * width,
                 data=values.tobytes())


def naive_cloud(result: DepthResult, stride: int) -> PointCloud2:
    """Pack by meshgrid in double precision and a structured array, as most examples do."""
    s, camera = stride, result.camera
    z = result.depth_m[::s, ::s]
    v, u = np.mgrid[:camera.height:s, :camera.width:s]
    points = np.zeros(z.shape, [('x', '<f4'), ('y', '<f4'), ('z', '<f4'), ('rgb', '<u4')])
    points['x'] = (u - camera.cx) / camera.fx * z
    points['y'] = (v - camera.cy) / camera.fy * z
    points['z'] = z
    red, green, blue = (result.image_rgb[::s, ::s, c].astype(np.uint32) for c in range(3))
    points['rgb'] = red << 16 | green << 8 | blue
    fields = [PointField(name=name, offset=offset, datatype=datatype, count=1)
              for name, offset, datatype in FIELDS]
    return PointCloud2(height=z.shape[0], width=z.shape[1], fields=fields, point_step=16,
                       row_step=16 * z.shape[1], data=points.tobytes())


def conversions(image_rgb: np.ndarray, depth_m: np.ndarray, seconds: float) -> dict[str, object]:
    """Return medians in ms of message conversion, ours, naive and by cv_bridge."""
    incoming = image_message(cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR), 0)
    incoming.encoding = 'bgr8'
    outgoing = Image()
    result: dict[str, object] = {}
    cases: tuple[tuple[str, Callable[[], object], Callable[[], object]], ...] = (
        ('bgr8_to_rgb', lambda: decode_image(incoming), lambda: naive_decode(incoming)),
        ('depth_to_32FC1', lambda: fill_float_image(outgoing, depth_m),
         lambda: naive_image(depth_m)))
    for name, ours, naive in cases:
        result[name] = against(median_ms(ours, seconds), median_ms(naive, seconds))
    result['cv_bridge'] = _cv_bridge(incoming, depth_m, seconds)
    return result


def clouds(camera: CameraModel, image_rgb: np.ndarray, depth_m: np.ndarray,
           seconds: float) -> dict[str, object]:
    """Return medians in ms of cloud packing, ours and naive, by stride."""
    result = DepthResult(depth_m, 0.1 * depth_m, np.zeros(depth_m.shape, bool), image_rgb, camera,
                         0, 'camera', 'single_frame')
    found: dict[str, object] = {}
    for stride in STRIDES:
        packer = CloudPacker(stride)
        found[f'stride_{stride}'] = against(
            median_ms(partial(packer.pack, result), seconds),
            median_ms(partial(naive_cloud, result, stride), seconds))
    return found


def against(ours_ms: float, naive_ms: float) -> dict[str, float | None]:
    """Return both, and the ratio of the same run."""
    return {'ms': ours_ms, 'naive_ms': naive_ms, 'ratio': ratio(ours_ms, naive_ms)}


def _cv_bridge(incoming: Image, depth_m: np.ndarray, seconds: float) -> dict[str, object] | str:
    try:
        bridge = importlib.import_module('cv_bridge').CvBridge()
    except ImportError as error:
        return f'not run: {error}'
    return {
        'bgr8_to_rgb_ms': median_ms(lambda: bridge.imgmsg_to_cv2(incoming, 'rgb8'), seconds),
        'depth_to_32FC1_ms': median_ms(lambda: bridge.cv2_to_imgmsg(depth_m, '32FC1'), seconds)}
