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
"""A short soak as a user runs it: real processes, faults, and the figures that it leaves."""
from __future__ import annotations

import json
from pathlib import Path
import subprocess
import sys

import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed: no node can be run')

ROOT = Path(__file__).resolve().parents[2]
KEYS = {'faults_injected', 'crashes', 'restarts', 'frames', 'wrong_frames',
        'memory_growth_percent', 'recovery_frames_max', 'fuzz_inputs', 'seed', 'seconds',
        'versions', 'restart_times'}
KINDS = ('frame_loss', 'odometry_jump', 'corrupt_cdr', 'out_of_memory', 'kill_9')


def test_a_short_soak_finds_nothing(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, '-m', 'hybrid_depth_ros.soak', '--seconds', '3', '--seed', '5',
         '--kinds', *KINDS, '--out', str(tmp_path), '--markdown', str(tmp_path / 'soak.md')],
        cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    log = tmp_path / 'soak' / 'node.log'
    assert result.returncode == 0, result.stdout + result.stderr + log.read_text()[-3000:]
    figures = json.loads((tmp_path / 'reliability.json').read_text())
    assert set(figures) == KEYS
    assert all(figures['faults_injected'][kind] >= 1 for kind in KINDS)
    assert figures['crashes'] == figures['wrong_frames'] == 0
    assert figures['restarts'] == figures['faults_injected']['kill_9']
    (restart,) = figures['restart_times']
    assert restart['cpu_s'] > 0
    assert 0 < restart['active_s'] < restart['depth_s']
    assert figures['frames'] > 0
    assert figures['recovery_frames_max'] <= 3
    assert figures['fuzz_inputs'] > 0
    page = (tmp_path / 'soak.md').read_text()
    assert 'Nothing.' in page
    assert '| `kill_9` | 1 |' in page
    assert f"{restart['depth_s']:.2f} s; {restart['depth_s']:.2f} s |" in page
    assert restart['active_s'] - (restart['waited_s'] or 0.0) < 1.5
    assert str(tmp_path) not in page


def test_unknown_faults_are_refused() -> None:
    result = subprocess.run([sys.executable, '-m', 'hybrid_depth_ros.soak', '--kinds', 'rain'],
                            cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 2
    assert 'rain' in result.stderr
