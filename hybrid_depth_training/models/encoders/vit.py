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
"""What vision transformers share: which blocks are read, positions for any grid, token maps."""
from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 its usual name


def tap_blocks(depth: int) -> tuple[int, ...]:
    """Return the indices of the four blocks that are read: 2, 5, 8 and 11 of twelve."""
    return tuple(depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4))


def add_positions(patches: torch.Tensor, class_token: torch.Tensor,
                  positions: torch.Tensor) -> torch.Tensor:
    """
    Turn a map of patches into tokens, the class token first, with the position of each added.

    What it takes:
        patches: (B, C, h, w), any grid
        class_token: (1, 1, C)
        positions: (1, 1 + n * n, C) as learned on a square grid; resampled bicubically (without
            antialiasing, as DINOv2 does) to h x w

    Returns (B, 1 + h * w, C).
    """
    height, width = patches.shape[2:]
    side = round((positions.shape[1] - 1) ** 0.5)
    grid = positions[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(height, width), mode='bicubic', align_corners=False)
    tokens = (patches + grid).flatten(2).transpose(1, 2)
    first = (class_token + positions[:, :1]).expand(len(tokens), -1, -1)
    return torch.cat([first, tokens], dim=1)


def token_map(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Turn tokens (B, 1 + height * width, C) into the map (B, C, height, width)."""
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (height, width))


def explicit_attention(network: nn.Module) -> None:
    """
    Let every transformer in ``network`` compute attention from plain products and a softmax.

    The same numbers as the fused kernel, which no ONNX operator set below 23 has. For export.
    """
    for module in network.modules():
        if hasattr(module, 'fused_attn'):
            module.fused_attn = False
