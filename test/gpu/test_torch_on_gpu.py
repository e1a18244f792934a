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
"""Torch on CUDA: graphs, the compiler, half precision. ``make test-gpu``, not ``make test``."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')

from hybrid_depth_training.gpu.bench import gpu_bench, WAYS  # noqa: E402
from hybrid_depth_training.gpu.feed import deployed, street_frames  # noqa: E402
from hybrid_depth_training.gpu.session import no_compiler, TorchSession  # noqa: E402
from hybrid_depth_training.gpu.timing import kernels  # noqa: E402

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(
    not torch.cuda.is_available(), reason='torch finds no CUDA device')]
ROOT = Path(__file__).resolve().parents[2]
COMPACT = ROOT / 'config' / 'training' / 'compact.yaml'
SIZE = (96, 160)
NO_COMPILER = no_compiler(torch.device('cuda'))
MODES = ['', pytest.param('default', marks=pytest.mark.skipif(bool(NO_COMPILER),
                                                              reason=NO_COMPILER))]


def run(device: str, is_half: bool, mode: str = '') -> list[dict[str, np.ndarray]]:
    network = deployed(COMPACT)
    drive = street_frames(network, SIZE, 2, 5)
    session = TorchSession(network, drive[0], device, is_half, mode)
    found = []
    for _ in range(2):  # the second time the places are taken by the other graphs
        session.reset()
        found = [{name: session.fetch(tensor) for name, tensor in session.step(frame).items()}
                 for frame in drive]
    print(f'{device}, half: {is_half}, mode: {mode!r}: ready in {session.ready_s:.1f} s')
    return found


@pytest.mark.parametrize('mode', MODES)
def test_replayed_graphs_agree_with_the_cpu(mode: str) -> None:
    for found, expected in zip(run('cuda', False, mode), run('cpu', False), strict=True):
        for name, value in expected.items():
            assert np.mean(np.abs(found[name] - value)) <= 1e-2 * np.mean(np.abs(value)), name


@pytest.mark.parametrize('mode', MODES)
def test_half_precision_stays_near(mode: str) -> None:
    for found, expected in zip(run('cuda', True, mode), run('cpu', False), strict=True):
        error = np.mean(np.abs(found['depth'] - expected['depth']) / expected['depth'])
        assert error < 0.005


@pytest.mark.skipif(bool(NO_COMPILER), reason=NO_COMPILER)
def test_the_compiler_leaves_fewer_kernels() -> None:
    counts = []
    for mode in ('', 'default'):
        network = deployed(COMPACT)
        drive = street_frames(network, SIZE, 2, 1)
        counts.append(kernels(TorchSession(network, drive[0], 'cuda', True, mode)))
    print(f'kernels of a frame: {counts[0]} as it is, {counts[1]} compiled')
    if None in counts:
        pytest.skip('the profiler sees no kernels here')
    assert counts[1] < counts[0]


def test_the_bench_measures_graph_replay(tmp_path: Path) -> None:
    out = tmp_path / 'gpu.json'
    gpu_bench([COMPACT], out, size=SIZE, frames=20, is_compiled=False)
    found = json.loads(out.read_text())
    (row,) = found['models'].values()
    eager = row['eager']
    assert row['is_graph_replay']
    assert 0 < eager['replay_ms']['p50'] <= eager['host_to_host_ms']['p95']
    assert eager['abs_rel_to_fp32'] < 0.005
    assert [row[way]['why_not'] for way in WAYS if way != 'eager'] == ['it was asked not to'] * 2
    print(json.dumps(found, indent=1))
