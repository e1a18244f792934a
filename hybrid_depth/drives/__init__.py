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
Recorded drives: images, camera, poses and ground truth, the same whatever the format on disk.

Adding a format: a file here with ``matches()`` and ``open_drive()``, and a row in DRIVES.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth.errors import DriveError

DEFAULT_PERIOD_NS = 100_000_000  # 10 Hz, where a recording holds no time stamps
FIRST_STAMP_NS = 1_000_000_000  # of such a recording; ROS reads a stamp of 0 as 'not set'


@dataclass(frozen=True)
class DriveFrame:
    """One image of a drive with everything that was recorded with it."""

    name: str  # file stem, such as '0000000005'; unique in its drive
    stamp_ns: int
    image_rgb: np.ndarray  # (H, W, 3) uint8
    camera: CameraModel  # of exactly this image's pixels
    world_T_camera: np.ndarray | None  # (4, 4) float64 metres, optical frame; None = no pose
    depth_m: np.ndarray | None  # (H, W) float32 along +Z; NaN = no truth, +Inf = no surface


@dataclass(frozen=True)
class Drive:
    """A drive whose frames are read, or made, when asked for."""

    name: str
    camera: CameraModel  # of the first frame
    stamps_ns: tuple[int, ...]  # one per frame
    load: Callable[[int], DriveFrame]
    source: Path | None  # what it was read from; None = made by this project

    def __len__(self) -> int:
        return len(self.stamps_ns)

    def frame(self, index: int) -> DriveFrame:
        """Return frame ``index``, 0 to len - 1. Raises DriveError where it cannot be read."""
        if not 0 <= index < len(self):
            raise DriveError(f'{self.name} has no frame {index}; it has frames 0 to '
                             f'{len(self) - 1}')
        return self.load(index)

    def __iter__(self) -> Iterator[DriveFrame]:
        return (self.frame(index) for index in range(len(self)))


# format -> module with matches(path) -> str (empty = this format, else what was looked for and
# not found) and open_drive(path) -> Drive. The first that matches is taken.
DRIVES: dict[str, str] = {
    'kitti_raw': 'hybrid_depth.drives.kitti_raw',
    'folder': 'hybrid_depth.drives.folder',
    'bag': 'hybrid_depth.drives.bag',
}


def open_drive(path: str | Path) -> Drive:
    """
    Open the drive at ``path``, or the project's own for 'synthetic' or 'synthetic:SEED'.

    Raises DriveError where nothing is there, where no format matches (saying what each one
    looked for), or where the files of a format contradict each other.
    """
    name, _, seed = str(path).partition(':')
    if name == 'synthetic':
        from hybrid_depth.drives import synthetic
        if seed and not seed.isdecimal():
            raise DriveError(f'{str(path)!r} has the seed {seed!r}; expected synthetic:NUMBER')
        return synthetic.open_drive(int(seed or 0))
    path = Path(path)
    if not path.exists():
        raise DriveError(f'there is no drive {path}; name a KITTI raw drive folder, a folder with '
                         "images/ and K.txt, a rosbag2 or MCAP recording, or 'synthetic'")
    looked_for = []
    for row, module_name in DRIVES.items():
        module = import_module(module_name)
        missing = module.matches(path)
        if not missing:
            drive: Drive = module.open_drive(path)
            return drive
        looked_for.append(f'{row}: {missing}')
    raise DriveError(f'{path} is no drive in a known format; ' + '; '.join(looked_for))
