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
"""Every encoding of the table, on real messages: right colours, padding, bad sizes."""
from __future__ import annotations

import cv2
import numpy as np
import pytest
from ros_messages import image_message
from sensor_msgs.msg import Image

from hybrid_depth.encodings import ENCODINGS
from hybrid_depth.errors import BadFrame
from hybrid_depth_ros.encodings import decode_image

# flat colour, so that chroma subsampling and demosaicing lose nothing
RED, GREEN, BLUE = 200, 120, 40
COLOUR = np.full((8, 12, 3), (RED, GREEN, BLUE), np.uint8)
GREY = (np.arange(96, dtype=np.uint8) * 2).reshape(8, 12)


def mosaic(pattern: str) -> np.ndarray:
    """Return the 2x2 colour pattern, row by row, as a Bayer image."""
    values = {'r': RED, 'g': GREEN, 'b': BLUE}
    tile = np.array([values[colour] for colour in pattern], np.uint8).reshape(2, 2)
    return np.tile(tile, (4, 6))


def yuv422(order: str) -> np.ndarray:
    """Return the flat colour as pairs of bytes; ``order`` is 'uyvy' or 'yuyv'."""
    y = round(0.257 * RED + 0.504 * GREEN + 0.098 * BLUE + 16)
    u = round(-0.148 * RED - 0.291 * GREEN + 0.439 * BLUE + 128)
    v = round(0.439 * RED - 0.368 * GREEN - 0.071 * BLUE + 128)
    pair = [u, y, v, y] if order == 'uyvy' else [y, u, y, v]
    return np.tile(np.array(pair, np.uint8), (8, 6)).reshape(8, 12, 2)


SOURCES = {
    'rgb8': COLOUR, 'bgr8': COLOUR[..., ::-1], '8UC3': COLOUR[..., ::-1],
    'rgba8': np.dstack([COLOUR, np.full((8, 12), 7, np.uint8)]),
    'bgra8': np.dstack([COLOUR[..., ::-1], np.full((8, 12), 7, np.uint8)]),
    'mono8': GREY, '8UC1': GREY, 'mono16': GREY.astype('<u2') * 256 + 99,
    'yuv422': yuv422('uyvy'), 'uyvy': yuv422('uyvy'),
    'yuv422_yuy2': yuv422('yuyv'), 'yuyv': yuv422('yuyv'),
    'bayer_rggb8': mosaic('rggb'), 'bayer_bggr8': mosaic('bggr'),
    'bayer_gbrg8': mosaic('gbrg'), 'bayer_grbg8': mosaic('grbg'),
}


def expected_rgb(encoding: str) -> np.ndarray:
    """Return what the source of ``encoding`` looks like."""
    is_grey = encoding in ('mono8', 'mono16', '8UC1')
    return cv2.cvtColor(GREY, cv2.COLOR_GRAY2RGB) if is_grey else COLOUR


def test_every_row_of_the_table_is_tested() -> None:
    assert set(SOURCES) == set(ENCODINGS)


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize('encoding', sorted(ENCODINGS))
def test_decodes_to_rgb(encoding: str, padding: int) -> None:
    rgb = decode_image(image_message(SOURCES[encoding], encoding, padding=padding))
    assert rgb.dtype == np.uint8
    tolerance = 3 if 'yu' in encoding else 0
    difference = np.abs(rgb.astype(int) - expected_rgb(encoding).astype(int))
    assert difference.max() <= tolerance


def test_mono16_big_endian() -> None:
    pixels = (GREY.astype('>u2') * 256 + 99).astype('>u2')
    rgb = decode_image(image_message(pixels, 'mono16', is_bigendian=1))
    np.testing.assert_array_equal(rgb, expected_rgb('mono16'))


def test_rgb8_is_a_view_of_the_message() -> None:
    message = image_message(COLOUR, padding=4)
    assert np.shares_memory(decode_image(message), np.frombuffer(message.data, np.uint8))


def truncated() -> Image:
    message = image_message(COLOUR)
    message.data = message.data[:-1]
    return message


def too_long() -> Image:
    message = image_message(COLOUR)
    message.data.append(0)
    return message


def short_step() -> Image:
    message = image_message(COLOUR)
    message.step = 35
    message.data = message.data[:35 * 8]
    return message


@pytest.mark.parametrize(('message', 'reason', 'words'), [
    (truncated(), 'truncated', '287 bytes'),
    (too_long(), 'step_mismatch', '289 bytes'),
    (short_step(), 'step_mismatch', 'step is 35'),
    (image_message(yuv422('uyvy')[:, :11], 'uyvy'), 'step_mismatch', 'even'),
    (Image(encoding='rgb8'), 'zero_size', '0x0'),
    (image_message(COLOUR, '16UC1'), 'unknown_encoding', 'rgb8, bgr8'),
    (image_message(COLOUR, ''), 'unknown_encoding', 'cv_bridge'),
])
def test_bad_image_has_its_own_reason(message: Image, reason: str, words: str) -> None:
    with pytest.raises(BadFrame, match=words) as caught:
        decode_image(message)
    assert caught.value.reason == reason


def test_fallback_gets_only_what_the_table_has_not() -> None:
    asked = []

    def fallback(message: Image) -> np.ndarray:
        asked.append(message.encoding)
        return COLOUR
    assert decode_image(image_message(COLOUR, 'nv21'), fallback) is COLOUR
    decode_image(image_message(COLOUR), fallback)
    assert asked == ['nv21']


def test_cv_bridge_converts_what_the_table_has_not() -> None:
    pytest.importorskip('cv_bridge', reason='cv_bridge is not installed')
    from hybrid_depth_ros.optional_packages import cv_bridge_fallback
    fallback = cv_bridge_fallback()
    assert fallback is not None
    rgb16 = COLOUR.astype('<u2') * 256
    rgb = decode_image(image_message(rgb16, 'rgb16'), fallback)
    assert np.abs(rgb.astype(int) - COLOUR).max() <= 1
    with pytest.raises(BadFrame, match='32FC1'):
        decode_image(image_message(GREY.astype(np.float32), '32FC1'), fallback)
