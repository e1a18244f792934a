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
"""
How large a network is and what one image costs, without weights, data or the time to run it.

Everything happens on torch's meta device, where tensors have a shape and no values. Torch's own
counter counts the work: convolutions and matrix products, those of attention included. What has no
products (normalisation, activations, resampling) is left out, as in published figures.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
import inspect
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hybrid_depth_training.config import GroupConfig, read_config, TrainConfig
from hybrid_depth_training.models.encoders.vit import explicit_attention
from hybrid_depth_training.models.hybrid import HybridDepth
from hybrid_depth_training.objectives import make_objective

_FLOPS_PER_MAC = 2


def describe(config: TrainConfig) -> dict[str, Any]:
    """
    Return name, input, parameters_m (millions), gmac (10^9 multiply-adds) and a row per module.

    Of the network as it is deployed, one image of the largest group: text features are finished
    (the text tower, needed for training only, is under ``training_only`` with what it costs to run
    once, as are pose networks and teachers), and features of earlier images are there already.
    Raises ConfigError for an objective or options that do not exist.
    """
    with torch.device('meta'), torch.no_grad():
        objective = make_objective(config.objective, config.options, config.lr, config.encoder_lr,
                                   config.steps, blank=True).eval()
        explicit_attention(objective)
        network = objective.network
        training_only = [_row(name, _parameters(part)) for name, part in objective.named_children()
                         if part is not network]
        for name, part in network.named_modules():
            if isinstance(part, HybridDepth) and part.text is not None:
                macs = _macs(part.text_features)['Global']
                training_only.append(
                    _row(f'{name}.text'.lstrip('.'), _parameters(part.text), macs))
                part.bake_text()
        group = max(config.groups.values(), key=lambda group: group.height * group.width)
        macs = _macs(network, *_inputs(network, group))
    root = type(network).__name__
    work = {name: _by_module(part, f'{root}.{name}', macs)
            for name, part in network.named_children()}
    rows = [_row(name, _parameters(part), work[name]) for name, part in network.named_children()]
    # what the network does between its modules, such as comparing pixels with text
    rows.append(_row('(itself)', _parameters(network, False), macs[root] - sum(work.values())))
    return {
        'name': config.name,
        'objective': config.objective,
        'network': root,
        'height': group.height,
        'width': group.width,
        'parameters_m': round(_parameters(network) / 1e6, 2),
        'gmac': round(macs[root] / 1e9, 2),
        'modules': rows,
        'training_only': training_only,
    }


def describe_file(path: Path) -> dict[str, Any]:
    """Describe what the training YAML ``path`` would train. Raises ConfigError."""
    return describe(read_config(path))


def _inputs(network: nn.Module, group: GroupConfig) -> list[torch.Tensor]:
    """Return one input of each name that ``network.forward`` has."""
    images = torch.zeros(1, 1, group.height, group.width, 3, dtype=torch.uint8)
    known: dict[str, Callable[[], torch.Tensor]] = {
        'image': lambda: images[:, 0],
        'K': lambda: torch.zeros(1, 3, 3),
        'text': lambda: torch.zeros(1, network.text_dim),
        'source_features': lambda: network.source_features(images),
        'source_T_target': lambda: torch.zeros(1, 1, 4, 4),
        'source_valid': lambda: torch.zeros(1, 1),
    }
    return [known[name]() for name in inspect.signature(network.forward).parameters]


def _by_module(module: nn.Module, path: str, macs: Mapping[str, int]) -> int:
    """Return the work of a module: a list of modules is never called itself, its members are."""
    if path in macs:
        return macs[path]
    return sum(_by_module(child, f'{path}.{name}', macs)
               for name, child in module.named_children())


def _macs(function: Callable[..., Any], *inputs: torch.Tensor) -> dict[str, int]:
    with FlopCounterMode(display=False) as counter:
        function(*inputs)
    return {name: sum(by_operator.values()) // _FLOPS_PER_MAC
            for name, by_operator in counter.get_flop_counts().items()}


def _parameters(module: nn.Module, is_whole: bool = True) -> int:
    return sum(p.numel() for p in module.parameters(recurse=is_whole))


def _row(name: str, parameters: int, macs: int | None = None) -> dict[str, Any]:
    row: dict[str, Any] = {'module': name, 'parameters_m': round(parameters / 1e6, 3)}
    return row if macs is None else {**row, 'gmac': round(macs / 1e9, 3)}
