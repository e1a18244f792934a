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
"""Millimetres and compressedDepth, against values worked out by hand from what is published."""
from __future__ import annotations

import struct

import cv2
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from hybrid_depth_ros.depth_encodings import (
    compressed_depth,
    inverse_depth_codes,
    to_millimetres,
)

NAN, INF = np.nan, np.inf


def one_row(*values: float) -> np.ndarray:
    return np.array([values], np.float32)


@pytest.mark.parametrize(('metres', 'millimetres'), [
    (1.0, 1000), (0.0014, 1), (1.5005, 1501),  # 1500.5 in single precision: up
    (0.0005, 1), (0.0004, 0), (65.534, 65534), (65.5344, 65534), (65.535, 0), (65.536, 0),
    (80.0, 0), (NAN, 0), (INF, 0), (-INF, 0), (0.0, 0), (-1.0, 0),
])
def test_millimetres(metres: float, millimetres: int) -> None:
    result = to_millimetres(one_row(metres))
    assert result.dtype == np.uint16
    assert result[0, 0] == millimetres


# A = 100 * 101 = 10100; for 10 m B = 1 - 10100 / 10 = -1009; code = 10100 / depth - 1009, cut
@pytest.mark.parametrize(('metres', 'code'), [
    (5.0, 1011), (1.0, 9091), (2.5, 3031),
    (3.3, 2051),  # 2051.606: cut, not rounded
    (9.999, 1), (10.0, 0), (12.0, 0), (INF, 0), (NAN, 0), (-INF, 0), (0.0, 0), (-2.0, 0),
    (0.15177, 65535),  # 65538.2: does not fit, so the nearest depth that does
    (0.1, 65535),
])
def test_codes(metres: float, code: int) -> None:
    codes, a, b = inverse_depth_codes(one_row(metres), 10.0)
    assert (codes.dtype, codes[0, 0], a, b) == (np.uint16, code, 10100, -1009)


def test_message_data_byte_for_byte() -> None:
    data = compressed_depth(one_row(5.0, NAN, 1.0), 10.0)
    # int32 0, float32 10100 = 0x461dd000, float32 -1009 = 0xc47c4000, little-endian
    assert data[:12] == bytes.fromhex('00000000 00d01d46 00407cc4')
    codes = cv2.imdecode(np.frombuffer(data[12:], np.uint8), cv2.IMREAD_UNCHANGED)
    assert codes.dtype == np.uint16
    np.testing.assert_array_equal(codes, [[1011, 0, 9091]])
    assert data[12:20] == b'\x89PNG\r\n\x1a\n'
    # 16 bits, one channel
    assert struct.unpack('>IIBB', data[28:38]) == (3, 1, 16, 0)


def as_the_subscriber_reads_it(codes: np.ndarray, a: float, b: float) -> np.ndarray:
    codes = codes.astype(np.float32)
    with np.errstate(divide='ignore'):
        return np.where(codes == 0, np.float32(NAN), np.float32(a) / (codes - np.float32(b)))


@settings(deadline=None)  # of a busy machine
@given(st.lists(st.floats(0.25, 99.0, width=32), min_size=1, max_size=20),
       st.sampled_from([10.0, 80.0, 100.0]))
def test_reading_back_is_within_one_step(depths: list[float], depth_max_m: float) -> None:
    depth_m = one_row(*depths)
    codes, a, b = inverse_depth_codes(depth_m, depth_max_m)
    read = as_the_subscriber_reads_it(codes, a, b)
    np.testing.assert_array_equal(np.isnan(read), codes == 0)
    assert (codes[depth_m >= depth_max_m] == 0).all()
    kept = codes > 0
    step = depth_m**2 / 10100 * 1.05 + 1e-5
    assert (read - depth_m >= -1e-4 * depth_m)[kept].all()  # cut codes read farther, not nearer
    assert (read - depth_m <= step * (1 + depth_m / 1000))[kept].all()
    assert kept[depth_m < 0.99 * depth_max_m - depth_max_m**2 / 10100].all()
