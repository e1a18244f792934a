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

from array import array

import numpy as np
from planes import CAMERAS, plane_depth
import pytest

from hybrid_depth.camera import CameraModel
from hybrid_depth.cloud import CloudPacker, FIELDS, POINT_STEP
from hybrid_depth.errors import ConfigError
from hybrid_depth.types import DepthResult, Evidence


def make_result(camera: CameraModel, depth_m: np.ndarray, **changes: np.ndarray) -> DepthResult:
    rng = np.random.default_rng(1)
    arrays = {'sigma_m': np.where(np.isfinite(depth_m), 0.1 * depth_m, np.nan).astype(np.float32),
              'edge': np.zeros(depth_m.shape, bool),
              'image_rgb': rng.integers(0, 256, (*depth_m.shape, 3), np.uint8), **changes}
    return DepthResult(depth_m=depth_m, camera=camera, stamp_ns=0, frame_id='camera',
                       mode='single_frame', **arrays)


@pytest.mark.parametrize('stride', [1, 2, 3, 7])
@pytest.mark.parametrize('name', CAMERAS)
def test_points_lie_on_the_rays_of_their_pixels(name: str, stride: int) -> None:
    camera = CAMERAS[name]
    depth_m = plane_depth(camera, (0.1, -0.2, 1.0), 6.0)
    result = make_result(camera, depth_m)
    cloud = CloudPacker(stride).pack(result)
    kept = depth_m[::stride, ::stride]
    assert (cloud.height, cloud.width) == kept.shape
    xyz = cloud.xyz()
    finite = np.isfinite(xyz).all(axis=-1)
    assert finite.mean() > 0.8
    v, u = (stride * axis[finite] for axis in np.indices(kept.shape))
    assert np.abs(camera.project(xyz[finite]) - np.stack([u, v], axis=-1)).max() < 0.11
    np.testing.assert_array_equal(xyz[finite][:, 2], kept[finite])
    np.testing.assert_array_equal(cloud.rgb(), result.image_rgb[::stride, ::stride])


def test_the_bytes_are_those_of_a_point_cloud_message() -> None:
    camera = CameraModel(3, 2, 10.0, 20.0, 1.0, 0.5)
    image = np.zeros((2, 3, 3), np.uint8)
    image[1, 2] = (10, 20, 30)
    result = make_result(camera, np.full((2, 3), 4.0, np.float32), image_rgb=image)
    cloud = CloudPacker().pack(result)
    assert isinstance(cloud.data, array)
    assert cloud.data.typecode == 'B'
    assert (cloud.row_step, cloud.point_step, len(cloud.data)) == (48, 16, 96)
    assert FIELDS == (('x', 0, 7), ('y', 4, 7), ('z', 8, 7), ('rgb', 12, 7))
    point = cloud.data.tobytes()[5 * POINT_STEP:]
    np.testing.assert_allclose(np.frombuffer(point, '<f4', 3), [0.4, 0.1, 4.0], rtol=1e-6)
    assert list(point[12:]) == [30, 20, 10, 0]


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_no_depth_is_no_point(value: float) -> None:
    camera = CAMERAS['plain']
    depth_m = np.full((camera.height, camera.width), 5.0, np.float32)
    depth_m[10, 20] = value
    xyz = CloudPacker().pack(make_result(camera, depth_m)).xyz()
    bad = np.isnan(xyz)
    assert bad[10, 20].all()
    assert bad.sum() == 3


def test_a_pixel_without_a_ray_is_no_point() -> None:
    camera = CameraModel(201, 3, 100.0, 100.0, 100.0, 1.0, 'plumb_bob', (-0.5, 0, 0, 0))
    depth_m = np.full((3, 201), 5.0, np.float32)
    xyz = CloudPacker().pack(make_result(camera, depth_m)).xyz()
    no_ray = np.isnan(camera.rays()).any(axis=-1)
    assert 0 < no_ray.mean() < 1
    np.testing.assert_array_equal(np.isnan(xyz), np.repeat(no_ray[..., None], 3, axis=-1))


def missing(packer: CloudPacker, result: DepthResult) -> np.ndarray:
    xyz = packer.pack(result).xyz()
    np.testing.assert_array_equal(np.isnan(xyz).any(axis=-1), np.isnan(xyz).all(axis=-1))
    return np.isnan(xyz[..., 2])


@pytest.mark.parametrize('stride', [1, 2])
def test_filters_take_out_exactly_what_they_say(stride: int) -> None:
    camera = CameraModel(40, 30, 30.0, 30.0, 19.5, 14.5)
    rng = np.random.default_rng(2)
    depth_m = rng.uniform(1, 50, (30, 40)).astype(np.float32)
    sigma_m = (depth_m * rng.uniform(0, 1, (30, 40))).astype(np.float32)
    sigma_m[4, 4] = np.nan
    edge = rng.random((30, 40)) < 0.2
    result = make_result(camera, depth_m, sigma_m=sigma_m, edge=edge)
    cut = (slice(None, None, stride),) * 2
    far = (depth_m > 20)[cut]
    unsure = ~(sigma_m / depth_m <= 0.5)[cut]
    assert far.any()
    assert unsure.any()
    assert not missing(CloudPacker(stride), result).any()
    np.testing.assert_array_equal(missing(CloudPacker(stride, max_range_m=20), result), far)
    np.testing.assert_array_equal(missing(CloudPacker(stride, remove_edges=True), result),
                                  edge[cut])
    np.testing.assert_array_equal(
        missing(CloudPacker(stride, max_relative_sigma=0.5), result), unsure)
    np.testing.assert_array_equal(
        missing(CloudPacker(stride, max_range_m=20, max_relative_sigma=0.5, remove_edges=True),
                result), far | unsure | edge[cut])


@pytest.mark.parametrize('stride', [1, 3])
@pytest.mark.parametrize('unwanted', [{Evidence.MOVING}, set(Evidence) - {Evidence.MATCHED}])
def test_evidence_takes_out_exactly_what_it_says(unwanted: set[Evidence], stride: int) -> None:
    camera = CameraModel(40, 30, 30.0, 30.0, 19.5, 14.5)
    depth_m = np.full((30, 40), 5.0, np.float32)
    evidence = np.random.default_rng(3).integers(0, len(Evidence), (30, 40)).astype(np.uint8)
    result = make_result(camera, depth_m, evidence=evidence)
    expected = np.isin(evidence, [int(value) for value in unwanted])[::stride, ::stride]
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(
        missing(CloudPacker(stride, remove_evidence=unwanted), result), expected)
    assert not missing(CloudPacker(stride), result).any()


def test_without_evidence_all_rests_on_the_single_image() -> None:
    result = make_result(CAMERAS['plain'], np.full(
        (CAMERAS['plain'].height, CAMERAS['plain'].width), 5.0, np.float32))
    assert not missing(CloudPacker(remove_evidence=[Evidence.MOVING]), result).any()
    assert missing(CloudPacker(remove_evidence=[Evidence.SINGLE_FRAME]), result).all()


def test_the_buffer_is_reused_until_the_size_changes() -> None:
    packer = CloudPacker()
    camera = CAMERAS['plain']
    depth_m = np.full((camera.height, camera.width), 5.0, np.float32)
    first = packer.pack(make_result(camera, depth_m))
    second = packer.pack(make_result(camera, 2 * depth_m))
    assert second.data is first.data
    assert (second.xyz()[..., 2] == 10).all()
    other = CAMERAS['tall']
    third = packer.pack(make_result(other, np.full((other.height, other.width), 1.0, np.float32)))
    assert third.data is not first.data
    assert len(third.data) == third.height * third.row_step
    assert (first.xyz()[..., 2] == 10).all()
    again = packer.pack(make_result(camera, depth_m))
    assert (again.height, again.width) == (camera.height, camera.width)
    assert (again.xyz()[..., 2] == 5).all()


@pytest.mark.parametrize('size', [(1, 1), (1, 5), (5, 1), (2, 2)])
def test_tiny_images_are_packed_in_place(size: tuple[int, int]) -> None:
    camera = CameraModel(size[1], size[0], 10.0, 10.0, 0.0, 0.0)
    cloud = CloudPacker().pack(make_result(camera, np.full(size, 3.0, np.float32)))
    assert (cloud.xyz()[..., 2] == 3).all()
    assert len(cloud.data) == 16 * size[0] * size[1]


def test_the_result_is_left_alone() -> None:
    camera = CAMERAS['plain']
    depth_m = np.full((camera.height, camera.width), 50.0, np.float32)
    result = make_result(camera, depth_m)
    before = depth_m.copy(), result.image_rgb.copy()
    CloudPacker(max_range_m=1.0).pack(result)
    np.testing.assert_array_equal(result.depth_m, before[0])
    np.testing.assert_array_equal(result.image_rgb, before[1])


@pytest.mark.parametrize('settings', [
    {'stride': 0}, {'max_range_m': -1.0}, {'max_range_m': float('nan')},
    {'max_relative_sigma': -0.1}])
def test_bad_settings_are_rejected(settings: dict) -> None:
    with pytest.raises(ConfigError):
        CloudPacker(**settings)


def test_the_packer_says_what_it_reads_beside_depth() -> None:
    assert CloudPacker(remove_edges=True, max_range_m=5.0).extras == frozenset()
    assert CloudPacker(max_relative_sigma=0.5).extras == {'sigma'}
    assert CloudPacker(remove_evidence=[Evidence.MOVING]).extras == {'evidence'}
