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
Compressed colour images, as image_transport's ``compressed`` sends them -> (H, W, 3) uint8 RGB.

The size is read from the header of the file before anything of that size is made, so that a few
bytes that claim to be a huge image cost nothing.
"""
from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np

from hybrid_depth.encodings import ENCODINGS
from hybrid_depth.errors import BadFrame

# No jpeg or png of W x H pixels is longer: 16 bits of four channels stored as they are, filter
# bytes, headers and tags.
_BYTES_PER_PIXEL = 9
_HEADER_BYTES = 1 << 20


def compressed_size(data: Any) -> tuple[int, int]:
    """
    Return (width, height) by the header of a PNG or JPEG; ``data`` is any buffer of bytes.

    Raises BadFrame with reason ``undecodable``.
    """
    view = memoryview(data).cast('B')
    size = _png_size(view) or _jpeg_size(view)
    if size is None or 0 in size:
        raise BadFrame('undecodable', f'compressed image of {len(view)} bytes is neither jpeg nor '
                       'png, the formats of image_transport compressed')
    return size


def decode_compressed(data: Any, image_format: str, width: int, height: int) -> np.ndarray:
    """
    Return the pixels of a JPEG or PNG that must be ``width`` x ``height``, (H, W, 3) uint8 RGB.

    ``image_format`` is that of sensor_msgs/CompressedImage: '<encoding>; jpeg compressed bgr8', or
    only 'jpeg'. 'compressed rgb' in it says that red and blue are swapped in the file; the Bayer
    mosaic of a 'bayer_*' encoding is interpolated. Orientation tags are ignored: the calibration
    knows nothing of them. Raises BadFrame with reason ``size_mismatch``, ``undecodable`` or
    ``unknown_encoding``.
    """
    found = compressed_size(data)
    if found != (width, height):
        raise BadFrame('size_mismatch', f'compressed image is {found[0]}x{found[1]}, but its '
                       f'camera {width}x{height}; publish the camera_info of this very image')
    if len(data) > width * height * _BYTES_PER_PIXEL + _HEADER_BYTES:
        raise BadFrame('undecodable', f'compressed image of {width}x{height} has {len(data)} '
                       'bytes, more than raw pixels take; the message is damaged')
    encoding, _, compression = image_format.partition(';')
    is_mosaic = encoding.startswith('bayer_') and 'compressed bgr' not in compression
    if is_mosaic and encoding not in ENCODINGS:
        raise BadFrame('unknown_encoding', f'compressed image holds {encoding!r}, which is not '
                       f'supported; use one of {", ".join(ENCODINGS)}')
    flags = cv2.IMREAD_GRAYSCALE if is_mosaic else cv2.IMREAD_COLOR
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise BadFrame('undecodable', f'compressed image cannot be decoded: {error}') from error
    if image is None or image.shape[:2] != (height, width):
        raise BadFrame('undecodable', f'compressed image ({image_format!r}, {len(data)} bytes) '
                       'cannot be decoded; expected jpeg or png')
    if is_mosaic:
        return ENCODINGS[encoding].to_rgb(image[..., None], False)
    return image if 'compressed rgb' in compression else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _png_size(data: memoryview) -> tuple[int, int] | None:
    if bytes(data[:8]) != b'\x89PNG\r\n\x1a\n' or len(data) < 24:
        return None
    # OpenCV makes room for as much as a chunk says it has: it must be here
    at = 8
    while at < len(data):
        if at + 12 > len(data):
            return None
        (length,), kind = struct.unpack('>I', data[at:at + 4]), bytes(data[at + 4:at + 8])
        at += 12 + length
        if at > len(data) or kind == b'acTL':  # cut off, or a film
            return None
        if kind == b'IEND':
            break
    width, height = struct.unpack('>II', data[16:24])
    return width, height


def _jpeg_size(data: memoryview) -> tuple[int, int] | None:
    if bytes(data[:2]) != b'\xff\xd8':
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        # start of frame, of whatever coding; C4, C8 and CC mean something else
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack('>HH', data[at + 5:at + 9])
            return width, height
        at += 2 + struct.unpack('>H', data[at + 2:at + 4])[0]
    return None
