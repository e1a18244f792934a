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
"""The DPT decoder: shapes, size, range of disparity."""
import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from hybrid_depth.errors import ConfigError  # noqa: E402
from hybrid_depth_training.models.dpt import DISPARITIES, DPTDecoder  # noqa: E402

SMALL = {'in_channels': 24, 'width': 16, 'out_channels': (8, 12, 16, 16)}


def features(grid=(5, 7), channels=24):
    return [torch.randn(2, channels, *grid) for _ in range(4)]


@pytest.mark.parametrize('scales', [1, 4])
def test_disparities_halve_from_scale_to_scale(scales):
    found = DPTDecoder(**SMALL, scales=scales)(features(), (64, 96))
    assert [tuple(d.shape) for d in found] == [
        (2, 1, 64 >> s, 96 >> s) for s in range(scales)]


def test_parameters_of_the_paper():
    # 1280 channels in; 1.2 M fewer than published, whose coarsest level has a unit without use
    with torch.device('meta'):
        decoder = DPTDecoder(1280)
    unused = 2 * (9 * 256 * 256 + 256)
    assert (sum(p.numel() for p in decoder.parameters()) + unused) / 1e6 == pytest.approx(
        31.7, abs=0.05)


@pytest.mark.parametrize('kind', DISPARITIES)
def test_range_of_disparity(kind):
    torch.manual_seed(0)
    decoder = DPTDecoder(**SMALL, disparity=kind)
    torch.nn.init.normal_(decoder.head[-1].weight, std=5.0)
    with torch.no_grad():
        high, low = (decoder(features(), (64, 96))[0] for decoder.head[-1].bias.data in (
            torch.tensor([4.0]), torch.tensor([-4.0])))
    assert low.min() >= 0
    assert (high.max() <= 1) == (kind == 'sigmoid')
    assert bool((low == 0).any()) == (kind == 'relu')


@pytest.mark.parametrize('kind', DISPARITIES)
def test_start_is_where_it_was_set(kind):
    decoder = DPTDecoder(**SMALL, disparity=kind, scales=2)
    for head in (decoder.head, *decoder.coarse_heads):
        torch.nn.init.zeros_(head[-1].weight)
    decoder.start_at(-3.0)
    for disparity in decoder(features(), (32, 64)):
        assert torch.allclose(disparity, torch.sigmoid(torch.tensor(-3.0)), atol=1e-6)


def test_every_parameter_and_every_level_take_part():
    decoder = DPTDecoder(**SMALL, scales=4)
    given = [f.requires_grad_() for f in features()]
    sum(d.sum() for d in decoder(given, (64, 96))).backward()
    assert [name for name, p in decoder.named_parameters() if p.grad is None] == []
    assert all(f.grad.abs().sum() > 0 for f in given)


def test_nonsense_is_refused():
    with pytest.raises(ConfigError, match='sigmoid'):
        DPTDecoder(**SMALL, disparity='tanh')
    with pytest.raises(ConfigError, match='1 to 4'):
        DPTDecoder(**SMALL, scales=5)
