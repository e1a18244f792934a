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
"""Damaged recordings are refused by name, or read."""
from __future__ import annotations

import contextlib
from pathlib import Path
import random
import shutil

from hypothesis import given, HealthCheck, settings
from hypothesis import strategies as st
import pytest
from test_kitti_raw import drive_folder  # noqa: F401 - a fixture

from hybrid_depth.drives import open_drive
from hybrid_depth.errors import DriveError

quick = settings(max_examples=25, deadline=None, derandomize=True,
                 suppress_health_check=list(HealthCheck))
WORDS = ('0', '-1', '1e400', 'nan', 'inf', '', '#', ',', '9' * 40, '\u0661', '0x10', '\0', ':')


def read_all(path: Path) -> None:
    """Read every frame of a drive."""
    for _ in open_drive(path):
        pass


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Return ``data`` with a word exchanged, a byte changed, a part cut out or its end cut off."""
    kind = rng.randrange(4)
    at = rng.randrange(len(data))
    if kind == 0:
        words = data.split(b' ')
        words[rng.randrange(len(words))] = rng.choice(WORDS).encode()
        return b' '.join(words)
    if kind == 1:
        return data[:at] + bytes([rng.randrange(256)]) + data[at + 1:]
    return data[:at] if kind == 2 else data[:at] + data[at + rng.randint(1, 99):]


@quick
@given(rng=st.randoms(use_true_random=False))
def test_kitti_raw(drive_folder: Path, rng: random.Random) -> None:  # noqa: F811
    files = sorted(path for path in drive_folder.parent.rglob('*') if path.is_file())
    chosen = rng.choice(files)
    whole = chosen.read_bytes()
    chosen.write_bytes(damaged(whole, rng))
    try:
        with contextlib.suppress(DriveError):
            read_all(drive_folder)
    finally:
        chosen.write_bytes(whole)


@pytest.fixture(scope='module', params=['sqlite3', 'mcap'])
def bag(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip('rosbags', reason='rosbags is not installed: no bag can be read')
    from tiny_bags import camera_messages, write_bag
    return write_bag(tmp_path_factory.mktemp('bags') / 'drive', camera_messages(), request.param)


@quick
@given(rng=st.randoms(use_true_random=False))
def test_bag(bag: Path, tmp_path: Path, rng: random.Random) -> None:
    copy = tmp_path / 'copy'
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(bag, copy)
    chosen = rng.choice(sorted(path for path in copy.iterdir()))
    chosen.write_bytes(damaged(chosen.read_bytes(), rng))
    with contextlib.suppress(DriveError):
        read_all(copy)
