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
"""Lists of frames: the Eigen and Eigen-Zhou files of KITTI, and plain lists of names."""
from __future__ import annotations

import logging
from pathlib import Path, PurePosixPath

from hybrid_depth.drives.image_files import read_lines
from hybrid_depth.errors import DriveError
from hybrid_depth_training.protocols.folders import frame_name, IMAGE_SUFFIXES

_log = logging.getLogger(__name__)
_CAMERAS = {'l': 'image_02', 'r': 'image_03'}
_SUFFIXES = (*IMAGE_SUFFIXES, '.npy', '.npz')


def read_split(path: Path) -> list[str]:
    """
    Return the names (folders.frame_name) of the frames listed in ``path``, in its order.

    A line is one of

    - ``2011_09_26/2011_09_26_drive_0002_sync 0000000069 l``: drive, frame and camera, as in the
      lists that come with Monodepth2 (eigen 697, eigen_benchmark 652, Eigen-Zhou);
    - ``2011_09_26/..._sync/image_02/data/0000000069.png [truth] [focal length]``: an image, as in
      the lists that come with BTS; with the truth ``None`` there is none and the line is left out;
    - a name, with or without suffix.

    Empty lines and lines that begin with # are skipped. Raises DriveError where the file cannot be
    read, holds no frame, or the same one twice.
    """
    if not path.is_file():
        raise DriveError(f'there is no split file {path}; the lists come with the data sets or '
                         'with the published evaluations')
    names: dict[str, int] = {}
    without_truth = 0
    for number, line in enumerate(read_lines(path), start=1):
        words = line.split()
        if not words or words[0].startswith('#'):
            continue
        if len(words) > 1 and words[1] == 'None':
            without_truth += 1
            continue
        name = _name(words, f'{path}:{number}')
        if name in names:
            raise DriveError(f'{path}:{number} is frame {name} again, as line {names[name]}; '
                             'list every frame once')
        names[name] = number
    if not names:
        raise DriveError(f'{path} lists no frames; expected one a line')
    if without_truth:
        _log.info('%s: %d lines without truth are left out', path, without_truth)
    return list(names)


def _name(words: list[str], where: str) -> str:
    path = PurePosixPath(words[0])
    if len(words) > 1 and words[1].isdecimal():
        side = words[2] if len(words) > 2 else 'l'
        if side not in _CAMERAS:
            raise DriveError(f'{where} names camera {side!r}; expected l or r')
        return f'{path.name}/{_CAMERAS[side]}/{int(words[1]):010d}'
    if path.suffix.lower() not in _SUFFIXES:
        path = path.with_name(path.name + '.png')  # so that a dot in the name is kept
    return frame_name(path)
