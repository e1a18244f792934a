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
"""An objective of a few weights, for tests of the loop that trains it."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hybrid_depth_training.objectives import Batch, Objective


@dataclass(frozen=True)
class ToyOptions:
    bad_from: int = -1  # first step whose loss is not finite
    bad_until: int = 10**9
    channels: int = 4


class Toy(Objective):
    """Log depth from colour; its dropout makes it depend on torch's random state."""

    Options = ToyOptions

    def __init__(self, options: Mapping[str, Any], lr: float, encoder_lr: float,
                 steps: int) -> None:
        super().__init__(options, lr, encoder_lr, steps)
        self.network = nn.Sequential(nn.Conv2d(3, self.settings.channels, 1), nn.Dropout(0.5),
                                     nn.Conv2d(self.settings.channels, 1, 1))
        self.unused = nn.Linear(2, 2)  # as an objective has that learns in stages

    def loss(self, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        error = self._error(batch)
        if 0 <= self.settings.bad_from <= step < self.settings.bad_until:
            error = error * torch.nan
        return {'loss': error, 'error': error}

    def validate(self, batch: Batch) -> dict[str, float]:
        return {'error': float(self._error(batch))}

    def _error(self, batch: Batch) -> torch.Tensor:
        log_depth = self.network(batch['image'].permute(0, 3, 1, 2) / 255)
        has_truth = torch.isfinite(batch['depth_m'])
        return (log_depth[has_truth] - batch['depth_m'][has_truth].log()).abs().mean()
