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
"""
KITTI raw drives: colour camera 2, calibration, GNSS-INS poses and projected LiDAR.

Layout: ``DATE/DATE_drive_NNNN_sync/image_02/data/*.png`` (or jpg), ``image_02/timestamps.txt``,
``oxts/data/*.txt`` and ``proj_depth/{groundtruth,velodyne_raw}/image_02/*.png``; the calibration
files lie one folder up. Everything but images and ``calib_cam_to_cam.txt`` may be absent.
The world is the devkit's: x east, y north, z up, here with its origin at the first frame's INS.
"""
from __future__ import annotations

from datetime import datetime, timezone
import logging
from pathlib import Path

import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth.drives import DEFAULT_PERIOD_NS, Drive, DriveFrame, FIRST_STAMP_NS
from hybrid_depth.drives.image_files import (
    list_images,
    read_depth_png,
    read_image_rgb,
    read_lines,
)
from hybrid_depth.errors import BadFrame, DriveError

EARTH_RADIUS_M = 6378137.0
DEPTH_UNIT_M = 1 / 256  # of the projected-depth PNGs
TRUTH_FOLDERS = ('proj_depth/groundtruth/image_02', 'proj_depth/velodyne_raw/image_02')

log = logging.getLogger(__name__)


def matches(path: Path) -> str:
    """Return '' for a KITTI raw drive folder, else what is not there."""
    return '' if (path / 'image_02' / 'data').is_dir() else 'no image_02/data/'


def open_drive(path: Path) -> Drive:
    """Open the drive folder ``path``. Raises DriveError where its files do not fit together."""
    images = list_images(path / 'image_02' / 'data')
    if not images:
        raise DriveError(f'{path}/image_02/data holds no images; copy the drive again')
    indices = [_frame_index(image) for image in images]
    calibration = read_calibration(path.parent / 'calib_cam_to_cam.txt')
    camera = _camera(calibration, path.parent / 'calib_cam_to_cam.txt')
    stamps_ns = _stamps(path / 'image_02' / 'timestamps.txt', indices)
    poses = camera_2_poses(path, calibration, images)
    truth = {depth.stem: depth for folder in reversed(TRUTH_FOLDERS)
             if (path / folder).is_dir() for depth in list_images(path / folder)}

    def load(index: int) -> DriveFrame:
        stem = images[index].stem
        image_rgb = read_image_rgb(images[index])
        if image_rgb.shape[:2] != (camera.height, camera.width):
            raise DriveError(f'{images[index]} is {image_rgb.shape[1]}x{image_rgb.shape[0]}, the '
                             f'calibration is of {camera.width}x{camera.height}; use the '
                             'rectified images of this date')
        depth_m = None
        if stem in truth:
            depth_m = read_depth_png(truth[stem], DEPTH_UNIT_M, camera.height, camera.width)
        return DriveFrame(stem, stamps_ns[index], image_rgb, camera, poses[index], depth_m)

    return Drive(path.resolve().name, camera, stamps_ns, load, path)


def _frame_index(image: Path) -> int:
    if not image.stem.isdecimal():
        raise DriveError(f'{image} is not named by a frame number as KITTI raw images are; '
                         'use the folder layout (images/, K.txt) for other recordings')
    return int(image.stem)


def read_calibration(path: Path) -> dict[str, np.ndarray]:
    """Read 'key: numbers' lines; lines whose value is not numbers (dates) are left out."""
    if not path.is_file():
        raise DriveError(f"there is no {path}; put the calibration of the drive's date there")
    calibration = {}
    for line in read_lines(path):
        key, _, text = line.partition(':')
        try:
            calibration[key] = np.array([float(word) for word in text.split()])
        except ValueError:
            log.debug('%s: no numbers in %r', path, line)
    return calibration


def calibration_entry(calibration: dict[str, np.ndarray], key: str, count: int,
                      path: Path) -> np.ndarray:
    """Return the ``count`` numbers of ``key``. Raises DriveError where they are not there."""
    values = calibration.get(key)
    if values is None or len(values) != count or not np.isfinite(values).all():
        raise DriveError(f'{path} has no {key} of {count} finite numbers; copy the calibration '
                         'again')
    return values


def _camera(calibration: dict[str, np.ndarray], path: Path) -> CameraModel:
    width, height = calibration_entry(calibration, 'S_rect_02', 2, path)
    P = calibration_entry(calibration, 'P_rect_02', 12, path).reshape(3, 4)
    try:
        return CameraModel.from_K(P[:, :3], int(width), int(height))
    except BadFrame as error:
        raise DriveError(f'{path}: {error}') from error


def _stamps(path: Path, indices: list[int]) -> tuple[int, ...]:
    """Line i of timestamps.txt belongs to the image named i; images may be missing."""
    if not path.is_file():
        log.warning('%s is absent: the frames are stamped at 10 Hz', path)
        return tuple(FIRST_STAMP_NS + index * DEFAULT_PERIOD_NS for index in indices)
    lines = read_lines(path)
    stamps = []
    for index in indices:
        if index >= len(lines):
            raise DriveError(f'{path} has {len(lines)} lines but there is an image '
                             f'{index:010d}; copy the drive again')
        stamps.append(_stamp_ns(lines[index], f'{path}:{index + 1}'))
        if len(stamps) > 1 and stamps[-1] <= stamps[-2]:
            raise DriveError(f'{path}:{index + 1} is not later than the stamp before it')
    return tuple(stamps)


def _stamp_ns(text: str, where: str) -> int:
    """Parse '2011-09-26 13:10:51.168593664'; the zone is not recorded and is taken as UTC."""
    whole, _, fraction = text.strip().partition('.')
    try:
        moment = datetime.strptime(whole, '%Y-%m-%d %H:%M:%S').replace(tzinfo=timezone.utc)
        return int(moment.timestamp()) * 1_000_000_000 + int(fraction.ljust(9, '0')[:9])
    except ValueError as error:
        raise DriveError(f'{where} is {text!r}; expected YYYY-MM-DD HH:MM:SS.nnnnnnnnn') from error


def camera_2_poses(path: Path, calibration: dict[str, np.ndarray],
                   images: list[Path]) -> list[np.ndarray | None]:
    """Return world_T_camera of every image, None for those without an INS record."""
    none: list[np.ndarray | None] = [None] * len(images)
    records = [path / 'oxts' / 'data' / f'{image.stem}.txt' for image in images]
    calibrations = (path.parent / 'calib_imu_to_velo.txt', path.parent / 'calib_velo_to_cam.txt')
    for needed in (path / 'oxts' / 'data', *calibrations):
        if not needed.exists():
            log.warning('%s is absent: the drive has no poses', needed)
            return none
    imu_T_camera = np.linalg.inv(_camera_T_imu(path.parent, calibration))
    missing = [record.name for record in records if not record.is_file()]
    if missing:
        log.warning('%d of %d frames have no INS record and no pose', len(missing), len(images))
        if len(missing) == len(images):
            return none
    readings = [_read_oxts(record) if record.is_file() else None for record in records]
    first = next(reading for reading in readings if reading is not None)
    origin = world_T_imu(first, first[0])[:3, 3]
    poses = none
    for index, reading in enumerate(readings):
        if reading is not None:
            pose = world_T_imu(reading, first[0])
            pose[:3, 3] -= origin
            poses[index] = pose @ imu_T_camera
    return poses


def _camera_T_imu(folder: Path, calibration: dict[str, np.ndarray]) -> np.ndarray:
    """Chain INS -> LiDAR -> camera 0 -> rectified -> camera 2."""
    cam_path = folder / 'calib_cam_to_cam.txt'
    rect_T_cam0 = np.eye(4)
    rect_T_cam0[:3, :3] = calibration_entry(calibration, 'R_rect_00', 9, cam_path).reshape(3, 3)
    P = calibration_entry(calibration, 'P_rect_02', 12, cam_path).reshape(3, 4)
    cam2_T_rect = np.eye(4)
    cam2_T_rect[:3, 3] = np.linalg.solve(P[:, :3], P[:, 3])
    return (cam2_T_rect @ rect_T_cam0 @ read_rigid(folder / 'calib_velo_to_cam.txt')
            @ read_rigid(folder / 'calib_imu_to_velo.txt'))


def read_rigid(path: Path) -> np.ndarray:
    """Read R and T of a calibration file as a (4, 4) motion in metres. Raises DriveError."""
    calibration = read_calibration(path)
    transform = np.eye(4)
    transform[:3, :3] = calibration_entry(calibration, 'R', 9, path).reshape(3, 3)
    transform[:3, 3] = calibration_entry(calibration, 'T', 3, path)
    return transform


def _read_oxts(path: Path) -> np.ndarray:
    """Return latitude, longitude (degrees), altitude (m), roll, pitch, yaw (rad), (6,)."""
    try:
        values = np.array([float(word) for word in ' '.join(read_lines(path)).split()[:6]])
    except ValueError as error:
        raise DriveError(f'{path} holds something that is not a number: {error}') from error
    if len(values) != 6 or not np.isfinite(values).all():
        raise DriveError(f'{path} does not start with 6 finite numbers; copy the drive again')
    return values


def world_T_imu(reading: np.ndarray, first_latitude_deg: float) -> np.ndarray:
    """
    Return the INS pose of one record, (4, 4) float64, by the KITTI devkit's convention.

    Mercator projection scaled by the cosine of the drive's first latitude; the rotation is
    Rz(yaw) Ry(pitch) Rx(roll).
    """
    latitude, longitude = np.radians(reading[:2])
    scale = np.cos(np.radians(first_latitude_deg)) * EARTH_RADIUS_M
    (cr, cp, cy), (sr, sp, sy) = np.cos(reading[3:6]), np.sin(reading[3:6])
    pose = np.eye(4)
    pose[:3, :3] = [[cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
                    [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
                    [-sp, cp * sr, cp * cr]]
    pose[:3, 3] = (scale * longitude, scale * np.log(np.tan(np.pi / 4 + latitude / 2)), reading[2])
    return pose
