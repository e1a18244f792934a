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
The decoder of dense prediction transformers (Ranftl et al., ICCV 2021, section 3), for disparity.

As Hybrid-depth uses it: no batch normalisation, no class token. All resampling is bilinear with
corners aligned, as published.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
import math

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 its usual name

from hybrid_depth.errors import ConfigError

_HIDDEN = 32  # channels before disparity, at any width
OUT_CHANNELS = (256, 512, 1024, 1024)
# name -> (from the last map to disparity, the bias that gives a disparity in 0..1)
DISPARITIES: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor],
                             Callable[[float], float]]] = {
    'sigmoid': (torch.sigmoid, lambda d: math.log(d / (1 - d))),
    'softplus': (F.softplus, lambda d: math.log(math.expm1(d))),
    'relu': (F.relu, lambda d: d),
}


class DPTDecoder(nn.Module):
    """
    Decode four maps on one grid into disparity.

    forward(features, size):
        four maps (B, in_channels, h, w); size = (H, W) of the image
    returns disparities (B, 1, H / 2^s, W / 2^s) for s = 0 .. scales - 1, finest first.

    The four maps become a pyramid of 4, 2, 1 and 1/2 times the grid, and are joined from coarse to
    fine at ``width`` channels. ``disparity``: 'sigmoid' keeps it in 0..1; 'relu' is the literal
    reading, whose gradient is zero wherever it is 0; 'softplus' has no upper limit either.
    """

    def __init__(self, in_channels: int, width: int = 256,
                 out_channels: Sequence[int] = OUT_CHANNELS, disparity: str = 'sigmoid',
                 scales: int = 1) -> None:
        super().__init__()
        if disparity not in DISPARITIES:
            raise ConfigError(f'disparity is {disparity!r}; expected one of {list(DISPARITIES)}')
        if len(out_channels) != 4 or not 1 <= scales <= 4:
            raise ConfigError(f'out_channels is {list(out_channels)} and scales {scales}; '
                              'expected four numbers, and 1 to 4')
        c0, c1, c2, c3 = out_channels
        self.project = nn.ModuleList(nn.Conv2d(in_channels, c, 1) for c in out_channels)
        self.resize = nn.ModuleList([
            nn.ConvTranspose2d(c0, c0, 4, stride=4), nn.ConvTranspose2d(c1, c1, 2, stride=2),
            nn.Identity(), nn.Conv2d(c3, c3, 3, stride=2, padding=1)])
        self.narrow = nn.ModuleList(
            nn.Conv2d(c, width, 3, padding=1, bias=False) for c in (c0, c1, c2, c3))
        self.join = nn.ModuleList(Join(width, has_skip=level < 3) for level in range(4))
        self.smooth = nn.Conv2d(width, width // 2, 3, padding=1)
        self.head = _head(width // 2)
        self.coarse_heads = nn.ModuleList(_head(width) for _ in range(scales - 1))
        self.disparity = disparity

    def forward(self, features: Sequence[torch.Tensor],
                size: tuple[int, int]) -> list[torch.Tensor]:
        pyramid = [narrow(resize(project(x))) for project, resize, narrow, x in
                   zip(self.project, self.resize, self.narrow, features, strict=True)]
        grid = features[0].shape[2:]
        sizes = [(grid[0] * factor, grid[1] * factor) for factor in (8, 4, 2, 1)]
        x = None
        joined = []  # from coarse to fine
        for level in (3, 2, 1, 0):
            x = self.join[level](pyramid[level], x, sizes[level])
            joined.append(x)
        fine = _resample(self.smooth(joined[-1]), (grid[0] * 16, grid[1] * 16))
        activation = DISPARITIES[self.disparity][0]
        disparities = [_resample(activation(self.head(fine)), size)]
        for scale, head in enumerate(self.coarse_heads, start=1):
            disparities.append(_resample(activation(head(joined[-1 - scale])),
                                         (size[0] >> scale, size[1] >> scale)))
        return disparities

    def start_at(self, logit: float) -> None:
        """Make an untrained decoder say about sigmoid(``logit``) everywhere."""
        bias = DISPARITIES[self.disparity][1](1 / (1 + math.exp(-logit)))
        for head in (self.head, *self.coarse_heads):
            nn.init.constant_(head[-1].bias, bias)


class Join(nn.Module):
    """
    Join what came from coarser levels with this one's map, and go to the next size.

    forward(skip, coarse, size): maps (B, width, h, w), ``coarse`` None at the coarsest level
    """

    def __init__(self, width: int, has_skip: bool) -> None:
        super().__init__()
        self.skip = Residual(width) if has_skip else None  # the coarsest level has nothing to join
        self.both = Residual(width)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, skip: torch.Tensor, coarse: torch.Tensor | None,
                size: tuple[int, int]) -> torch.Tensor:
        x = skip if self.skip is None else coarse + self.skip(skip)
        return self.out(_resample(self.both(x), size))


class Residual(nn.Sequential):
    """x + conv(relu(conv(relu(x))))."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.ReLU(), nn.Conv2d(width, width, 3, padding=1),
                         nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + super().forward(x)


def _head(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, _HIDDEN, 3, padding=1), nn.ReLU(),
                         nn.Conv2d(_HIDDEN, 1, 1))


def _resample(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(x, size=size, mode='bilinear', align_corners=True)
