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
Image and CompressedImage -> (H, W, 3) uint8 RGB by the core, without cv_bridge.

What is not in the table goes to a fallback (cv_bridge, where installed) or is a BadFrame that says
so.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hybrid_depth.compressed import compressed_size, decode_compressed
from hybrid_depth.encodings import check_size, decode_pixels, ENCODINGS
from hybrid_depth.errors import BadFrame

Fallback = Callable[[Any], np.ndarray]  # Image message -> (H, W, 3) uint8 RGB


def image_size(message: Any) -> tuple[int, int]:
    """
    Return (width, height) of a sensor_msgs/Image or CompressedImage, which is not decoded.

    Raises BadFrame with reason ``zero_size`` or ``undecodable``.
    """
    if is_compressed(message):
        return compressed_size(message.data)
    if message.width == 0 or message.height == 0:
        raise BadFrame('zero_size', f'image is {message.width}x{message.height} pixels; the '
                       'camera driver sends empty images')
    return message.width, message.height


def decode_image(message: Any, fallback: Fallback | None = None) -> np.ndarray:
    """
    Return the pixels of a sensor_msgs/Image or CompressedImage, (H, W, 3) uint8 RGB.

    For rgb8 the result is a view of the message's own data, rows padded as there; only read it.
    ``fallback`` converts encodings outside the table. Raises BadFrame with reason ``zero_size``,
    ``unknown_encoding``, ``step_mismatch``, ``truncated`` or ``undecodable``. A compressed image
    is as large as ``image_size`` says, whatever that is: compare it with the camera's first.
    """
    if is_compressed(message):
        return decode_compressed(message.data, message.format, *compressed_size(message.data))
    if message.encoding not in ENCODINGS:
        check_size(message.width, message.height, message.step, message.data)
        if fallback is None:
            raise BadFrame('unknown_encoding', f'image encoding {message.encoding!r} is not '
                           f'supported; use one of {", ".join(ENCODINGS)}, or install cv_bridge')
        return fallback(message)
    return decode_pixels(message.width, message.height, message.encoding, message.step,
                         message.data, bool(message.is_bigendian))


def is_compressed(message: Any) -> bool:
    """Return whether ``message`` is a CompressedImage."""
    return hasattr(message, 'format')
