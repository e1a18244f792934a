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
"""Clouds without NaN, and rays that meet nothing."""
from __future__ import annotations

import numpy as np
import pytest
from tiny_world import CAMERA, pose_at, seen

from hybrid_depth.cloud import CloudPacker
from hybrid_depth.nav_clouds import clearing_points, dense_points

WALL = (4.0, 4.5, -1.0, 3.0, 0.0, 3.0)


def test_dense_points_are_the_finite_ones_in_the_other_frame() -> None:
    pose = pose_at(x=1.0, yaw=0.3)
    result = seen(pose, [WALL])
    cloud = CloudPacker(2, max_range_m=20.0).pack(result)
    points = dense_points(cloud, pose)
    assert len(points) == np.isfinite(cloud.xyz()[..., 2]).sum() < cloud.xyz()[..., 2].size
    assert np.isfinite(points[:, :3]).all()
    on_wall = (points[:, 0] > 3.99) & (points[:, 0] < 4.01) & (points[:, 2] > 0.01)
    assert on_wall.sum() > 100
    assert (points[~on_wall & (points[:, 2] > 0.01), 0] > 3.99).all()
    assert points[:, 2].min() == pytest.approx(0.0, abs=1e-4)
    colours = np.ascontiguousarray(points[:, 3]).view(np.uint8).reshape(-1, 4)
    assert (colours == (90, 90, 90, 0)).all()


@pytest.mark.parametrize('voxel_m', [0.25, 1.0])
def test_one_measured_point_of_each_voxel_stays(voxel_m: float) -> None:
    pose = pose_at(x=-3.0)
    cloud = CloudPacker(2, max_range_m=20.0).pack(seen(pose, [WALL]))
    everything, thinned = dense_points(cloud, pose), dense_points(cloud, pose, voxel_m)
    keys = [set(map(tuple, np.floor(points[:, :3] * np.float32(1 / voxel_m)).astype(int).tolist()))
            for points in (everything, thinned)]
    assert keys[0] == keys[1]
    assert len(thinned) == len(keys[1]) < len(everything)
    assert set(map(bytes, thinned)) <= set(map(bytes, everything))


def test_clearing_points_are_the_rays_that_meet_nothing() -> None:
    result = seen(pose_at(), [WALL])
    sky = np.isposinf(result.depth_m)
    sky_and_far = sky | (result.depth_m > 10.0)
    points = clearing_points(result, 25.0)
    assert len(points) == sky.sum() > 0
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 25.0, rtol=1e-5)
    assert (points[:, 1] < 0).all()  # the sky is up
    v, u = np.argwhere(sky)[0]
    np.testing.assert_allclose(CAMERA.project(points[:1])[0], (u, v), atol=1e-3)
    assert len(clearing_points(result, 25.0, stride=2)) == sky[::2, ::2].sum()
    assert len(clearing_points(result, 25.0, max_range_m=10.0)) == sky_and_far.sum() > sky.sum()


def test_nothing_is_cleared_beside_depth_edges() -> None:
    result = seen(pose_at())
    sky = np.isposinf(result.depth_m)
    result.edge[:, :100] = True
    assert len(clearing_points(result, 25.0)) == sky[:, 100:].sum()
