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
from planes import CAMERAS, network_plane, plane_depth
import pytest

from hybrid_depth.camera import CameraModel
from hybrid_depth.config import PipelineConfig
from hybrid_depth.errors import BadFrame
from hybrid_depth.postprocess import DepthArrays, range_limit, SATURATION, to_depth
from hybrid_depth.preprocess import camera_to_content, network_view, NetworkView

MODEL_MAX_M = 200.0
SMOOTH = PipelineConfig(edge_ratio=10.0, max_depth_m=150.0)
CAMERA = CameraModel(130, 66, 100.0, 100.0, 64.5, 32.5)
SIZE = (32, 64)  # 130x66 is no multiple of it: rows of padding, and an odd scale


def run(depth: np.ndarray, view: NetworkView, config: PipelineConfig = SMOOTH,
        sigma: np.ndarray | None = None) -> DepthArrays:
    sigma = 0.1 * depth if sigma is None else sigma
    return to_depth(depth, sigma.astype(np.float32), view, config, MODEL_MAX_M)


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(sorted(CAMERAS)), tilt_x=st.floats(-0.4, 0.4),
       tilt_y=st.floats(-0.4, 0.4), distance=st.floats(1.0, 30.0),
       size=st.sampled_from([(64, 208), (96, 128), (128, 96)]))
def test_a_plane_survives_the_way_back_to_the_camera(
        name: str, tilt_x: float, tilt_y: float, distance: float, size: tuple[int, int]) -> None:
    camera = CAMERAS[name]
    view = network_view(camera, size)
    normal = (tilt_x, tilt_y, 1.0)
    result = run(network_plane(view, normal, distance), view)
    truth = plane_depth(camera, normal, distance)
    # beyond the outermost network pixel centres the border is repeated, not continued
    margin = int(np.ceil(camera.width / view.content.width))
    inner = (slice(margin, -margin),) * 2
    known = np.isfinite(result.depth_m[inner]) & np.isfinite(truth[inner])
    assert known.mean() > 0.5
    error = np.abs(result.depth_m[inner] / truth[inner] - 1)[known]
    assert np.quantile(error, 0.99) < 3e-3
    np.testing.assert_allclose(result.sigma_m[inner][known], 0.1 * result.depth_m[inner][known],
                               rtol=1e-3)


@pytest.mark.parametrize('resolution', ['camera', 'network'])
@pytest.mark.parametrize('limit', [0.0, 0.3])
@pytest.mark.parametrize('name', ['plain', 'fisheye'])
def test_depth_is_the_same_without_sigma(name: str, limit: float, resolution: str) -> None:
    rng = np.random.default_rng(3)
    depth = rng.uniform(0.5, 160.0, (96, 128)).astype(np.float32)
    depth[40:60] = 20
    sigma = depth * rng.uniform(0.1, 0.5, depth.shape).astype(np.float32)
    config = PipelineConfig(resolution=resolution, max_relative_sigma=limit)
    view = network_view(CAMERAS[name], depth.shape)
    whole, bare = (to_depth(depth, sigma, view, config, MODEL_MAX_M, with_sigma=with_sigma)
                   for with_sigma in (True, False))
    assert np.isfinite(whole.sigma_m).any()
    assert np.isnan(bare.sigma_m).all()
    assert bare.sigma_m.shape == bare.depth_m.shape
    np.testing.assert_array_equal(bare.depth_m, whole.depth_m)
    np.testing.assert_array_equal(bare.edge, whole.edge)


@pytest.mark.parametrize('name', ['plain', 'tall'])
def test_every_pixel_of_a_plain_camera_has_depth(name: str) -> None:
    view = network_view(CAMERAS[name], (96, 96))
    assert np.isfinite(run(np.full((96, 96), 7.0, np.float32), view).depth_m).all()


@pytest.mark.parametrize('name', ['plumb_bob', 'rational', 'fisheye'])
def test_a_distorted_camera_has_nan_exactly_outside_the_view(name: str) -> None:
    camera = CAMERAS[name]
    view = network_view(camera, (96, 128))
    result = run(np.full((96, 128), 7.0, np.float32), view)
    uv = view.content.project(np.concatenate(
        [camera.rays().reshape(-1, 2), np.ones((camera.width * camera.height, 1))], axis=1))
    outside = ~((uv > -0.5) & (uv < [127.5, 95.5])).all(axis=1).reshape(result.depth_m.shape)
    differs = np.isnan(result.depth_m) != outside
    assert differs.mean() < 0.01  # content that the camera does not see lies along the border
    assert not (np.isfinite(result.depth_m) & outside).any()
    np.testing.assert_allclose(result.depth_m[np.isfinite(result.depth_m)], 7.0, rtol=1e-5)


def step(column: int, near: float = 5.0, far: float = 20.0) -> np.ndarray:
    depth = np.full(SIZE, far, np.float32)
    depth[:, :column] = near
    return depth


@pytest.mark.parametrize('name', ['plain', 'plumb_bob', 'fisheye'])
def test_nothing_floats_between_the_sides_of_a_step(name: str) -> None:
    view = network_view(CAMERAS[name], SIZE)
    result = run(step(view.left + 20), view, PipelineConfig())
    finite = result.depth_m[np.isfinite(result.depth_m)]
    distance = np.minimum(np.abs(finite - 5), np.abs(finite - 20))
    assert distance.max() < 0.02
    assert (finite < 6).any()
    assert (finite > 19).any()


def test_the_step_is_where_the_network_put_it_and_marked() -> None:
    view = network_view(CAMERA, SIZE)
    result = run(step(30), view, PipelineConfig())
    border = (30 - view.left) * CAMERA.width / view.content.width  # 0 = left border of pixel 0
    u = np.arange(CAMERA.width) + 0.5
    np.testing.assert_allclose(result.depth_m, np.broadcast_to(np.where(u < border, 5, 20),
                                                               result.depth_m.shape), rtol=1e-6)
    scale = CAMERA.width / view.content.width
    expected = np.abs(u - border) < scale / 2  # between the two network pixel centres
    np.testing.assert_array_equal(result.edge, np.broadcast_to(expected, result.edge.shape))


def test_along_a_distortion_the_step_is_where_the_rays_put_it() -> None:
    camera = CAMERAS['plumb_bob']
    view = network_view(camera, (48, 64))
    depth = np.full((48, 64), 20.0, np.float32)
    depth[:, :30] = 5.0
    result = run(depth, view, PipelineConfig())
    content_u = camera_to_content(view)[0]
    known = np.isfinite(result.depth_m)
    on_left = content_u < 30 - 0.5 - view.left
    clear = known & (np.abs(content_u - 30 + 0.5 + view.left) > 0.02)
    np.testing.assert_allclose(result.depth_m[clear], np.where(on_left, 5, 20)[clear], rtol=1e-5)


def test_sigma_does_not_mix_across_a_step() -> None:
    view = network_view(CAMERA, SIZE)
    depth = step(30)
    result = run(depth, view, PipelineConfig(), np.where(depth < 10, 0.05, 0.4) * depth)
    relative = result.sigma_m / result.depth_m
    np.testing.assert_allclose(relative, np.where(result.depth_m < 10, 0.05, 0.4), rtol=1e-5)


def test_inverse_depth_is_what_is_interpolated() -> None:
    camera = CameraModel(64, 32, 60.0, 60.0, 31.5, 15.5)
    view = network_view(camera, (16, 32))
    inverse = np.linspace(1.0, 0.02, 32)  # the last steps are factors: depth would bend here
    result = run(np.tile(1 / inverse, (16, 1)).astype(np.float32), view, SMOOTH)
    u = (np.arange(64) + 0.5) / 2 - 0.5
    expected = 1 / np.interp(u, np.arange(32), inverse)
    np.testing.assert_allclose(result.depth_m[10], expected, rtol=1e-4)


def test_a_region_without_depth_is_nan_throughout() -> None:
    view = network_view(CAMERA, SIZE)
    depth = np.full(SIZE, 8.0, np.float32)
    depth[10:20, 20:40] = np.nan
    for name in ('camera', 'network'):
        result = run(depth, view, PipelineConfig(resolution=name))
        assert set(np.unique(result.depth_m[np.isfinite(result.depth_m)]).round(4)) == {8.0}
        assert not np.isinf(result.depth_m).any()
        missing = np.isnan(result.depth_m).mean() * view.content.width * view.content.height
        assert missing == pytest.approx(200, rel=0.1)


def test_a_slope_below_the_edge_ratio_is_interpolated_without_edges() -> None:
    view = network_view(CAMERA, SIZE)
    inverse = np.linspace(0.2, 0.05, SIZE[1], dtype=np.float32)
    result = run(np.tile(1 / inverse, (SIZE[0], 1)), view, PipelineConfig(edge_ratio=1.15))
    assert not result.edge.any()
    assert (np.diff(result.depth_m[10, 2:-2]) > 0).all()


def test_at_network_resolution_both_sides_of_a_step_are_marked() -> None:
    view = network_view(CAMERA, SIZE)
    result = run(step(30), view, PipelineConfig(resolution='network'))
    assert result.depth_m.shape == (view.content.height, view.content.width)
    assert set(np.flatnonzero(result.edge[5])) == {29 - view.left, 30 - view.left}


def test_a_camera_of_the_network_size_is_not_resampled() -> None:
    camera = CameraModel(64, 32, 60.0, 60.0, 31.5, 15.5)
    depth = np.random.default_rng(3).uniform(1, 50, SIZE).astype(np.float32)
    result = run(depth, network_view(camera, SIZE))
    np.testing.assert_allclose(result.depth_m, depth, rtol=1e-6)
    assert result.edge.dtype == bool


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf, 0.0, -1.0])
@pytest.mark.parametrize('resolution', ['camera', 'network'])
@pytest.mark.parametrize('broken', ['depth', 'sigma'])
def test_a_bad_network_pixel_is_nan_and_spoils_no_other(value: float, resolution: str,
                                                        broken: str) -> None:
    view = network_view(CAMERA, SIZE)
    depth, sigma = np.full(SIZE, 8.0, np.float32), np.full(SIZE, 0.5, np.float32)
    row, column = 15, 40
    (depth if broken == 'depth' else sigma)[row, column] = value
    result = run(depth, view, PipelineConfig(resolution=resolution), sigma)
    bad = np.isnan(result.depth_m)
    height, width = result.depth_m.shape
    v, u = np.flatnonzero(bad.any(axis=1)), np.flatnonzero(bad.any(axis=0))
    centre_v = (row - view.top + 0.5) * height / view.content.height - 0.5
    centre_u = (column - view.left + 0.5) * width / view.content.width - 0.5
    half_v = height / view.content.height / 2
    half_u = width / view.content.width / 2
    assert np.abs(v - centre_v).max() <= half_v
    assert np.abs(u - centre_u).max() <= half_u
    np.testing.assert_allclose(result.depth_m[~bad], 8.0, rtol=1e-6)
    np.testing.assert_array_equal(np.isnan(result.sigma_m), bad)
    assert result.edge[bad].all()


@pytest.mark.parametrize('value', [np.nan, np.inf, 0.0, -3.0])
@pytest.mark.parametrize('resolution', ['camera', 'network'])
def test_output_without_one_usable_pixel_is_a_bad_frame(value: float, resolution: str) -> None:
    view = network_view(CAMERA, SIZE)
    depth = np.full(SIZE, value, np.float32)
    with pytest.raises(BadFrame) as caught:
        run(depth, view, PipelineConfig(resolution=resolution), np.ones(SIZE))
    assert caught.value.reason == 'model_output'


@pytest.mark.parametrize(('policy', 'expected'),
                         [('inf', np.inf), ('nan', np.nan), ('clip', 40.0)])
@pytest.mark.parametrize('resolution', ['camera', 'network'])
def test_far_policies(policy: str, expected: float, resolution: str) -> None:
    view = network_view(CAMERA, SIZE)
    config = PipelineConfig(max_depth_m=40.0, far_policy=policy, resolution=resolution)
    result = run(step(30, near=10.0, far=60.0), view, config)
    np.testing.assert_array_equal(result.depth_m[:, -1], np.float32(expected))
    np.testing.assert_allclose(result.depth_m[:, 0], 10.0, rtol=1e-6)
    np.testing.assert_array_equal(np.isnan(result.sigma_m), ~np.isfinite(result.depth_m))


def test_too_near_is_minus_infinity() -> None:
    view = network_view(CAMERA, SIZE)
    result = run(step(30, near=0.5, far=10.0), view, PipelineConfig(min_depth_m=1.0))
    assert np.isneginf(result.depth_m[:, 0]).all()
    assert np.isnan(result.sigma_m[:, 0]).all()


def test_an_uncertain_pixel_is_nan_even_beyond_range() -> None:
    view = network_view(CAMERA, SIZE)
    depth = step(30, near=10.0, far=100.0)
    sigma = np.where(depth > 50, 60.0, 0.5)
    config = PipelineConfig(max_relative_sigma=0.3)
    result = run(depth, view, config, sigma)
    assert np.isnan(result.depth_m[:, -1]).all()
    assert np.isfinite(result.depth_m[:, 0]).all()
    off = run(depth, view, PipelineConfig(), sigma)
    assert np.isposinf(off.depth_m[:, -1]).all()


def test_what_the_model_cannot_tell_from_its_ceiling_is_beyond_range() -> None:
    assert range_limit(PipelineConfig(max_depth_m=80.0), 80.0) == SATURATION * 80.0
    assert range_limit(PipelineConfig(max_depth_m=50.0), 80.0) == 50.0
    view = network_view(CAMERA, SIZE)
    depth = np.full(SIZE, 79.9, np.float32)
    result = to_depth(depth, 0.1 * depth, view, PipelineConfig(max_depth_m=80.0), 80.0)
    assert np.isposinf(result.depth_m).all()


def test_the_arguments_are_left_alone() -> None:
    view = network_view(CAMERA, SIZE)
    depth, sigma = step(30, far=500.0), np.ones(SIZE, np.float32)
    depth[3, 3] = np.nan
    copies = depth.copy(), sigma.copy()
    for resolution in ('camera', 'network'):
        run(depth, view, PipelineConfig(resolution=resolution), sigma)
    np.testing.assert_array_equal(depth, copies[0])
    np.testing.assert_array_equal(sigma, copies[1])


def test_unseen_content_is_nan_at_network_resolution() -> None:
    camera = CameraModel(160, 120, 120.0, 120.0, 79.5, 59.5, 'plumb_bob', (0.4, 0.0, 0.0, 0.0))
    view = network_view(camera, (60, 80))
    result = run(np.full((60, 80), 5.0, np.float32), view, PipelineConfig(resolution='network'))
    assert np.isnan(result.depth_m[0, 0])
    assert np.isfinite(result.depth_m[20:40, 20:60]).all()
