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
SUN RGB-D (Song et al., CVPR 2015): single RGB-D images from four sensors, with scene labels.

Layout: ``SENSOR/SUBSET/SCENE/`` (any depth) with ``image/*.jpg``, ``depth_bfx/*.png`` (holes
filled) or ``depth/*.png``, ``intrinsics.txt`` (3x3) and ``scene.txt`` (its label). Depth is in
millimetres, its bits rotated left by three. A list names a scene folder or an image in it a line,
in any of the forms that go round: ``SUNRGBD/kv1/...``, ``/n/fs/sun3d/data/SUNRGBD/kv1/...`` as in
the toolbox's allsplit.mat, or ``.../image/NAME.jpg .../depth_bfx/NAME.png ...``.
"""
from __future__ import annotations

import functools
from pathlib import Path

import cv2
import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth.drives.image_files import list_images, read_image_rgb, read_lines
from hybrid_depth.errors import DriveError
from hybrid_depth_training.data import DepthSample, Recording
from hybrid_depth_training.data.captions import caption_of

DEPTH_FOLDERS = ('depth_bfx', 'depth')
_ROTATION = 3  # bits


def load(path: str, split_file: str = '', depth: str = 'depth_bfx') -> list[Recording]:
    """
    Load the scenes that ``split_file`` lists, or all below ``path``; each is a recording of one.

    ``depth`` is one of DEPTH_FOLDERS. The caption of an image is its scene label. Raises
    DriveError.
    """
    folder = Path(path)
    if depth not in DEPTH_FOLDERS:
        raise DriveError(f'depth is {depth!r}; expected one of {DEPTH_FOLDERS}')
    if split_file:
        if not Path(split_file).is_file():
            raise DriveError(f'there is no list {split_file}; expected a scene folder a line')
        lines = [line.strip() for line in read_lines(Path(split_file))]
        scenes = [folder / scene_of(line) for line in lines if line]
        missing = [scene for scene in scenes if not scene.is_dir()]
        if missing:
            raise DriveError(f'{len(missing)} scenes of {split_file} are not there, the first is '
                             f'{missing[0]}; expected path to be the folder that holds kv1, kv2, '
                             'realsense and xtion')
    else:
        scenes = sorted(image.parent for image in folder.glob('**/image') if image.is_dir())
    if not scenes:
        raise DriveError(f'{split_file or folder} holds no scene; expected folders with image/, '
                         f'{depth}/ and intrinsics.txt')
    return [Recording(str(scene.relative_to(folder)),
                      functools.partial(_read, folder, scene, depth), [None], range(1))
            for scene in scenes]


def scene_of(line: str) -> str:
    """Return the scene folder, relative to the one of the sensors, that a line of a list names."""
    path = line.split()[0].replace('//', '/').rpartition('SUNRGBD/')[2]
    return path.partition('/image/')[0].strip('/')


def decode_depth(raw: np.ndarray) -> np.ndarray:
    """Turn stored (H, W) uint16 into metres, float32; NaN where there is no truth."""
    if raw.dtype != np.uint16 or raw.ndim != 2:
        raise DriveError(f'a depth image is {raw.dtype} of shape {raw.shape}; expected one '
                         'channel of uint16')
    millimetres = (raw >> _ROTATION) | (raw << (16 - _ROTATION))
    return np.where(millimetres == 0, np.float32(np.nan), millimetres * np.float32(0.001))


def encode_depth(depth_m: np.ndarray) -> np.ndarray:
    """Turn metres (H, W), NaN = none, into what is stored: uint16."""
    millimetres = np.nan_to_num(np.round(depth_m * 1000)).astype(np.uint16)
    return (millimetres << _ROTATION) | (millimetres >> (16 - _ROTATION))


def _read(folder: Path, scene: Path, depth: str, index: int) -> DepthSample:
    image_path, depth_path = (_only(scene / part) for part in ('image', depth))
    image_rgb = read_image_rgb(image_path)
    height, width = image_rgb.shape[:2]
    raw = cv2.imread(str(depth_path), cv2.IMREAD_UNCHANGED)
    if raw is None or raw.shape != (height, width):
        raise DriveError(f'{depth_path} is no depth image of {width}x{height}; copy it again')
    numbers = ' '.join(read_lines(_file(scene / 'intrinsics.txt'))).split()
    try:
        K = np.array(numbers, np.float64).reshape(3, 3)
    except ValueError as error:
        raise DriveError(f'{scene / "intrinsics.txt"} holds no 3x3 matrix: {error}') from error
    label = scene / 'scene.txt'
    caption = caption_of(' '.join(read_lines(label))) if label.is_file() else ''
    return DepthSample(str(scene.relative_to(folder)), image_rgb,
                       CameraModel.from_K(K, width, height), decode_depth(raw), False,
                       caption=caption)


def _only(folder: Path) -> Path:
    images = list_images(folder) if folder.is_dir() else []
    if len(images) != 1:
        raise DriveError(f'{folder} holds {len(images)} images; expected one')
    return images[0]


def _file(path: Path) -> Path:
    if not path.is_file():
        raise DriveError(f'there is no {path}; a scene has its intrinsics beside its images')
    return path
