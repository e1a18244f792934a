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
"""What a distribution over candidate depths says: the best, how sure it is, what else may be."""
from __future__ import annotations

import math
from typing import NamedTuple

import torch

from hybrid_depth_training.models.sweep import sum_over, unfolded


class Peak(NamedTuple):
    """What a distribution over the planes says; each (B, 1, h, w)."""

    log_depth: torch.Tensor  # expected, around the most likely plane
    mass: torch.Tensor  # the probability found there
    entropy: torch.Tensor  # relative to that of complete ignorance, 0..1


def peak(logits: torch.Tensor, log_planes: torch.Tensor, window: int = 2) -> Peak:
    """
    Read the distribution softmax(logits) over evenly spaced planes.

    logits (B, D, h, w), log_planes (1, D, 1, 1).

    ``window`` planes on either side of the best count as the same hypothesis. A mean over all
    planes would lie between two hypotheses where neither is.
    """
    count = logits.shape[1]
    best = logits.argmax(dim=1, keepdim=True)
    relative = logits - torch.gather(logits, 1, best)
    p = torch.exp(relative)  # up to the sum: one pass less than a softmax
    total = sum_over(p)
    steps = torch.arange(-window, window + 1, device=logits.device).view(1, -1, 1, 1)
    planes = (best + steps).clamp(0, count - 1)
    # a look-up of the few around the best in place of a mask over all
    near = torch.gather(p, 1, planes) * (planes == best + steps).to(p.dtype)
    near_total = sum_over(near)
    beside = sum_over(near * steps.to(p.dtype)) / near_total
    entropy = torch.log(total) - sum_over(p * relative) / total
    spacing = log_planes[:, 1:2] - log_planes[:, :1]
    return Peak(log_planes[:, :1] + spacing * (best.to(p.dtype) + beside), near_total / total,
                entropy / math.log(count))


def unfolded_peak(logits: torch.Tensor, log_planes: torch.Tensor, height: int,
                  width: int) -> Peak:
    """Return ``peak`` of folded logits (B, D, 1, height width), as maps."""
    maps = unfolded(torch.cat(peak(logits, log_planes), dim=1), height, width)
    return Peak(maps[:, :1], maps[:, 1:2], maps[:, 2:])
