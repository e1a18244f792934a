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

import numpy as np
from planes import CAMERAS
import pytest
from tiny_model import POSED, tiny_spec

from hybrid_depth.keyframes import Keyframe, Source
from hybrid_depth.matching import gravity, small_map, small_rays, source_inputs, thumbnail
from hybrid_depth.preprocess import network_view

SPEC = tiny_spec(**POSED)


def source(name: str, z: float) -> Source:
    motion = np.eye(4)
    motion[2, 3] = z
    return Source(Keyframe(0, np.eye(4), name, np.zeros((2, 2), np.uint8)), motion)


@pytest.mark.parametrize('count', [0, 1, 2])
def test_missing_sources_are_not_valid_and_do_not_move(count: int) -> None:
    sources = [source('a', 1.0), source('b', 2.0)][:count]
    inputs = source_inputs(SPEC, sources)
    assert inputs['source_features'] == (*('a', 'b')[:count], *[None] * (2 - count))
    np.testing.assert_array_equal(inputs['source_valid'], [[1] * count + [0] * (2 - count)])
    assert inputs['source_T_target'].shape == (1, 2, 4, 4)
    assert inputs['source_T_target'].dtype == inputs['source_valid'].dtype == np.float32
    for index in range(2):
        expected = sources[index].source_T_target if index < count else np.eye(4)
        np.testing.assert_array_equal(inputs['source_T_target'][0, index], expected)


def test_a_single_frame_model_is_fed_nothing_more() -> None:
    assert source_inputs(tiny_spec(), []) == {}


def test_small_rays_are_those_of_the_middle_of_each_block() -> None:
    view = network_view(CAMERAS['plain'], (96, 320))
    padded = view.content.cropped(-view.left, -view.top, 320, 96)
    blocks = padded.rays().reshape(24, 4, 80, 4, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(small_rays(view, 4), blocks, atol=1e-5)


def test_a_small_map_does_not_mix_depths() -> None:
    depth = np.arange(8 * 12, dtype=np.float32).reshape(8, 12)
    np.testing.assert_array_equal(small_map(depth, 4), [[26, 30, 34], [74, 78, 82]])


def test_a_thumbnail_is_the_mean_grey() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    grey = image.astype(float) @ (0.299, 0.587, 0.114)
    expected = grey.reshape(2, 4, 3, 4).mean(axis=(1, 3))
    assert np.abs(thumbnail(image, 4) - expected).max() <= 1.5


def test_gravity_is_down_in_the_image_of_an_upright_camera() -> None:
    # odom: x forward, y left, z up; the camera looks along x, pitched down by 0.2 rad
    c, s = np.cos(0.2), np.sin(0.2)
    odom_T_camera = np.eye(4)
    odom_T_camera[:3, :3] = np.array([[0, -s, c], [-1, 0, 0], [0, -c, -s]])
    assert np.linalg.det(odom_T_camera[:3, :3]) == pytest.approx(1)
    np.testing.assert_allclose(gravity(odom_T_camera), [0, c, s], atol=1e-12)
    assert gravity(None) is None
    assert gravity(np.eye(4)) is None  # the world is the camera's first pose: z is forward
