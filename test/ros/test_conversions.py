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
"""Conversions on real messages: calibration in and out, images, odometry."""
from __future__ import annotations

import array

import numpy as np
import pytest
from ros_messages import camera_info, FRAME, HEIGHT, odometry, WIDTH
from sensor_msgs.msg import CameraInfo, Image, RegionOfInterest

from hybrid_depth.camera import CameraModel
from hybrid_depth.camera_info import camera_from_info, is_rectified
from hybrid_depth.errors import BadFrame
from hybrid_depth_ros.camera_source import CameraSource
from hybrid_depth_ros.conversions import (
    fill_byte_image,
    fill_camera_info,
    fill_float_image,
    odometry_sample,
    stamp_to_ns,
)

DISTORTION = [-0.3, 0.1, 0.001, -0.002, 0.0]
POINTS = np.array([[0.2, -0.1, 2.0], [-1.0, 0.5, 5.0], [3.0, 1.0, 20.0]])


def project_P(info: CameraInfo, points: np.ndarray) -> np.ndarray:
    """Project as image_geometry does: with P alone."""
    uvw = np.concatenate([points, np.ones((len(points), 1))], 1) @ np.array(info.p).reshape(3, 4).T
    return uvw[:, :2] / uvw[:, 2:]


@pytest.mark.parametrize(('mode', 'topic', 'D', 'expected'), [
    ('auto', '/cam/image_rect', DISTORTION, True),
    ('auto', '/cam/image_rect_color', DISTORTION, True),
    ('auto', '/cam/rectified/image', DISTORTION, True),
    ('auto', '/cam/image_raw', DISTORTION, False),
    ('auto', '/direct/correction/image', DISTORTION, False),
    ('auto', '/cam/image_raw', [], False),
    ('true', '/cam/image_raw', DISTORTION, True),
    ('false', '/cam/image_rect', DISTORTION, False),
])
def test_rectified_or_not(mode: str, topic: str, D: list[float], expected: bool) -> None:
    rectified, reason = is_rectified(camera_info(D=D), mode, topic)
    assert rectified is expected
    assert reason


def test_only_P_is_rectified() -> None:
    info = camera_info()
    info.k = [0.0] * 9
    assert is_rectified(info, 'auto', '/image')[0] is True


def test_roi_and_binning() -> None:
    info = camera_info(640, 480, 500.0)
    info.roi = RegionOfInterest(x_offset=100, y_offset=40, width=400, height=200)
    info.binning_x = info.binning_y = 2
    camera = camera_from_info(info, rectified=False)
    assert (camera.width, camera.height) == (200, 100)
    full = camera_from_info(camera_info(640, 480, 500.0), rectified=False)
    # half-pixel exact: the centre of a binned pixel is between those of its four
    np.testing.assert_allclose(camera.project(POINTS),
                               (full.project(POINTS) - [100, 40] + 0.5) / 2 - 0.5)


@pytest.mark.parametrize('size', [(320, 240), (1280, 960), (200, 100)])
def test_output_camera_info_projects_like_the_input_scaled(size: tuple[int, int]) -> None:
    source = camera_info(640, 480, 500.0)
    camera = camera_from_info(source, rectified=False)
    out = CameraInfo()
    fill_camera_info(out, camera.resized(*size), source, rectified=False)
    assert (out.width, out.height) == size
    scale = np.array(size) / (640, 480)
    expected = (camera.project(POINTS) + 0.5) * scale - 0.5
    np.testing.assert_allclose(project_P(out, POINTS), expected, atol=1e-9)
    back = camera_from_info(out, rectified=False)
    np.testing.assert_allclose(back.project(POINTS), expected, atol=1e-9)


def test_distorted_output_keeps_distortion_and_scales_P() -> None:
    source = camera_info(640, 480, 500.0, DISTORTION)
    source.r = [0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    source.p = [450.0, 0.0, 310.0, -45.0, 0.0, 460.0, 250.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    camera = camera_from_info(source, rectified=False).resized(320, 240)
    out = CameraInfo()
    fill_camera_info(out, camera, source, rectified=False)
    assert list(out.d) == DISTORTION
    assert out.distortion_model == 'plumb_bob'
    assert list(out.r) == list(source.r)
    np.testing.assert_allclose(out.k, camera.K.ravel())
    np.testing.assert_allclose(out.p, [225.0, 0, 310.5 / 2 - 0.5, -22.5, 0, 230.0,
                                       250.5 / 2 - 0.5, 0, 0, 0, 1, 0])


def test_rectified_output_uses_P_and_keeps_the_baseline() -> None:
    source = camera_info(640, 480, 500.0, DISTORTION)
    source.p = [450.0, 0.0, 310.0, -45.0, 0.0, 460.0, 250.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    source.binning_x = source.binning_y = 2
    source.roi = RegionOfInterest(x_offset=0, y_offset=0, width=640, height=480)
    camera = camera_from_info(source, rectified=True)
    out = CameraInfo()
    fill_camera_info(out, camera, source, rectified=True)
    assert list(out.d) == []
    assert list(out.r) == [1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0]
    assert (out.width, out.height, out.binning_x, out.roi.width) == (320, 240, 0, 0)
    assert (out.p[0], out.p[3], out.p[5]) == (225.0, -22.5, 230.0)
    np.testing.assert_allclose(out.k, camera.K.ravel())


def test_camera_info_message_is_refilled_whole() -> None:
    source = camera_info(640, 480, 500.0, DISTORTION)
    out = CameraInfo()
    fill_camera_info(out, camera_from_info(source, rectified=False), source, rectified=False)
    plain = camera_info(320, 240, 200.0)
    fill_camera_info(out, camera_from_info(plain, rectified=False), plain, rectified=False)
    assert (out.width, out.k[0], list(out.d)) == (320, 200.0, [])


def test_float_image_reuses_its_buffer() -> None:
    message = Image()
    values = np.array([[1.5, np.nan, np.inf], [-np.inf, 2.0, 80.0]], np.float32)
    fill_float_image(message, values)
    assert (message.encoding, message.step, message.is_bigendian) == ('32FC1', 12, 0)
    assert isinstance(message.data, array.array)
    np.testing.assert_array_equal(np.frombuffer(message.data, '<f4').reshape(2, 3), values)
    buffer = message.data
    fill_float_image(message, values * 2)
    assert message.data is buffer
    assert np.frombuffer(message.data, '<f4')[0] == 3.0
    fill_float_image(message, values[:1])
    assert len(message.data) == 12


def test_byte_image() -> None:
    message = Image()
    values = np.arange(6, dtype=np.uint8).reshape(2, 3)
    fill_byte_image(message, values[:, ::-1])
    assert (message.encoding, message.height, message.width, message.step) == ('mono8', 2, 3, 3)
    assert bytes(message.data) == bytes([2, 1, 0, 5, 4, 3])
    buffer = message.data
    fill_byte_image(message, values)
    assert message.data is buffer
    fill_float_image(message, np.ones((2, 3), np.float32))
    assert (message.encoding, len(message.data)) == ('32FC1', 24)


def test_stamp_and_odometry() -> None:
    message = odometry(1_700_000_000_123_456_789, x=4.0)
    message.twist.twist.linear.x = 2.5
    stamp_ns, quaternion, position, linear, angular = odometry_sample(message)
    assert stamp_ns == stamp_to_ns(message.header.stamp) == 1_700_000_000_123_456_789
    assert (quaternion, position) == ([0.0, 0.0, 0.0, 1.0], [4.0, 0.0, 0.0])
    assert (linear, angular) == ([2.5, 0.0, 0.0], [0.0, 0.0, 0.0])


def test_camera_source_notices_changes_and_mismatches(caplog: pytest.LogCaptureFixture) -> None:
    source = CameraSource('auto')
    with pytest.raises(BadFrame, match='camera_info') as caught:
        source.for_image((WIDTH, HEIGHT), FRAME, 0)
    assert caught.value.reason == 'no_camera_info'
    assert source.update(camera_info(frame_id='other'), '/image') is True
    assert source.update(camera_info(frame_id='other'), '/image') is False
    assert isinstance(source.for_image((WIDTH, HEIGHT), FRAME, 0)[1], CameraModel)
    source.for_image((WIDTH, HEIGHT), FRAME, 0)
    assert sum('in frame' in record.message for record in caplog.records) == 1
    with pytest.raises(BadFrame, match='320x240') as caught:
        source.for_image((320, 240), FRAME, 0)
    assert caught.value.reason == 'size_mismatch'
    zero = camera_info()
    zero.k = [0.0] * 9
    zero.p = [0.0] * 12
    assert source.update(zero, '/image') is True
    with pytest.raises(BadFrame, match='uncalibrated') as caught:
        source.for_image((WIDTH, HEIGHT), FRAME, 0)
    assert caught.value.reason == 'no_intrinsics'
