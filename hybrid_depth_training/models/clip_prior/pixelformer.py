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
PixelFormer's decoder: queries for every pixel, refined at each scale by what the encoder saw.

Agarwal and Arora, "Attention Attention Everywhere: Monocular Depth Prediction with Skip Attention"
(WACV 2023). With ``width`` 64 all sizes are the paper's. Maps are (B, C, h, w); levels count from
0 (stride 4) to 3 (stride 32).
"""
from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 its usual name

from hybrid_depth_training.models.clip_prior.window_attention import WindowCrossAttention

_POOLS = (1, 2, 3, 6)  # cells along each side


class PixelQueryInitialiser(nn.Module):
    """
    The first queries, from the coarsest map seen as a whole and in 2x2, 3x3 and 6x6 parts.

    The pyramid pooling of PSPNet (Zhao et al., CVPR 2017): (B, C, h, w) -> (B, channels, h, w).
    """

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        # a 1x1 map has no statistics of its own for BatchNorm
        norms = [nn.GroupNorm(channels // 2, channels) if cells == 1 else nn.BatchNorm2d(channels)
                 for cells in _POOLS]
        self.reduce = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inputs, channels, 1, bias=False), norm, nn.ReLU())
            for norm in norms)
        self.join = nn.Sequential(
            nn.Conv2d(inputs + len(_POOLS) * channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [enlarged_to(reduce(pooled_to(x, cells)), *x.shape[2:])
                 for reduce, cells in zip(self.reduce, _POOLS, strict=True)]
        return self.join(torch.cat([x, *parts], dim=1))


def pooled_to(x: torch.Tensor, cells: int) -> torch.Tensor:
    """
    Average (B, C, h, w) over cells x cells parts, as adaptive average pooling does.

    As two matrix products, which exist for a height and width that are not known yet.
    """
    rows, columns = (_means(length, cells, x) for length in x.shape[2:])
    return rows @ x @ columns.T


def enlarged_to(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """
    Interpolate (B, C, n, n) bilinearly, with pixel centres as everywhere in this project.

    As matrix products too: an exporter takes the size it is shown for one that is always meant
    where it happens to be n.
    """
    rows, columns = (_tents(length, x.shape[-1], x) for length in (height, width))
    return rows @ x @ columns.T


def _tents(length: int, cells: int, like: torch.Tensor) -> torch.Tensor:
    """Return (length, cells): each row interpolates between the two cells around a place."""
    place = (torch.arange(length, device=like.device).to(like.dtype) + 0.5) * cells / length - 0.5
    place = place.clamp(0, cells - 1)[:, None]
    cell = torch.arange(cells, device=like.device).to(like.dtype)[None]
    return (1 - (place - cell).abs()).clamp(min=0)


def _means(length: int, cells: int, like: torch.Tensor) -> torch.Tensor:
    """Return (cells, length): each row averages a part, whose ends are rounded outwards."""
    cell = torch.arange(cells, device=like.device)[:, None]
    place = torch.arange(length, device=like.device)[None]
    # place >= floor(i l / n) is (place + 1) n > i l; place < ceil((i + 1) l / n) as it stands
    is_inside = ((place + 1) * cells > cell * length) & (place * cells < (cell + 1) * length)
    weights = is_inside.to(like.dtype)
    return weights / weights.sum(dim=1, keepdim=True)


class SkipAttention(nn.Module):
    """
    A skip attention module: the decoder's queries ask the encoder's map of the same scale.

    forward(query (B, Q, h, w), skip (B, S, h, w)) -> (B, channels, h, w). Queries are the
    decoder's, keys and values the encoder's, brought to ``channels`` where they have others (Swin
    Base has these).
    """

    def __init__(self, query: int, skip: int, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(query, channels, 3, padding=1)
        self.skip: nn.Module = nn.Identity()
        if skip != channels:
            self.skip = nn.Conv2d(skip, channels, 3, padding=1)
        self.norm_query, self.norm_skip = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = WindowCrossAttention(channels)
        self.norm_mlp, self.norm_out = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(),
                                 nn.Linear(4 * channels, channels))

    def forward(self, query: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        q = self.query(query).permute(0, 2, 3, 1)
        e = self.skip(skip).permute(0, 2, 3, 1)
        x = q + self.attention(self.norm_query(q), self.norm_skip(e))
        x = x + self.mlp(self.norm_mlp(x))
        return (self.norm_out(x) + e + q).permute(0, 3, 1, 2)


class PixelFormer(nn.Module):
    """
    The decoder.

    forward(maps): the encoder's at strides 4, 8, 16 and 32. Returns what the bins are read from at
    stride 4, (B, 2 width, H/4, W/4), and the first queries, (B, 8 width, H/32, W/32).

    ``channels`` of the maps; ``width`` is a multiple of 16, so that every level has whole heads.
    """

    def __init__(self, channels: tuple[int, ...], width: int = 64) -> None:
        super().__init__()
        self.channels, self.query_channels = 2 * width, 8 * width
        self.initialiser = PixelQueryInitialiser(channels[-1], self.query_channels)
        self.levels = nn.ModuleList(
            SkipAttention(width * 2**level, channels[level], 2 * width * 2**level)
            for level in reversed(range(len(channels))))

    def forward(self, maps: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        x = query = self.initialiser(maps[-1])
        for level, skip in zip(self.levels, reversed(maps), strict=True):
            if x is not query:
                x = F.pixel_shuffle(x, 2)
            x = level(x, skip)
        return x, query
