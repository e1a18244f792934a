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
"""The torch session: on a CPU all of it but the calls into CUDA, with a GPU those as well."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from torch import nn  # noqa: E402

from hybrid_depth.errors import ConfigError, ContractError  # noqa: E402
from hybrid_depth_training.__main__ import main  # noqa: E402
from hybrid_depth_training.gpu.bench import goals, gpu_bench  # noqa: E402
from hybrid_depth_training.gpu.feed import deployed, street_frames  # noqa: E402
from hybrid_depth_training.gpu.session import no_compiler, TorchSession  # noqa: E402
from hybrid_depth_training.gpu.timing import calibrate  # noqa: E402

DEVICES = ['cpu', 'cuda'] if torch.cuda.is_available() else ['cpu']  # see make test-gpu
RECIPES = Path(__file__).resolve().parents[3] / 'config' / 'training'


class Recurrent(nn.Module):
    """Its features are the mean of the image, its depth those and the sources, by weight."""

    outputs = ('depth', 'features')

    def forward(self, image: torch.Tensor, source_features: torch.Tensor) -> tuple:
        mean = image.float().mean().view(1, 1, 1, 1)
        weights = 10.0 ** torch.arange(
            1, source_features.shape[1] + 1, device=source_features.device).view(1, -1, 1, 1, 1)
        return mean + (weights * source_features).sum(1), mean.clone()


def feed(grey: int, sources: int) -> dict[str, np.ndarray]:
    return {'image': np.full((1, 2, 2, 3), grey, np.uint8),
            'source_features': np.zeros((1, sources, 1, 1, 1), np.float32)}


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize(('sources', 'programs'), [(1, 2), (2, 2), (3, 3)])
def test_each_frame_sees_the_ones_before_newest_first(sources: int, programs: int,
                                                      device: str) -> None:
    session = TorchSession(Recurrent(), feed(0, sources), device, is_half=False)
    assert session.graphs == programs
    for _ in range(2):
        seen: list[int] = []
        for grey in (1, 2, 3, 4, 5, 6, 7):
            found = session.fetch(session.step(feed(grey, sources))['depth']).item()
            expected = grey + sum(10 ** (age + 1) * value
                                  for age, value in enumerate(seen[::-1][:sources]))
            assert found == expected
            seen.append(grey)
        session.reset()


@pytest.mark.parametrize('device', DEVICES)
def test_outputs_outlive_the_next_step(device: str) -> None:
    session = TorchSession(Recurrent(), feed(0, 1), device, is_half=False)
    first = session.step(feed(3, 1))['features']
    session.step(feed(4, 1))
    assert session.fetch(first).item() == 3


def test_what_does_not_fit_is_refused() -> None:
    session = TorchSession(Recurrent(), feed(0, 1), 'cpu', is_half=False)
    with pytest.raises(ContractError, match="'image' is"):
        session.step({'image': np.zeros((1, 4, 4, 3), np.uint8)})
    with pytest.raises(ContractError, match='source_features'):
        TorchSession(Recurrent(), {'image': np.zeros((1, 2, 2, 3), np.uint8)}, 'cpu')


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_no_gpu_is_said(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(ConfigError, match='no CUDA device'):
        TorchSession(Recurrent(), feed(0, 1))
    assert main(['gpu_bench', str(RECIPES / 'compact.yaml')]) == 2
    assert 'no CUDA device' in capsys.readouterr().err


@pytest.mark.skipif(bool(no_compiler(torch.device('cpu'))),
                    reason=no_compiler(torch.device('cpu')))
def test_one_compiled_program_does_for_all_places(tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('TORCHINDUCTOR_CACHE_DIR', str(tmp_path))
    session = TorchSession(Recurrent(), feed(0, 2), 'cpu', is_half=False,
                           compile_mode='default')
    assert session.ready_s > 0.1  # it was compiled
    monkeypatch.setattr('torch._dynamo.config.error_on_recompile', True)
    found = [session.fetch(session.step(feed(grey, 2))['depth']).item() for grey in (1, 2, 3, 4)]
    assert found == [1, 12, 123, 234]


def test_the_recurrent_network_runs_as_it_would_by_hand() -> None:
    network = deployed(RECIPES / 'compact.yaml')
    drive = street_frames(network, (64, 96), 2, 3)
    session = TorchSession(network, drive[0], 'cpu', is_half=False)
    sources = [torch.zeros(1, *drive[0]['source_features'].shape[2:])] * 2
    for frame in drive:
        tensors = {name: torch.from_numpy(value) for name, value in frame.items()}
        tensors['source_features'] = torch.stack(sources, dim=1)
        with torch.no_grad():
            expected = dict(zip(network.outputs, network(*tensors.values()), strict=True))
        found = session.step(frame)
        for name in network.outputs:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-3)
        sources = [expected['features'], sources[0]]


def test_a_drive_has_its_true_motion() -> None:
    network = deployed(RECIPES / 'compact.yaml')
    drive = street_frames(network, (64, 96), 2, 4)
    assert [frame['source_valid'].tolist() for frame in drive] == [
        [[0, 0]], [[1, 0]], [[1, 1]], [[1, 1]]]
    for frame, before in zip(drive[2:], drive[1:], strict=False):
        older, newer = frame['source_T_target'][0, 1], frame['source_T_target'][0, 0]
        assert newer[2, 3] == pytest.approx(0.8, abs=0.02)  # metres ahead in a tenth of a second
        np.testing.assert_allclose(before['source_T_target'][0, 0] @ newer, older, atol=1e-5)
        assert (frame['image'] != before['image']).any()


@pytest.fixture(autouse=True)
def _short_drive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('hybrid_depth_training.gpu.bench._DRIVE', 3)
    monkeypatch.setattr('hybrid_depth_training.gpu.timing._IGNORED', 1)


def test_the_command_writes_what_was_measured(tmp_path: Path) -> None:
    out = tmp_path / 'gpu.json'
    assert main(['gpu_bench', str(RECIPES / 'compact.yaml'), '--device', 'cpu', '--size',
                 '[64,96]', '--frames', '3', '--out', str(out)]) == 0
    found = json.loads(out.read_text())
    assert 'no GPU was measured' in found['device']
    (row,) = found['models'].values()
    assert row['weights'] == 'random'
    assert row['parameters_m'] == pytest.approx(4.41, abs=0.01)
    assert not row['is_graph_replay']
    assert row['fastest'] == 'eager'
    eager = row['eager']
    assert eager['host_to_host_ms']['p50'] > 0
    assert eager['abs_rel_to_fp32'] < 1e-3
    assert eager['programs'] == 2
    assert (eager['replay_ms']['p50'], eager['kernels']) == (None, None)
    assert 'only on CUDA' in row['compiled']['why_not']
    assert found['goals']['small_224x672_ms'] == {'goal': 1.5, 'measured': None, 'is_met': None}


def test_a_network_that_names_no_outputs_is_measured_and_a_compiler_may_fail(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError('no such instruction')

    monkeypatch.setattr(torch, 'compile', broken)
    monkeypatch.setattr('hybrid_depth_training.gpu.bench.no_compiler', lambda _: '')
    found = gpu_bench([RECIPES / 'monodepth2_resnet18.yaml'], tmp_path / 'gpu.json', device='cpu',
                      size=(64, 96), frames=2, is_compiled=True)
    (row,) = found['models'].values()
    assert (row['eager']['programs'], row['gflop'] > 0) == (1, True)
    assert row['compiled'] == {'why_not': 'RuntimeError: no such instruction'}


def test_a_compiler_that_was_asked_for_must_be_there(tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('hybrid_depth_training.gpu.bench.no_compiler', lambda _: 'there is none')
    with pytest.raises(ConfigError, match='asked for, but there is none'):
        gpu_bench([RECIPES / 'compact.yaml'], tmp_path / 'gpu.json', device='cpu',
                  is_compiled=True)


def test_goals_are_judged_by_the_fastest_way() -> None:
    ways = {'precision': 'fp16', 'fastest': 'compiled',
            'eager': {'replay_ms': {'p50': 1.6}, 'abs_rel_to_fp32': 0.001},
            'compiled': {'replay_ms': {'p50': 1.4}, 'abs_rel_to_fp32': 0.006}}
    found = goals({'runs/small': ways}, (224, 672), 2)
    assert found['small_224x672_ms'] == {'goal': 1.5, 'measured': 1.4, 'is_met': True}
    assert found['hybrid_base_224x672_ms']['is_met'] is None
    assert found['fp16_abs_rel'] == {'goal': 0.005, 'measured': 0.006, 'is_met': False}
    assert goals({'runs/small': ways}, (192, 640), 2)['small_224x672_ms']['measured'] is None
    assert goals({'runs/small': ways}, (224, 672), 1)['small_224x672_ms']['measured'] is None
    single = goals({'runs/small': ways | {'precision': 'fp32'}}, (224, 672), 2)
    assert [goal['measured'] for goal in single.values()] == [None] * 3


def test_calibration_is_plausible() -> None:
    peak = calibrate(torch.device('cpu'))
    assert 1e-4 < peak['tflop_per_s'] < 10
    assert 0.05 < peak['copy_gb_per_s'] < 1000
