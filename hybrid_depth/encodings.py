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
Bytes of an uncompressed image -> (H, W, 3) uint8 RGB, by one table of ROS image encodings.

A row is a pixel layout and a conversion that makes at most one pass over the image. The arguments
are the fields of sensor_msgs/Image, wherever they come from: a live topic or a recording.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from hybrid_depth.errors import BadFrame


@dataclass(frozen=True)
class Encoding:
    """How the bytes of one encoding become RGB."""

    bytes_per_pixel: int
    # (H, W, bytes_per_pixel) uint8 view with padded rows, is_bigendian -> (H, W, 3) uint8
    to_rgb: Callable[[np.ndarray, bool], np.ndarray]
    even_width: bool = False  # two pixels share their colour


def _colour(code: int) -> Callable[[np.ndarray, bool], np.ndarray]:
    return lambda pixels, _: cv2.cvtColor(np.ascontiguousarray(pixels), code)


def _bayer(code: int) -> Callable[[np.ndarray, bool], np.ndarray]:
    return lambda pixels, _: cv2.cvtColor(np.ascontiguousarray(pixels[..., 0]), code)


def _mono16(pixels: np.ndarray, is_bigendian: bool) -> np.ndarray:
    # the more significant byte is the 8-bit image
    high = np.ascontiguousarray(pixels[..., 0 if is_bigendian else 1])
    return cv2.cvtColor(high, cv2.COLOR_GRAY2RGB)


_RGB = Encoding(3, lambda pixels, _: pixels)  # a view of the message, no copy
_BGR = Encoding(3, _colour(cv2.COLOR_BGR2RGB))
_MONO = Encoding(1, _colour(cv2.COLOR_GRAY2RGB))
_UYVY = Encoding(2, _colour(cv2.COLOR_YUV2RGB_UYVY), even_width=True)
_YUYV = Encoding(2, _colour(cv2.COLOR_YUV2RGB_YUY2), even_width=True)

ENCODINGS: dict[str, Encoding] = {
    'rgb8': _RGB,
    'bgr8': _BGR,
    'rgba8': Encoding(4, _colour(cv2.COLOR_RGBA2RGB)),
    'bgra8': Encoding(4, _colour(cv2.COLOR_BGRA2RGB)),
    'mono8': _MONO,
    'mono16': Encoding(2, _mono16),
    # the same layouts have an older and a newer name
    'yuv422': _UYVY,
    'uyvy': _UYVY,
    'yuv422_yuy2': _YUYV,
    'yuyv': _YUYV,
    # OpenCV names a Bayer pattern by its second row and column, ROS by its first
    'bayer_rggb8': Encoding(1, _bayer(cv2.COLOR_BayerBG2RGB)),
    'bayer_bggr8': Encoding(1, _bayer(cv2.COLOR_BayerRG2RGB)),
    'bayer_gbrg8': Encoding(1, _bayer(cv2.COLOR_BayerGR2RGB)),
    'bayer_grbg8': Encoding(1, _bayer(cv2.COLOR_BayerGB2RGB)),
    # these name no colour; read in the channel order of OpenCV, where such images come from
    '8UC1': _MONO,
    '8UC3': _BGR,
}


def check_size(width: int, height: int, step: int, data: Any) -> None:
    """
    Check that ``data`` (bytes, any buffer of them) holds ``height`` rows of ``step`` bytes.

    Raises BadFrame with reason ``zero_size``, ``truncated`` or ``step_mismatch``.
    """
    if height == 0 or width == 0:
        raise BadFrame('zero_size', f'image is {width}x{height} pixels; the camera driver sends '
                       'empty images')
    expected = step * height
    if len(data) < expected:
        raise BadFrame('truncated', f'image data has {len(data)} bytes, but step {step} x '
                       f'height {height} = {expected}; the message was cut short')
    if len(data) > expected:
        raise BadFrame('step_mismatch', f'image data has {len(data)} bytes, more than '
                       f'step {step} x height {height} = {expected}; correct the camera driver')


def pixel_rows(width: int, height: int, step: int, data: Any, bytes_per_pixel: int,
               encoding: str) -> np.ndarray:
    """
    Return a view of ``data`` without its row padding, (H, W, bytes_per_pixel) uint8.

    Raises BadFrame as check_size does, and where ``step`` is shorter than a row.
    """
    check_size(width, height, step, data)
    row_bytes = width * bytes_per_pixel
    if step < row_bytes:
        raise BadFrame('step_mismatch', f'image step is {step} bytes, but a row of {width} pixels '
                       f'{encoding} takes {row_bytes}; correct the camera driver')
    rows = np.frombuffer(data, dtype=np.uint8).reshape(height, step)
    return rows[:, :row_bytes].reshape(height, width, bytes_per_pixel)


def decode_pixels(width: int, height: int, encoding: str, step: int, data: Any,
                  is_bigendian: bool) -> np.ndarray:
    """
    Return the pixels of an image, (H, W, 3) uint8 RGB.

    For rgb8 the result is a view of ``data``, rows padded as there; only read it. Raises BadFrame
    with reason ``zero_size``, ``unknown_encoding``, ``step_mismatch`` or ``truncated``.
    """
    row = ENCODINGS.get(encoding)
    if row is None:
        check_size(width, height, step, data)
        raise BadFrame('unknown_encoding', f'image encoding {encoding!r} is not supported; use '
                       f'one of {", ".join(ENCODINGS)}')
    pixels = pixel_rows(width, height, step, data, row.bytes_per_pixel, encoding)
    if row.even_width and width % 2:
        raise BadFrame('step_mismatch', f'{encoding} image is {width} pixels wide; its '
                       'pixels come in pairs, so the width must be even')
    return row.to_rgb(pixels, is_bigendian)
