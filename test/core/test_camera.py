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
from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
from planes import CAMERAS
import pytest

from hybrid_depth.camera import CameraModel, DISTORTION_MODELS
from hybrid_depth.errors import BadFrame

small = st.floats(-1.0, 1.0)


@st.composite
def cameras(draw: st.DrawFn) -> CameraModel:
    width, height = draw(st.integers(16, 96)), draw(st.integers(16, 72))
    f = draw(st.floats(0.6, 2.0)) * max(width, height)
    model = draw(st.sampled_from(['none', 'plumb_bob', 'rational_polynomial', 'equidistant']))
    k = [draw(small) for _ in range(8)]
    D = {'none': (),
         'plumb_bob': (0.2 * k[0], 0.05 * k[1], 0.002 * k[2], 0.002 * k[3], 0.01 * k[4]),
         'rational_polynomial': (0.3 * k[0], 0.05 * k[1], 0.002 * k[2], 0.002 * k[3],
                                 0.01 * k[4], 0.3 * k[5], 0.05 * k[6], 0.01 * k[7]),
         'equidistant': (0.05 * k[0], 0.02 * k[1], 0.01 * k[2], 0.005 * k[3])}[model]
    return CameraModel(width, height, f, f * (1 + 0.1 * draw(small)),
                       (width - 1) / 2 + 0.1 * width * draw(small),
                       (height - 1) / 2 + 0.1 * height * draw(small), model, D)


@settings(max_examples=60, deadline=None)
@given(camera=cameras(), depth=st.floats(0.1, 200.0))
def test_projecting_the_ray_of_a_pixel_gives_the_pixel(camera: CameraModel, depth: float) -> None:
    rays = camera.rays().reshape(-1, 2)
    v, u = np.mgrid[:camera.height, :camera.width]
    pixels = np.stack([u, v], axis=-1).reshape(-1, 2)
    finite = np.isfinite(rays).all(axis=1)
    centre = (np.abs(pixels - [camera.cx, camera.cy]) < 0.25 * camera.width).all(axis=1)
    assert finite[centre].all()
    points = depth * np.concatenate([rays, np.ones((len(rays), 1))], axis=1)
    assert np.abs(camera.project(points[finite]) - pixels[finite]).max() < 0.11


@settings(max_examples=60, deadline=None)
@given(camera=cameras(), width=st.integers(8, 200), height=st.integers(8, 200),
       x=st.integers(-20, 20), y=st.integers(-20, 20))
def test_resize_and_crop_move_projected_points(camera: CameraModel, width: int, height: int,
                                               x: int, y: int) -> None:
    points = np.array([[0.1, -0.1, 1.0], [-0.3, 0.2, 2.0], [0.0, 0.0, 5.0]])
    uv = camera.project(points)
    resized = camera.resized(width, height)
    scale = [width / camera.width, height / camera.height]
    np.testing.assert_allclose(resized.project(points), (uv + 0.5) * scale - 0.5, atol=1e-6)
    cropped = camera.cropped(x, y, width, height)
    np.testing.assert_allclose(cropped.project(points), uv - [x, y], atol=1e-6)
    assert (cropped.width, cropped.height) == (width, height)


def test_resize_is_that_of_opencv() -> None:
    import cv2
    ramp = np.tile(np.arange(64, dtype=np.float32), (48, 1))
    small = cv2.resize(ramp, (16, 12), interpolation=cv2.INTER_AREA)
    camera = CameraModel(64, 48, 60.0, 60.0, 20.0, 24.0)
    u = camera.resized(16, 12).cx
    # the ramp holds each pixel's own u: read at the new principal point it must give the old one
    assert np.interp(u, np.arange(16), small[0]) == pytest.approx(camera.cx, abs=1e-4)


def test_rays_are_nan_where_the_distortion_has_no_inverse() -> None:
    # r + k1 r^3 with k1 = -0.5 has its maximum at r = 0.816: 0.544; pixels farther out have no ray
    camera = CameraModel(201, 3, 100.0, 100.0, 100.0, 1.0, 'plumb_bob', (-0.5, 0, 0, 0))
    rays = camera.rays()
    assert np.isnan(rays[1, :40]).all()
    assert np.isfinite(rays[1, 60:141]).all()


@pytest.mark.parametrize('name', CAMERAS)
def test_rays_are_cached_and_read_only(name: str) -> None:
    rays = CAMERAS[name].rays()
    assert rays is CAMERAS[name].rays()
    assert rays.dtype == np.float32
    with pytest.raises(ValueError, match='read-only'):
        rays[0, 0] = 0


K = [500.0, 0, 320.0, 0, 510.0, 240.0, 0, 0, 1]
P = [400.0, 0, 300.0, -40.0, 0, 410.0, 220.0, 0, 0, 0, 1, 0]
D5 = [-0.3, 0.1, 0.001, 0.002, 0.0]


def test_calibration_of_a_raw_image_uses_k_and_d() -> None:
    camera = CameraModel.from_calibration(640, 480, K, D5, P, 'plumb_bob', rectified=False)
    assert camera == CameraModel(640, 480, 500.0, 510.0, 320.0, 240.0, 'plumb_bob', tuple(D5))
    np.testing.assert_array_equal(camera.K, np.reshape(K, (3, 3)))


def test_calibration_of_a_rectified_image_uses_p_alone() -> None:
    camera = CameraModel.from_calibration(640, 480, K, D5, P, 'plumb_bob', rectified=True)
    assert camera == CameraModel(640, 480, 400.0, 410.0, 300.0, 220.0)


def test_calibration_without_p_falls_back_to_k() -> None:
    camera = CameraModel.from_calibration(640, 480, K, [], [0.0] * 12, '', rectified=True)
    assert (camera.fx, camera.cy) == (500.0, 240.0)


def test_zero_distortion_is_none() -> None:
    camera = CameraModel.from_calibration(640, 480, K, [0.0] * 5, P, 'plumb_bob', rectified=False)
    assert not camera.is_distorted
    assert camera.distortion_model == 'none'


def test_roi_then_binning() -> None:
    camera = CameraModel.from_calibration(640, 480, K, [], P, '', rectified=False,
                                          binning=(2, 4), roi=(100, 40, 401, 202))
    # (320 - 100 + 0.5) / 2 - 0.5 and (240 - 40 + 0.5) / 4 - 0.5; the odd column and the two odd
    # rows fill no bin and do not change the scale
    assert (camera.width, camera.height) == (200, 50)
    assert (camera.fx, camera.fy) == (250.0, 127.5)
    assert (camera.cx, camera.cy) == pytest.approx((109.75, 49.625))


@pytest.mark.parametrize(('changes', 'reason'), [
    ({'width': 0}, 'bad_camera_info'),
    ({'height': -1}, 'bad_camera_info'),
    ({'fx': 0.0}, 'no_intrinsics'),
    ({'fy': -5.0}, 'no_intrinsics'),
    ({'cx': float('nan')}, 'bad_camera_info'),
    ({'fx': float('inf')}, 'bad_camera_info'),
    ({'distortion_model': 'plumb_bob', 'D': (0.1, 0.2, float('nan'), 0.0)}, 'bad_camera_info'),
    ({'distortion_model': 'plumb_bob', 'D': (0.1,)}, 'bad_camera_info'),
    ({'distortion_model': 'kannala', 'D': (0.1,)}, 'bad_camera_info'),
])
def test_numbers_that_are_no_camera(changes: dict, reason: str) -> None:
    fields = {'width': 64, 'height': 48, 'fx': 50.0, 'fy': 50.0, 'cx': 32.0, 'cy': 24.0}
    with pytest.raises(BadFrame) as caught:
        CameraModel(**{**fields, **changes})
    assert caught.value.reason == reason


@pytest.mark.parametrize(('model', 'count'), [
    (model, count) for model, counts in DISTORTION_MODELS.items() for count in counts])
def test_every_listed_number_of_coefficients_works(model: str, count: int) -> None:
    D = [0.01, -0.01, 0.001, 0.001, 0.01, 0.02, 0.01, 0.01, *[0.001] * 6][:count]
    rays = CameraModel(32, 24, 40.0, 40.0, 15.5, 11.5, model, tuple(D)).rays()
    assert np.isfinite(rays).all()
