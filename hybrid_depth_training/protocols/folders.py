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
Folders of depth files, and which file of one belongs to which file of the other.

A frame's name is its path below the folder without suffix and without folders called ``depth``
or ``sigma``; where a folder of the path is a KITTI drive it is ``DRIVE/image_02/FRAME`` whatever
else is in the path, so that the trees of the raw data, of the official depth maps and of the
predictions fit together.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable
import os
from pathlib import Path, PurePath
import re

import cv2
import numpy as np

from hybrid_depth.errors import DriveError

DEPTH_SUFFIXES = ('.png', '.npy', '.npz')
IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg')
_DRIVE = re.compile(r'\d{4}_\d{2}_\d{2}_drive_\d{4}_(sync|extract)')
_OTHERS = {'sigma', 'preview'}  # what `infer` writes beside depth/
_SHOWN = 5  # names in an error


def frame_name(path: PurePath) -> str:
    """Return the name of the frame whose file is ``path``, relative to its folder."""
    folders, stem = path.parts[:-1], path.stem
    drives = [part for part in folders if _DRIVE.fullmatch(part)]
    if drives:
        camera = 'image_03' if 'image_03' in folders else 'image_02'
        return f'{drives[-1]}/{camera}/{stem}'
    return '/'.join([part for part in folders if part not in ('depth', 'sigma')] + [stem])


def depth_files(folder: Path) -> dict[str, Path]:
    """
    Return name -> file of all depth files in and below ``folder``.

    Folders ``sigma`` and ``preview`` are left out. Raises DriveError where the folder is absent or
    holds none, or where two files are of the same frame.
    """
    files = _named(folder, DEPTH_SUFFIXES, lambda parts: not _OTHERS & set(parts))
    if not files:
        raise DriveError(f'{folder} holds no depth files; expected {", ".join(DEPTH_SUFFIXES)}')
    return files


def sigma_files(folder: Path) -> dict[str, Path]:
    """Return name -> file of the depth files in folders ``sigma`` below ``folder``, maybe none."""
    return _named(folder, DEPTH_SUFFIXES, lambda parts: 'sigma' in parts)


def image_files(folder: Path) -> dict[str, Path]:
    """Return name -> file of the images in and below ``folder``. Raises DriveError as above."""
    files = _named(folder, IMAGE_SUFFIXES, lambda parts: True)
    if not files:
        raise DriveError(f'{folder} holds no images; expected {", ".join(IMAGE_SUFFIXES)}')
    return files


def _named(folder: Path, suffixes: tuple[str, ...],
           is_wanted: Callable[[tuple[str, ...]], bool]) -> dict[str, Path]:
    if not folder.is_dir():
        raise DriveError(f'there is no folder {folder}; name the folder that holds the files')
    files: dict[str, Path] = {}
    # links are followed: data sets are often linked together
    for path in sorted(Path(parent, file) for parent, _, inside in
                       os.walk(folder, followlinks=True) for file in inside):
        relative = path.relative_to(folder)
        if path.suffix.lower() not in suffixes or path.name.startswith('.') \
                or not is_wanted(relative.parts[:-1]):
            continue
        name = frame_name(relative)
        if name in files:
            raise DriveError(f'{files[name]} and {path} are both frame {name}; name the folder '
                             'that holds only one of them')
        files[name] = path
    return files


def check_same(names: Iterable[str], files: Iterable[str], what: str, exact: bool) -> None:
    """Raise DriveError where ``files`` of ``what`` lack one of ``names``, or (exact) have more."""
    names, files = set(names), set(files)
    missing = sorted(names - files)
    extra = sorted(files - names) if exact else []
    if missing or extra:
        found = ' and '.join(text for text in (
            missing and f'has no file for {_listed(missing)}',
            extra and f'has files that the other lacks: {_listed(extra)}') if text)
        raise DriveError(f'{what} {found}. Every frame has to be in both, under the same name; '
                         'score a part of them with --split FILE')


def _listed(names: list[str]) -> str:
    more = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
    return ', '.join(names[:_SHOWN]) + more


def read_depth(path: Path, png_units_per_m: float, units_per_m: float | None = None) -> np.ndarray:
    """
    Read one depth (or sigma) file as (H, W) float32 metres, NaN where it has none.

    PNG: one channel of 16 bits in ``png_units_per_m``, 0 = none. ``.npy``, and the key ``depth``
    of ``.npz``: metres, NaN = none. ``units_per_m`` replaces the unit of any of them. Raises
    DriveError where the file cannot be read as that.
    """
    if path.suffix.lower() == '.png':
        raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if raw is None:
            raise DriveError(f'{path} cannot be read as a PNG; copy it again')
        if raw.dtype != np.uint16 or raw.ndim != 2:
            raise DriveError(f'{path} is {raw.dtype} of shape {raw.shape}; expected one channel '
                             'of uint16. Pictures of 8 bits hold colours, not depth')
        depth_m = raw.astype(np.float32) / np.float32(units_per_m or png_units_per_m)
        depth_m[raw == 0] = np.nan
        return depth_m
    values = _read_array(path)
    has_unit = units_per_m is not None or np.issubdtype(values.dtype, np.floating)
    if values.ndim != 2 or not has_unit:
        raise DriveError(f'{path} is {values.dtype} of shape {values.shape}; expected (H, W) '
                         'floating-point metres, or a scale given with --pred_scale, --gt_scale')
    return values.astype(np.float32) / np.float32(units_per_m or 1.0)


def _read_array(path: Path) -> np.ndarray:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            if 'depth' not in loaded:
                raise DriveError(f'{path} has the keys {", ".join(loaded)}; expected depth')
            return loaded['depth']
    except (OSError, ValueError, EOFError) as error:
        raise DriveError(f'{path} cannot be read as a NumPy file ({error}); write it again with '
                         'numpy.save') from error
