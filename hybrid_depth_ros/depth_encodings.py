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
Depth as other packages read it: millimetres, and image_transport's compressedDepth.

Source of the latter: ros-perception/image_transport_plugins, compressed_depth_image_transport. A
message is a header of 12 bytes, little-endian {int32 0, float32 A, float32 B}, and a PNG of 16
bits of code = A / depth + B; code 0 means no depth. A = q (q + 1) and B = 1 - A / depth_max are
computed in single precision, and codes are cut, not rounded.
"""
from __future__ import annotations

import struct

import cv2
import numpy as np

COMPRESSED_DEPTH_FORMAT = '32FC1; compressedDepth png'
DEPTH_QUANTISATION = 100.0  # the plugin's own default
_INVERSE_DEPTH = 0  # format of the header: the only one there is
_PNG_LEVEL = 1  # fast: the file is for a network link, and made for every frame
_LARGEST = 65535


def to_millimetres(depth_m: np.ndarray) -> np.ndarray:
    """
    Return depth, (H, W) float32 metres, as (H, W) uint16 millimetres, for 16UC1.

    Halves are rounded up. 0 = none: not finite, not positive, or 65.535 m and beyond, which
    many readers take for none.
    """
    with np.errstate(invalid='ignore'):
        rounded = np.floor(depth_m * np.float32(1000) + np.float32(0.5))
        return np.where((rounded > 0) & (rounded < _LARGEST), rounded, 0).astype(np.uint16)


def inverse_depth_codes(depth_m: np.ndarray,
                        depth_max_m: float) -> tuple[np.ndarray, np.float32, np.float32]:
    """
    Return codes (H, W) uint16, A and B for depth (H, W) float32 metres.

    ``depth = A / (code - B)``. Code 0: not finite, not positive, or ``depth_max_m`` and beyond.
    What is too near for 16 bits gets the largest code, that of the nearest depth there is.
    """
    one = np.float32(1)
    quantisation = np.float32(DEPTH_QUANTISATION)
    a = quantisation * (quantisation + one)
    b = one - a / np.float32(depth_max_m)
    with np.errstate(all='ignore'):
        codes = np.minimum(a / depth_m + b, np.float32(_LARGEST))
        is_depth = (depth_m > 0) & (depth_m < np.float32(depth_max_m))
        return np.where(is_depth, codes, 0).astype(np.uint16), a, b


def compressed_depth(depth_m: np.ndarray, depth_max_m: float) -> bytes:
    """Return the data of a CompressedImage of COMPRESSED_DEPTH_FORMAT for (H, W) float32."""
    codes, a, b = inverse_depth_codes(depth_m, depth_max_m)
    _, png = cv2.imencode('.png', codes, (cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL))
    return struct.pack('<iff', _INVERSE_DEPTH, a, b) + png.tobytes()
