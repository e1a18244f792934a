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
Plain folders: ``images/`` and ``K.txt``; optionally poses, time stamps and depth.

- ``K.txt``: 3x3 intrinsics in pixels of the images.
- ``poses.txt``: camera-to-world (optical frame) of each image in sorted order, 12 or 16 numbers a
  line, row by row.
- ``stamps.txt``: one time per image: seconds, or nanoseconds where the number is above 1e12.
- ``depth/``: 16-bit PNG matched by file stem, not needed for every image; 0 and 65535 = none.
- ``depth_scale.txt``: one number; 1 or more is units per metre (256, 1000, 5000), below 1 is
  metres per unit (0.001). Without it depth is in millimetres, as ROS has it in 16UC1.
"""
from __future__ import annotations

from decimal import Decimal, InvalidOperation
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

NANOSECONDS_FROM = 10 ** 12  # as seconds this would be the year 33658
RIGID_TOLERANCE = 2e-3  # of the entries of R^T R - I; text poses carry few digits

log = logging.getLogger(__name__)


def matches(path: Path) -> str:
    """Return '' for such a folder, else what is not there."""
    missing = [name for name, is_there in (('images/', (path / 'images').is_dir()),
                                           ('K.txt', (path / 'K.txt').is_file())) if not is_there]
    return f'no {" and no ".join(missing)}' if missing else ''


def open_drive(path: Path) -> Drive:
    """Open the folder ``path``. Raises DriveError naming the file and line that does not fit."""
    images = list_images(path / 'images')
    if not images:
        raise DriveError(f'{path}/images holds no images; expected png or jpg files')
    first = read_image_rgb(images[0])
    camera = _read_camera(path / 'K.txt', first.shape[1], first.shape[0])
    stamps_ns = _read_stamps(path / 'stamps.txt', len(images))
    poses = _read_poses(path / 'poses.txt', len(images))
    depths = {}
    if (path / 'depth').is_dir():
        depths = {depth.stem: depth for depth in list_images(path / 'depth')}
        if not depths.keys() & {image.stem for image in images}:
            raise DriveError(f'no file in {path}/depth has the stem of an image; name the depth '
                             f'of {images[0].name} {images[0].stem}.png')
    metres_per_unit = _read_depth_scale(path / 'depth_scale.txt') if depths else 0.0

    def load(index: int) -> DriveFrame:
        image = images[index]
        image_rgb = read_image_rgb(image)
        if image_rgb.shape != first.shape:
            raise DriveError(f'{image} is {image_rgb.shape[1]}x{image_rgb.shape[0]}, the first '
                             f'image is {camera.width}x{camera.height}; K.txt holds for one size')
        depth_m = None
        if image.stem in depths:
            depth_m = read_depth_png(depths[image.stem], metres_per_unit, camera.height,
                                     camera.width)
        return DriveFrame(image.stem, stamps_ns[index], image_rgb, camera, poses[index], depth_m)

    return Drive(path.resolve().name, camera, stamps_ns, load, path)


def _read_numbers(path: Path) -> list[tuple[int, np.ndarray]]:
    """Return (line number, values) of every line that is not empty. Raises DriveError."""
    rows = []
    for number, line in enumerate(read_lines(path), start=1):
        words = line.replace(',', ' ').split()
        if not words or words[0].startswith('#'):
            continue
        try:
            values = np.array([float(word) for word in words])
        except ValueError as error:
            raise DriveError(f'{path}:{number} holds something that is not a number: '
                             f'{error}') from error
        if not np.isfinite(values).all():
            raise DriveError(f'{path}:{number} holds a number that is not finite')
        rows.append((number, values))
    return rows


def _read_camera(path: Path, width: int, height: int) -> CameraModel:
    values = [value for _, row in _read_numbers(path) for value in row]
    if len(values) != 9:
        raise DriveError(f'{path} holds {len(values)} numbers; expected the 9 of a 3x3 K')
    K = np.array(values).reshape(3, 3)
    if K[2].tolist() != [0.0, 0.0, 1.0] or K[1, 0] != 0.0:
        raise DriveError(f'{path} is no intrinsic matrix; expected fx 0 cx / 0 fy cy / 0 0 1')
    try:
        return CameraModel.from_K(K, width, height)
    except BadFrame as error:
        raise DriveError(f'{path}: {error}') from error


def _read_poses(path: Path, count: int) -> list[np.ndarray | None]:
    if not path.is_file():
        log.info('%s is absent: the drive has no poses', path)
        return [None] * count
    rows = _read_numbers(path)
    if len(rows) != count:
        raise DriveError(f'{path} has {len(rows)} poses for {count} images; expected one for each')
    poses: list[np.ndarray | None] = []
    for number, values in rows:
        if len(values) not in (12, 16):
            raise DriveError(f'{path}:{number} has {len(values)} numbers; expected 12 or 16')
        pose = np.eye(4)
        pose.flat[:len(values)] = values
        R = pose[:3, :3]
        if np.abs(R.T @ R - np.eye(3)).max() > RIGID_TOLERANCE or np.linalg.det(R) < 0 or \
                np.abs(pose[3] - (0, 0, 0, 1)).max() > 1e-9:
            raise DriveError(f'{path}:{number} is not a rigid transform; expected a rotation and '
                             'a translation, row by row, camera to world')
        poses.append(pose)
    return poses


def _read_stamps(path: Path, count: int) -> tuple[int, ...]:
    if not path.is_file():
        log.info('%s is absent: the frames are stamped at 10 Hz', path)
        return tuple(FIRST_STAMP_NS + index * DEFAULT_PERIOD_NS for index in range(count))
    stamps: list[int] = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip() or line.lstrip().startswith('#'):
            continue
        try:
            # Decimal: a float of seconds since 1970 is only good to 100 ns
            value = Decimal(line.strip())
            nanoseconds = int(value if value > NANOSECONDS_FROM else value * 10 ** 9)
        except (InvalidOperation, ValueError, OverflowError) as error:
            raise DriveError(f'{path}:{number} is {line.strip()!r}; expected one time in seconds '
                             'or nanoseconds') from error
        if stamps and nanoseconds <= stamps[-1]:
            raise DriveError(f'{path}:{number} is not later than the stamp before it')
        stamps.append(nanoseconds)
    if len(stamps) != count:
        raise DriveError(f'{path} has {len(stamps)} stamps for {count} images; expected one for '
                         'each')
    return tuple(stamps)


def _read_depth_scale(path: Path) -> float:
    """Return metres per unit."""
    if not path.is_file():
        log.info('%s is absent: depth is read as millimetres', path)
        return 1e-3
    values = [value for _, row in _read_numbers(path) for value in row]
    if len(values) != 1 or values[0] <= 0:
        raise DriveError(f'{path} holds {values}; expected one positive number')
    return float(1.0 / values[0] if values[0] >= 1 else values[0])
