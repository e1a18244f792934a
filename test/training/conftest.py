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
"""A tiny drive with exact truth and a tiny run, for everything that trains."""
from __future__ import annotations

from pathlib import Path
import sys

import cv2
import numpy as np
from planes import plane_depth
import pytest

from hybrid_depth.camera import CameraModel

sys.path.append(str(Path(__file__).resolve().parents[1] / 'core' / 'drives'))  # tiny_bags

CAMERA = CameraModel(160, 96, 120.0, 120.0, 80.0, 40.0)
FRAMES = 6


@pytest.fixture(scope='session')
def tiny_drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder drive of six random images over a sloping plane at 4 to 9 m."""
    folder = tmp_path_factory.mktemp('tiny_drive')
    (folder / 'images').mkdir()
    (folder / 'depth').mkdir()
    np.savetxt(folder / 'K.txt', CAMERA.K)
    (folder / 'depth_scale.txt').write_text('256\n')
    rng = np.random.default_rng(0)
    for index in range(FRAMES):
        depth = plane_depth(CAMERA, (0.0, 0.3, 1.0), 4.0 + index)
        # brightness tells depth, so that there is something to learn
        shade = np.clip(255 - 20 * depth, 0, 255)[..., None] + rng.normal(0, 5, (96, 160, 3))
        cv2.imwrite(str(folder / 'images' / f'{index:04d}.png'),
                    np.clip(shade, 0, 255).astype(np.uint8))
        cv2.imwrite(str(folder / 'depth' / f'{index:04d}.png'),
                    np.round(depth * 256).astype(np.uint16))
    return folder


@pytest.fixture
def tiny_config(tiny_drive: Path):
    """Return a function that makes a training configuration of the tiny drive."""
    pytest.importorskip('torch', reason='the training extra is not installed')
    from hybrid_depth_training.config import GroupConfig, SourceConfig, TrainConfig

    def make(**changes):
        values = {
            'name': 'tiny', 'licence': 'Apache-2.0', 'options': {'weights': 'random'}, 'batch': 2,
            'groups': {'plane': GroupConfig(64, 96)}, 'warmup_steps': 2, 'threads': 1,
            'sources': [SourceConfig('drive', str(tiny_drive), 'plane', hold_out=0.34)],
            'checkpoint_every': 2, 'validate_every': 4, 'steps': 4, **changes}
        return TrainConfig(**values)
    return make
