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
"""KITTI raw drives: a tiny one whose numbers can be checked by hand, and a real one."""
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from hybrid_depth.drives import open_drive
from hybrid_depth.drives.kitti_raw import world_T_imu
from hybrid_depth.errors import DriveError

HEIGHT, WIDTH = 6, 10
NAMES = ['0000000000', '0000000002']  # frame 1 was lost
CAM_TO_CAM = """calib_time: 09-Jan-2012 13:57:47
corner_dist: 9.950000e-02
S_rect_02: 1.000000e+01 6.000000e+00
R_rect_00: 1 0 0 0 1 0 0 0 1
P_rect_02: 8 0 4.5 0.48 0 9 2.5 0 0 0 1 0
"""
# axes only: the LiDAR sits 0.8 m ahead of the INS, camera 0 in it, camera 2 6 cm to its left
IMU_TO_VELO = 'calib_time: 25-May-2012\nR: 1 0 0 0 1 0 0 0 1\nT: -0.8 0 0\n'
VELO_TO_CAM = 'R: 0 -1 0 0 0 -1 1 0 0\nT: 0 0 0\ndelta_f: 0 0\n'
OXTS_TAIL = ' 0.1' * 24  # velocities and accuracies, not read
# north of 60 degrees a metre is half as many Mercator metres: 1e-3 degrees are 111.32 / 2 m east
OXTS = ['60 8 100 0 0 0', '60.001 8.001 101.5 0 0 1.5707963267948966']


@pytest.fixture
def drive_folder(tmp_path: Path) -> Path:
    """Make a drive of two frames."""
    folder = tmp_path / '2011_09_26' / '2011_09_26_drive_0099_sync'
    for sub in ('image_02/data', 'oxts/data', 'proj_depth/groundtruth/image_02',
                'proj_depth/velodyne_raw/image_02'):
        (folder / sub).mkdir(parents=True)
    (folder.parent / 'calib_cam_to_cam.txt').write_text(CAM_TO_CAM)
    (folder.parent / 'calib_imu_to_velo.txt').write_text(IMU_TO_VELO)
    (folder.parent / 'calib_velo_to_cam.txt').write_text(VELO_TO_CAM)
    (folder / 'image_02' / 'timestamps.txt').write_text(
        '2011-09-26 13:02:25.964389445\n2011-09-26 13:02:26.064\n2011-09-26 13:02:26.167\n')
    for name, oxts in zip(NAMES, OXTS, strict=True):
        cv2.imwrite(str(folder / 'image_02' / 'data' / f'{name}.png'), picture(name)[..., ::-1])
        (folder / 'oxts' / 'data' / f'{name}.txt').write_text(oxts + OXTS_TAIL)
    write_depth(folder, 'groundtruth', NAMES[0], 2560)
    write_depth(folder, 'velodyne_raw', NAMES[0], 512)
    return folder


def picture(name: str) -> np.ndarray:
    return np.random.default_rng(int(name)).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def write_depth(folder: Path, kind: str, name: str, value: int) -> None:
    raw = np.zeros((HEIGHT, WIDTH), np.uint16)
    raw[2, 3], raw[2, 4], raw[5, 9] = value, 65535, 1
    cv2.imwrite(str(folder / 'proj_depth' / kind / 'image_02' / f'{name}.png'), raw)


def test_images_camera_and_stamps(drive_folder: Path) -> None:
    drive = open_drive(drive_folder)
    assert (drive.name, len(drive), drive.source) == ('2011_09_26_drive_0099_sync', 2,
                                                      drive_folder)
    camera = drive.camera
    assert (camera.width, camera.height) == (WIDTH, HEIGHT)
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (8.0, 9.0, 4.5, 2.5)
    first, last = drive
    assert [first.name, last.name] == NAMES
    np.testing.assert_array_equal(first.image_rgb, picture(NAMES[0]))
    np.testing.assert_array_equal(last.image_rgb, picture(NAMES[1]))
    # 2011-09-26 13:02:25 UTC; the stamp of the last image is that of line 3, not 2
    assert drive.stamps_ns == (1317042145_964389445, 1317042146_167000000)
    assert (first.stamp_ns, last.stamp_ns) == drive.stamps_ns


def test_poses_by_hand(drive_folder: Path) -> None:
    first, last = open_drive(drive_folder)
    # heading east: the camera looks along x, its right is -y, its down is -z
    np.testing.assert_allclose(first.world_T_camera, [
        [0, 0, 1, 0.8], [-1, 0, 0, 0.06], [0, -1, 0, 0], [0, 0, 0, 1]], atol=1e-9)
    # heading north: 0.8 m ahead is +y, 6 cm to the left is -x
    east, north = 0.5 * 111.3194908, 111.32117
    np.testing.assert_allclose(last.world_T_camera, [
        [1, 0, 0, east - 0.06], [0, 0, 1, north + 0.8], [0, -1, 0, 1.5], [0, 0, 0, 1]], atol=1e-4)


def test_rectification_comes_before_the_offset_of_the_camera(drive_folder: Path) -> None:
    # rectified upside down: what was 6 cm to the left is now to the right
    rewrite(CALIBRATION, 'R_rect_00: 1 0 0 0 1 0', 'R_rect_00: -1 0 0 0 -1 0')(drive_folder)
    np.testing.assert_allclose(open_drive(drive_folder).frame(0).world_T_camera, [
        [0, 0, 1, 0.8], [1, 0, 0, -0.06], [0, 1, 0, 0], [0, 0, 0, 1]], atol=1e-9)


def rotation(axis: int, angle: float) -> np.ndarray:
    """Return the rotation about one axis by Rodrigues' formula."""
    return cv2.Rodrigues(np.eye(3)[axis] * angle)[0]


def test_orientation_is_yaw_after_pitch_after_roll() -> None:
    roll, pitch, yaw = 0.3, -0.2, 2.1
    pose = world_T_imu(np.array([49.0, 8.4, 110.0, roll, pitch, yaw]), 49.0)
    expected = rotation(2, yaw) @ rotation(1, pitch) @ rotation(0, roll)
    np.testing.assert_allclose(pose[:3, :3], expected, atol=1e-12)


def test_truth_in_256ths_and_the_annotated_one_first(drive_folder: Path) -> None:
    first, last = open_drive(drive_folder)
    assert last.depth_m is None
    assert first.depth_m.dtype == np.float32
    assert first.depth_m[2, 3] == 10.0  # groundtruth/, not the 2 m of velodyne_raw/
    assert first.depth_m[5, 9] == np.float32(1 / 256)
    assert np.isfinite(first.depth_m).sum() == 2  # 0 and 65535 are none


def test_raw_scans_where_there_is_nothing_annotated(drive_folder: Path) -> None:
    write_depth(drive_folder, 'velodyne_raw', NAMES[1], 768)
    assert open_drive(drive_folder).frame(1).depth_m[2, 3] == 3.0


def test_without_timestamps_10_hz_by_frame_number(drive_folder: Path) -> None:
    (drive_folder / 'image_02' / 'timestamps.txt').unlink()
    first, last = open_drive(drive_folder).stamps_ns
    assert first > 0
    assert last - first == 200_000_000


@pytest.mark.parametrize('missing', ['calib_imu_to_velo.txt', 'calib_velo_to_cam.txt'])
def test_without_extrinsics_no_poses(drive_folder: Path, caplog, missing: str) -> None:
    (drive_folder.parent / missing).unlink()
    assert [frame.world_T_camera for frame in open_drive(drive_folder)] == [None, None]
    assert missing in caplog.text


def test_one_missing_record_costs_one_pose(drive_folder: Path, caplog) -> None:
    (drive_folder / 'oxts' / 'data' / f'{NAMES[0]}.txt').unlink()
    first, last = open_drive(drive_folder)
    assert first.world_T_camera is None
    np.testing.assert_allclose(last.world_T_camera[:3, 3], (-0.06, 0.8, 0), atol=1e-9)
    assert '1 of 2 frames have no INS record' in caplog.text


def rewrite(name: str, old: str, new: str):
    """Return a change of a file of the drive."""
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))
    return change


def remove_images(folder: Path) -> None:
    for image in (folder / 'image_02' / 'data').iterdir():
        image.unlink()


STAMPS = 'image_02/timestamps.txt'
CALIBRATION = '../calib_cam_to_cam.txt'


@pytest.mark.parametrize(('change', 'words'), [
    (remove_images, 'holds no images'),
    (lambda folder: (folder / CALIBRATION).unlink(), r'there is no .*calib_cam_to_cam\.txt'),
    (rewrite(CALIBRATION, 'P_rect_02', 'P_rect_03'), 'no P_rect_02 of 12 finite'),
    (rewrite(CALIBRATION, '0.48', 'nan'), 'no P_rect_02 of 12 finite'),
    (rewrite(CALIBRATION, 'P_rect_02: 8', 'P_rect_02: 0'), 'calib_cam_to_cam.*fx=0'),
    (rewrite('../calib_velo_to_cam.txt', 'T: 0 0 0', 'T: 0 0'), 'no T of 3 finite'),
    (rewrite(STAMPS, '2011-09-26 13:02:26.167\n', ''), 'has 2 lines but there is an image'),
    (rewrite(STAMPS, '13:02:26.167', '13:02:25.1'), r'timestamps\.txt:3 is not later'),
    (rewrite(STAMPS, '13:02:26.167', 'noon'), r"timestamps\.txt:3 is '2011-09-26 noon'"),
    (rewrite(f'oxts/data/{NAMES[1]}.txt', '60.001', 'sixty'), f'{NAMES[1]}.txt .* not a number'),
    (rewrite(f'oxts/data/{NAMES[1]}.txt', '60.001', 'nan'), f'{NAMES[1]}.txt .*6 finite'),
    (lambda folder: (folder / f'image_02/data/{NAMES[0]}.png').rename(
        folder / 'image_02/data/a.png'), 'a.png is not named by a frame number'),
    (lambda folder: (folder / f'image_02/data/{NAMES[0]}.jpg').write_bytes(b''), 'the same frame'),
])
def test_bad_drive(drive_folder: Path, change, words: str) -> None:
    change(drive_folder)
    with pytest.raises(DriveError, match=words):
        open_drive(drive_folder)


@pytest.mark.parametrize(('content', 'words'), [
    (b'no picture', 'cannot be read as an image'),
    (cv2.imencode('.png', np.zeros((6, 9, 3), np.uint8))[1].tobytes(), '9x6, the .* of 10x6'),
])
def test_bad_image(drive_folder: Path, content: bytes, words: str) -> None:
    (drive_folder / 'image_02' / 'data' / f'{NAMES[1]}.png').write_bytes(content)
    drive = open_drive(drive_folder)
    drive.frame(0)
    with pytest.raises(DriveError, match=f'{NAMES[1]}.*{words}'):
        drive.frame(1)


def test_real_drive(shared_data: Path) -> None:
    folder = shared_data / 'kitti_raw' / '2011_09_26' / '2011_09_26_drive_0013_sync'
    drive = open_drive(folder)
    assert len(drive) == 144
    frame = drive.frame(72)
    assert frame.image_rgb.shape == (375, 1242, 3)
    assert drive.camera.fx == pytest.approx(721.5377)
    assert 0.02 < np.isfinite(frame.depth_m).mean() < 0.06
    assert 2 < np.nanmin(frame.depth_m) < np.nanmax(frame.depth_m) < 100
    rates = 1e9 / np.diff(drive.stamps_ns)
    assert 9 < rates.min() < rates.max() < 11


def test_real_poses_against_independent_ones(shared_data: Path) -> None:
    folder = shared_data / 'kitti_raw' / '2011_09_26' / '2011_09_26_drive_0013_sync'
    drive = open_drive(folder)
    reference = np.loadtxt(folder / 'cam2_poses_oxts.txt').reshape(-1, 3, 4)
    # the reference has P[0, 3] / fx as the offset of camera 2, where K^-1 P[:, 3] is meant
    camera_T_reference = np.eye(4)
    camera_T_reference[:3, 3] = (0.05984926 - 0.06216900, -0.00035793, 0.00274588)
    reference_T_world = np.linalg.inv(drive.frame(0).world_T_camera @ camera_T_reference)
    for index in (1, 50, 143):
        pose = reference_T_world @ drive.frame(index).world_T_camera @ camera_T_reference
        np.testing.assert_allclose(pose[:3], reference[index], atol=1e-6)
    assert np.linalg.norm(reference[-1, :, 3]) > 100
