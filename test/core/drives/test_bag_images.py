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
"""Images of a bag: encodings, compressed images, depth and its unit."""
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('rosbags', reason='rosbags is not installed')

from tiny_bags import (
    camera_info,
    camera_messages,
    compressed,
    depth,
    HEIGHT,
    image,
    open_messages,
    picture,
    STAMPS,
    WIDTH,
)

from hybrid_depth.errors import DriveError


@pytest.mark.parametrize(('encoding', 'convert'), [
    ('bgr8', lambda rgb: rgb[..., ::-1]),
    ('rgba8', lambda rgb: np.dstack([rgb, rgb[..., 0]])),
    ('mono8', lambda rgb: rgb[..., 1]),
])
def test_encodings(tmp_path: Path, encoding: str, convert) -> None:
    rgb = picture(0)
    drive = open_messages(tmp_path, [
        ('/camera_info', camera_info(STAMPS[0], WIDTH, HEIGHT)),
        ('/image', image(STAMPS[0], convert(rgb), encoding, padding=2))])
    expected = np.repeat(rgb[..., 1:2], 3, axis=2) if encoding == 'mono8' else rgb
    np.testing.assert_array_equal(drive.frame(0).image_rgb, expected)


def test_compressed_images(tmp_path: Path) -> None:
    flat = np.full((HEIGHT, WIDTH, 3), (200, 90, 30), np.uint8)
    bgr = flat[..., ::-1]
    drive = open_messages(tmp_path, [
        ('/cam/camera_info', camera_info(STAMPS[0], WIDTH, HEIGHT)),
        ('/cam/image_raw/compressed', compressed(STAMPS[0], cv2.imencode('.png', bgr)[1])),
        ('/cam/image_raw/compressed', compressed(STAMPS[1], cv2.imencode('.jpg', bgr)[1])),
        ('/cam/image_raw/compressed', compressed(STAMPS[2], np.zeros(0))),
        ('/cam/image_raw/compressed', compressed(STAMPS[3], np.arange(50)))])
    np.testing.assert_array_equal(drive.frame(0).image_rgb, flat)
    assert np.abs(drive.frame(1).image_rgb.astype(int) - flat).max() <= 3
    for index, size in ((2, '0 bytes'), (3, '50 bytes')):
        with pytest.raises(DriveError, match=f'frame {index} cannot be decoded.*{size}'):
            drive.frame(index)


def test_tables_before_the_frame_of_a_jpeg(tmp_path: Path) -> None:
    plain = cv2.imencode('.jpg', picture(0))[1].tobytes()
    at = plain.index(b'\xff\xc4')
    table = plain[at:at + 2 + int.from_bytes(plain[at + 2:at + 4], 'big')]
    both = [plain, plain[:2] + b'\xff' + table + plain[2:]]  # with a fill byte
    drive = open_messages(tmp_path, [
        ('/cam/camera_info', camera_info(STAMPS[0], WIDTH, HEIGHT)),
        *(('/cam/image_raw/compressed', compressed(stamp_ns, np.frombuffer(data, np.uint8)))
          for stamp_ns, data in zip(STAMPS, both, strict=False))])
    np.testing.assert_array_equal(drive.frame(1).image_rgb, drive.frame(0).image_rgb)


def claims(size: int) -> np.ndarray:
    """Return a JPEG whose header says that it is ``size`` pixels square."""
    data = cv2.imencode('.jpg', np.zeros((HEIGHT, WIDTH, 3), np.uint8))[1].reshape(-1).copy()
    frame = data.tobytes().index(b'\xff\xc0')
    data[frame + 5:frame + 9] = np.frombuffer(np.array([size] * 2, '>u2').tobytes(), np.uint8)
    return data


@pytest.mark.parametrize(('data', 'size'), [
    (claims(16384), '16384x16384'),
    (cv2.imencode('.png', np.zeros((HEIGHT, 5), np.uint8))[1], '5x12'),
])
def test_compressed_image_of_another_size_is_not_decoded(tmp_path: Path, monkeypatch,
                                                         data: np.ndarray, size: str) -> None:
    drive = open_messages(tmp_path, [
        ('/cam/camera_info', camera_info(STAMPS[0], WIDTH, HEIGHT)),
        ('/cam/image_raw/compressed', compressed(STAMPS[0], data))])
    monkeypatch.setattr(cv2, 'imdecode', lambda *_: pytest.fail('decoded'))
    with pytest.raises(DriveError, match=f'is {size}, its camera_info says 16x12'):
        drive.frame(0)


@pytest.mark.parametrize('cut', range(0, 30, 3))
def test_header_that_is_cut_off(tmp_path: Path, cut: int) -> None:
    data = [cv2.imencode(suffix, picture(0))[1].reshape(-1)[:cut] for suffix in ('.jpg', '.png')]
    drive = open_messages(tmp_path, [
        ('/cam/camera_info', camera_info(STAMPS[0], WIDTH, HEIGHT)),
        *(('/cam/image/compressed', compressed(stamp_ns, part))
          for stamp_ns, part in zip(STAMPS, data, strict=False))])
    for index in (0, 1):
        with pytest.raises(DriveError, match=f'frame {index} cannot be decoded .*{cut} bytes'):
            drive.frame(index)


@pytest.mark.parametrize('is_bigendian', [0, 1])
def test_depth_in_millimetres(tmp_path: Path, is_bigendian: int) -> None:
    millimetres = (1000 * np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 64000)
    millimetres[3, 4] = 65535
    pixels = millimetres.astype('>u2' if is_bigendian else '<u2')
    drive = open_messages(tmp_path, [
        *camera_messages(),
        ('/depth/image', image(STAMPS[0], pixels, '16UC1', is_bigendian=is_bigendian))])
    depth_m = drive.frame(0).depth_m
    assert np.isnan(depth_m[0, 0])
    assert np.isnan(depth_m[3, 4])
    known = np.isfinite(depth_m)
    assert known.sum() == ((millimetres > 0) & (millimetres < 65535)).sum()
    np.testing.assert_allclose(depth_m[known], millimetres[known] / 1000)


def test_float_depth_of_nothing_is_nan(tmp_path: Path) -> None:
    values = depth(0)
    values[0, :4] = (0, -1, np.inf, np.nan)
    drive = open_messages(tmp_path, [*camera_messages(),
                                     ('/depth', image(STAMPS[0], values, '32FC1'))])
    depth_m = drive.frame(0).depth_m
    assert np.isnan(depth_m[0, :4]).all()
    np.testing.assert_array_equal(depth_m[1:], values[1:])
