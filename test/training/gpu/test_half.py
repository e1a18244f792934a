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
"""What is rounded to half precision in a torch network, and what is not."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from hybrid_depth_training.gpu.feed import deployed, street_frames  # noqa: E402
from hybrid_depth_training.gpu.half import (  # noqa: E402
    exact_layers,
    halve,
    named_outputs,
    TypedByWeights,
)

COMPACT = Path(__file__).resolve().parents[3] / 'config' / 'training' / 'compact.yaml'


class Matching(nn.Module):
    """Layers named after what they lead to."""

    outputs = ('depth', 'features', 'single_depth')

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.match = nn.Conv2d(4, 4, 1)
        self.inner = nn.Conv2d(4, 4, 1)
        self.norm = nn.LayerNorm(4)
        self.mix = nn.Linear(4, 4)
        self.single = nn.Conv2d(4, 1, 1)
        self.trust = nn.Conv2d(4, 1, 1)
        self.said = nn.Conv2d(4, 1, 1)
        self.requires_grad_(False)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = F.relu(self.first(image.permute(0, 3, 1, 2).float() / 255))
        features = self.match(x)
        inner = self.mix(self.norm(self.inner(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        single = self.single(inner)
        trust = torch.sigmoid(self.trust(inner))
        return self.said(inner) * trust, features, single.exp()


def image() -> torch.Tensor:
    return torch.randint(0, 256, (1, 8, 8, 3), dtype=torch.uint8,
                         generator=torch.Generator().manual_seed(0))


def test_layers_alone_are_rounded() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Linear(2, 2),
                            nn.Linear(2, 2))
    halve(network, [network[3]])
    half, single = [torch.float16] * 2, [torch.float32] * 2
    assert [p.dtype for p in network.parameters()] == [*half, *single, *half, *single]
    assert network[1].running_mean.dtype == torch.float32


def test_what_says_a_depth_and_what_is_matched_stays() -> None:
    network = Matching()
    found = exact_layers(network, [image()])
    names = {module: name for name, module in network.named_modules()}
    assert {names[layer] for layer in found} == {'first', 'match', 'single', 'said'}
    assert not any(p.requires_grad for p in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


def test_half_precision_stays_near() -> None:
    network = Matching()
    with torch.no_grad():
        expected = named_outputs(network, network(image()))
        halve(network, exact_layers(network, [image()]))
        with TypedByWeights():
            found = named_outputs(network, network(image()))
    torch.testing.assert_close(found['features'], expected['features'])  # never rounded
    assert found['depth'].dtype == torch.float32
    for name in ('depth', 'single_depth'):
        error = (found[name] - expected[name]).abs().mean() / expected[name].abs().mean()
        assert 0 < error < 0.01


def test_geometry_is_not_rounded_where_autocast_would() -> None:
    K = torch.tensor([[400.3, 0, 319.7], [0, 400.3, 95.1], [0, 0, 1]])
    rays = torch.rand(3, 50, generator=torch.Generator().manual_seed(0))
    with TypedByWeights():
        torch.testing.assert_close(K @ rays, torch.matmul(K, rays), rtol=0, atol=0)
        assert (K @ rays).dtype == torch.float32
    with torch.autocast('cpu', torch.float16):
        assert (K @ rays - K.double() @ rays.double()).abs().max() > 0.1  # of a pixel
    with TypedByWeights():
        assert (K @ rays - K.double() @ rays.double()).abs().max() < 1e-3


def test_factors_come_in_one_type() -> None:
    half, single = torch.ones(1, 2, 4, 4).half(), torch.ones(1, 2, 4, 4)
    with TypedByWeights():
        for product in (half @ single, single @ half, torch.matmul(single, half),
                        F.scaled_dot_product_attention(half, single, single)):
            assert product.dtype == torch.float16
        assert nn.LayerNorm(4)(half).dtype == torch.float32
        assert nn.GroupNorm(1, 2)(half).dtype == torch.float32
        grid = torch.zeros(1, 4, 4, 2)
        assert F.grid_sample(half, grid, align_corners=False).dtype == torch.float32


def test_outputs_have_names() -> None:
    tensor = torch.ones(1)
    assert list(named_outputs(nn.Identity(), tensor)) == ['depth']
    assert list(named_outputs(nn.Identity(), [tensor, tensor])) == ['depth']
    assert list(named_outputs(Matching(), (tensor, tensor, tensor))) == [
        'depth', 'features', 'single_depth']


class HostTensors(TorchDispatchMode):
    """Notes what touches a tensor that is not on the device: a CUDA graph could not hold it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (),
                           kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in torch.utils._pytree.tree_leaves((args, kwargs, result))
                   if isinstance(leaf, torch.Tensor)]
        if any(tensor.device.type == 'cpu' for tensor in tensors):
            self.found.append(str(func))
        return result


def test_a_frame_makes_nothing_on_the_host() -> None:
    network = deployed(COMPACT)
    (frame,) = street_frames(network, (64, 96), 2, 1)
    network.to('meta')
    for part in network.modules():  # those that the state does not hold
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, buffer.to('meta'))
    with torch.no_grad(), HostTensors() as seen:
        network(*[torch.from_numpy(value).to('meta') for value in frame.values()])
    # the frame itself, on its way, and nothing besides
    assert seen.found.count('aten._to_copy.default') == len(frame)
    assert set(seen.found) <= {'aten._to_copy.default', 'aten.detach.default',
                               'aten.lift_fresh.default'}
