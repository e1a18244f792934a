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
The compact single-frame network: small enough for a CPU, metric through the intrinsics.

Two things make its depth metric for a camera it never saw. Each decoder level is told the viewing
ray of every pixel (as in CAM-Convs, Facil et al., CVPR 2019), from which the ground plane's depth
follows; and what it predicts is depth divided by focal length (the canonical camera of Metric3D,
Yin et al., ICCV 2023), because the size at which a thing appears fixes only that quotient.
"""
from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 its usual name

from hybrid_depth_training.models.encoders import ENCODERS

REFERENCE_FOCAL_PX = 370.0
# The network may say "farther than any range a node is run at".
MIN_DEPTH_M, MAX_DEPTH_M = 0.1, 200.0
LOG_SIGMA_RANGE = (math.log(0.01), math.log(1.0))
_RAY_CHANNELS = 3


class Level(nn.Module):
    """One decoder step: upsample by 2, join the encoder's map and the rays, two convolutions."""

    def __init__(self, coarse: int, skip: int, out: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(coarse, out, 1)
        self.join = nn.Conv2d(out + skip + _RAY_CHANNELS, out, 3, padding=1)
        self.refine = nn.Conv2d(out, out, 3, padding=1)

    def forward(self, coarse: torch.Tensor, skip: torch.Tensor,
                rays: torch.Tensor) -> torch.Tensor:
        # reducing before upsampling is the same function at a quarter of the cost
        up = double(self.reduce(coarse))
        x = F.relu(self.join(torch.cat([up, skip, rays], dim=1)))
        return F.relu(x + self.refine(x))


class SingleFrame(NamedTuple):
    """What a single-frame network says, with what a refinement builds on."""

    log_depth: torch.Tensor  # (B, 1, H/2, W/2) natural log of metres along +Z
    log_b: torch.Tensor  # same shape: log of the Laplace scale of the error of log_depth
    shallow: list[torch.Tensor]  # local image features at strides 2 and 4


class CompactDepth(nn.Module):
    """
    Encoder, ray-aware decoder, metric depth and its uncertainty.

    forward(image, K):
        image (B, H, W, 3) uint8 RGB; K (B, 3, 3) float32, pixels of that image
    returns log_depth (B, 1, H, W), natural log of metres along +Z, and log_b, same shape, the log
    of the Laplace scale of the error of log_depth.
    """

    size_multiple = 32

    def __init__(self, encoder: str = 'efficientnet_lite0', weights: str = 'imagenet',
                 decoder_channels: tuple[int, ...] = (128, 80, 48, 32),
                 more_channels: tuple[int, ...] = (0, 0, 0, 0)) -> None:
        super().__init__()
        self.encoder = ENCODERS[encoder](weights)
        self.register_buffer('mean', torch.tensor(self.encoder.mean).view(1, 3, 1, 1) * 255)
        self.register_buffer('std', torch.tensor(self.encoder.std).view(1, 3, 1, 1) * 255)
        channels = self.encoder.channels
        self.context = nn.Conv2d(channels[-1] + _RAY_CHANNELS, decoder_channels[0], 3, padding=1)
        coarse = (decoder_channels[0], *decoder_channels[:-1])
        skips = channels[-2::-1]
        self.levels = nn.ModuleList(
            Level(c, s + m, o)
            for c, s, m, o in zip(coarse, skips, more_channels, decoder_channels, strict=True))
        self.shallow_channels = channels[:2]
        self.head = nn.Conv2d(decoder_channels[-1], 2, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        # start from 10 m at the reference focal length, within a factor of about 1.3
        self.head.bias.data = torch.tensor([math.log(10.0), math.log(0.3)])

    def normalised(self, image: torch.Tensor) -> torch.Tensor:
        """Turn (B, H, W, 3) uint8 RGB into what the encoder takes."""
        return (image.permute(0, 3, 1, 2).float() - self.mean) / self.std

    def shallow(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return the encoder's maps at strides 2 and 4 alone, at a tenth of the cost."""
        maps: list[torch.Tensor] = self.encoder(self.normalised(image), last=2)
        return maps

    def joined(self, image: torch.Tensor, skips: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return what the decoder's levels join, coarse to fine; here the encoder's own maps."""
        return skips

    def single_frame(self, image: torch.Tensor, K: torch.Tensor) -> SingleFrame:
        """Run the network; see ``forward`` for the inputs."""
        height, width = image.shape[1], image.shape[2]
        features = self.encoder(self.normalised(image))
        strides = self.encoder.strides
        x = torch.cat([features[-1], ray_map(K, height, width, strides[-1])], dim=1)
        x = F.relu(self.context(x))
        skips = self.joined(image, features[-2::-1])
        for level, skip, stride in zip(self.levels, skips, strides[-2::-1], strict=True):
            x = level(x, skip, ray_map(K, height, width, stride))
        x = self.head(x)
        log_focal = torch.log(K[:, 0, 0] / REFERENCE_FOCAL_PX).view(-1, 1, 1, 1)
        # depth is bounded at export only: a clamp has no gradient outside
        return SingleFrame(x[:, :1] + log_focal, x[:, 1:].clamp(*LOG_SIGMA_RANGE), features[:2])

    def forward(self, image: torch.Tensor, K: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        single = self.single_frame(image, K)
        return double(single.log_depth), double(single.log_b)


def double(x: torch.Tensor) -> torch.Tensor:
    """Upsample (B, C, h, w) by 2, bilinear with pixel centres as everywhere in this project."""
    return F.interpolate(x, scale_factor=2.0, mode='bilinear', align_corners=False)


def ray_map(K: torch.Tensor, height: int, width: int, stride: int = 1) -> torch.Tensor:
    """
    Return (x/z, y/z, log of relative focal length) of an image's cells of ``stride`` pixels.

    K (B, 3, 3), height and width in pixels; (B, 3, height / stride, width / stride), each the mean
    of its pixels, which is the ray of the cell's centre. Pixel centres are at integers, as
    everywhere in this project.
    """
    def centres(length: int) -> torch.Tensor:
        cells = torch.arange(length // stride, device=K.device, dtype=K.dtype)
        return (cells + 0.5) * stride - 0.5
    fx, fy = K[:, 0, 0].view(-1, 1, 1, 1), K[:, 1, 1].view(-1, 1, 1, 1)
    cx, cy = K[:, 0, 2].view(-1, 1, 1, 1), K[:, 1, 2].view(-1, 1, 1, 1)
    u, v = centres(width).view(1, 1, 1, -1), centres(height).view(1, 1, -1, 1)
    ones = torch.ones_like(u * v)
    return torch.cat([(u - cx) / fx * ones, (v - cy) / fy * ones,
                      torch.log(fx / REFERENCE_FOCAL_PX) * ones], dim=1)
