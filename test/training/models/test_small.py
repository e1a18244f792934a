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
"""The hybrid single-frame network: DINO takes part, and both encoders stay as they came."""
from functools import partial
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
import onnx  # noqa: E402
from torch import nn  # noqa: E402

from hybrid_depth.contract import ModelSpec, SCHEMA  # noqa: E402
from hybrid_depth.runtime import BackendOptions  # noqa: E402
from hybrid_depth.runtime.ort import open_backend  # noqa: E402
from hybrid_depth_training.calibration import SigmaScale  # noqa: E402
from hybrid_depth_training.deploy import export as export_module  # noqa: E402
from hybrid_depth_training.models.encoders import ENCODERS  # noqa: E402
from hybrid_depth_training.models.encoders.dino import DinoV2S  # noqa: E402
from hybrid_depth_training.models.small import HybridMetricDepth  # noqa: E402
from hybrid_depth_training.objectives import make_objective  # noqa: E402

K = torch.tensor([[[70.0, 0.0, 50.0], [0.0, 72.0, 30.0], [0.0, 0.0, 1.0]]])


@pytest.fixture(scope='module', autouse=True)
def small_dino():
    """Make the tests fast: four transformer blocks instead of twelve."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, 'dinov2_vits14', partial(DinoV2S, depth=4))
        yield


def make() -> HybridMetricDepth:
    torch.manual_seed(0)
    network = HybridMetricDepth(weights='random', dino_weights='random')
    nn.init.normal_(network.head.weight, std=0.1)  # it starts at zero and hides the rest
    return network


@pytest.fixture(scope='module')
def network() -> HybridMetricDepth:
    return make().eval()


def picture(height: int = 64, width: int = 96, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (1, height, width, 3), dtype=torch.uint8,
                         generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_shapes_are_those_of_the_compact_network(network):
    for size in ((64, 96), (96, 32)):
        log_depth, log_b = network(picture(*size), K)
        assert log_depth.shape == log_b.shape == (1, 1, *size)
        single = network.single_frame(picture(*size), K)
        assert single.log_depth.shape == (1, 1, size[0] // 2, size[1] // 2)
        for found, shallow, stride, channels in zip(
                single.shallow, network.shallow(picture(*size)), (2, 4),
                network.shallow_channels, strict=True):
            assert found.shape == (1, channels, size[0] // stride, size[1] // stride)
            torch.testing.assert_close(found, shallow)


def test_encoders_stay_as_they_came():
    network = make().train()
    assert network.training
    for encoder in (network.encoder, network.dino):
        assert not any(module.training for module in encoder.modules())
        assert not any(p.requires_grad for p in encoder.parameters())
    before = {key: value.clone() for key, value in network.state_dict().items()}
    log_depth, log_b = network(picture(), K)
    (log_depth.sum() + log_b.sum()).backward()
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key]), key  # running statistics as well
    learning = {name: p for name, p in network.named_parameters() if p.requires_grad}
    assert {name.split('.')[0] for name in learning} == {'context', 'levels', 'head', 'reduce',
                                                         'to_fine'}
    assert [name for name, p in learning.items()
            if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_objective_learns_the_decoder_alone():
    options = {'network': 'hybrid', 'weights': 'random', 'dino_weights': 'random'}
    objective = make_objective('supervised', options, 1e-3, 1e-4, 10).train()
    assert isinstance(objective.network, HybridMetricDepth)
    (group,) = objective.parameter_groups()
    assert group['lr'] == 1e-3
    assert {id(p) for p in group['params']} == {
        id(p) for p in objective.parameters() if p.requires_grad}
    assert not any(module.training for module in objective.network.dino.modules())


@pytest.mark.parametrize('level', [0, 1, 2, 3])
@torch.no_grad()
def test_every_map_of_dino_has_a_say(network, level, monkeypatch):
    before = network(picture(), K)[0]
    maps = network.dino(torch.rand(1, 3, 70, 98))
    assert len(maps) == 4
    forward = network.dino.forward

    def without(image):
        return [torch.zeros_like(x) if index == level else x
                for index, x in enumerate(forward(image))]
    monkeypatch.setattr(network.dino, 'forward', without)
    assert (network(picture(), K)[0] - before).abs().mean() > 1e-5


@torch.no_grad()
def test_dino_sees_the_whole_image_in_the_colours_of_its_pretraining(network, monkeypatch):
    seen = []
    forward = network.dino.forward
    monkeypatch.setattr(network.dino, 'forward', lambda x: seen.append(x) or forward(x))
    image = torch.zeros(1, 64, 96, 3, dtype=torch.uint8)
    image[..., :] = torch.tensor([255, 0, 128])
    network(image, K)
    (x,) = seen
    assert x.shape == (1, 3, 70, 98)  # the nearest multiples of 14
    by_hand = (torch.tensor([1.0, 0.0, 128 / 255]) - torch.tensor(DinoV2S.mean)) \
        / torch.tensor(DinoV2S.std)
    torch.testing.assert_close(x[0, :, 30, 40], by_hand, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_structure_is_joined_where_it_was_seen(network):
    """The maps of DINO come beside the encoder's own, at strides 16 and 8, in their places."""
    image = picture()
    skips = network.encoder(network.normalised(image))[-2::-1]
    joined = network.joined(image, skips)
    for found, skip, more in zip(joined, skips, (4 * 64, 64, 0, 0), strict=True):
        assert found.shape == (1, skip.shape[1] + more, *skip.shape[2:])
        assert torch.equal(found[:, :skip.shape[1]], skip)
    # the left half of the image painted over: what is joined changes more there
    painted = image.clone()
    painted[:, :, :32] = 0
    change = (network.joined(painted, skips)[1] - joined[1]).abs().mean((0, 1, 2))
    assert change[:3].mean() > 1.5 * change[-3:].mean()


@pytest.mark.slow
def test_exported_graph_agrees_with_torch_at_two_sizes(network, tmp_path: Path):
    graph = export_module.make_exported(network, SigmaScale(2.0))
    spec = ModelSpec('hybrid', SCHEMA, 'single_frame', 32, 64 * 96, 0.1, 200.0, 'Apache-2.0', ())
    path = tmp_path / 'hybrid.onnx'
    # an example whose sides are no multiples of 14, as the other size
    export_module.write_onnx(graph, spec, {'image': picture(), 'K': K}, path)
    assert [entry.version for entry in onnx.load(path).opset_import
            if entry.domain == ''] == [17]
    for size in ((64, 96), (96, 160), (224, 448)):
        image = picture(*size, seed=1)
        backend = open_backend(path, spec, size, BackendOptions(cpu_threads=1))
        found = backend.infer({'image': image.numpy(), 'K': K.numpy()})
        backend.close()
        with torch.no_grad():
            depth, sigma = graph(image, K)
        np.testing.assert_allclose(found['depth'], depth.numpy(), rtol=2e-4)
        np.testing.assert_allclose(found['sigma'], sigma.numpy(), rtol=2e-4)
