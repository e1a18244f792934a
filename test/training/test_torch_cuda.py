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
"""The torch session on a CPU: all of it but the calls into CUDA."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from torch import nn  # noqa: E402

from hybrid_depth.errors import ConfigError, ContractError  # noqa: E402
from hybrid_depth_training.__main__ import main  # noqa: E402
from hybrid_depth_training.gpu_bench import (  # noqa: E402
    calibrate,
    deployed,
    example_inputs,
    gpu_bench,
)
from hybrid_depth_training.torch_cuda import halve, named_outputs, TorchSession  # noqa: E402

RECIPES = Path(__file__).resolve().parents[2] / 'config' / 'training'


class Recurrent(nn.Module):
    """Its features are the mean of the image, its depth those and the sources, by weight."""

    outputs = ('depth', 'features')

    def forward(self, image: torch.Tensor, source_features: torch.Tensor) -> tuple:
        mean = image.float().mean().view(1, 1, 1, 1)
        weights = 10.0 ** torch.arange(1, source_features.shape[1] + 1).view(1, -1, 1, 1, 1)
        return mean + (weights * source_features).sum(1), mean.clone()


def feed(grey: int, sources: int) -> dict[str, np.ndarray]:
    return {'image': np.full((1, 2, 2, 3), grey, np.uint8),
            'source_features': np.zeros((1, sources, 1, 1, 1), np.float32)}


@pytest.mark.parametrize(('sources', 'programs'), [(1, 2), (2, 2), (3, 3)])
def test_each_frame_sees_the_ones_before_newest_first(sources: int, programs: int) -> None:
    session = TorchSession(Recurrent(), feed(0, sources), 'cpu', is_half=False)
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


def test_outputs_outlive_the_next_step() -> None:
    session = TorchSession(Recurrent(), feed(0, 1), 'cpu', is_half=False)
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


def test_products_alone_are_rounded() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Linear(2, 2))
    halve(network)
    assert [p.dtype for p in network.parameters()] == [
        torch.float16] * 2 + [torch.float32] * 2 + [torch.float16] * 2
    assert network[1].running_mean.dtype == torch.float32


def test_outputs_have_names() -> None:
    tensor = torch.ones(1)
    assert list(named_outputs(nn.Identity(), tensor)) == ['depth']
    assert list(named_outputs(nn.Identity(), [tensor, tensor])) == ['depth']
    assert list(named_outputs(Recurrent(), (tensor, tensor))) == ['depth', 'features']


def test_the_recurrent_network_runs_as_it_would_by_hand() -> None:
    network = deployed(RECIPES / 'compact.yaml')
    inputs = example_inputs(network, (64, 96), 2)
    names = list(inputs)
    session = TorchSession(network, inputs, 'cpu', is_half=False)
    sources = [torch.zeros(1, *inputs['source_features'].shape[2:])] * 2
    for _ in range(3):
        tensors = {name: torch.from_numpy(inputs[name]) for name in names}
        tensors['source_features'] = torch.stack(sources, dim=1)
        with torch.no_grad():
            expected = dict(zip(network.outputs, network(*tensors.values()), strict=True))
        found = session.step(inputs)
        for name in network.outputs:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-3)
        sources = [expected['features'], sources[0]]


def test_half_precision_stays_near() -> None:
    network = deployed(RECIPES / 'compact.yaml')
    inputs = example_inputs(network, (64, 96), 2)
    exact = TorchSession(network, inputs, 'cpu', is_half=False)
    names = ('depth', 'features')
    expected = [{name: exact.fetch(value) for name, value in exact.step(inputs).items()}
                for _ in range(2)]
    rounded = TorchSession(network, inputs, 'cpu', is_half=True)
    for frame in expected:
        outputs = rounded.step(inputs)
        for name in names:
            found = rounded.fetch(outputs[name])
            error = np.abs(found - frame[name]).mean() / np.abs(frame[name]).mean()
            assert 0 < error < 0.02 or name == 'depth'
            assert error < 0.02


def test_the_command_writes_what_was_measured(tmp_path: Path) -> None:
    out = tmp_path / 'gpu.json'
    assert main(['gpu_bench', str(RECIPES / 'compact.yaml'), '--device', 'cpu', '--size',
                 '[64,96]', '--frames', '3', '--out', str(out)]) == 0
    found = json.loads(out.read_text())
    assert 'no GPU was measured' in found['device']
    (row,) = found['models'].values()
    assert row['weights'] == 'random'
    assert row['parameters_m'] == pytest.approx(4.41, abs=0.01)
    assert row['host_to_host_ms']['p50'] > 0
    assert row['abs_rel_to_fp32'] < 1e-3
    assert not row['is_graph_replay']
    assert row['programs'] == 2


def test_a_network_that_names_no_outputs_is_measured(tmp_path: Path) -> None:
    found = gpu_bench([RECIPES / 'monodepth2_resnet18.yaml'], tmp_path / 'gpu.json', device='cpu',
                      size=(64, 96), frames=2)
    (row,) = found['models'].values()
    assert (row['programs'], row['gflop'] > 0) == (1, True)


def test_calibration_is_plausible() -> None:
    peak = calibrate(torch.device('cpu'))
    assert 1e-4 < peak['tflop_per_s'] < 10
    assert 0.05 < peak['copy_gb_per_s'] < 1000
