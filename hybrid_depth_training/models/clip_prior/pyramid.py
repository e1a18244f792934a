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
What gives the four maps at strides 4, 8, 16 and 32: Swin, a convolutional encoder, or the hybrid.

All are called with an image (B, H, W, 3) uint8 RGB, H and W multiples of 32, and have ``channels``
of the four maps. ``shallow(image)`` gives the maps at strides 2 and 4 that matching along odometry
builds on, ``with_shallow(image)`` these and the four; ``shallow_channels`` are theirs: empty where
there are none.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 its usual name

from hybrid_depth.errors import ConfigError
from hybrid_depth_training.models.clip_prior.window_attention import attend, WINDOW
from hybrid_depth_training.models.encoders import ENCODERS
from hybrid_depth_training.models.hybrid import HybridConfig, HybridDepth
from hybrid_depth_training.torchvision_guard import guarded_import
from hybrid_depth_training.weights import HubFile, load_weights, State

STRIDES = (4, 8, 16, 32)
HYBRID = 'hybrid'
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# name -> weights on ImageNet-22k, as PixelFormer starts from
SWINS: dict[str, HubFile] = {
    name: HubFile(f'timm/{name}_patch4_window7_224.ms_in22k', 'model.safetensors')
    for name in ('swin_tiny', 'swin_base', 'swin_large')}


def backbones() -> list[str]:
    """Return the names that make_pyramid knows."""
    return [*SWINS, HYBRID, *(name for name, encoder in ENCODERS.items()
                              if encoder.strides[-4:] == STRIDES)]


def make_pyramid(backbone: str, weights: str, hybrid: Mapping[str, Any]) -> nn.Module:
    """
    Build a row of ``backbones()``; ``hybrid`` holds the settings of HybridConfig for 'hybrid'.

    Raises ConfigError on an unknown name, ContractError where weights cannot be had.
    """
    if backbone not in backbones():
        raise ConfigError(f'unknown backbone {backbone!r}; known: {", ".join(backbones())}')
    if backbone in SWINS:
        return SwinPyramid(backbone, weights)
    if backbone == HYBRID:
        return HybridPyramid(HybridConfig(**hybrid))
    return EncoderPyramid(backbone, weights)


class SwinPyramid(nn.Module):
    """
    Swin Transformer (Liu et al., ICCV 2021) with timm's parts, a norm for each output.

    Its blocks are run here, by the window attention that can be exported for any image size.
    Weights: 'pretrained' (ImageNet-22k, over the network), 'random', or a file in timm's naming.
    It has no map at stride 2.
    """

    shallow_channels: tuple[int, ...] = ()

    def __init__(self, name: str, weights: str) -> None:
        super().__init__()
        guarded_import('timm')
        import timm
        swin = timm.create_model(f'{name}_patch4_window7_224', num_classes=0,
                                 strict_img_size=False, drop_path_rate=0.3)
        swin.norm = nn.Identity()
        known = set(swin.state_dict())

        def select(state: State) -> State:
            return {key: value for key, value in state.items() if key in known}
        self.provenance = load_weights(swin, weights, {'pretrained': SWINS[name]}, select)
        self.patch_embed, self.layers = swin.patch_embed, swin.layers
        self.register_buffer('edges', shift_edges(), persistent=False)
        self.channels = tuple(swin.embed_dim * 2**level for level in range(4))
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for channels in self.channels)
        self.register_buffer('mean', torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1) * 255)
        self.register_buffer('std', torch.tensor(_IMAGENET_STD).view(1, 3, 1, 1) * 255)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        x = self.patch_embed((image.permute(0, 3, 1, 2).float() - self.mean) / self.std)
        maps = []
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = layer.downsample(x)  # (B, h, w, C)
            for block in layer.blocks:
                x = run_block(block, x, self.edges)
            maps.append(norm(x).permute(0, 3, 1, 2))
        return maps


def run_block(block: nn.Module, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    """
    Run one of timm's Swin blocks on (B, h, w, C).

    Every other one shifts its windows by 3 pixels around the image; ``edges`` keeps what comes
    from opposite sides apart.
    """
    shift = block.shift_size[0]
    y = block.norm1(x)
    if shift:
        y = torch.roll(y, (-shift, -shift), dims=(1, 2))
    qkv, channels = block.attn.qkv, x.shape[-1]
    parts = [slice(start, start + channels) for start in (0, channels, 2 * channels)]
    maps = [F.linear(y, qkv.weight[part], qkv.bias[part]) for part in parts]
    y = block.attn.proj(attend(
        *maps, block.attn._get_rel_pos_bias()[0], *(qkv.bias[part] for part in parts),
        edges if shift else None))
    if shift:
        y = torch.roll(y, (shift, shift), dims=(1, 2))
    x = x + block.drop_path1(y)
    return x + block.drop_path2(block.mlp(block.norm2(x)))


def shift_edges() -> torch.Tensor:
    """Return (2, 49, 49): -100 between places of a shifted window of different sides."""
    with torch.device('cpu'):
        is_moved = torch.arange(WINDOW) >= WINDOW - WINDOW // 2
        rows = is_moved[:, None].expand(WINDOW, WINDOW).flatten()
        columns = is_moved[None].expand(WINDOW, WINDOW).flatten()
        return torch.stack([-100.0 * (side[:, None] != side[None]) for side in (rows, columns)])


class EncoderPyramid(nn.Module):
    """A convolutional row of ENCODERS."""

    def __init__(self, name: str, weights: str) -> None:
        super().__init__()
        self.encoder = ENCODERS[name](weights)
        self.channels = tuple(self.encoder.channels[-4:])
        has_half = self.encoder.strides[:2] == (2, 4)
        self.shallow_channels = tuple(self.encoder.channels[:2]) if has_half else ()
        self.register_buffer('mean', torch.tensor(self.encoder.mean).view(1, 3, 1, 1) * 255)
        self.register_buffer('std', torch.tensor(self.encoder.std).view(1, 3, 1, 1) * 255)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return self.with_shallow(image)[1]

    def with_shallow(self, image: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        maps: list[torch.Tensor] = self.encoder(self._normalised(image))
        return maps[:2], maps[-4:]

    def shallow(self, image: torch.Tensor) -> list[torch.Tensor]:
        maps: list[torch.Tensor] = self.encoder(self._normalised(image), last=2)
        return maps

    def _normalised(self, image: torch.Tensor) -> torch.Tensor:
        return (image.permute(0, 3, 1, 2).float() - self.mean) / self.std


class HybridPyramid(nn.Module):
    """
    The encoder of Hybrid-depth, whose self-supervised disparity head stays beside the bins.

    Its four aggregated maps are on one grid of patches and are resampled to the four strides.
    """

    def __init__(self, config: HybridConfig) -> None:
        super().__init__()
        self.hybrid = HybridDepth(config)
        self.channels = tuple(self.hybrid.aggregation.channels)
        clip = self.hybrid.clip
        has_half = clip is not None and clip.strides[:2] == (2, 4)
        self.shallow_channels = tuple(clip.channels[:2]) if has_half else ()

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return self.resampled(self.hybrid.encode(image), image)

    def resampled(self, features: list[torch.Tensor], image: torch.Tensor) -> list[torch.Tensor]:
        """Bring the aggregated maps of ``image`` to the four strides."""
        height, width = image.shape[1:3]
        return [F.interpolate(x, size=(height // stride, width // stride), mode='bilinear',
                              align_corners=False)
                for x, stride in zip(features, STRIDES, strict=True)]

    def shallow(self, image: torch.Tensor) -> list[torch.Tensor]:
        return self.hybrid.shallow(image)

    def with_shallow(self, image: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        return self.shallow(image), self(image)
