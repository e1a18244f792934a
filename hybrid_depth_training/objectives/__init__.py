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
What can be trained: a table of objectives, each a network together with its loss.

Adding one: a module with a subclass of Objective and a row in OBJECTIVES. The training loop knows
nothing of networks and losses; an objective knows nothing of files, schedules and checkpoints.
"""
from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from typing import Any, TypeVar

import torch
from torch import nn

from hybrid_depth.errors import ConfigError

Batch = dict[str, Any]  # tensors, and the captions, as collate() in views.py makes it
Options = TypeVar('Options')

# name -> 'module:class'; the class is built from (options, lr, encoder_lr, steps)
OBJECTIVES: dict[str, str] = {
    'supervised': 'hybrid_depth_training.objectives.supervised:Supervised',
    'posed': 'hybrid_depth_training.objectives.supervised:PosedSupervised',
    'coarse': 'hybrid_depth_training.objectives.coarse:Coarse',
    'monodepth2': 'hybrid_depth_training.objectives.hosts:Monodepth2',
    'manydepth': 'hybrid_depth_training.objectives.hosts:ManydepthHost',
    'clip_prior': 'hybrid_depth_training.objectives.clip_prior:ClipPrior',
}


class Objective(nn.Module):
    """
    A network and its loss.

    ``Options`` of a subclass is its frozen dataclass of settings; ``settings`` holds them.
    """

    Options: type
    network: nn.Module  # what is exported

    def __init__(self, options: Mapping[str, Any], lr: float, encoder_lr: float,
                 steps: int) -> None:
        super().__init__()
        self.settings = read_options(self.Options, options)
        self.lr, self.encoder_lr, self.steps = lr, encoder_lr, steps

    @staticmethod
    def blank(options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the same options with nothing read from elsewhere: a checkpoint will fill it."""
        return dict(options)

    @abstractmethod
    def loss(self, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """Return 0-d tensors: 'loss' is minimised, the others are logged."""

    @abstractmethod
    def validate(self, batch: Batch) -> dict[str, float]:
        """Return figures of one held-out view; the loop averages them over the views."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the optimizer's groups with their highest learning rates."""
        return [{'params': [p for p in self.parameters() if p.requires_grad], 'lr': self.lr}]


def make_objective(name: str, options: Mapping[str, Any], lr: float, encoder_lr: float,
                   steps: int, blank: bool = False) -> Objective:
    """
    Build the row ``name`` of OBJECTIVES; ``blank`` reads no initial weights from elsewhere.

    Raises ConfigError on an unknown name or option.
    """
    kind = objective_class(name)
    return kind(kind.blank(options) if blank else options, lr, encoder_lr, steps)


def objective_class(name: str) -> type[Objective]:
    """Return the class of the row ``name``. Raises ConfigError where there is none."""
    if name not in OBJECTIVES:
        raise ConfigError(f'unknown objective {name!r}; known: {", ".join(OBJECTIVES)}')
    module, _, class_name = OBJECTIVES[name].partition(':')
    kind: type[Objective] = getattr(import_module(module), class_name)
    return kind


def read_options(kind: type[Options], options: Mapping[str, Any]) -> Options:
    """Fill the dataclass ``kind``. Raises ConfigError on an unknown or a missing key."""
    known = {entry.name for entry in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(options) - known)
    if unknown:
        raise ConfigError(f'unknown options {unknown}; known: {sorted(known)}')
    for entry in fields(kind):  # type: ignore[arg-type]
        value = options.get(entry.name, False)
        if entry.type in ('bool', bool) and not isinstance(value, bool):
            raise ConfigError(f'{entry.name} is {value!r}; expected true or false')
    try:
        return kind(**options)
    except TypeError as error:
        raise ConfigError(f'options of {kind.__qualname__}: {error}') from error
