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
Depth as bins that each image places for itself: their centres, and what a pixel expects.

AdaBins (Bhat et al., CVPR 2021), in the form of PixelFormer (Agarwal and Arora, WACV 2023): widths
that sum to 1 divide the range of depth, and a pixel's depth is the mean of the bins' centres,
weighted by its softmax over the bins.
"""
from __future__ import annotations

import torch
from torch import nn

Limit = float | torch.Tensor  # of the range: metres, or (B, 1) metres


class BinWidths(nn.Module):
    """
    PixelFormer's bin-centre predictor.

    forward(query, text): pixel queries (B, C, h, w); ``text`` is not read. Returns widths (B,
    bins) that sum to 1.
    """

    def __init__(self, channels: int, bins: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(),
                                 nn.Linear(4 * channels, bins))

    def forward(self, query: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.mlp(query.mean(dim=(2, 3))), dim=1)


def bin_centres(widths: torch.Tensor, near_m: Limit, far_m: Limit) -> torch.Tensor:
    """
    Return the centres (B, n) in metres of bins of ``widths`` (B, n), which sum to 1.

    c_i = near + (far - near) (w_i / 2 + sum of w_j, j < i): ascending, within the range.
    """
    return near_m + (far_m - near_m) * (torch.cumsum(widths, dim=1) - widths / 2)


def expected_depth(logits: torch.Tensor,
                   centres: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Return mean and mean absolute deviation of depth over the bins, both (B, 1, h, w) metres.

    ``logits`` (B, n, h, w) of every pixel, ``centres`` (B, n) of the image. The deviation is the
    scale of the Laplace distribution that has it; a standard deviation would hang on the last
    bits of the weights of bins far away.
    """
    p = torch.softmax(logits, dim=1)
    values = centres[:, :, None, None]
    mean = (p * values).sum(dim=1, keepdim=True)
    return mean, (p * (values - mean).abs()).sum(dim=1, keepdim=True) + 1e-6  # has a logarithm
