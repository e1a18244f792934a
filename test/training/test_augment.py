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
"""Augmentation moves images, K, motion and truth together; none shows what the robot shows."""
from dataclasses import replace

import cv2
import numpy as np
from planes import plane_depth
import pytest

from hybrid_depth.camera import CameraModel
from hybrid_depth.errors import ConfigError
from hybrid_depth.preprocess import network_view, to_network
from hybrid_depth_training.augment import AugmentConfig, make_view, NO_AUGMENT
from hybrid_depth_training.data import DepthSample

CAMERA = CameraModel(310, 94, 180.0, 181.0, 152.0, 43.0)
NORMAL, DISTANCE = (0.02, 0.9, 0.3), 1.6
GEOMETRY_ONLY = AugmentConfig(grey=0.0, jitter=0.0)


def sample(is_sparse: bool = False) -> DepthSample:
    rng = np.random.default_rng(3)
    depth = plane_depth(CAMERA, NORMAL, DISTANCE)
    depth[depth > 60] = np.nan
    if is_sparse:
        depth[rng.random(depth.shape) > 0.1] = np.nan
    image = rng.integers(0, 255, (94, 310, 3), dtype=np.uint8)
    return DepthSample('plane', image, CAMERA, depth, is_sparse)


def assert_same_picture(found, expected):
    """Fail unless places and colours agree; the robot shrinks faster and less smoothly."""
    difference = cv2.blur(found.astype(np.float32) - expected, (5, 5))
    assert np.abs(difference).mean() < 2
    shifted = cv2.blur(np.roll(found, 2, axis=1).astype(np.float32) - expected, (5, 5))
    assert np.abs(shifted).mean() > 2 * np.abs(difference).mean()


@pytest.mark.parametrize('size', [(96, 320), (64, 224), (128, 192)])
def test_without_augmentation_it_is_the_robots_view(size):
    smooth = replace(sample(), image_rgb=cv2.GaussianBlur(sample().image_rgb, (0, 0), 3))
    view = make_view(smooth, size, NO_AUGMENT, np.random.default_rng(0))
    expected = network_view(CAMERA, size)
    np.testing.assert_allclose(view.K, expected.K[0], rtol=1e-6)
    assert_same_picture(view.image, to_network(smooth.image_rgb, expected)[0])


@pytest.mark.parametrize('is_sparse', [False, True])
@pytest.mark.parametrize('seed', range(8))
def test_the_moved_truth_still_is_the_plane(seed, is_sparse):
    # flip mirrors x and roll turns about z: undo neither, but the distance to a plane whose normal
    # is only known up to those stays the same, so fit the plane and compare its distance
    view = make_view(sample(is_sparse), (96, 320), GEOMETRY_ONLY, np.random.default_rng(seed))
    rows, columns = np.nonzero(np.isfinite(view.depth_m))
    assert len(rows) > 200
    z = view.depth_m[rows, columns].astype(np.float64)
    near = z < 12  # where half a pixel of rounding does not matter
    points = np.stack([(columns - view.K[0, 2]) / view.K[0, 0] * z,
                       (rows - view.K[1, 2]) / view.K[1, 1] * z, z], axis=1)[near]
    normal = np.linalg.lstsq(points, np.ones(len(points)), rcond=None)[0]
    expected = np.array(NORMAL) / DISTANCE
    assert np.linalg.norm(normal) == pytest.approx(np.linalg.norm(expected), rel=0.03)
    assert normal[2] == pytest.approx(expected[2], abs=0.02)


def test_zoom_changes_focal_length_not_depth():
    rng = np.random.default_rng(1)
    focal = [make_view(sample(), (96, 320), GEOMETRY_ONLY, rng).K[0, 0] for _ in range(40)]
    plain = network_view(CAMERA, (96, 320)).K[0, 0, 0]
    assert min(focal) < 0.85 * plain
    assert max(focal) > 1.3 * plain


def test_the_nearest_return_wins_where_points_meet():
    depth = np.full((94, 310), np.nan, np.float32)
    depth[40, 100:140] = np.where(np.arange(40) % 2, 5.0, 20.0)
    near = DepthSample('s', np.zeros((94, 310, 3), np.uint8), CAMERA, depth, True)
    view = make_view(near, (32, 96), NO_AUGMENT, np.random.default_rng(0))
    assert set(view.depth_m[np.isfinite(view.depth_m)]) == {5.0}


def test_colour_changes_and_the_input_does_not():
    s = sample()
    before = s.image_rgb.copy()
    config = AugmentConfig(zoom=1.0, roll_deg=0.0, flip=0.0, grey=1.0)
    view = make_view(s, (96, 320), config, np.random.default_rng(0))
    np.testing.assert_array_equal(s.image_rgb, before)
    spread = view.image.max(axis=2).astype(int) - view.image.min(axis=2)
    assert np.median(spread) < np.median(before.max(axis=2).astype(int) - before.min(axis=2)) / 2


def seen_from(world_T_camera: np.ndarray) -> DepthSample:
    """Render a plane with a smooth texture that is fixed to the world."""
    rays = np.dstack([CAMERA.rays().astype(np.float64), np.ones((94, 310))])
    R, t = world_T_camera[:3, :3], world_T_camera[:3, 3]
    normal = np.array(NORMAL)
    depth = (DISTANCE - normal @ t) / (rays @ R.T @ normal)
    points = (rays * depth[..., None]) @ R.T + t
    shade = [np.sin(3.0 * points[..., 0] + phase) * np.cos(1.7 * points[..., 2] - phase)
             for phase in (0.0, 0.7, 1.9)]
    image = np.where((depth > 0)[..., None], 128 + 90 * np.dstack(shade), 0).astype(np.uint8)
    depth = np.where((depth > 0) & (depth < 10), depth, np.nan).astype(np.float32)
    return DepthSample('plane', image, CAMERA, depth, False, world_T_camera)


def moved_pose() -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = cv2.Rodrigues(np.array([0.01, -0.04, 0.02]))[0]
    pose[:3, 3] = 0.15, -0.05, 0.4
    return pose


@pytest.mark.parametrize('seed', range(8))  # flipped and not, rolled either way
def test_the_source_warped_by_depth_and_motion_is_the_target(seed):
    torch = pytest.importorskip('torch', reason='the training extra is not installed')
    from hybrid_depth_training.geometry import warp
    target, source = seen_from(np.eye(4)), seen_from(moved_pose())
    config = replace(GEOMETRY_ONLY, roll_deg=8.0)
    view = make_view(target, (96, 320), config, np.random.default_rng(seed), [source, None])
    depth = torch.from_numpy(view.depth_m)[None, None]
    has_depth = torch.isfinite(depth)
    image = torch.from_numpy(view.image_plain).float().permute(2, 0, 1)[None]

    def error(source_T_target: np.ndarray) -> float:
        seen, inside = warp(
            torch.from_numpy(view.source_plain[:1]).float().permute(0, 3, 1, 2),
            torch.where(has_depth, depth, torch.ones_like(depth)), torch.from_numpy(view.K)[None],
            torch.from_numpy(source_T_target)[None])
        both = inside & has_depth
        assert both.sum() > 2000
        return float((seen - image).abs().mean(dim=1, keepdim=True)[both].median())
    assert error(view.source_T_target[0]) < 2.0
    assert error(np.eye(4, dtype=np.float32)) > 10
    assert error(np.linalg.inv(view.source_T_target[0])) > 10
    assert view.source_valid.tolist() == view.source_posed.tolist() == [1, 0]
    assert not view.source_image[1].any()
    np.testing.assert_array_equal(view.source_T_target[1], np.eye(4))


def test_source_without_pose_is_an_image_and_no_motion():
    source = replace(sample(), world_T_camera=None)
    view = make_view(seen_from(np.eye(4)), (96, 320), NO_AUGMENT, np.random.default_rng(0),
                     [source])
    assert (view.source_valid.tolist(), view.source_posed.tolist()) == ([1], [0])
    np.testing.assert_array_equal(view.source_T_target[0], np.eye(4))


def test_sources_are_recoloured_as_the_image_and_the_plain_ones_are_not():
    only_colour = AugmentConfig(zoom=1.0, roll_deg=0.0, flip=0.0)
    changed = 0
    for seed in range(6):
        view = make_view(sample(), (96, 320), only_colour, np.random.default_rng(seed), [sample()])
        np.testing.assert_array_equal(view.image_plain, view.source_plain[0])
        assert_same_picture(
            view.image_plain, to_network(sample().image_rgb, network_view(CAMERA, (96, 320)))[0])
        # the noise of two pictures differs, their colours do not
        assert np.abs(view.image.astype(int) - view.source_image[0]).mean() < 12
        changed += np.abs(view.image.astype(int) - view.image_plain).mean() > 15
    assert changed


def test_source_of_another_camera_is_refused():
    other = replace(sample(), camera=CAMERA.cropped(1, 0, 310, 94))
    with pytest.raises(ConfigError, match='another camera'):
        make_view(sample(), (96, 320), NO_AUGMENT, np.random.default_rng(0), [other])


def test_hue_turns_red_to_green_and_leaves_grey():
    image = np.zeros((94, 310, 3), np.uint8)
    image[:, :150] = 200, 0, 0
    image[:, 150:] = 90
    turned = replace(sample(), image_rgb=image)
    config = AugmentConfig(zoom=1.0, roll_deg=0.0, flip=0.0, grey=0.0, jitter=0.0, hue=1 / 3)

    class Most:
        """Draws the largest value every time."""

        def uniform(self, low, high, size=None):
            return high if size is None else np.full(size, high)

        def random(self):
            return 0.999

        def integers(self, low, high):
            return low
    view = make_view(turned, (94 // 32 * 32, 192), config, Most())
    assert view.image[20, 10].tolist() == [0, 200, 0]
    assert view.image_plain[20, 10].tolist() == [200, 0, 0]
    assert view.image[20, -10].tolist() == [90, 90, 90]


def test_only_a_share_of_samples_changes_its_colours():
    config = AugmentConfig(zoom=1.0, roll_deg=0.0, flip=0.0, coloured=0.5)
    rng = np.random.default_rng(0)
    changed = []
    for _ in range(60):
        view = make_view(sample(), (32, 64), config, rng)
        changed.append(not np.array_equal(view.image, view.image_plain))
    assert 0.3 < np.mean(changed) < 0.7
