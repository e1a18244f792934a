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
"""The graphs as deployed: networks with metres and sigma at the end, one class for each kind."""
from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 its usual name

from hybrid_depth_training import losses
from hybrid_depth_training.calibration import SigmaScale
from hybrid_depth_training.models.clip_prior.network import ClipPriorDepth
from hybrid_depth_training.models.compact import MAX_DEPTH_M, MIN_DEPTH_M
from hybrid_depth_training.models.posed import PosedDepth


class ExportedDepth(nn.Module):
    """The graph as deployed: image (1, H, W, 3) uint8, K (1, 3, 3) -> depth, sigma in metres."""

    outputs = ('depth', 'sigma')

    def __init__(self, network: nn.Module, sigma: SigmaScale) -> None:
        super().__init__()
        self.network = network
        self.sigma_per_b = losses.SIGMA_PER_B * sigma.single

    def forward(self, image: torch.Tensor, K: torch.Tensor) -> tuple[torch.Tensor, ...]:
        log_depth, log_b = self.network(image, K)
        depth = torch.exp(log_depth).clamp(MIN_DEPTH_M, MAX_DEPTH_M)
        return depth, depth * torch.exp(log_b) * self.sigma_per_b


class ExportedClipPrior(nn.Module):
    """The graph that takes words: inputs and outputs as in ModelSpec, kind 'clip_prior'."""

    outputs = ('depth', 'sigma')

    def __init__(self, network: ClipPriorDepth, sigma: SigmaScale) -> None:
        super().__init__()
        self.network = network
        self.sigma_per_b = losses.SIGMA_PER_B * sigma.single

    def forward(self, image: torch.Tensor, K: torch.Tensor,
                text: torch.Tensor) -> tuple[torch.Tensor, ...]:
        log_depth, log_b = self.network(image, K, text)
        depth = torch.exp(log_depth).clamp(MIN_DEPTH_M, MAX_DEPTH_M)
        return depth, depth * torch.exp(log_b) * self.sigma_per_b


class ExportedPosed(nn.Module):
    """The recurrent graph as deployed; inputs and outputs as in ModelSpec, kind 'posed'."""

    outputs = ('depth', 'sigma', 'features', 'single_depth', 'matched_depth', 'match_weight')

    def __init__(self, network: PosedDepth, sigma: SigmaScale) -> None:
        super().__init__()
        self.network = network
        self.network.single_sigma_scale = sigma.single
        self.sigma_scale = sigma.posed

    def forward(self, image: torch.Tensor, K: torch.Tensor, source_features: torch.Tensor,
                source_T_target: torch.Tensor,
                source_valid: torch.Tensor) -> tuple[torch.Tensor, ...]:
        single = self.network.opinion_of_single(image, K)
        posed = self.network.refined(single, image, K, source_features, source_T_target,
                                     source_valid)
        any_valid = source_valid.amax(1).view(-1, 1, 1, 1)
        sigma_per_b = losses.SIGMA_PER_B * (1 + (self.sigma_scale - 1) * any_valid)
        depth = torch.exp(posed.log_depth).clamp(MIN_DEPTH_M, MAX_DEPTH_M)
        single_depth = torch.exp(F.avg_pool2d(single.log_depth, 2))
        return (depth, depth * torch.exp(posed.log_b) * sigma_per_b, posed.features,
                single_depth.clamp(MIN_DEPTH_M, MAX_DEPTH_M), torch.exp(posed.matched_log_depth),
                torch.sigmoid(posed.match_trust) * any_valid)
