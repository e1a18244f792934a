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
"""CutDepth (Ishii and Yamashita, 2021): a rectangle of the image shows its depth instead."""
from __future__ import annotations

import torch

_SIZE = 0.75  # of the way from a corner drawn at random to the far edges, at most


def cut_depth(image: torch.Tensor, depth_m: torch.Tensor, share: float,
              max_depth_m: float) -> torch.Tensor:
    """
    Return ``image`` (B, H, W, 3) uint8 with such a rectangle in a ``share`` of its samples.

    Grey from 0 m, black, to ``max_depth_m``, white; pixels without truth stay. ``depth_m`` (B, 1,
    H, W), NaN = no truth. Drawn from torch's generator of the CPU.
    """
    result = image.clone()
    height, width = image.shape[1:3]
    for shown, depth, (chance, a, b, c, d) in zip(result, depth_m[:, 0],
                                                  torch.rand(len(image), 5).tolist(), strict=True):
        if chance >= share:
            continue
        top, left = int(a * height), int(b * width)
        bottom = top + max(1, int((height - top) * c * _SIZE))
        right = left + max(1, int((width - left) * d * _SIZE))
        part = depth[top:bottom, left:right]
        grey = (part.clamp(max=max_depth_m) * (255 / max_depth_m)).nan_to_num().to(torch.uint8)
        shown[top:bottom, left:right] = torch.where(
            part.isnan()[..., None], shown[top:bottom, left:right], grey[..., None])
    return result
