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
Images of a bag: colour from Image and CompressedImage, depth from Image.

Sizes are compared with the camera's before anything of that size is made.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth.compressed import compressed_size, decode_compressed
from hybrid_depth.encodings import decode_pixels, pixel_rows
from hybrid_depth.errors import BadFrame, DriveError

# encoding -> type, metres per unit
DEPTH_ENCODINGS: dict[str, tuple[np.dtype[Any], float]] = {
    '32FC1': (np.dtype('f4'), 1.0),
    '16UC1': (np.dtype('u2'), 1e-3),
}


def read_rgb(message: Any, camera: CameraModel, where: str) -> np.ndarray:
    """
    Return the pixels of an Image or CompressedImage, (H, W, 3) uint8 RGB.

    Raises DriveError, which begins with ``where``.
    """
    if not hasattr(message, 'encoding'):
        return _decompress(message, camera, where)
    _check_size(message.width, message.height, camera, where)
    try:
        rgb = decode_pixels(message.width, message.height, message.encoding, message.step,
                            message.data, bool(message.is_bigendian))
    except BadFrame as error:
        raise DriveError(f'{where}: {error}') from error
    # of its own memory: rgb8 comes as a read-only view of the message
    return np.require(rgb, requirements=['C', 'W'])


def read_depth_m(message: Any, camera: CameraModel, where: str) -> np.ndarray:
    """
    Return the depth of an Image, (H, W) float32 metres, NaN where there is none.

    Raises DriveError, which begins with ``where``.
    """
    if message.encoding not in DEPTH_ENCODINGS:
        raise DriveError(f'{where} is encoded as {message.encoding!r}; expected one of '
                         f'{", ".join(DEPTH_ENCODINGS)} throughout')
    _check_size(message.width, message.height, camera, where)
    kind, metres_per_unit = DEPTH_ENCODINGS[message.encoding]
    try:
        pixels = pixel_rows(message.width, message.height, message.step, message.data,
                            kind.itemsize, message.encoding)
    except BadFrame as error:
        raise DriveError(f'{where}: {error}') from error
    ordered = kind.newbyteorder('>' if message.is_bigendian else '<')
    raw = np.ascontiguousarray(pixels).view(ordered)[..., 0]
    depth_m = (raw * metres_per_unit).astype(np.float32)
    none = ~np.isfinite(depth_m) | (depth_m <= 0)
    if kind.kind == 'u':
        none |= raw == 65535
    depth_m[none] = np.nan
    return depth_m


def _decompress(message: Any, camera: CameraModel, where: str) -> np.ndarray:
    try:
        _check_size(*compressed_size(message.data), camera, where)
        return decode_compressed(message.data, message.format, camera.width, camera.height)
    except BadFrame as error:
        raise DriveError(f'{where} cannot be decoded ({message.format!r}, {len(message.data)} '
                         f'bytes): {error}') from error


def _check_size(width: int, height: int, camera: CameraModel, where: str) -> None:
    if (width, height) != (camera.width, camera.height):
        raise DriveError(f'{where} is {width}x{height}, its camera_info says '
                         f'{camera.width}x{camera.height}; they must be of one image')
