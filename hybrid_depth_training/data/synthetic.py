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
"""Views of the project's own synthetic streets, rendered once and kept on disk."""
from __future__ import annotations

import functools
import logging
import os
from pathlib import Path

import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth.drives.synthetic import render_random
from hybrid_depth_training.data import DepthSample, Recording

_log = logging.getLogger(__name__)


def load(path: str, count: int, height: int = 192, width: int = 640,
         first_seed: int = 1000) -> list[Recording]:
    """
    Return ``count`` views of ``height`` x ``width``, one street each, rendering what is missing.

    ``path`` is the folder that keeps them; a render takes about a second. Each view is a
    recording of its own: they are nobody's neighbours.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    recordings = []
    for seed in range(first_seed, first_seed + count):
        file = folder / f'{height}x{width}_{seed}.npz'
        if not file.exists():
            image_rgb, depth_m, K, _ = render_random(seed, (height, width))
            part = file.with_suffix('.part')
            with part.open('wb') as stream:  # savez would add a suffix to a path
                np.savez(stream, image_rgb=image_rgb, depth_m=depth_m.astype(np.float32), K=K)
            os.replace(part, file)
            if (seed - first_seed) % 50 == 0:
                _log.info('rendered synthetic view %d of %d', seed - first_seed, count)
        recordings.append(Recording(file.stem, functools.partial(_read, file), [None], [0]))
    return recordings


def _read(file: Path, _: int) -> DepthSample:
    with np.load(file, allow_pickle=False) as arrays:
        image_rgb = arrays['image_rgb']
        height, width = image_rgb.shape[:2]
        return DepthSample(file.stem, image_rgb, CameraModel.from_K(arrays['K'], width, height),
                           arrays['depth_m'], False)
