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
Hybrid-depth: CLIP and DINO features on one grid, compared with depth in words, decoded by DPT.

Zhang et al., "Hybrid-grained Feature Aggregation with Coarse-to-fine Language Guidance for
Self-supervised Monocular Depth Estimation" (ICCV 2025, arXiv 2510.09320). Where the published code
does what cannot be meant, the sane reading is the default and the literal one a setting.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 its usual name

from hybrid_depth.errors import ConfigError
from hybrid_depth_training.models.dpt import DPTDecoder, OUT_CHANNELS
from hybrid_depth_training.models.encoders import ENCODERS
from hybrid_depth_training.models.encoders.dino import PATCH
from hybrid_depth_training.models.fusion import decimate, HybridAggregation, LEVELS
from hybrid_depth_training.models.text import (
    DepthPrompts,
    normalise_text,
    pixel_logits,
    TEXT_MODELS,
    TextTower,
)

NONE = 'none'
CLIPS = ('clip_rn50', 'clip_vit_b16', 'efficientnet_lite0', NONE)
DINOS = ('dinov2_vits14', 'dinov2_vitb14', NONE)
PER_LEVEL, DECIMATED = 'per_level', 'decimated'
# What is trained, by the beginnings of parameter names; {last} is the last block of DINO.
_LANGUAGE = ('prompts.', 'to_text.', 'text.token_embedding.', 'text.positional_embedding',
             'text.ln_final.', 'text.text_projection')
FREEZE_POLICIES: dict[str, tuple[str, ...]] = {
    'none': ('',),
    'coarse': ('clip.', 'aggregation.', 'to_text.'),
    'fine': ('clip.', 'aggregation.', 'dino.vit.blocks.{last}.', 'decoder.', *_LANGUAGE),
    'manydepth': ('clip.', 'aggregation.', 'decoder.', *_LANGUAGE),
    'decoder': ('aggregation.', 'decoder.', 'to_text.', 'prompts.'),
}


@dataclass(frozen=True)
class HybridConfig:
    """Settings of HybridDepth; the defaults are the paper's, in the sane reading."""

    clip: str = 'clip_rn50'
    """One of CLIPS; efficientnet_lite0 takes CLIP's place where there are no weights of CLIP"""
    clip_weights: str = 'openai'
    """A name, random, or a file"""
    dino: str = 'dinov2_vitb14'
    """One of DINOS"""
    dino_weights: str = 'pretrained'
    """A name, random, or a file"""
    language: bool = True
    """Compare every pixel with depth in words"""
    prompts: int = 256
    """Learned words for depth"""
    text_model: str = 'clip_rn50'
    """Row of TEXT_MODELS"""
    text_weights: str = 'openai'
    """A name, random, or a file"""
    align: str = 'interp_conv1x1'
    """How CLIP's maps come to DINO's grid: see HybridAggregation"""
    interpolation: str = 'bilinear'
    """bilinear; nearest is literal"""
    align_channels: int = 256
    """Channels of CLIP's maps there"""
    alignment: str = PER_LEVEL
    """per_level: each level is compared with the words; decimated: all at once, thinned out"""
    decoder_width: int = 256
    """Channels of the decoder"""
    out_channels: Sequence[int] = OUT_CHANNELS
    """Channels of its pyramid, fine to coarse"""
    disparity: str = 'sigmoid'
    """sigmoid or softplus; relu is literal"""
    scales: int = 1
    """Disparities, each half as large as the one before"""
    normalise_input: bool = True
    """Colours as each encoder was pretrained; false feeds 0..1, which is literal"""
    min_depth_m: float = 0.1
    """Depth of disparity 1"""
    max_depth_m: float = 100.0
    """Depth of disparity 0"""

    def __post_init__(self) -> None:
        if self.clip not in CLIPS or self.dino not in DINOS:
            raise ConfigError(f'clip is {self.clip!r} and dino {self.dino!r}; expected one of '
                              f'{CLIPS} and one of {DINOS}')
        if self.clip == self.dino == NONE:
            raise ConfigError('clip and dino are both none; expected at least one encoder')
        if self.alignment not in (PER_LEVEL, DECIMATED) or self.text_model not in TEXT_MODELS:
            raise ConfigError(f'alignment is {self.alignment!r} and text_model '
                              f'{self.text_model!r}; expected {PER_LEVEL} or {DECIMATED}, and one '
                              f'of {list(TEXT_MODELS)}')
        if not 0 < self.min_depth_m < self.max_depth_m or self.prompts < 1:
            raise ConfigError(f'min_depth_m is {self.min_depth_m}, max_depth_m {self.max_depth_m} '
                              f'and prompts {self.prompts}; expected 0 < min < max, and 1 or more')


class HybridDepth(nn.Module):
    """
    The single-frame network of Hybrid-depth.

    forward(image):
        (B, H, W, 3) uint8 RGB, H and W multiples of 32
    returns disparities (B, 1, H / 2^s, W / 2^s), finest first; see disparity_to_depth.

    DINO needs multiples of 14: it is shown the image resampled (bilinear, without antialiasing) to
    the nearest ones, which is no change at 224 x 672. All maps are on its patch grid of
    round(H / 14) x round(W / 14), without DINO too, so that leaving it out changes nothing else.

    A deployed network holds the finished text features instead of the text tower: bake_text(), or
    ``is_text_baked`` for one whose features come with its weights.
    """

    size_multiple = 32

    def __init__(self, config: HybridConfig, is_text_baked: bool = False) -> None:
        super().__init__()
        self.config = config
        self.clip = None if config.clip == NONE else ENCODERS[config.clip](config.clip_weights)
        self.dino = None if config.dino == NONE else ENCODERS[config.dino](config.dino_weights)
        for name, encoder in (('clip', self.clip), ('dino', self.dino)):
            mean, std = _colours(encoder, config.normalise_input)
            self.register_buffer(f'{name}_mean', mean, persistent=False)
            self.register_buffer(f'{name}_std', std, persistent=False)
        self.aggregation = HybridAggregation(
            self.clip.channels[-LEVELS:] if self.clip is not None else (),
            self.dino.channels if self.dino is not None else (),
            config.align_channels, config.align, config.interpolation)
        self.text = self.prompts = self.to_text = None
        self.register_buffer('baked_text', None)
        logits = self._make_language(is_text_baked) if config.language else 0
        self.decoder = DPTDecoder(self.aggregation.channels[0] + logits, config.decoder_width,
                                  config.out_channels, config.disparity, config.scales)
        self._known_text: tuple[tuple[int, ...], torch.Tensor] | None = None

    def _make_language(self, is_text_baked: bool) -> int:
        config = self.config
        channels = TEXT_MODELS[config.text_model].channels
        if config.alignment == PER_LEVEL:
            self.to_text = nn.ModuleList(
                nn.Identity() if c == channels else nn.Conv2d(c, channels, 1)
                for c in self.aggregation.channels)
        if is_text_baked:
            self.baked_text = torch.zeros(config.prompts, channels)
        else:
            self.text = TextTower(config.text_model, config.text_weights)
            self.prompts = DepthPrompts(config.prompts, self.text.width)
        return config.prompts

    @property
    def provenance(self) -> dict[str, str]:
        """Say which weights each part started from."""
        parts = {'clip': self.clip, 'dino': self.dino, 'text': self.text}
        return {name: part.provenance for name, part in parts.items() if part is not None}

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return self.decode(self.encode(image), image.shape[1:3])

    def encode(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return the four aggregated maps (B, C, h, w) on the patch grid."""
        clip_maps = [] if self.clip is None else self.clip(self._normalised(image, 'clip'))
        return self._aggregate(image, clip_maps)

    def in_text_space(self, features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """
        Return the maps (B, D, h, w) that are compared with text: one per level, or the one of all.

        Without a setting that thins out, a level that has D channels is itself such a map.
        """
        if self.config.alignment == DECIMATED:
            return [decimate(features, TEXT_MODELS[self.config.text_model].channels)]
        return [project(x) for project, x in zip(self.to_text, features, strict=True)]

    def decode(self, features: Sequence[torch.Tensor],
               size: tuple[int, int]) -> list[torch.Tensor]:
        """Return the disparities for the aggregated maps of an image of ``size`` (H, W)."""
        if self.config.language:
            text = self.text_features()
            logits = [pixel_logits(x, text) for x in self.in_text_space(features)]
            if len(logits) == 1:
                logits *= LEVELS
            features = [torch.cat(pair, dim=1) for pair in zip(logits, features, strict=True)]
        return self.decoder(features, size)

    @property
    def matching_channels(self) -> int:
        """Channels of what ``shallow`` ends with. Raises ConfigError without such a map."""
        if self.clip is None or 4 not in self.clip.strides:
            raise ConfigError(f'clip is {self.config.clip!r}, which has no map at stride 4 to be '
                              'matched; expected clip_rn50 or efficientnet_lite0')
        return self.clip.channels[self.clip.strides.index(4)]

    def shallow(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return the maps of CLIP's side up to stride 4: the first part of ``forward``."""
        return self.clip(self._normalised(image, 'clip'), last=self.clip.strides.index(4) + 1)

    def deep(self, image: torch.Tensor, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return the disparities from those maps: the second part. DINO sees the image alone."""
        clip_maps = [*maps, *self.clip(maps[-1], first=len(maps))]
        return self.decode(self._aggregate(image, clip_maps), image.shape[1:3])

    def text_features(self) -> torch.Tensor:
        """
        Return the normalised text features (N, D).

        They do not depend on the image: without gradients they are computed once for as long as
        the weights they come from stay the same.
        """
        if self.baked_text is not None:
            return self.baked_text
        if torch.is_grad_enabled():
            return normalise_text(self.prompts(self.text))
        parameters = (*self.text.parameters(), *self.prompts.parameters())
        version = tuple(number for p in parameters for number in (p.data_ptr(), p._version))
        if self._known_text is None or self._known_text[0] != version:
            self._known_text = version, normalise_text(self.prompts(self.text))
        return self._known_text[1]

    @torch.no_grad()
    def bake_text(self) -> HybridDepth:
        """Replace the text tower and its prompts by the text features that they give."""
        if self.config.language and self.baked_text is None:
            self.baked_text = self.text_features().clone()
            self.text = self.prompts = self._known_text = None
        return self

    def freeze(self, policy: str) -> list[str]:
        """
        Let gradients reach only what ``policy`` trains; return the names of those parameters.

        'coarse' and 'fine' are the two stages of the paper: CLIP's image tower and the
        aggregation; and with them DINO's last block, the learned words, the text tower but for its
        transformer, and the decoder. 'manydepth' is 'fine' with all of DINO frozen. 'decoder'
        trains none of the pretrained weights; 'none' freezes nothing. Raises ConfigError for any
        other.
        """
        if policy not in FREEZE_POLICIES:
            raise ConfigError(f'unknown policy {policy!r}; known: {", ".join(FREEZE_POLICIES)}')
        last = len(self.dino.vit.blocks) - 1 if self.dino is not None else 0
        trained = tuple(name.format(last=last) for name in FREEZE_POLICIES[policy])
        for name, parameter in self.named_parameters():
            parameter.requires_grad = name.startswith(trained)
        return [name for name, parameter in self.named_parameters() if parameter.requires_grad]

    def _aggregate(self, image: torch.Tensor,
                   clip_maps: list[torch.Tensor]) -> list[torch.Tensor]:
        grid = patch_grid(*image.shape[1:3])
        dino_maps: list[torch.Tensor] = []
        if self.dino is not None:
            size = (grid[0] * PATCH, grid[1] * PATCH)
            dino_maps = self.dino(F.interpolate(self._normalised(image, 'dino'), size=size,
                                                mode='bilinear', align_corners=False))
        return self.aggregation(clip_maps[-LEVELS:], dino_maps, grid)

    def _normalised(self, image: torch.Tensor, name: str) -> torch.Tensor:
        mean, std = getattr(self, f'{name}_mean'), getattr(self, f'{name}_std')
        return (image.permute(0, 3, 1, 2).float() - mean) / std


def patch_grid(height: int, width: int) -> tuple[int, int]:
    """Return the grid of patches of an image: the nearest to 14 pixels each, at least one."""
    return max(1, (height + PATCH // 2) // PATCH), max(1, (width + PATCH // 2) // PATCH)


def _colours(encoder: nn.Module | None,
             is_normalised: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean and the standard deviation of 0..255 that an encoder is to be shown."""
    is_normalised = is_normalised and encoder is not None
    mean, std = (encoder.mean, encoder.std) if is_normalised else ((0.0,) * 3, (1.0,) * 3)
    return (torch.tensor(mean).view(1, 3, 1, 1) * 255, torch.tensor(std).view(1, 3, 1, 1) * 255)
