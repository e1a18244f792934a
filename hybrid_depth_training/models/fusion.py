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
Hybrid-grained aggregation: CLIP's coarse semantics and DINO's fine structure on one grid.

Hybrid-depth (arXiv 2510.09320): level i joins DINO block (2, 5, 8, 11)[i] with CLIP stage i + 1 on
DINO's patch grid, by concatenation, DINO first. No attention, no gating, no normalisation.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 its usual name

from hybrid_depth.errors import ConfigError

ALIGNMENTS = ('interp_conv1x1', 'convs2_interp')
INTERPOLATIONS = ('bilinear', 'nearest')
LEVELS = 4


class HybridAggregation(nn.Module):
    """
    Join one map of each encoder at each of four levels.

    forward(clip_maps, dino_maps, grid):
        four maps each, any sizes (dino_maps at ``grid``), or none of an encoder that is left out;
        grid = (h, w) of the patch grid
    returns four maps (B, channels, h, w), channels = DINO's + ``align_channels``.

    ``align``: 'interp_conv1x1' resamples CLIP's map to the grid, then a 1x1 convolution brings it
    to ``align_channels`` (none where it has as many: the paper's first level). 'convs2_interp' is
    the paper's alternative: strided and transposed convolutions first, then resampling.
    ``interpolation``: 'nearest' is the literal reading; the ratios are not whole numbers, so
    nearest shifts features by up to half a cell, hence 'bilinear'.
    """

    def __init__(self, clip_channels: Sequence[int], dino_channels: Sequence[int],
                 align_channels: int = 256, align: str = 'interp_conv1x1',
                 interpolation: str = 'bilinear') -> None:
        super().__init__()
        if not clip_channels and not dino_channels:
            raise ConfigError('clip and dino are both none; expected at least one encoder')
        if align not in ALIGNMENTS or interpolation not in INTERPOLATIONS:
            raise ConfigError(f'align is {align!r} and interpolation {interpolation!r}; expected '
                              f'one of {ALIGNMENTS} and of {INTERPOLATIONS}')
        self.is_resampled_first = align == 'interp_conv1x1'
        self.interpolation = interpolation
        layers = _pointwise if self.is_resampled_first else _strided
        self.align = nn.ModuleList(layers(clip_channels, align_channels))
        aligned = align_channels if clip_channels else 0
        dino = tuple(dino_channels) or (0,) * LEVELS
        self.channels = tuple(channels + aligned for channels in dino)

    def forward(self, clip_maps: Sequence[torch.Tensor], dino_maps: Sequence[torch.Tensor],
                grid: tuple[int, int]) -> list[torch.Tensor]:
        aligned = [self._aligned(layer, x, grid)
                   for layer, x in zip(self.align, clip_maps, strict=True)]
        if not dino_maps:
            return aligned
        if not aligned:
            return list(dino_maps)
        return [torch.cat(pair, dim=1) for pair in zip(dino_maps, aligned, strict=True)]

    def _aligned(self, layer: nn.Module, x: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        if self.is_resampled_first:
            return layer(self._resample(x, grid))
        return self._resample(layer(x), grid)

    def _resample(self, x: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        if self.interpolation == 'nearest':
            return F.interpolate(x, size=grid, mode='nearest')
        return F.interpolate(x, size=grid, mode='bilinear', align_corners=False)


def decimate(maps: Sequence[torch.Tensor], channels: int) -> torch.Tensor:
    """
    Concatenate maps (B, C_i, h, w) and keep ``channels`` evenly spaced ones: (B, channels, h, w).

    How the literal reading fits four levels to the text's dimension: channel floor(k C / channels)
    for k = 0 .. channels - 1, C = sum of C_i; every fourth of 4096 where the text has 1024.
    """
    joined = torch.cat(list(maps), dim=1)
    total = joined.shape[1]
    kept = torch.arange(channels, device=joined.device) * total // channels
    return joined[:, kept]


def _pointwise(clip_channels: Sequence[int], out: int) -> list[nn.Module]:
    return [nn.Identity() if c == out else nn.Conv2d(c, out, 1) for c in clip_channels]


def _strided(clip_channels: Sequence[int], out: int) -> list[nn.Module]:
    if not clip_channels:
        return []
    finest, fine, coarse, coarsest = clip_channels
    return [nn.Conv2d(finest, out, 3, stride=2, padding=1),
            nn.Conv2d(fine, out, 3, stride=2, padding=1),
            nn.Conv2d(coarse, out, 1),
            nn.ConvTranspose2d(coarsest, out, 3, stride=2, padding=1)]
