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

import cv2
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
from planes import CAMERAS
import pytest

from hybrid_depth.camera import CameraModel
from hybrid_depth.preprocess import (
    _shrink,
    camera_to_content,
    content_of,
    content_seen,
    network_view,
    resized,
    to_network,
)

SIZES = [(64, 208), (96, 96), (208, 64), (240, 320)]


def ramp_image(camera: CameraModel) -> np.ndarray:
    """Return an image whose red is proportional to u and green to v: sampling can be checked."""
    v, u = np.mgrid[:camera.height, :camera.width]
    return np.stack([255 * u / camera.width, 255 * v / camera.height, 0 * u],
                    axis=-1).round().astype(np.uint8)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('name', CAMERAS)
def test_the_network_image_has_the_agreed_form(name: str, size: tuple[int, int]) -> None:
    camera = CAMERAS[name]
    view = network_view(camera, size)
    image = to_network(ramp_image(camera), view)
    assert image.shape == (1, *size, 3)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert view.K.shape == (1, 3, 3)
    assert view.K.dtype == np.float32


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('name', CAMERAS)
def test_a_network_pixel_shows_what_the_camera_sees_along_its_ray(name: str,
                                                                  size: tuple[int, int]) -> None:
    camera = CAMERAS[name]
    view = network_view(camera, size)
    image = to_network(ramp_image(camera), view)[0].astype(np.float64)
    v, u = np.mgrid[:size[0], :size[1]]
    K = view.K[0].astype(np.float64)
    points = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones(size)], axis=-1)
    uv = camera.project(points.reshape(-1, 3)).reshape(*size, 2)
    inside = np.zeros(size, bool)
    content_of(inside, view)[1:-1, 1:-1] = content_seen(view)[1:-1, 1:-1]
    inside &= ((uv > 2) & (uv < [camera.width - 3, camera.height - 3])).all(axis=-1)
    assert inside.sum() > 0.5 * content_seen(view).sum()
    error = np.abs(image[..., :2] - 255 * uv / [camera.width, camera.height])[inside]
    # rounding twice, and the ramp's bend within a network pixel of a distorted camera
    assert error.max() < 2.0


@settings(max_examples=80, deadline=None)
@given(width=st.integers(1, 3000), height=st.integers(1, 3000),
       rows=st.integers(1, 40), columns=st.integers(1, 40))
def test_every_camera_fits_every_network(width: int, height: int, rows: int,
                                         columns: int) -> None:
    size = (16 * rows, 16 * columns)
    view = network_view(CameraModel(width, height, 100.0, 100.0, 0.0, 0.0), size)
    content = view.content
    assert 1 <= content.width <= size[1]
    assert 1 <= content.height <= size[0]
    assert content.width == size[1] or content.height == size[0]
    assert content_of(np.zeros(size), view).shape == (content.height, content.width)


def test_padding_repeats_the_border() -> None:
    camera = CAMERAS['plain']
    view = network_view(camera, (96, 96))
    image = to_network(ramp_image(camera), view)[0]
    assert view.top > 0
    np.testing.assert_array_equal(image[:view.top],
                                  np.broadcast_to(image[view.top], image[:view.top].shape))


def test_a_camera_of_the_network_size_is_passed_through() -> None:
    camera = CameraModel(96, 64, 80.0, 80.0, 47.5, 31.5)
    image = ramp_image(camera)
    view = network_view(camera, (64, 96))
    np.testing.assert_array_equal(to_network(image, view)[0], image)
    np.testing.assert_allclose(view.K[0], camera.K, rtol=1e-6)


@pytest.mark.parametrize('D', [(), (-0.05, 0.0, 0.0, 0.0)])
def test_shrinking_does_not_alias(D: tuple[float, ...]) -> None:
    # a checkerboard of single pixels must come out grey, as it does through INTER_AREA
    camera = CameraModel(1280, 960, 1000.0, 1000.0, 639.5, 479.5, 'plumb_bob', D)
    v, u = np.mgrid[:960, :1280]
    image = np.repeat(((u + v) % 2 * 255).astype(np.uint8)[..., None], 3, axis=-1)
    small = to_network(image, network_view(camera, (120, 160)))
    assert np.abs(small[0, 10:-10, 10:-10].astype(int) - 128).max() < 12


def test_shrinking_takes_whole_blocks_of_an_odd_size() -> None:
    block = 3 * np.add.outer(np.arange(33) // 8, np.arange(643) // 8).astype(np.uint8)
    small, factor = _shrink(np.repeat(block[..., None], 3, axis=-1), 80, 4)
    assert factor == 8
    np.testing.assert_array_equal(small[..., 0], 3 * np.add.outer(np.arange(4), np.arange(80)))


@pytest.mark.parametrize('size', [(643, 375), (647, 363), (97, 33), (640, 360), (70, 41)])
def test_resizing_shifts_nothing(size: tuple[int, int]) -> None:
    u, v = np.meshgrid(*(np.arange(length) for length in size))
    image = np.stack([200 * u / size[0], 200 * v / size[1], 0 * u], axis=-1)
    image += np.random.default_rng(0).random(image.shape)  # or whole numbers beat with the grid
    small = resized(image.astype(np.uint8), 60, 30)[2:-2, 2:-2].astype(np.float64)
    for channel, (length, count) in enumerate(zip(size, (60, 30), strict=True)):
        centre = (np.arange(count)[2:-2] + 0.5) * length / count - 0.5
        error = small[..., channel].mean(axis=channel) - 200 * centre / length
        # lost rows or columns that are not made up for stretch the ramp by 0.9 and more
        assert abs(np.polyfit(centre / length, error, 1)[0]) < 0.5
        assert abs(error.mean()) < 0.8  # each halving rounds up


@pytest.mark.parametrize('name', ['plumb_bob', 'rational', 'fisheye'])
def test_camera_to_content_follows_the_rays(name: str) -> None:
    camera = CAMERAS[name]
    view = network_view(camera, (96, 128))
    map_u, map_v = camera_to_content(view)
    finite = np.isfinite(map_u) & np.isfinite(map_v)
    assert finite[camera.height // 2, camera.width // 2]
    rays = camera.rays()[finite].astype(np.float64)
    uv = view.content.project(np.concatenate([rays, np.ones((len(rays), 1))], axis=1))
    np.testing.assert_allclose(np.stack([map_u[finite], map_v[finite]], axis=-1), uv, atol=1e-3)
    assert uv.min() >= -0.5 - 1e-3
    assert (uv <= [view.content.width - 0.499, view.content.height - 0.499]).all()


def test_everything_is_seen_by_a_plain_camera() -> None:
    assert content_seen(network_view(CAMERAS['plain'], (64, 208))).all()


def test_content_beyond_the_image_is_not_seen() -> None:
    # pincushion: the pinhole view's corners project outside the camera's image
    camera = CameraModel(160, 120, 120.0, 120.0, 79.5, 59.5, 'plumb_bob', (0.4, 0.0, 0.0, 0.0))
    seen = content_seen(network_view(camera, (120, 160)))
    assert not seen[0, 0]
    assert seen[30:90, 40:120].all()


def test_content_where_the_distortion_folds_back_is_not_seen() -> None:
    # r - 0.5 r^3 turns back at r = 0.816: content farther out would repeat what lies within
    camera = CameraModel(200, 40, 80.0, 80.0, 99.5, 19.5, 'plumb_bob', (-0.5, 0.0, 0.0, 0.0))
    view = network_view(camera, (40, 200))
    seen = content_seen(view)
    radius = np.abs(np.arange(200) - 99.5) / 80
    assert not seen[20, radius > 0.83].any()
    assert seen[20, radius < 0.75].all()


def test_real_images_go_through(shared_data) -> None:
    images = sorted((shared_data / 'kitti_raw').rglob('image_02/data/*'))[:1]
    assert images, 'kitti_raw holds no image_02/data'
    image = cv2.cvtColor(cv2.imread(str(images[0])), cv2.COLOR_BGR2RGB)
    height, width = image.shape[:2]
    view = network_view(CameraModel(width, height, 721.5, 721.5, 609.5, 172.8), (128, 416))
    small = to_network(image, view)[0]
    # shrinking by areas keeps the mean brightness
    assert abs(content_of(small, view).mean() - image.mean()) < 1.0
