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
Text-guided bin-centre prediction: the sentence has a say in where an image's depths lie.

"Single Image Depth Estimation Based on CLIP Language Prior Injection", eq. (3) to (5). As printed,
the gate is the name of a function and the widths are not normalised; here it is a gate and they
are. What the paper says of a range of depth that follows the text, without a formula, is
``TextRange``.
"""
from __future__ import annotations

import math

import torch
from torch import nn

GATE_BIAS = 2.0  # starts as 88 % image, 12 % text


class TextGuidedBinWidths(nn.Module):
    """
    forward(query (B, C, h, w), text (B, T, D)) -> widths (B, bins) that sum to 1.

    g = sigmoid(W_g [f; u] + b_g), f the mean query and u = W_u t the sentence; the widths are
    softmax(MLP(g f + (1 - g) u)).
    """

    def __init__(self, channels: int, text_dim: int, bins: int) -> None:
        super().__init__()
        self.text = nn.Linear(text_dim, channels)
        self.gate = nn.Linear(2 * channels, channels)
        nn.init.constant_(self.gate.bias, GATE_BIAS)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels),
            nn.GELU(), nn.Linear(channels, bins))

    def forward(self, query: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        image = query.mean(dim=(2, 3))
        return torch.softmax(self.mlp(self.fused(image, self.text(unit_entries(text[:, 0])))),
                             dim=1)

    def fused(self, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Return g image + (1 - g) text, all (B, C): between the two in every channel."""
        gate = torch.sigmoid(self.gate(torch.cat([image, text], dim=1)))
        return gate * image + (1 - gate) * text


class TextRange(nn.Module):
    """
    Lets the sentence move the far end of the range: far * exp(ln 2 tanh(w u)), half to twice.

    forward(text (B, T, D)) -> factor (B, 1). Starts at 1.
    """

    def __init__(self, text_dim: int) -> None:
        super().__init__()
        self.weight = nn.Linear(text_dim, 1, bias=False)
        nn.init.zeros_(self.weight.weight)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        return torch.exp(math.log(2) * torch.tanh(self.weight(unit_entries(text[:, 0]))))


def unit_entries(text: torch.Tensor) -> torch.Tensor:
    """Bring vectors of length 1, (B, D), to entries of size 1, which a fresh layer expects."""
    return text * math.sqrt(text.shape[-1])
