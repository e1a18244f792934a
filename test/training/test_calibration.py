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
"""Sigma is scaled so that 68 % of the errors fall within it, on scenes that were never seen."""
from dataclasses import replace
import math
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from torch import nn  # noqa: E402

from hybrid_depth.errors import ConfigError  # noqa: E402
from hybrid_depth_training import calibration, losses, views  # noqa: E402
from hybrid_depth_training.calibration import calibrate, SigmaScale  # noqa: E402
from hybrid_depth_training.deploy import export as export_module  # noqa: E402
from hybrid_depth_training.models.compact import double, SingleFrame  # noqa: E402
from hybrid_depth_training.models.posed import PosedDepth  # noqa: E402

DEPTH_M, B = 10.0, 0.02
K = torch.tensor([[[70.0, 0.0, 47.5], [0.0, 70.0, 31.5], [0.0, 0.0, 1.0]]])
RUN = Path('run')


class Constant(nn.Module):
    """Says DEPTH_M with the Laplace scale B of any image; a single-frame network otherwise."""

    provenance, size_multiple, shallow_channels = 'nothing', 32, (4, 4)

    def __init__(self) -> None:
        super().__init__()
        self.paint = nn.Conv2d(3, 4, 1)

    def shallow(self, image):
        x = self.paint(image.permute(0, 3, 1, 2) / 255)
        return [nn.functional.avg_pool2d(x, stride) for stride in (2, 4)]

    def single_frame(self, image, K):
        batch, height, width, _ = image.shape
        log_depth = torch.full((batch, 1, height // 2, width // 2), math.log(DEPTH_M))
        return SingleFrame(log_depth, torch.full_like(log_depth, math.log(B)),
                           self.shallow(image))

    def forward(self, image, K):
        single = self.single_frame(image, K)
        return double(single.log_depth), double(single.log_b)


def truth(b: float, seed: int = 0, count: int = 64 * 96) -> torch.Tensor:
    """Return depths whose error relative to DEPTH_M is a Laplace variable of scale ``b``."""
    share = (torch.arange(count) + 0.5) / count
    error = torch.distributions.Laplace(0.0, b).icdf(share)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return (DEPTH_M * (1 + error))[order].view(1, 1, 64, 96)


def view(b: float, seed: int = 0, sources: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    motion = torch.eye(4)
    motion[0, 3] = -0.4
    valid = torch.tensor([[float(sources > 0), float(sources > 1)]])
    return {'image': torch.randint(0, 256, (1, 64, 96, 3), dtype=torch.uint8,
                                   generator=generator),
            'K': K, 'depth_m': truth(b, seed), 'source_T_target': motion.expand(1, 2, 4, 4),
            'source_image': torch.randint(0, 256, (1, 2, 64, 96, 3), dtype=torch.uint8,
                                          generator=generator),
            'source_valid': valid, 'source_posed': valid}


@pytest.fixture
def held_out(monkeypatch):
    """Return a function that sets what a run holds out, which of it whole, and its network."""
    def choose(batches, unseen=(), network=None):
        network = network or Constant()
        config = SimpleNamespace(sources=[
            SimpleNamespace(label=name, hold_out=1.0 if name in unseen else 0.1)
            for name in batches])
        monkeypatch.setattr(export_module, 'load_config', lambda run: config)
        monkeypatch.setattr(export_module, 'load_model', lambda run, _: (1, network.eval()))
        monkeypatch.setattr(views, 'DataMix', lambda _: SimpleNamespace(
            validation=lambda: list(batches.items())))
        return network
    return choose


def test_error_per_sigma_by_hand():
    depth_m = torch.tensor([10.0, 12.0, 5.0, math.nan, math.inf])
    log_depth = torch.tensor([10.0, 10.0, 10.0, 10.0, 10.0]).log()
    log_b = torch.tensor([0.1, 0.1, 0.5, 0.1, 0.1]).log()
    # sigma = SIGMA_PER_B b depth
    assert calibration.error_per_sigma(log_depth, log_b, depth_m).tolist() == pytest.approx(
        [0, 2 / losses.SIGMA_PER_B, 5 / (5 * losses.SIGMA_PER_B)], rel=1e-5)


def test_few_frames_do_not_make_a_network_surer_than_it_is(held_out):
    held_out({'a': [view(0.5 * B, 0), view(0.5 * B, 1)]})
    assert calibrate(RUN).single == 1


@pytest.mark.parametrize('factor', [1.1, 1.6, 3.0])
def test_laplace_errors_want_the_ratio_of_the_scales(held_out, factor):
    held_out({'a': [view(factor * B, 0), view(factor * B, 1)]})
    found = calibrate(RUN)
    assert found.single == pytest.approx(factor, rel=0.01)
    assert (found.posed, found.measured_on) == (1.0, 'a, by the run run')


def test_median_over_the_sources_decides_not_their_frames(held_out):
    held_out({'a': [view(B)], 'b': [view(2 * B)], 'c': [view(9 * B, seed) for seed in range(3)]})
    found = calibrate(RUN)
    assert found.single == pytest.approx(2.0, rel=0.01)
    assert found.measured_on == 'a, b, c, by the run run'


def test_sources_that_were_never_seen_decide_alone(held_out):
    batches = {'a': [view(B)], 'unseen': [view(4 * B)], 'b': [view(B)]}
    held_out(batches, unseen=['unseen'])
    found = calibrate(RUN)
    assert found.single == pytest.approx(4.0, rel=0.01)
    assert found.measured_on == 'unseen, by the run run'


def test_nothing_held_out_is_an_error(held_out):
    held_out({})
    with pytest.raises(ConfigError, match='holds nothing out'):
        calibrate(RUN)


def test_posed_factor_is_of_views_with_sources_and_after_the_single_one(held_out):
    torch.manual_seed(0)
    network = PosedDepth(Constant())
    nn.init.constant_(network.fusion.out.bias, 0.2)  # the refinement changes sigma and depth
    held_out({'a': [view(3 * B, 0, sources=2), view(3 * B, 1), view(3 * B, 2, sources=1)]},
             network=network)
    found = calibrate(RUN)
    assert found.single == pytest.approx(3.0, rel=0.01)
    assert found.posed != pytest.approx(1.0, abs=0.05)
    # as exported, 68 % of the errors are within sigma: of the single frame, and with sources
    graph = export_module.make_exported(network, replace(found))
    for views_ in ([view(3 * B, 1)],
                   [view(3 * B, 0, sources=2), view(3 * B, 2, sources=1)]):
        inside = []
        for batch in views_:
            with torch.no_grad():
                sources = network.source_features(batch['source_image'])
                depth, sigma = graph(batch['image'], batch['K'], sources,
                                     batch['source_T_target'], batch['source_valid'])[:2]
            inside.append((depth - batch['depth_m']).abs() <= sigma)
        assert float(torch.cat(inside).float().mean()) == pytest.approx(0.6827, abs=0.01)


def test_sources_without_a_known_pose_do_not_count(held_out):
    network = PosedDepth(Constant())
    posed, unposed = view(B, 0, sources=1), view(9 * B, 1, sources=1)
    unposed['source_posed'] = torch.zeros(1, 2)
    held_out({'a': [posed, unposed]}, network=network)
    both = calibrate(RUN).posed
    held_out({'a': [posed, view(9 * B, 1)]}, network=network)
    assert both == calibrate(RUN).posed


def test_sigma_of_a_run_holds_on_what_it_held_out(tiny_config, tmp_path):
    from hybrid_depth_training.train import train
    run = tmp_path / 'run'
    train(tiny_config(steps=2), run)
    scale = calibrate(run)
    config = export_module.load_config(run)
    assert scale.measured_on.startswith(config.sources[0].label)
    _, network = export_module.load_model(run, config)
    graph = export_module.make_exported(network, scale)
    ((_, batches),) = views.DataMix(config).validation()
    inside = []
    for batch in batches:
        with torch.no_grad():
            depth, sigma = graph(batch['image'], batch['K'])
        has_truth = torch.isfinite(batch['depth_m'])
        inside.append(((depth - batch['depth_m']).abs() <= sigma)[has_truth])
    assert float(torch.cat(inside).float().mean()) == pytest.approx(0.6827, abs=0.01)


def test_factors_are_one_until_they_are_measured():
    assert SigmaScale() == SigmaScale(1.0, 1.0, 'nothing')
