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
The multi-frame network of ManyDepth: matching with earlier frames, half-way through an encoder.

Watson et al., "The Temporal Opportunist: Self-Supervised Multi-Frame Monocular Depth" (CVPR 2021),
for any convolutional encoder, or the CLIP half of the hybrid one.
"""
from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

from hybrid_depth_training.geometry import full_precision, scale_K
from hybrid_depth_training.models.cost_volume import cost_volume, CostVolume, DepthRange

MATCHING_STRIDE = 4


class Trunk(Protocol):
    """
    A single-frame network that can be stopped at stride 4 and sent on with another map.

    models.monodepth.Monodepth is one, models.hybrid.HybridDepth another.
    """

    matching_channels: int

    def shallow(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return the maps up to stride 4 of (B, H, W, 3) uint8; the last is matched."""

    def deep(self, image: torch.Tensor, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return the disparities, finest first, from those maps."""


class Manydepth(nn.Module):
    """
    A trunk, the cost volume at stride 4 and the convolution that joins them.

    forward(image, K, source_features, source_T_target, source_valid):
        image (B, H, W, 3) uint8 RGB; K (B, 3, 3) of its pixels; source_features (B, S, C, h, w) as
        the method of that name gives them; source_T_target (B, S, 4, 4) in the unit of
        ``depth_range``; source_valid (B, S), 0 = leave this source out
    returns the disparities, finest first, and the CostVolume at stride 4. Without any valid source
    the volume is zero: the network falls back to what one image shows.
    """

    def __init__(self, trunk: Trunk, bins: int = 96, is_inverse: bool = False,
                 start_range: tuple[float, float] = (0.1, 10.0)) -> None:
        super().__init__()
        self.trunk = trunk
        self.bins, self.is_inverse = bins, is_inverse
        self.depth_range = DepthRange(*start_range)
        channels = trunk.matching_channels
        join = nn.Conv2d(channels + bins, channels, 3, padding=1)
        # starts as the trunk alone: a random map half-way would undo what the trunk has learned
        nn.init.dirac_(join.weight)
        nn.init.zeros_(join.bias)
        self.reduce = nn.Sequential(join, nn.ReLU())

    @torch.no_grad()
    def source_features(self, images: torch.Tensor) -> torch.Tensor:
        """Return what is matched of (B, S, H, W, 3) uint8: (B, S, C, H / 4, W / 4)."""
        maps = self.trunk.shallow(images.flatten(0, 1))[-1]
        return maps.unflatten(0, images.shape[:2])

    def forward(self, image: torch.Tensor, K: torch.Tensor, source_features: torch.Tensor,
                source_T_target: torch.Tensor, source_valid: torch.Tensor,
                ) -> tuple[list[torch.Tensor], CostVolume]:
        *before, current = self.trunk.shallow(image)
        with full_precision(current):
            # a feature may sit half a cell off its half-pixel place, in both images alike: what
            # that leaves of the error is its change along the motion, far below a cell
            volume = cost_volume(current, source_features, scale_K(K, MATCHING_STRIDE),
                                 source_T_target, source_valid,
                                 self.depth_range.bins(self.bins, self.is_inverse))
        joined = self.reduce(torch.cat([current, volume.cost.to(current.dtype)], dim=1))
        return self.trunk.deep(image, [*before, joined]), volume
