# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Augmentation moves image, K and truth together; none shows what the robot shows."""
import numpy as np
from planes import plane_depth
import pytest

from hybrid_depth.camera import CameraModel
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


@pytest.mark.parametrize('size', [(96, 320), (64, 224), (128, 192)])
def test_without_augmentation_it_is_the_robots_view(size):
    view = make_view(sample(), size, NO_AUGMENT, np.random.default_rng(0))
    expected = network_view(CAMERA, size)
    np.testing.assert_allclose(view.K, expected.K[0], rtol=1e-6)
    np.testing.assert_array_equal(view.image, to_network(sample().image_rgb, expected)[0])


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
