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
"""CLIP's image towers: features that were trained to agree with language."""
from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 its usual name

from hybrid_depth_training.models.encoders.stages import hold_statistics, run_stages
from hybrid_depth_training.models.encoders.vit import add_positions, tap_blocks, token_map
from hybrid_depth_training.torchvision_guard import guarded_import
from hybrid_depth_training.weights import HubFile, load_weights, State

CLIP_RN50_HUB = HubFile('timm/resnet50_clip.openai', 'open_clip_model.safetensors')
CLIP_VIT_B16_HUB = HubFile('timm/vit_base_patch16_clip_224.openai', 'open_clip_model.safetensors')
CLIP_VIT_L14_HUB = HubFile('timm/vit_large_patch14_clip_224.openai', 'open_clip_model.safetensors')
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_PREFIX = 'visual.'


class ClipRN50(nn.Module):
    """
    The ResNet-50 of CLIP (Radford et al., ICML 2021) through open_clip, without attention pooling.

    It differs from ResNet-50 by a stem of three convolutions and by average pooling before what
    would be strided convolutions. BatchNorm keeps the statistics of its pretraining.
    Weights: 'openai' (over the network), 'random', or a file in the naming of OpenAI or open_clip.
    """

    channels = (256, 512, 1024, 2048)
    strides = (4, 8, 16, 32)
    mean = _MEAN
    std = _STD

    def __init__(self, weights: str) -> None:
        super().__init__()
        guarded_import('open_clip')
        from open_clip.modified_resnet import ModifiedResNet
        tower = ModifiedResNet(layers=[3, 4, 6, 3], output_dim=1024, heads=32)
        self.provenance = load_weights(
            tower, weights, {'openai': CLIP_RN50_HUB, 'pretrained': CLIP_RN50_HUB}, _image_tower)
        stem = (tower.conv1, tower.bn1, tower.act1, tower.conv2, tower.bn2, tower.act2,
                tower.conv3, tower.bn3, tower.act3, tower.avgpool)
        self.stages = nn.ModuleList([
            nn.Sequential(*stem, tower.layer1), tower.layer2, tower.layer3, tower.layer4])

    def train(self, mode: bool = True) -> ClipRN50:
        super().train(mode)
        hold_statistics(self)
        return self

    def forward(self, x: torch.Tensor, first: int = 0, last: int = 4) -> list[torch.Tensor]:
        return run_stages(self.stages[first:last], x)


class ClipViTB16(nn.Module):
    """
    The ViT-B/16 of CLIP through open_clip.

    forward(image): normalised (B, 3, H, W), H and W multiples of 16
    returns four maps (B, 768, H / 16, W / 16): the patch tokens after blocks 2, 5, 8 and 11,
    as they are (CLIP's last LayerNorm is for the class token alone).

    Weights as for ClipRN50; ``depth`` as for DinoV2.
    """

    channels = (768,) * 4
    strides = (16,) * 4
    mean = _MEAN
    std = _STD
    _width = 768

    def __init__(self, weights: str, depth: int = 12) -> None:
        super().__init__()
        guarded_import('open_clip')
        from open_clip.transformer import QuickGELU, VisionTransformer
        tower = VisionTransformer(image_size=224, patch_size=16, width=self._width, layers=depth,
                                  heads=12, mlp_ratio=4.0, output_dim=512, act_layer=QuickGELU)
        self.provenance = load_weights(
            tower, weights, {'openai': CLIP_VIT_B16_HUB, 'pretrained': CLIP_VIT_B16_HUB},
            _image_tower)
        self.patches = tower.conv1
        self.class_token = tower.class_embedding
        self.positions = tower.positional_embedding
        self.norm = tower.ln_pre
        self.blocks = tower.transformer.resblocks
        self.taps = tap_blocks(depth)
        self.fused_attn = True

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        patches = self.patches(image)
        height, width = patches.shape[2:]
        x = self.norm(add_positions(patches, self.class_token.view(1, 1, -1),
                                    self.positions[None]))
        maps = []
        for index, block in enumerate(self.blocks):
            x = x + self._attention(block.attn, block.ln_1(x))
            x = x + block.mlp(block.ln_2(x))
            if index in self.taps:
                maps.append(token_map(x, height, width))
        return maps

    def _attention(self, weights: nn.MultiheadAttention, x: torch.Tensor) -> torch.Tensor:
        # nn.MultiheadAttention itself has no way to be told which kernel to use
        heads = weights.num_heads
        qkv = F.linear(x, weights.in_proj_weight, weights.in_proj_bias)
        q, k, v = qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused_attn:
            x = F.scaled_dot_product_attention(q, k, v)
        else:
            attention = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(dim=-1)
            x = attention @ v
        return weights.out_proj(x.transpose(1, 2).flatten(2))


def _image_tower(state: State) -> State:
    return {key.removeprefix(_PREFIX): value for key, value in state.items()
            if key.startswith(_PREFIX)}
