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
NYU Depth v2 as the published depth networks use it: RGB and 16-bit depth, side by side in scenes.

Layout: ``SCENE/rgb_NUMBER.jpg`` (or png) and ``SCENE/sync_depth_NUMBER.png`` in millimetres, for
the training scenes (``nyu_depth_v2/sync``) as for the 654 images of the official test set
(``nyu_depth_v2/official_splits/test``). Lists name ``IMAGE DEPTH ...`` a line, relative to the
folder: nyudepthv2_train_files_with_gt.txt (24,231 pairs, with BTS), ..._with_gt_dense.txt (36,253,
with NeWCRFs; PixelFormer trains on these) and nyudepthv2_test_files_with_gt.txt (654).
"""
from __future__ import annotations

from collections.abc import Iterable
import functools
import itertools
from pathlib import Path

import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth.drives.image_files import (
    IMAGE_SUFFIXES,
    read_depth_png,
    read_image_rgb,
    read_lines,
)
from hybrid_depth.errors import DriveError
from hybrid_depth_training.data import DepthSample, Recording
from hybrid_depth_training.data.consecutive import runs

# of the RGB camera for the 640x480 images, as in the data set's toolbox
K = np.array([[518.85790117450188, 0.0, 325.58244941119034],
              [0.0, 519.46961112127485, 253.73616633400465], [0.0, 0.0, 1.0]])
SIZE = 640, 480  # width, height
PUBLISHED_MASK = slice(45, 472), slice(43, 608)  # rows, columns that published networks learn from
Pair = tuple[Path, Path]


def load(path: str, split_file: str = '', border: int = 8,
         published_mask: bool = False) -> list[Recording]:
    """
    Load the pairs that ``split_file`` lists, or all below ``path``; poses are unknown.

    Each scene is a recording; where a number is missing another one begins. ``border`` pixels at
    the edge, white since the images were rectified, are without truth. With ``published_mask`` so
    is all outside PUBLISHED_MASK, as in training since BTS; it is for training, not for measuring.
    Raises DriveError.
    """
    folder = Path(path)
    pairs = _listed(folder, Path(split_file)) if split_file else _found(folder)
    recordings = []
    for scene, group in itertools.groupby(sorted(pairs, key=_order), lambda pair: pair[0].parent):
        members = list(group)
        for run in runs([_number(image) for image, _ in members]):
            part = [members[i] for i in run]
            name = f'{scene.relative_to(folder)}/{part[0][0].stem}'
            read = functools.partial(_read, folder, part, border, published_mask)
            recordings.append(Recording(name, read, [None] * len(part), range(len(part))))
    return recordings


def _listed(folder: Path, split_file: Path) -> list[Pair]:
    if not split_file.is_file():
        raise DriveError(f'there is no list {split_file}; the lists come with the published '
                         'methods')
    pairs = []
    for number, line in enumerate(read_lines(split_file), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) < 2:
            raise DriveError(f'{split_file}:{number} is {line!r}; expected IMAGE DEPTH ...')
        image, depth = (folder / word.lstrip('/') for word in words[:2])
        if not image.is_file() or not depth.is_file():
            raise DriveError(f'{split_file}:{number}: {image} or {depth} is missing')
        pairs.append((image, depth))
    if not pairs:
        raise DriveError(f'{split_file} lists nothing')
    return pairs


def _found(folder: Path) -> list[Pair]:
    images: Iterable[Path] = folder.glob('**/rgb_*')
    pairs = [(image, image.with_name(f'sync_depth_{image.stem.removeprefix("rgb_")}.png'))
             for image in images if image.suffix.lower() in IMAGE_SUFFIXES]
    pairs = [pair for pair in pairs if pair[1].is_file()]
    if not pairs:
        raise DriveError(f'{folder} holds no SCENE/rgb_NUMBER.jpg with sync_depth_NUMBER.png')
    return pairs


def _number(image: Path) -> int:
    digits = image.stem.rpartition('_')[2]
    if not digits.isdecimal():
        raise DriveError(f'{image} is not named rgb_NUMBER')
    return int(digits)


def _order(pair: Pair) -> tuple[Path, int]:
    return pair[0].parent, _number(pair[0])


def _read(folder: Path, pairs: list[Pair], border: int, published_mask: bool,
          index: int) -> DepthSample:
    image_path, depth_path = pairs[index]
    image_rgb = read_image_rgb(image_path)
    height, width = image_rgb.shape[:2]
    depth = read_depth_png(depth_path, 0.001, height, width)
    inside = np.zeros(depth.shape, bool)
    inside[border:height - border, border:width - border] = True
    if published_mask:
        if (width, height) != SIZE:
            raise DriveError(f'{image_path} is {width}x{height}; published_mask is of 640x480')
        masked = np.zeros_like(inside)
        masked[PUBLISHED_MASK] = True
        inside &= masked
    camera = CameraModel.from_K(K, *SIZE).resized(width, height)
    return DepthSample(f'{image_path.relative_to(folder).with_suffix("")}', image_rgb, camera,
                       np.where(inside, depth, np.float32(np.nan)), False)
