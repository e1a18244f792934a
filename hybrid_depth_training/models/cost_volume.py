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
The cost volume of ManyDepth: how badly other views match at every assumed depth.

Watson et al., "The Temporal Opportunist: Self-Supervised Multi-Frame Monocular Depth" (CVPR 2021),
section 3.1. Maps are at feature resolution (h, w), and so is K.
"""
from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from hybrid_depth_training.geometry import is_inside, pixel_grid, project, sample, transform

EDGE_PX = 2.0  # features this near the border were computed from padding: no evidence
_RANGE_MARGIN = 0.1  # the searched range is wider than what the teacher saw, by this share
_RANGE_MEMORY = 0.99
_NEAREST = 0.1


class CostVolume(NamedTuple):
    """What matching says, all without gradient."""

    cost: torch.Tensor  # (B, D, h, w) mean absolute feature difference; 0 without confidence
    confidence: torch.Tensor  # (B, 1, h, w) 1.0 where every bin was seen by some source, else 0.0
    best_depth: torch.Tensor  # (B, 1, h, w) depth of the least cost; the nearest bin without any


def depth_bins(near: torch.Tensor, far: torch.Tensor, count: int,
               is_inverse: bool = False) -> torch.Tensor:
    """
    Return ``count`` depths from ``near`` to ``far`` (0-d), ends included.

    Evenly spaced in depth, as in ManyDepth, or in inverse depth where ``is_inverse``.
    """
    steps = torch.linspace(0, 1, count, device=near.device)
    if is_inverse:
        return 1 / (1 / near + (1 / far - 1 / near) * steps)
    return near + (far - near) * steps


@torch.no_grad()
def cost_volume(target: torch.Tensor, sources: torch.Tensor, K: torch.Tensor,
                source_T_target: torch.Tensor, source_valid: torch.Tensor,
                bins: torch.Tensor) -> CostVolume:
    """
    Sweep planes parallel to the target image through the ``bins`` and compare features there.

    Cost = mean over channels of |F_t - F_s(warped)|, then the mean over the sources that see the
    point (at least EDGE_PX inside their image). Target pixels as near to the border have no
    evidence. Bins that no source sees get the pixel's highest cost, and a pixel with any such bin
    has no confidence; without confidence the cost is 0 in all bins, which the network knows as "no
    evidence". A source that is not valid counts for nothing.

    What it takes:
        target: (B, C, h, w)
        sources: (B, S, C, h, w)
        K: (B, 3, 3) of the feature maps (geometry.scale_K)
        source_T_target: (B, S, 4, 4), translation in the unit of ``bins``
        source_valid: (B, S), 0 = leave out
        bins: (D,) depths
    """
    height, width = target.shape[2:]
    target, sources = target.float(), sources.float()
    pixels = pixel_grid(height, width, target)
    rays = (torch.linalg.inv(K) @ pixels.view(3, -1)).view(-1, 3, height, width)
    in_frame = is_inside(pixels[None, :2], torch.ones_like(pixels[None, :1]), height, width,
                         EDGE_PX)
    total = target.new_zeros(len(target), len(bins), height, width)
    count = torch.zeros_like(total)
    for index in range(sources.shape[1]):
        valid = (source_valid[:, index] > 0).view(-1, 1, 1, 1) & in_frame
        for d, depth in enumerate(bins):
            seen_at, z = project(transform(source_T_target[:, index], depth * rays), K)
            sees = (is_inside(seen_at, z, height, width, EDGE_PX) & valid)[:, 0].float()
            warped = sample(sources[:, index], seen_at, padding='zeros')
            total[:, d] += (target - warped).abs().mean(dim=1) * sees
            count[:, d] += sees
    has_evidence = count > 0
    cost = total / count.clamp(min=1)
    highest = cost.amax(dim=1, keepdim=True)
    cost = torch.where(has_evidence, cost, highest)
    confidence = has_evidence.all(dim=1, keepdim=True).float()
    best_depth = bins[cost.argmin(dim=1, keepdim=True)]
    return CostVolume(cost * confidence, confidence, best_depth)


class DepthRange(nn.Module):
    """
    The range of depth that is worth searching, learned from what the single-frame teacher says.

    An exponential moving average (ManyDepth, section 3.2) that is saved with the model. In the
    teacher's unit: metres where it is trained on metric poses.
    """

    def __init__(self, near: float = 0.1, far: float = 10.0) -> None:
        super().__init__()
        self.register_buffer('near', torch.tensor(float(near)))
        self.register_buffer('far', torch.tensor(float(far)))

    @torch.no_grad()
    def update(self, depth: torch.Tensor) -> None:
        """Move the range towards that of ``depth`` (B, 1, H, W), each image's least and most."""
        nearest = depth.amin(dim=(1, 2, 3)).mean() * (1 - _RANGE_MARGIN)
        farthest = depth.amax(dim=(1, 2, 3)).mean() * (1 + _RANGE_MARGIN)
        self.near.lerp_(nearest.clamp(min=_NEAREST).float(), 1 - _RANGE_MEMORY)
        self.far.lerp_(farthest.float(), 1 - _RANGE_MEMORY)

    def bins(self, count: int, is_inverse: bool = False) -> torch.Tensor:
        """Return ``count`` depths over the range, (D,)."""
        return depth_bins(self.near, self.far, count, is_inverse)
