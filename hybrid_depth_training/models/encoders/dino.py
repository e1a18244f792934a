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
"""DINOv2 vision transformers: features that tell parts and surfaces apart without labels."""
from __future__ import annotations

import torch
from torch import nn

from hybrid_depth_training.models.encoders.vit import add_positions, tap_blocks, token_map
from hybrid_depth_training.torchvision_guard import guarded_import
from hybrid_depth_training.weights import HubFile, load_weights, State

PATCH = 14  # pixels


class DinoV2(nn.Module):
    """
    DINOv2 (Oquab et al., TMLR 2024) without registers, through timm.

    forward(image): normalised (B, 3, H, W), H and W multiples of 14
    returns four maps (B, C, H / 14, W / 14): the patch tokens after blocks 2, 5, 8 and 11 (counted
    from 0), each through the final LayerNorm.

    Weights: 'pretrained' (over the network), 'random', or a file in timm's or Meta's naming.
    ``depth`` below 12 (a multiple of 4, random weights only) makes a smaller one of the same kind.
    """

    channels: tuple[int, ...]
    strides = (PATCH,) * 4
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)
    _architecture: str
    _hub: HubFile

    def __init__(self, weights: str, depth: int = 12) -> None:
        super().__init__()
        timm = guarded_import('timm')
        self.vit = timm.create_model(self._architecture, pretrained=False, num_classes=0,
                                     dynamic_img_size=True, depth=depth)
        self.provenance = load_weights(self.vit, weights, {'pretrained': self._hub},
                                       _without_mask_token)
        self.taps = tap_blocks(depth)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        patches = self.vit.patch_embed.proj(image)
        height, width = patches.shape[2:]
        x = add_positions(patches, self.vit.cls_token, self.vit.pos_embed)
        maps = []
        for index, block in enumerate(self.vit.blocks):
            x = block(x)
            if index in self.taps:
                maps.append(token_map(self.vit.norm(x), height, width))
        return maps


class DinoV2S(DinoV2):
    """ViT-S/14: 22 million parameters."""

    channels = (384,) * 4
    _architecture = 'vit_small_patch14_dinov2'
    _hub = HubFile('timm/vit_small_patch14_dinov2.lvd142m', 'model.safetensors')


class DinoV2B(DinoV2):
    """ViT-B/14, the one of Hybrid-depth: 86 million parameters."""

    channels = (768,) * 4
    _architecture = 'vit_base_patch14_dinov2'
    _hub = HubFile('timm/vit_base_patch14_dinov2.lvd142m', 'model.safetensors')


def _without_mask_token(state: State) -> State:
    return {key: value for key, value in state.items() if key != 'mask_token'}
