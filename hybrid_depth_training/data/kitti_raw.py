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
KITTI raw with the published lists of frames, such as Eigen-Zhou; both colour cameras.

Layout: ``DATE/calib_*.txt`` and ``DATE/DRIVE/image_0[23]/data/FRAME.png`` (or jpg), as downloaded;
optionally ``oxts/data``, ``velodyne_points/data`` and ``proj_depth``. The lists come with the
published methods and are read from the user's disk.
"""
from __future__ import annotations

from collections.abc import Sequence
import functools
from pathlib import Path

import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth.drives.image_files import list_images, read_depth_png, read_image_rgb
from hybrid_depth.drives.kitti_raw import (
    calibration_entry,
    camera_2_poses,
    DEPTH_UNIT_M,
    read_calibration,
    read_rigid,
)
from hybrid_depth.errors import ConfigError, DriveError
from hybrid_depth_training.data import DepthSample, Recording
from hybrid_depth_training.data.consecutive import runs
from hybrid_depth_training.protocols.lidar import read_scan
from hybrid_depth_training.protocols.splits import read_split

TRUTHS = ('none', 'annotated', 'velodyne_raw', 'scans')
CAMERAS = ('image_02', 'image_03')


def load(path: str, split_file: str = '', truth: str = 'none', truth_path: str = '',
         poses: bool = False, cameras: Sequence[str] = ('image_02',)) -> list[Recording]:
    """
    Load the frames that ``split_file`` lists below ``path``, the root of KITTI raw.

    A line of the list is ``DATE/DRIVE FRAME l|r`` or the path of an image. Without a list ``path``
    may also be one drive, and every frame of ``cameras`` counts. Each drive and camera is a
    recording of all its frames, in which neighbours are found by frame number; where a number is
    missing another recording begins. ``truth``:

    - none: the frames listed are targets all the same, for objectives that need no truth;
    - annotated, velodyne_raw: the PNG files of the depth data set, in ``proj_depth`` of each drive
      or below ``truth_path`` (``[train|val|DATE]/DRIVE/proj_depth/...``);
    - scans: the raw scans, projected.

    With truth only frames that have it are targets. ``poses`` reads OXTS, one small file for every
    frame. Raises DriveError where a listed frame or a calibration is missing, ConfigError.
    """
    if truth not in TRUTHS or not set(cameras) <= set(CAMERAS):
        raise ConfigError(f'kitti_raw: truth is {truth!r} and cameras {list(cameras)}; expected '
                          f'one of {", ".join(TRUTHS)} and some of {", ".join(CAMERAS)}')
    recordings = []
    for (drive, camera), wanted in _wanted(Path(path), split_file, cameras).items():
        recordings += _recordings(drive, camera, wanted, truth, truth_path, poses)
    if not recordings:
        raise DriveError(f'no frame below {path} has truth of the kind {truth!r}; expected '
                         'proj_depth or velodyne_points in the drives, or truth: none')
    return recordings


def _wanted(root: Path, split_file: str,
            cameras: Sequence[str]) -> dict[tuple[Path, str], set[int] | None]:
    """Return the frame numbers to learn from, of each drive and camera; None = all there are."""
    if not split_file:
        drives = [root] if (root / CAMERAS[0]).is_dir() else sorted(root.glob('*/*_sync'))
        if not drives:
            raise DriveError(f'{root} is neither a KITTI raw drive nor a folder of DATE/DRIVE')
        return {(drive, camera): None for drive in drives for camera in cameras}
    wanted: dict[tuple[Path, str], set[int] | None] = {}
    for name in read_split(Path(split_file)):
        drive, camera, frame = name.split('/')
        wanted.setdefault((root / drive[:10] / drive, camera), set()).add(int(frame))
    return dict(sorted(wanted.items()))


def _recordings(drive: Path, camera: str, wanted: set[int] | None, truth: str, truth_path: str,
                with_poses: bool) -> list[Recording]:
    folder = drive / camera / 'data'
    if not folder.is_dir():
        raise DriveError(f'there is no {folder}; download the drive, or shorten the list')
    images = list_images(folder)
    numbers = [int(image.stem) for image in images]
    missing = sorted(set() if wanted is None else wanted - set(numbers))
    if missing:
        raise DriveError(f'{len(missing)} listed frames are not in {folder}, the first is '
                         f'{missing[0]:010d}; download the drive again')
    model = _camera(drive.parent, camera)
    truths = _truth_files(drive, camera, truth, truth_path)
    poses: list[np.ndarray | None] = [None] * len(images)
    if with_poses:
        poses = _poses(drive, camera, images)
    recordings = []
    for run in runs(numbers):
        targets = [i - run.start for i in run if (wanted is None or numbers[i] in wanted)
                   and (truth == 'none' or images[i].stem in truths)]
        if targets:
            read = functools.partial(
                _read, [(images[i], truths.get(images[i].stem), poses[i]) for i in run], model)
            recordings.append(Recording(f'{drive.name}/{camera}/{images[run.start].stem}', read,
                                        [poses[i] for i in run], targets))
    return recordings


def _read(frames: list[tuple[Path, Path | None, np.ndarray | None]], model: CameraModel,
          index: int) -> DepthSample:
    image, truth, pose = frames[index]
    image_rgb = read_image_rgb(image)
    if image_rgb.shape[:2] != (model.height, model.width):
        raise DriveError(f'{image} is {image_rgb.shape[1]}x{image_rgb.shape[0]}, its calibration '
                         f'is of {model.width}x{model.height}; use the rectified images')
    if truth is None:
        depth = np.full(image_rgb.shape[:2], np.nan, np.float32)
    elif truth.suffix == '.bin':
        camera = image.parent.parent.name
        depth = project_scan(read_scan(truth), _image_T_lidar(truth.parents[3], camera),
                             (model.height, model.width))
    else:
        depth = read_depth_png(truth, DEPTH_UNIT_M, model.height, model.width)
    name = f'{image.parents[2].name}/{image.parent.parent.name}/{image.stem}'
    return DepthSample(name, image_rgb, model, depth, True, pose)


def project_scan(points_m: np.ndarray, image_T_lidar: np.ndarray,
                 shape: tuple[int, int]) -> np.ndarray:
    """
    Project LiDAR points (N, 3), metres, into an image of ``shape`` (height, width).

    ``image_T_lidar`` (3, 4) is P_rect @ R_rect @ camera_T_lidar. Returns (H, W) float32 metres
    along the camera's Z, NaN = none; pixels by rounding, the nearest of several points counts: as
    the projected scans (velodyne_raw) of the depth data set.
    """
    projected = points_m @ image_T_lidar[:, :3].T + image_T_lidar[:, 3]
    projected = projected[projected[:, 2] > 0.1]
    u, v = (np.rint(projected[:, axis] / projected[:, 2]) for axis in (0, 1))
    inside = (u >= 0) & (v >= 0) & (u < shape[1]) & (v < shape[0])
    depth = np.full(shape, np.inf, np.float32)
    np.minimum.at(depth, (v[inside].astype(int), u[inside].astype(int)),
                  projected[inside, 2].astype(np.float32))
    return np.where(np.isinf(depth), np.float32(np.nan), depth)


def _truth_files(drive: Path, camera: str, truth: str, truth_path: str) -> dict[str, Path]:
    """Return stem -> file."""
    if truth == 'none':
        return {}
    if truth == 'scans':
        return {file.stem: file for file in (drive / 'velodyne_points' / 'data').glob('*.bin')}
    roots = [drive]
    if truth_path:
        roots += [Path(truth_path, part, drive.name)
                  for part in ('', 'train', 'val', drive.name[:10])]
    below = Path('proj_depth', 'groundtruth' if truth == 'annotated' else truth, camera)
    return {file.stem: file for root in roots for file in (root / below).glob('*.png')}


def _camera(date: Path, camera: str) -> CameraModel:
    path = date / 'calib_cam_to_cam.txt'
    calibration = read_calibration(path)
    width, height = calibration_entry(calibration, f'S_rect_{camera[-2:]}', 2, path)
    P = calibration_entry(calibration, f'P_rect_{camera[-2:]}', 12, path).reshape(3, 4)
    return CameraModel.from_K(P[:, :3], int(width), int(height))


@functools.lru_cache(maxsize=32)
def _image_T_lidar(date: Path, camera: str) -> np.ndarray:
    path = date / 'calib_cam_to_cam.txt'
    calibration = read_calibration(path)
    rect_T_cam0 = np.eye(4)
    rect_T_cam0[:3, :3] = calibration_entry(calibration, 'R_rect_00', 9, path).reshape(3, 3)
    P = calibration_entry(calibration, f'P_rect_{camera[-2:]}', 12, path).reshape(3, 4)
    return P @ rect_T_cam0 @ read_rigid(date / 'calib_velo_to_cam.txt')


def _poses(drive: Path, camera: str, images: list[Path]) -> list[np.ndarray | None]:
    path = drive.parent / 'calib_cam_to_cam.txt'
    calibration = read_calibration(path)
    poses = camera_2_poses(drive, calibration, images)

    def in_rect(name: str) -> np.ndarray:  # camera_t_rect: the cameras differ by a shift only
        P = calibration_entry(calibration, f'P_rect_{name[-2:]}', 12, path).reshape(3, 4)
        return np.linalg.solve(P[:, :3], P[:, 3])
    cam2_T_camera = np.eye(4)
    cam2_T_camera[:3, 3] = in_rect(CAMERAS[0]) - in_rect(camera)
    return [None if pose is None else pose @ cam2_T_camera for pose in poses]
