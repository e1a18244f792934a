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
"""Short pieces of the real recordings, for tests that have no time for the whole."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def excerpt(source: Path, target: Path, frames: Sequence[int]) -> Path:
    """Make a KITTI odometry folder of some frames of another."""
    for name in ('image_0', 'image_1'):
        (target / name).mkdir(parents=True)
        images = sorted((source / name).iterdir())
        for frame in frames:
            (target / name / images[frame].name).symlink_to(images[frame])
    (target / 'calib_P0_P1.txt').write_text((source / 'calib_P0_P1.txt').read_text())
    poses = (source / 'poses.txt').read_text().splitlines()
    (target / 'poses.txt').write_text('\n'.join(poses[frame] for frame in frames) + '\n')
    return target
