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
"""Short drives through the project's own synthetic streets, rendered once and kept on disk."""
from __future__ import annotations

import functools
import logging
import os
from pathlib import Path

import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth.drives.render import render
from hybrid_depth.drives.street import make_street
from hybrid_depth.drives.synthetic import ego_pose
from hybrid_depth_training.data import DepthSample, Recording

_log = logging.getLogger(__name__)
# Seconds into the clip; at the 8 m/s of the synthetic car these are 0 to 8 m, so that a frame
# has neighbours from one to several metres away.
_TIMES_S = (0.0, 0.45, 0.8, 1.0)


def load(path: str, count: int, height: int = 192, width: int = 640,
         first_seed: int = 20000) -> list[Recording]:
    """
    Return ``count`` clips of four frames, one street each, rendering what is missing.

    ``path`` is the folder that keeps them; a clip takes about five seconds.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    recordings = []
    for seed in range(first_seed, first_seed + count):
        file = folder / f'clip_{height}x{width}_{seed}.npz'
        if not file.exists():
            _render_clip(file, seed, (height, width))
            if (seed - first_seed) % 20 == 0:
                _log.info('rendered synthetic clip %d of %d', seed - first_seed, count)
        with np.load(file, allow_pickle=False) as arrays:
            poses = list(arrays['world_T_camera'])
        recordings.append(Recording(file.stem, functools.partial(_read_frame, file), poses,
                                    range(len(poses))))
    return recordings


def _render_clip(file: Path, seed: int, size: tuple[int, int]) -> None:
    """Render a car that drives with random height, pitch, heading and lens."""
    rng = np.random.default_rng([seed, 29])
    height, width = size
    focal = width * rng.uniform(0.45, 0.95)
    camera = CameraModel(width, height, focal, focal, (width - 1) / 2 + rng.uniform(-6, 6),
                         (height - 1) / 2 + rng.uniform(-0.05, 0.05) * height)
    street = make_street(seed)
    start_s = rng.uniform(0, 5.0)
    camera_height_m, pitch = rng.uniform(1.2, 2.0), np.radians(rng.uniform(-2, 2))
    turn = rng.normal(0, 0.05)
    world_R_turned = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0],
                               [0, 0, 1]])
    images, depths, poses = [], [], []
    for time_s in start_s + np.array(_TIMES_S):
        pose = ego_pose(street, time_s, camera_height_m, pitch, 1.5)
        pose[:3, :3] = world_R_turned @ pose[:3, :3]
        image_rgb, depth_m = render(street, camera, pose, time_s)
        images.append(image_rgb)
        depths.append(depth_m.astype(np.float32))
        poses.append(pose)
    part = file.with_suffix('.part')
    with part.open('wb') as stream:  # savez would add a suffix to a path
        np.savez(stream, image_rgb=images, depth_m=depths, world_T_camera=poses, K=camera.K)
    os.replace(part, file)


def _read_frame(file: Path, index: int) -> DepthSample:
    with np.load(file, allow_pickle=False) as arrays:
        image_rgb = arrays['image_rgb'][index]
        height, width = image_rgb.shape[:2]
        return DepthSample(f'{file.stem}_{index}', image_rgb,
                           CameraModel.from_K(arrays['K'], width, height),
                           arrays['depth_m'][index], False, arrays['world_T_camera'][index])
