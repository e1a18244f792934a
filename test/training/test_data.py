# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Every dataset gives samples whose depth means what it says."""
import cv2
import numpy as np
import pytest

from hybrid_depth.errors import DriveError
from hybrid_depth_training.data import DATASETS
from hybrid_depth_training.data.drive import overexposed_sky
from hybrid_depth_training.data.kitti_odometry import stereo_depth


def test_drive_gives_frames_with_truth(tiny_drive):
    samples = DATASETS['drive'](str(tiny_drive))
    assert len(samples) == 6
    assert not samples[0].is_sparse
    assert np.nanmin(samples[0].depth_m) > 3
    assert samples[0].image_rgb.shape == (96, 160, 3)


def test_drive_without_truth_is_refused(tmp_path):
    (tmp_path / 'images').mkdir()
    cv2.imwrite(str(tmp_path / 'images' / 'a.png'), np.zeros((32, 32, 3), np.uint8))
    np.savetxt(tmp_path / 'K.txt', np.diag([30.0, 30.0, 1.0]))
    with pytest.raises(DriveError, match='no frame'):
        DATASETS['drive'](str(tmp_path))


def stereo_pair(disparity: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    wall = cv2.GaussianBlur(rng.integers(0, 255, (80, 420), dtype=np.uint8), (0, 0), 1.0)
    return wall[:, 100:400], wall[:, 100 + disparity:400 + disparity]


def test_stereo_depth_of_a_wall():
    left, right = stereo_pair(19)
    depth = stereo_depth(left, right, 380.0)
    inside = depth[10:-10, 60:-20]
    assert np.mean(np.isfinite(inside)) > 0.9
    assert np.nanmedian(inside) == pytest.approx(380 / 19, rel=0.02)


def test_stereo_depth_far_away_is_beyond_range():
    left, right = stereo_pair(1)
    depth = stereo_depth(left, right, 380.0)
    assert np.mean(np.isposinf(depth[10:-10, 60:-20])) > 0.9


def test_kitti_odometry_folder(tmp_path):
    left, right = stereo_pair(19)
    for name, image in (('image_0', left), ('image_1', right)):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / '000000.png'), image)
    P0 = np.array([[700.0, 0, 150, 0], [0, 700, 40, 0], [0, 0, 1, 0]])
    P1 = P0.copy()
    P1[0, 3] = -380.0
    np.savetxt(tmp_path / 'calib_P0_P1.txt', np.stack([P0.ravel(), P1.ravel()]))
    (one,) = DATASETS['kitti_odometry'](str(tmp_path))
    assert one.camera.fx == 700
    assert np.nanmedian(one.depth_m[10:-10, 60:-20]) == pytest.approx(20, rel=0.02)
    (tmp_path / 'calib_P0_P1.txt').unlink()
    with pytest.raises(DriveError, match='calib_P0_P1'):
        DATASETS['kitti_odometry'](str(tmp_path))


def test_sevenscenes_folder(tmp_path):
    cv2.imwrite(str(tmp_path / 'frame-0.color.jpg'), np.zeros((48, 64, 3), np.uint8))
    raw = np.full((48, 64), 2500, np.uint16)
    raw[0, 0], raw[0, 1] = 0, 65535
    cv2.imwrite(str(tmp_path / 'frame-0.depth.png'), raw)
    np.savetxt(tmp_path / 'camera-intrinsics.txt', np.diag([58.5, 58.5, 1.0]))
    (one,) = DATASETS['sevenscenes'](str(tmp_path))
    assert np.isnan(one.depth_m[0, :2]).all()
    assert (one.depth_m[1:] == np.float32(2.5)).all()


def test_synthetic_views_are_kept(tmp_path):
    first = DATASETS['synthetic'](str(tmp_path), count=1, height=32, width=64)
    files = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    again = DATASETS['synthetic'](str(tmp_path), count=1, height=32, width=64)
    assert files == {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    np.testing.assert_array_equal(first[0].depth_m, again[0].depth_m)
    assert np.isposinf(first[0].depth_m).any() or np.nanmax(first[0].depth_m) > 5


def test_overexposed_sky_is_white_high_and_without_returns():
    image = np.full((90, 120, 3), 100, np.uint8)
    image[5:25, 10:60] = 255  # sky
    image[5:25, 80:110] = 255  # a white wall: the LiDAR sees it
    image[60:80, 10:60] = 255  # a white car, low in the image
    depth = np.full((90, 120), np.nan, np.float32)
    depth[::2, 80:110:2] = 12.0
    sky = overexposed_sky(image, depth)
    assert sky[10:20, 15:55].all()
    assert not sky[:, 70:].any()
    assert not sky[50:].any()
    assert not sky[30:50].any()
