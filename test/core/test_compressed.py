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
"""Compressed images: colours as written, sizes before pixels, BadFrame for bad bytes."""
from __future__ import annotations

import struct

import cv2
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from hybrid_depth.compressed import compressed_size, decode_compressed
from hybrid_depth.errors import BadFrame

RGB = np.zeros((6, 8, 3), np.uint8)
RGB[:, :4] = (200, 90, 30)
RGB[3:, 5:] = (10, 20, 250)


def encode(bgr: np.ndarray, suffix: str = '.png') -> bytes:
    return cv2.imencode(suffix, bgr)[1].tobytes()


@pytest.mark.parametrize(('image_format', 'bgr'), [
    ('png', RGB[..., ::-1]), ('', RGB[..., ::-1]),
    ('rgb8; png compressed bgr8', RGB[..., ::-1]),
    ('bgr8; png compressed bgr8', RGB[..., ::-1]),
    ('rgb8; png compressed rgb8', RGB),  # the file itself has red and blue swapped
    ('bgra8; png compressed bgra8', np.dstack([RGB[..., ::-1], RGB[..., 0]])),
])
def test_colours(image_format: str, bgr: np.ndarray) -> None:
    np.testing.assert_array_equal(decode_compressed(encode(bgr), image_format, 8, 6), RGB)


def test_grey_deep_and_mosaic() -> None:
    grey = RGB[..., 0]
    expected = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(decode_compressed(encode(grey), 'mono8; png compressed ', 8, 6),
                                  expected)
    deep = grey.astype(np.uint16) * 257
    np.testing.assert_array_equal(decode_compressed(encode(deep), 'mono16; png compressed ', 8, 6),
                                  expected)
    mosaic = np.zeros((6, 8), np.uint8)
    mosaic[::2, ::2] = 200  # only the red ones of rggb see light
    red = decode_compressed(encode(mosaic), 'bayer_rggb8; png compressed ', 8, 6)
    assert red[2:4, 2:4].reshape(-1, 3).min(axis=0).tolist() == [200, 0, 0]
    # and interpolated by the sender already
    np.testing.assert_array_equal(
        decode_compressed(encode(RGB[..., ::-1]), 'bayer_rggb8; png compressed bgr8', 8, 6), RGB)
    with pytest.raises(BadFrame) as caught:
        decode_compressed(encode(deep), 'bayer_rggb16; png compressed ', 8, 6)
    assert caught.value.reason == 'unknown_encoding'


def test_jpeg() -> None:
    flat = np.full((6, 8, 3), (200, 90, 30), np.uint8)
    data = encode(flat[..., ::-1], '.jpg')
    assert compressed_size(data) == (8, 6)
    rgb = decode_compressed(data, 'rgb8; jpeg compressed bgr8', 8, 6)
    assert np.abs(rgb.astype(int) - flat).max() <= 3


def png_that_claims(width: int, height: int) -> bytes:
    data = encode(RGB)
    return data[:16] + struct.pack('>II', width, height) + data[24:]


def test_a_size_that_is_not_the_cameras_is_never_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, 'imdecode', lambda *_: pytest.fail('decoded'))
    with pytest.raises(BadFrame, match='60000x60000, but its camera 8x6') as caught:
        decode_compressed(png_that_claims(60000, 60000), 'png', 8, 6)
    assert caught.value.reason == 'size_mismatch'
    with pytest.raises(BadFrame, match='more than raw pixels take'):
        decode_compressed(encode(RGB) + bytes(2_000_000), 'png', 8, 6)


@pytest.mark.parametrize('data', [
    b'', b'hello', b'\xff\xd8', encode(RGB)[:20], encode(RGB, '.jpg')[:10], encode(RGB, '.bmp'),
    png_that_claims(0, 6), encode(RGB)[:40],
    encode(RGB)[:33] + b'\x43' + encode(RGB)[34:],  # a chunk that claims to have 1.1 GB
])
def test_damaged_bytes(data: bytes) -> None:
    with pytest.raises(BadFrame) as caught:
        decode_compressed(data, 'png', 8, 6)
    assert caught.value.reason == 'undecodable'


@settings(deadline=None)  # of a busy machine
@given(st.binary(max_size=60), st.sampled_from(['.png', '.jpg']),
       st.integers(0, 400), st.text(max_size=12))
def test_any_bytes_give_an_image_or_a_bad_frame(noise: bytes, suffix: str, at: int,
                                                image_format: str) -> None:
    good = encode(RGB, suffix)
    at = min(at, len(good))
    for data in (noise, good[:at] + noise + good[at + len(noise):], good[:at]):
        try:
            rgb = decode_compressed(data, image_format, 8, 6)
        except BadFrame:
            continue
        assert (rgb.shape, rgb.dtype) == ((6, 8, 3), np.uint8)
