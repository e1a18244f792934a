# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
sensor_msgs/Image -> (H, W, 3) uint8 RGB by one table of encodings, without cv_bridge.

A row is a pixel layout and a conversion that makes at most one pass over the image. What is not in
the table goes to a fallback (cv_bridge, where installed) or is a BadFrame that says so.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from hybrid_depth.errors import BadFrame

Fallback = Callable[[Any], np.ndarray]  # Image message -> (H, W, 3) uint8 RGB


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


def decode_image(message: Any, fallback: Fallback | None = None) -> np.ndarray:
    """
    Return the pixels of a sensor_msgs/Image, (H, W, 3) uint8 RGB.

    For rgb8 the result is a view of the message's own data, rows padded as there; only read it.
    ``fallback`` converts encodings outside the table. Raises BadFrame with reason ``zero_size``,
    ``unknown_encoding``, ``step_mismatch`` or ``truncated``.
    """
    height, width, step = message.height, message.width, message.step
    if height == 0 or width == 0:
        raise BadFrame('zero_size', f'image is {width}x{height} pixels; the camera driver sends '
                       'empty images')
    expected = step * height
    if len(message.data) < expected:
        raise BadFrame('truncated', f'image data has {len(message.data)} bytes, but step {step} x '
                       f'height {height} = {expected}; the message was cut short')
    if len(message.data) > expected:
        raise BadFrame('step_mismatch', f'image data has {len(message.data)} bytes, more than '
                       f'step {step} x height {height} = {expected}; correct the camera driver')
    encoding = ENCODINGS.get(message.encoding)
    if encoding is None:
        if fallback is None:
            raise BadFrame('unknown_encoding', f'image encoding {message.encoding!r} is not '
                           f'supported; use one of {", ".join(ENCODINGS)}, or install cv_bridge')
        return fallback(message)
    row_bytes = width * encoding.bytes_per_pixel
    if step < row_bytes:
        raise BadFrame('step_mismatch', f'image step is {step} bytes, but a row of {width} pixels '
                       f'{message.encoding} takes {row_bytes}; correct the camera driver')
    if encoding.even_width and width % 2:
        raise BadFrame('step_mismatch', f'{message.encoding} image is {width} pixels wide; its '
                       'pixels come in pairs, so the width must be even')
    rows = np.frombuffer(message.data, dtype=np.uint8).reshape(height, step)
    pixels = rows[:, :row_bytes].reshape(height, width, encoding.bytes_per_pixel)
    return encoding.to_rgb(pixels, bool(message.is_bigendian))
