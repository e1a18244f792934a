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
"""PixelFormer with a language prior: encoder, TRCA, pixel queries, skip attention, TBCP, bins."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 its usual name

from hybrid_depth.errors import ConfigError
from hybrid_depth_training.models.clip_prior.bins import bin_centres, BinWidths, expected_depth
from hybrid_depth_training.models.clip_prior.pixelformer import PixelFormer
from hybrid_depth_training.models.clip_prior.pyramid import (
    backbones,
    HYBRID,
    HybridPyramid,
    make_pyramid,
)
from hybrid_depth_training.models.clip_prior.tbcp import TextGuidedBinWidths, TextRange
from hybrid_depth_training.models.clip_prior.trca import (
    MODES,
    TextGuidedReverseCrossAttention,
    TOKEN,
)
from hybrid_depth_training.models.compact import LOG_SIGMA_RANGE, SingleFrame
from hybrid_depth_training.models.text import text_channels

NONE = 'none'


@dataclass(frozen=True)
class ClipPriorConfig:
    """Settings of ClipPriorDepth; the defaults are the papers', in the sane reading, for NYU."""

    backbone: str = 'swin_large'
    """Row of pyramid.backbones()"""
    backbone_weights: str = 'pretrained'
    """A name, random, or a file"""
    hybrid: dict[str, Any] = field(default_factory=dict)
    """Settings of HybridConfig, of the backbone hybrid"""
    width: int = 64
    """Of the decoder: a quarter of the queries' channels at stride 4"""
    bins: int = 256
    """Bins of depth"""
    min_depth_m: float = 0.1
    """Near end of the range"""
    max_depth_m: float = 10.0
    """Far end of the range"""
    canonical_focal_px: float = 0.0
    """Bins are of depth for this focal length and scaled to the camera's; 0 ignores the camera, as
    published: right only for images of one camera"""
    trca: str = 'pooled'
    """Text-guided reverse cross-attention: none, pooled, literal or token"""
    trca_width: int = 1024
    """Its channels"""
    tbcp: bool = True
    """Text-guided bin-centre prediction; false is PixelFormer's own"""
    language_range: bool = False
    """The sentence moves the far end of the range, between half and twice max_depth_m"""
    text_model: str = 'clip_vit_l14'
    """Row of TEXT_MODELS, or open_clip/NAME"""
    tokens: int = 0
    """Of trca token: the most words of a sentence, its last token included"""

    def __post_init__(self) -> None:
        if self.backbone not in backbones():
            raise ConfigError(f'unknown backbone {self.backbone!r}; known: '
                              f'{", ".join(backbones())}')
        if self.trca not in (NONE, *MODES):
            raise ConfigError(f'trca is {self.trca!r}; expected {NONE} or one of '
                              f'{", ".join(MODES)}')
        if (self.trca == TOKEN) != (self.tokens > 1) or self.tokens > 77:
            raise ConfigError(f'tokens is {self.tokens} with trca {self.trca}; expected 2 to 77 '
                              'for token, 0 for others')
        if self.width < 16 or self.width % 16 or self.trca_width % 8 or self.bins < 2:
            raise ConfigError(f'width is {self.width}, trca_width {self.trca_width} and bins '
                              f'{self.bins}; expected multiples of 16 and of 8, and 2 or more')
        if not 0 < self.min_depth_m < self.max_depth_m or self.canonical_focal_px < 0:
            raise ConfigError(f'the range is {self.min_depth_m} to {self.max_depth_m} m and '
                              f'canonical_focal_px {self.canonical_focal_px}; expected 0 < min < '
                              'max, and 0 or more')


class ClipPriorDepth(nn.Module):
    """
    Metric depth of an image, given a sentence about the scene.

    forward(image, K, text):
        image (B, H, W, 3) uint8 RGB, H and W multiples of 32; K (B, 3, 3) pixels of that image;
        text (B, text_dim): features of the sentences as models.text.text_rows gives them; None =
        the neutral sentence, whose features the network keeps
    returns log_depth (B, 1, H, W), natural log of metres, and log_b, same shape: the spread of the
    bins as the Laplace scale of log depth, as CompactDepth gives it.

    Without language (``trca`` none, ``tbcp`` and ``language_range`` off) this is PixelFormer.
    """

    size_multiple = 32

    def __init__(self, config: ClipPriorConfig) -> None:
        super().__init__()
        self.config = config
        self.pyramid = make_pyramid(config.backbone, config.backbone_weights, config.hybrid)
        channels = self.pyramid.channels
        self.decoder = PixelFormer(channels, config.width)
        self.head = nn.Conv2d(self.decoder.channels, config.bins, 3, padding=1)
        self.widths: nn.Module = BinWidths(self.decoder.query_channels, config.bins)
        # what language adds comes last: the rest starts the same with and without it
        text = text_channels(config.text_model)
        self.text_rows = max(1, config.tokens)
        self.text_dim = self.text_rows * text
        self.register_buffer('neutral_text', torch.zeros(1, self.text_dim))
        self.trca = self.range = None
        if config.trca != NONE:
            self.trca = TextGuidedReverseCrossAttention(channels[-1], text, config.trca_width,
                                                        mode=config.trca)
        if config.tbcp:
            self.widths = TextGuidedBinWidths(self.decoder.query_channels, text, config.bins)
        if config.language_range:
            self.range = TextRange(text)

    @property
    def has_language(self) -> bool:
        """Whether the sentence changes anything."""
        return self.trca is not None or self.config.tbcp or self.range is not None

    @property
    def encoder(self) -> nn.Module:
        """Return the part that starts from published weights."""
        return self.pyramid

    @property
    def max_depth_m(self) -> float:
        """Farthest depth of a camera of the canonical focal length, whatever the sentence."""
        return self.config.max_depth_m * (2 if self.range is not None else 1)

    def forward(self, image: torch.Tensor, K: torch.Tensor,
                text: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        return self._enlarged(*self.bins(self.pyramid(image), K, text), 4)

    def bins(self, maps: list[torch.Tensor], K: torch.Tensor,
             text: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and spread of depth over the bins at stride 4, (B, 1, H/4, W/4) metres."""
        text = self.neutral_text.expand(len(K), -1) if text is None else text
        rows = text.unflatten(1, (self.text_rows, -1))
        if self.trca is not None:
            maps = [*maps[:-1], self.trca(maps[-1], rows)]
        x, query = self.decoder(maps)
        far_m: torch.Tensor | float = self.config.max_depth_m
        if self.range is not None:
            far_m = far_m * self.range(rows)
        centres = bin_centres(self.widths(query, rows), self.config.min_depth_m, far_m)
        depth, spread = expected_depth(self.head(x), centres)
        if self.config.canonical_focal_px:
            scale = (K[:, 0, 0] / self.config.canonical_focal_px).view(-1, 1, 1, 1)
            depth, spread = depth * scale, spread * scale
        return depth, spread

    def two_heads(self, image: torch.Tensor, K: torch.Tensor, text: torch.Tensor | None = None,
                  ) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
        """
        Return disparities, log_depth and log_b of one pass through the hybrid encoder.

        Disparities as HybridDepth gives them. Raises ConfigError with another backbone.
        """
        if not isinstance(self.pyramid, HybridPyramid):
            raise ConfigError(f'backbone is {self.config.backbone!r}, which has no head for '
                              f'disparity; expected {HYBRID}')
        features = self.pyramid.hybrid.encode(image)
        depth, spread = self.bins(self.pyramid.resampled(features, image), K, text)
        return (self.pyramid.hybrid.decode(features, image.shape[1:3]),
                *self._enlarged(depth, spread, 4))

    # as the single-frame branch of models.posed

    @property
    def shallow_channels(self) -> tuple[int, ...]:
        """Channels of ``shallow``. Raises ConfigError where the backbone has no such maps."""
        channels: tuple[int, ...] = self.pyramid.shallow_channels
        if not channels:
            raise ConfigError(f'backbone {self.config.backbone!r} has no map at stride 2 to be '
                              'matched; expected efficientnet_lite0, resnet18, or hybrid with one '
                              'of them in the place of clip')
        return channels

    def shallow(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return the encoder's maps at strides 2 and 4 alone."""
        maps: list[torch.Tensor] = self.pyramid.shallow(image)
        return maps

    def single_frame(self, image: torch.Tensor, K: torch.Tensor,
                     text: torch.Tensor | None = None) -> SingleFrame:
        """Return the metric bins as the single frame's opinion, at stride 2."""
        shallow, maps = self.pyramid.with_shallow(image)
        return SingleFrame(*self._enlarged(*self.bins(maps, K, text), 2), shallow)

    @staticmethod
    def _enlarged(depth: torch.Tensor, spread: torch.Tensor,
                  factor: int) -> tuple[torch.Tensor, torch.Tensor]:
        depth, spread = (F.interpolate(x, scale_factor=float(factor), mode='bilinear',
                                       align_corners=False) for x in (depth, spread))
        return torch.log(depth), torch.log(spread / depth).clamp(*LOG_SIGMA_RANGE)
