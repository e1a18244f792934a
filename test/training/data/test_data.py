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
"""Every dataset gives recordings whose depth, camera and poses mean what they say."""
import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny_bags
import tiny_data

from hybrid_depth.errors import ConfigError, DriveError
from hybrid_depth_training.data import DATASETS, DepthSample, load, Recording
from hybrid_depth_training.data.consecutive import runs
from hybrid_depth_training.data.drive import overexposed_sky
from hybrid_depth_training.data.frame_cache import FrameCache
from hybrid_depth_training.data.kitti_odometry import stereo_depth
from hybrid_depth_training.data.tusimple import lanes

WITHOUT_POSES = ('nyu', 'sunrgbd', 'tusimple', 'synthetic')
WITHOUT_TRUTH = ('tusimple',)


def test_every_dataset_has_a_miniature():
    assert set(tiny_data.WRITERS) == set(DATASETS)


@pytest.mark.parametrize('dataset', DATASETS)
def test_miniature(dataset, tmp_path):
    options = tiny_data.WRITERS[dataset](tmp_path)
    recordings = load(dataset, str(tmp_path), **options)
    assert recordings
    names = [recording[index].name for recording in recordings for index in range(len(recording))]
    assert len(set(names)) == len(names)
    for recording in recordings:
        cameras = set()
        assert len(recording.targets)
        for index in range(len(recording)):
            sample = recording[index]
            height, width = sample.image_rgb.shape[:2]
            assert sample.image_rgb.dtype == np.uint8
            assert sample.image_rgb.std() > 5
            assert sample.depth_m.shape == (height, width)
            assert sample.depth_m.dtype == np.float32
            assert (sample.camera.width, sample.camera.height) == (width, height)
            assert not sample.camera.is_distorted
            assert isinstance(sample.is_sparse, bool)
            cameras.add(sample.camera)
            np.testing.assert_array_equal(sample.world_T_camera, recording.world_T_camera[index])
            if index in recording.targets:
                has_truth = not np.isnan(sample.depth_m).all()
                assert has_truth == (dataset not in WITHOUT_TRUTH)
        assert len(cameras) == 1
        with pytest.raises(IndexError, match='has no frame'):
            recording[len(recording)]
        check_poses(dataset, recording)


def check_poses(dataset: str, recording: Recording) -> None:
    poses = [pose for pose in recording.world_T_camera if pose is not None]
    if dataset in WITHOUT_POSES:
        assert not poses
        return
    assert len(poses) >= tiny_data.FRAMES - 1
    for one, other in itertools.pairwise(poses):
        motion = np.linalg.inv(one) @ other
        if dataset != 'synthetic_clips':
            np.testing.assert_allclose(motion[:3, 3], (0, 0, tiny_data.STEP_M), atol=1e-4)
        assert motion[2, 3] > 0.3  # forward, in the optical frame
        assert np.linalg.det(motion[:3, :3]) == pytest.approx(1.0)


@pytest.mark.parametrize('dataset', ['drive', 'kitti_raw', 'rgbd', 'sevenscenes'])
def test_truth_comes_nearer_as_the_poses_say(dataset, tmp_path):
    options = tiny_data.WRITERS[dataset](tmp_path)
    for recording in load(dataset, str(tmp_path), **options):
        for index in recording.targets:
            sample = recording[index]
            assert sample.camera.K.tolist() == tiny_data.K.tolist()
            assert np.isnan(sample.depth_m[:, 0]).all()
            has_truth = np.isfinite(sample.depth_m)
            assert has_truth.sum() > 1000
            np.testing.assert_allclose(sample.depth_m[has_truth],
                                       tiny_data.depth_map(index)[has_truth], atol=0.005)


def test_runs_end_where_a_number_is_missing():
    assert runs([3, 4, 5, 8, 9, 20]) == [range(0, 3), range(3, 5), range(5, 6)]
    assert runs([]) == []


def test_frames_that_were_read_are_kept_as_far_as_they_fit():
    count = []

    def read(index: int) -> DepthSample:
        count.append(index)
        image = np.zeros((10, 10, 3), np.uint8)  # 300 bytes, and 400 of depth
        return DepthSample(str(index), image, None, np.zeros((10, 10), np.float32), False)
    cache = FrameCache(1500)
    first, second = (cache.over(Recording(name, read, [None] * 4, range(4))) for name in 'ab')
    for index in (0, 1, 0, 1):
        first[index]
    assert count == [0, 1]
    second[0]  # drops frame 0 of the first, which was used longest ago
    assert cache.bytes == 1400
    first[1]
    assert count == [0, 1, 0]
    assert first[0].name == '0'
    assert count == [0, 1, 0, 0]


def test_drive_gives_frames_with_truth(tiny_drive):
    (recording,) = load('drive', str(tiny_drive))
    assert list(recording.targets) == list(range(6))
    assert not recording[0].is_sparse
    assert np.nanmin(recording[0].depth_m) > 3


def test_drive_frames_without_truth_are_no_targets(tmp_path):
    tiny_data.write_drive(tmp_path)
    (tmp_path / 'depth' / '0002.png').unlink()
    (recording,) = load('drive', str(tmp_path))
    assert list(recording.targets) == [0, 1, 3]
    assert np.isnan(recording[2].depth_m).all()


def bag(folder: Path, D: tuple[float, ...] = ()) -> Path:
    """Write a robot that drives 1 m along its x with every image, camera looking ahead."""
    looking_ahead = (-0.5, 0.5, -0.5, 0.5)  # base_link to optical frame
    messages = [('/tf_static', tiny_bags.transforms(
        ('base_link', tiny_bags.CAMERA_FRAME, (0.3, 0.1, 1.2), looking_ahead)))]
    for index, stamp_ns in enumerate(tiny_bags.STAMPS):
        truth = np.full((tiny_bags.HEIGHT, tiny_bags.WIDTH), 9.0 - index, np.float32)
        messages += [
            ('/odom', tiny_bags.odometry(stamp_ns, (2.0 + index, 5.0, 0.0))),
            ('/cam/camera_info', tiny_bags.camera_info(stamp_ns, tiny_bags.WIDTH,
                                                       tiny_bags.HEIGHT, D=D)),
            ('/cam/image_raw', tiny_bags.image(stamp_ns, tiny_bags.picture(index))),
            ('/cam/depth', tiny_bags.image(stamp_ns, truth, '32FC1'))]
    return tiny_bags.write_bag(folder / 'bag', messages, 'mcap')


def test_bag_gives_odometry_as_poses_of_the_optical_frame(tmp_path):
    pytest.importorskip('rosbags')
    (recording,) = load('drive', str(bag(tmp_path)))
    assert list(recording.targets) == [0, 1, 2, 3]
    for index in range(4):
        pose = recording[index].world_T_camera
        # the camera is 0.3 m ahead, 0.1 m left of and 1.2 m above base_link, at x = 2, y = 5
        np.testing.assert_allclose(pose[:3, 3], (2.3 + index, 5.1, 1.2), atol=1e-9)
        np.testing.assert_allclose(pose[:3, 2], (1, 0, 0), atol=1e-9)  # optical z is ahead
        np.testing.assert_allclose(pose[:3, 0], (0, -1, 0), atol=1e-9)  # optical x is right
        assert (recording[index].depth_m == 9.0 - index).all()
        np.testing.assert_array_equal(recording[index].image_rgb, tiny_bags.picture(index))


def test_distorted_images_are_undistorted(tmp_path):
    pytest.importorskip('rosbags')
    D = (-0.9, 0.3, 0.0, 0.0, 0.0)
    (recording,) = load('drive', str(bag(tmp_path, D)))
    sample = recording[1]
    assert not sample.camera.is_distorted
    recorded = tiny_bags.picture(1).astype(int)
    expected = cv2.undistort(tiny_bags.picture(1), sample.camera.K, np.array(D))
    inside = (slice(2, -2), slice(2, -2))
    assert np.abs(sample.image_rgb[inside] - expected[inside].astype(int)).mean() < 2
    assert np.abs(recorded[inside] - expected[inside]).mean() > 5
    assert sample.depth_m[6, 8] == 8.0


def test_kitti_raw_neighbours_are_found_by_frame_number(tmp_path):
    options = tiny_data.write_kitti_raw(tmp_path)
    left, right = load('kitti_raw', str(tmp_path), **options)
    assert (list(left.targets), len(left)) == ([1, 2], 4)
    assert left.name == '2011_09_26_drive_0001_sync/image_02/0000000000'
    assert not np.array_equal(left[1].image_rgb, right[1].image_rgb)
    # the right camera is 0.5 m to the right of the left one
    between = np.linalg.inv(left.world_T_camera[1]) @ right.world_T_camera[1]
    np.testing.assert_allclose(between[:3, 3], (tiny_data.BASELINE_M, 0, 0), atol=1e-6)
    gone = tmp_path / '2011_09_26' / '2011_09_26_drive_0001_sync' / 'image_02' / 'data'
    (gone / '0000000000.png').unlink()
    (gone / '0000000003.png').unlink()
    left, _ = load('kitti_raw', str(tmp_path), **options)
    assert (list(left.targets), len(left)) == ([0, 1], 2)
    (gone / '0000000002.png').unlink()
    with pytest.raises(DriveError, match='0000000002'):
        load('kitti_raw', str(tmp_path), **options)


def test_kitti_raw_scans_are_projected_with_the_nearest_on_top(tmp_path):
    options = {**tiny_data.write_kitti_raw(tmp_path), 'truth': 'scans', 'poses': False}
    left, right = load('kitti_raw', str(tmp_path), **options)
    for recording in (left, right):
        sample = recording[1]
        truth = sample.depth_m[np.isfinite(sample.depth_m)]
        assert sample.is_sparse
        assert len(truth) > 300
        near = np.abs(truth - tiny_data.depth_of(1)) < 1e-4
        far = np.abs(truth - tiny_data.depth_of(1) - 3) < 1e-4
        assert (near | far).all()  # what is behind the camera is nowhere
        assert near.sum() > far.sum()
    # the point straight ahead of the LiDAR, seen from 0.5 m to its right
    column = tiny_data.CX - tiny_data.FOCAL * tiny_data.BASELINE_M / tiny_data.depth_of(1)
    left_most = np.flatnonzero(np.isfinite(left[1].depth_m).any(axis=0))[0]
    right_most = np.flatnonzero(np.isfinite(right[1].depth_m).any(axis=0))[0]
    assert left_most - right_most == pytest.approx(tiny_data.CX - column, abs=1)


def test_kitti_raw_drive_without_a_list_gives_every_frame(tmp_path):
    tiny_data.write_kitti_raw(tmp_path)
    drive = tmp_path / '2011_09_26' / '2011_09_26_drive_0001_sync'
    (recording,) = load('kitti_raw', str(drive))
    assert list(recording.targets) == [0, 1, 2, 3]
    assert np.isnan(recording[0].depth_m).all()
    assert len(load('kitti_raw', str(tmp_path), cameras=['image_02', 'image_03'])) == 2
    with pytest.raises(ConfigError, match='truth is'):
        load('kitti_raw', str(drive), truth='lidar')


def test_real_scan_agrees_with_the_projected_one(shared_data):
    date = shared_data / 'kitti_raw' / '2011_09_26'
    drive = date / '2011_09_26_drive_0013_sync'
    (scans,) = load('kitti_raw', str(drive), truth='scans')
    (official,) = load('kitti_raw', str(drive), truth='velodyne_raw')
    assert list(scans.targets) == [0, 100]
    assert len(official.targets) == 144
    mine, theirs = scans[100].depth_m, official[100].depth_m
    both = np.isfinite(mine) & np.isfinite(theirs)
    assert both.sum() > 0.8 * np.isfinite(theirs).sum()
    assert np.median(np.abs(mine[both] - theirs[both])) < 0.1


def test_nyu_scenes_part_where_numbers_are_missing(tmp_path):
    options = tiny_data.write_nyu(tmp_path)
    recordings = load('nyu', str(tmp_path), **options)
    assert {recording.name: len(recording) for recording in recordings} == {
        'bath/rgb_00004': 1, 'kitchen/rgb_00001': 3, 'kitchen/rgb_00009': 1}
    sample = recordings[1][1]
    assert sample.name == 'kitchen/rgb_00002'
    assert np.isnan(sample.depth_m[:8]).all()
    assert np.nanmin(sample.depth_m[56 - 8:56]) == pytest.approx(
        tiny_data.depth_map(2)[55, 0], abs=1e-3)
    # the toolbox's K is of 640x480
    assert sample.camera.fx == pytest.approx(518.8579 * tiny_data.WIDTH / 640, rel=1e-4)
    assert len(load('nyu', str(tmp_path))) == 3  # without a list: what is there
    (tmp_path / 'list.txt').write_text('/kitchen/rgb_00007.jpg /kitchen/none.png 518.8\n')
    with pytest.raises(DriveError, match='rgb_00007'):
        load('nyu', str(tmp_path), **options)


def test_rgbd_orders_by_number_and_drops_lost_poses(tmp_path):
    (recording,) = load('rgbd', str(tmp_path), **tiny_data.write_rgbd(tmp_path))
    assert [recording[i].name for i in range(4)] == ['8', '9', '10', '11']
    assert recording.world_T_camera[3] is None
    assert recording[0].depth_m.shape == (64, 96)  # its depth was recorded at half the size


def test_sevenscenes_none_is_0_and_65535(tmp_path):
    (recording,) = load('sevenscenes', str(tmp_path), **tiny_data.write_sevenscenes(tmp_path))
    assert list(recording.targets) == [0, 2, 3]
    assert np.isnan(recording[0].depth_m[:, :2]).all()
    np.testing.assert_allclose(recording[0].depth_m[56:, 2:], tiny_data.DEPTH_M, rtol=1e-6)


def test_tusimple_lanes_run_from_near_to_far(tmp_path):
    options = tiny_data.write_tusimple(tmp_path)
    found = lanes(str(tmp_path))
    names = [recording[0].name for recording in load('tusimple', str(tmp_path), **options)]
    assert list(found) == names
    first, second = found[names[0]]  # the third lane has no row at all
    assert (np.diff(first[:, 1]) < 0).all()
    assert first[-1, 1] == 28  # rows 20 and 24 are not seen
    assert second[0].tolist() == [48 + (60 - 20) // 2, 60]
    assert second[-1].tolist() == [48, 20]
    with pytest.raises(DriveError, match='label_data'):
        lanes(str(tmp_path / 'clips'))
    (tmp_path / 'label_data_0601.json').write_text('{"raw_file": "a", "h_samples": [1, 2]}\n')
    with pytest.raises(DriveError, match=r'label_data_0601\.json:1'):
        lanes(str(tmp_path))


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


@pytest.mark.parametrize('kept', [False, True])
def test_kitti_odometry_folder(tmp_path, kept):
    left, right = stereo_pair(19)
    sequence = tmp_path / 'sequences' / '06'
    for name, image in (('image_0', left), ('image_1', right)):
        tiny_data.write_png(sequence / name / '000000.png', image)
    P0 = np.array([[700.0, 0, 150, 0], [0, 700, 40, 0], [0, 0, 1, 0]])
    P1 = P0.copy()
    P1[0, 3] = -380.0
    np.savetxt(sequence / 'calib_P0_P1.txt', np.stack([P0.ravel(), P1.ravel()]))
    (tmp_path / 'poses').mkdir()
    np.savetxt(tmp_path / 'poses' / '06.txt', tiny_data.pose(2)[:3].reshape(1, -1))
    options = {'keep_in': str(tmp_path / 'kept')} if kept else {}
    (recording,) = load('kitti_odometry', str(sequence), **options)
    assert recording.world_T_camera[0][2, 3] == 2 * tiny_data.STEP_M
    one = recording[0]
    assert one.camera.fx == 700
    assert np.nanmedian(one.depth_m[10:-10, 60:-20]) == pytest.approx(20, rel=0.02)
    if kept:
        file = tmp_path / 'kept' / '06' / '000000.npy'
        np.save(file, np.full_like(one.depth_m, 3.0))
        assert (recording[0].depth_m == 3.0).all()
    (sequence / 'calib_P0_P1.txt').unlink()
    with pytest.raises(DriveError, match='calib_P0_P1'):
        load('kitti_odometry', str(sequence))


def test_synthetic_views_are_kept(tmp_path):
    (first,) = load('synthetic', str(tmp_path), count=1, height=32, width=64)
    files = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    (again,) = load('synthetic', str(tmp_path), count=1, height=32, width=64)
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
