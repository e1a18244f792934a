# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
sensor_msgs/Image -> (H, W, 3) uint8 RGB by the core's table of encodings, without cv_bridge.

What is not in the table goes to a fallback (cv_bridge, where installed) or is a BadFrame that says
so.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hybrid_depth.encodings import check_size, decode_pixels, ENCODINGS
from hybrid_depth.errors import BadFrame

Fallback = Callable[[Any], np.ndarray]  # Image message -> (H, W, 3) uint8 RGB


def decode_image(message: Any, fallback: Fallback | None = None) -> np.ndarray:
    """
    Return the pixels of a sensor_msgs/Image, (H, W, 3) uint8 RGB.

    For rgb8 the result is a view of the message's own data, rows padded as there; only read it.
    ``fallback`` converts encodings outside the table. Raises BadFrame with reason ``zero_size``,
    ``unknown_encoding``, ``step_mismatch`` or ``truncated``.
    """
    if message.encoding not in ENCODINGS:
        check_size(message.width, message.height, message.step, message.data)
        if fallback is None:
            raise BadFrame('unknown_encoding', f'image encoding {message.encoding!r} is not '
                           f'supported; use one of {", ".join(ENCODINGS)}, or install cv_bridge')
        return fallback(message)
    return decode_pixels(message.width, message.height, message.encoding, message.step,
                         message.data, bool(message.is_bigendian))
