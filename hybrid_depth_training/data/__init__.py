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
Training data: every dataset becomes a list of recordings, through one table.

Adding a dataset: a file here with ``load(path, **options) -> list[Recording]`` and a row in
DATASETS.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

import numpy as np

from hybrid_depth.camera import CameraModel


@dataclass(frozen=True)
class DepthSample:
    """One image with its truth, at the resolution it was recorded in."""

    name: str
    image_rgb: np.ndarray  # (H, W, 3) uint8
    camera: CameraModel  # pinhole, of these pixels
    depth_m: np.ndarray  # (H, W) float32; NaN = no truth, +Inf = nothing within range
    is_sparse: bool  # single LiDAR returns: moved as points, no gradients between neighbours
    world_T_camera: np.ndarray | None = None  # (4, 4) float64 metres; None = unknown
    caption: str = ''  # what a person would say of the scene; '' = nothing is said


@dataclass(frozen=True)
class Recording:
    """
    One continuous recording in time order, whose frames are read when asked for.

    ``world_T_camera`` holds the pose of every frame, (4, 4) float64 metres in the optical frame,
    None where unknown. ``targets`` are the frames to learn from or to measure; the others only
    serve as their neighbours.
    """

    name: str
    read: Callable[[int], DepthSample]
    world_T_camera: Sequence[np.ndarray | None]
    targets: Sequence[int]

    def __len__(self) -> int:
        return len(self.world_T_camera)

    def __getitem__(self, index: int) -> DepthSample:
        if not 0 <= index < len(self):
            raise IndexError(f'{self.name} has no frame {index}; it has {len(self)}')
        return self.read(index)


def load(dataset: str, path: str, **options: object) -> list[Recording]:
    """Load ``path`` with the row ``dataset`` of DATASETS."""
    function: Callable[..., list[Recording]] = import_module(DATASETS[dataset]).load
    return function(path, **options)


# name -> module with load(path, **options) -> list[Recording]
DATASETS: dict[str, str] = {
    'drive': 'hybrid_depth_training.data.drive',  # whatever hybrid_depth.drives opens, so bags too
    'kitti_raw': 'hybrid_depth_training.data.kitti_raw',  # by the published lists of frames
    'kitti_odometry': 'hybrid_depth_training.data.kitti_odometry',  # truth by stereo matching
    'nyu': 'hybrid_depth_training.data.nyu',
    'rgbd': 'hybrid_depth_training.data.rgbd',  # 7-Scenes, ScanNet and folders, with poses
    'sevenscenes': 'hybrid_depth_training.data.rgbd',  # the same, under the name on model cards
    'sunrgbd': 'hybrid_depth_training.data.sunrgbd',  # single images, with scene labels
    'tusimple': 'hybrid_depth_training.data.tusimple',  # lanes instead of depth
    'synthetic': 'hybrid_depth_training.data.synthetic',  # single views of the project's streets
    'synthetic_clips': 'hybrid_depth_training.data.synthetic_clips',  # short drives through them
}
