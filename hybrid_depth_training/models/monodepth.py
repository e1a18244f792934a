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
"""The depth network of Monodepth2: a plain encoder and a U-shaped decoder of disparity."""
from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 its usual name

from hybrid_depth.errors import ConfigError
from hybrid_depth_training.models.encoders import ENCODERS

PYRAMID_STRIDES = (2, 4, 8, 16, 32)
_DECODER_CHANNELS = (16, 32, 64, 128, 256)


def disparity_to_depth(disparity: torch.Tensor, min_depth: float,
                       max_depth: float) -> torch.Tensor:
    """
    Turn the network's ``disparity`` in 0..1 into depth between the two limits, in their unit.

    depth = 1 / (1 / max + (1 / min - 1 / max) disparity), section 3.4 of Monodepth2.
    """
    return 1 / (1 / max_depth + (1 / min_depth - 1 / max_depth) * disparity)


def disparity_logit(depth: float, min_depth: float, max_depth: float) -> float:
    """Return the x whose sigmoid is the disparity of ``depth``; the inverse of the above."""
    disparity = (1 / depth - 1 / max_depth) / (1 / min_depth - 1 / max_depth)
    return math.log(disparity / (1 - disparity))


class ConvBlock(nn.Sequential):
    """3x3 convolution with reflected edges, then ELU."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(nn.Conv2d(channels, out, 3, padding=1, padding_mode='reflect'), nn.ELU())


class DisparityDecoder(nn.Module):
    """
    The decoder of Monodepth2 (Godard et al., ICCV 2019): from five maps to four disparities.

    forward(features): one map per stride of PYRAMID_STRIDES, finest first
    returns disparities (B, 1, H / 2^s, W / 2^s) in 0..1 for s = 0..scales - 1, finest first.
    """

    def __init__(self, channels: tuple[int, ...], scales: int = 4) -> None:
        super().__init__()
        below = (*_DECODER_CHANNELS[1:], channels[-1])
        skips = (0, *channels[:-1])
        self.before = nn.ModuleList(  # index = scale: what happens at that level of the pyramid
            ConvBlock(b, c) for b, c in zip(below, _DECODER_CHANNELS, strict=True))
        self.after = nn.ModuleList(
            ConvBlock(c + s, c) for c, s in zip(_DECODER_CHANNELS, skips, strict=True))
        self.heads = nn.ModuleList(
            nn.Conv2d(c, 1, 3, padding=1, padding_mode='reflect')
            for c in _DECODER_CHANNELS[:scales])

    def forward(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        x = features[-1]
        disparities = []
        for scale in reversed(range(len(_DECODER_CHANNELS))):
            x = F.interpolate(self.before[scale](x), scale_factor=2.0, mode='nearest')
            if scale > 0:
                x = torch.cat([x, features[scale - 1]], dim=1)
            x = self.after[scale](x)
            if scale < len(self.heads):
                disparities.append(torch.sigmoid(self.heads[scale](x)))
        return disparities[::-1]

    def start_at(self, logit: float) -> None:
        """Make an untrained decoder say about sigmoid(``logit``) everywhere."""
        for head in self.heads:
            nn.init.constant_(head.bias, logit)


class Monodepth(nn.Module):
    """
    Encoder and decoder of Monodepth2.

    forward(image): (B, H, W, 3) uint8 RGB, H and W multiples of 32
    returns the disparities of DisparityDecoder. ``shallow`` and ``deep`` are its two halves.

    ``encoder`` is a row of ENCODERS whose strides are PYRAMID_STRIDES. Its own normalisation is
    used: that of its pretraining. Raises ConfigError for other encoders.
    """

    def __init__(self, encoder: str = 'resnet18', weights: str = 'imagenet',
                 scales: int = 4) -> None:
        super().__init__()
        self.encoder = pyramid_encoder(encoder, weights)
        self.register_buffer('mean', torch.tensor(self.encoder.mean).view(1, 3, 1, 1) * 255)
        self.register_buffer('std', torch.tensor(self.encoder.std).view(1, 3, 1, 1) * 255)
        self.decoder = DisparityDecoder(self.encoder.channels, scales)
        self.matching_channels = self.encoder.channels[1]

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return self.deep(image, self.shallow(image))

    def shallow(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return the encoder's maps at strides 2 and 4; the last has ``matching_channels``."""
        return self.encoder((image.permute(0, 3, 1, 2).float() - self.mean) / self.std, last=2)

    def deep(self, image: torch.Tensor, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return the disparities from those maps; the image itself is not needed again."""
        return self.decoder([*maps, *self.encoder(maps[-1], first=2)])


def pyramid_encoder(name: str, weights: str) -> nn.Module:
    """Make the encoder ``name``. Raises ConfigError where it has no map at each stride."""
    if name not in ENCODERS:
        raise ConfigError(f'unknown encoder {name!r}; known: {list(ENCODERS)} and hybrid')
    strides = tuple(ENCODERS[name].strides)
    if strides != PYRAMID_STRIDES:
        raise ConfigError(f'encoder {name} has maps at strides {strides}; this network needs '
                          f'{PYRAMID_STRIDES}: use resnet18 or efficientnet_lite0')
    return ENCODERS[name](weights)
