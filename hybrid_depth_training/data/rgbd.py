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
RGB-D recordings with poses, in the layouts that they are published in.

- 7-Scenes, side by side: ``NAME.color.jpg`` (or png), ``NAME.depth.png``, ``NAME.pose.txt`` and
  ``camera-intrinsics.txt``;
- ScanNet, as exported: ``color/NAME.jpg``, ``depth/NAME.png``, ``pose/NAME.txt`` and
  ``intrinsic/intrinsic_color.txt``;
- a folder with ``images/`` and ``K.txt``: see the dataset ``drive``.

Depth is in millimetres, 0 and 65535 = none; another size than the image's is brought to it. Poses
are 4x4 camera-to-world matrices of the optical frame, metres; one that is not finite means that
tracking was lost. Depth and pose need not be there for every image.
"""
from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth.drives import folder as folder_drive
from hybrid_depth.drives.image_files import IMAGE_SUFFIXES, read_depth_png, read_image_rgb
from hybrid_depth.errors import DriveError
from hybrid_depth_training.data import DepthSample, drive, Recording

_MILLIMETRE = 0.001


def load(path: str) -> list[Recording]:
    """Load ``path`` as one recording, whose targets are the images with depth. DriveError."""
    folder = Path(path)
    if not folder_drive.matches(folder):
        return drive.load(path)
    side_by_side = list(folder.glob('*.color.*'))
    images = [image for image in side_by_side or folder.glob('color/*')
              if image.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise DriveError(f'{path} holds no RGB-D recording; expected NAME.color.jpg files, or '
                         'color/, or images/ and K.txt')
    images.sort(key=_order)
    poses = [_read_pose(_beside(image, 'pose', '.txt')) for image in images]
    K_file = folder / ('camera-intrinsics.txt' if side_by_side else
                       'intrinsic/intrinsic_color.txt')
    if not K_file.is_file():
        raise DriveError(f'there is no {K_file}; put the 3x3 intrinsics of the colour images '
                         'there')
    K = np.loadtxt(K_file)[:3, :3]
    targets = [i for i, image in enumerate(images) if _beside(image, 'depth', '.png').is_file()]
    return [Recording(folder.name, functools.partial(_read, images, poses, K), poses, targets)]


def _stem(image: Path) -> str:
    return image.stem.removesuffix('.color')


def _order(image: Path) -> tuple[int, str]:
    """Return what sorts: ScanNet numbers its images without leading zeros."""
    stem = _stem(image)
    return (int(stem) if stem.isdecimal() else 0, stem)


def _beside(image: Path, kind: str, suffix: str) -> Path:
    if image.stem.endswith('.color'):
        return image.with_name(f'{_stem(image)}.{kind}{suffix}')
    return image.parents[1] / kind / f'{image.stem}{suffix}'


def _read(images: list[Path], poses: list[np.ndarray | None], K: np.ndarray,
          index: int) -> DepthSample:
    image_rgb = read_image_rgb(images[index])
    height, width = image_rgb.shape[:2]
    depth_path = _beside(images[index], 'depth', '.png')
    depth = np.full((height, width), np.nan, np.float32)
    if depth_path.is_file():
        depth = read_depth_png(depth_path, _MILLIMETRE, height, width)
    return DepthSample(_stem(images[index]), image_rgb, CameraModel.from_K(K, width, height),
                       depth, False, poses[index])


def _read_pose(path: Path) -> np.ndarray | None:
    if not path.is_file():
        return None
    pose = np.loadtxt(path)
    if pose.shape != (4, 4):
        raise DriveError(f'{path} holds {pose.shape} numbers; expected a 4x4 matrix')
    return pose if np.isfinite(pose).all() else None
