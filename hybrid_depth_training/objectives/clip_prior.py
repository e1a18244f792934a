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
The objective ``clip_prior``: metric depth from an image and a sentence, learned from truth.

PixelFormer's training (WACV 2023) with "Single Image Depth Estimation Based on CLIP Language Prior
Injection" on it. Text features are frozen and cached. In a share of the samples the caption gives
way to a neutral one, so that a robot without captions shows the network nothing new.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hybrid_depth.errors import ConfigError
from hybrid_depth_training import losses
from hybrid_depth_training.data.captions import NEUTRAL, VOCABULARY
from hybrid_depth_training.models.clip_prior.network import ClipPriorConfig, ClipPriorDepth
from hybrid_depth_training.models.clip_prior.pyramid import HybridPyramid
from hybrid_depth_training.models.text import text_rows
from hybrid_depth_training.objectives import Batch, Objective, read_options
from hybrid_depth_training.objectives.cut_depth import cut_depth
from hybrid_depth_training.objectives.supervised import depth_figures, fill, network_weights
from hybrid_depth_training.weights import RANDOM


@dataclass(frozen=True)
class ClipPriorOptions:
    """Settings of the objective ``clip_prior``."""

    clip_prior: dict[str, Any] = field(default_factory=dict)
    """Settings of ClipPriorConfig: the network"""
    text_weights: str = 'openai'
    """Of the text tower: a name, random, or a file"""
    neutral: str = NEUTRAL
    """What stands for no caption"""
    caption_dropout: float = 0.3
    """Share of samples whose caption is the neutral one"""
    min_truth_m: float = 0.1
    """Truth nearer than this is left out; 1 for KITTI"""
    cut_depth: float = 0.0
    """Share of samples a rectangle of which shows its depth; 1 for NYU"""
    encoder_from: str = ''
    """Of backbone hybrid: run of monodepth2 whose encoder and disparity head this one starts
    from"""
    hold_encoder: bool = False
    """Leave the backbone as it is, and with it the disparity head of the hybrid one"""

    def __post_init__(self) -> None:
        if not 0 <= self.caption_dropout <= 1 or not 0 <= self.cut_depth <= 1:
            raise ConfigError(f'caption_dropout is {self.caption_dropout} and cut_depth '
                              f'{self.cut_depth}; expected shares from 0 to 1')
        if not self.neutral or self.min_truth_m <= 0:
            raise ConfigError(f'neutral is {self.neutral!r} and min_truth_m {self.min_truth_m}; '
                              'expected words, and more than 0')


class TextTable:
    """
    Text features of prompts, computed once each. An empty prompt is the ``neutral`` one.

    The text tower is loaded when a prompt is met for the first time, then for the whole
    VOCABULARY at once.
    """

    def __init__(self, model: str, weights: str, tokens: int, neutral: str) -> None:
        self.model, self.weights, self.tokens, self.neutral = model, weights, tokens, neutral
        self._rows: dict[str, torch.Tensor] = {}

    def __call__(self, prompts: Sequence[str]) -> torch.Tensor:
        """Return (N, text_dim). Raises as models.text.text_rows."""
        prompts = [prompt or self.neutral for prompt in prompts]
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._rows]
        if new:
            new = list(dict.fromkeys([*new, self.neutral, *(VOCABULARY if not self._rows
                                                            else ())]))
            rows = text_rows(new, self.model, self.weights, self.tokens)
            self._rows.update(zip(new, rows, strict=True))
        return torch.stack([self._rows[prompt] for prompt in prompts])


class ClipPrior(Objective):
    """The network learns metric depth by the scale-invariant logarithmic error."""

    Options = ClipPriorOptions
    network: ClipPriorDepth

    @staticmethod
    def blank(options: Mapping[str, Any]) -> dict[str, Any]:
        network = dict(options.get('clip_prior', {}))
        hybrid = {**network.get('hybrid', {}), **dict.fromkeys(
            ('clip_weights', 'dino_weights', 'text_weights'), RANDOM)}
        return {**options, 'text_weights': '', 'encoder_from': '',
                'clip_prior': {**network, 'backbone_weights': RANDOM, 'hybrid': hybrid}}

    def __init__(self, options: Mapping[str, Any], lr: float, encoder_lr: float,
                 steps: int) -> None:
        super().__init__(options, lr, encoder_lr, steps)
        settings = self.settings
        config = read_options(ClipPriorConfig, settings.clip_prior)
        self.network = ClipPriorDepth(config)
        self.text = TextTable(config.text_model, settings.text_weights, config.tokens,
                              settings.neutral)
        if self.network.has_language and settings.text_weights:  # '' = a checkpoint has them
            self.network.neutral_text.copy_(self.text(['']))
        if settings.encoder_from:
            if not isinstance(self.network.pyramid, HybridPyramid):
                raise ConfigError(f'encoder_from is {settings.encoder_from!r} with backbone '
                                  f'{config.backbone!r}; expected backbone hybrid')
            fill(self.network.pyramid.hybrid, network_weights(Path(settings.encoder_from)),
                 f'encoder_from: {settings.encoder_from}')
        if settings.hold_encoder:
            self.network.pyramid.requires_grad_(False)

    def train(self, mode: bool = True) -> ClipPrior:
        super().train(mode)
        if self.settings.hold_encoder:
            self.network.pyramid.eval()
        return self

    def loss(self, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        settings, config = self.settings, self.network.config
        image = batch['image']
        if settings.cut_depth:
            image = cut_depth(image, batch['depth_m'], settings.cut_depth, config.max_depth_m)
        is_told = (torch.rand(len(image)) >= settings.caption_dropout).tolist()
        captions = [caption if told else ''
                    for caption, told in zip(batch['caption'], is_told, strict=True)]
        log_depth, _ = self.network(image, batch['K'], self.text_of(captions, image))
        return {'loss': losses.silog(log_depth, self.truth(batch))}

    def validate(self, batch: Batch) -> dict[str, float]:
        text = self.text_of(batch['caption'], batch['image'])
        log_depth, log_b = self.network(batch['image'], batch['K'], text)
        return {**depth_figures(log_depth, log_b, batch['depth_m']),
                'silog': float(losses.silog(log_depth, self.truth(batch)))}

    def text_of(self, captions: Sequence[str], image: torch.Tensor) -> torch.Tensor | None:
        """Return the captions' features for the network, None where it has no language."""
        return self.text(captions).to(image.device) if self.network.has_language else None

    def truth(self, batch: Batch) -> torch.Tensor:
        """Return the truth to learn from: within reach of the bins."""
        depth_m = batch['depth_m']
        is_used = (depth_m > self.settings.min_truth_m) & (depth_m < self.network.max_depth_m)
        return torch.where(is_used, depth_m, torch.full_like(depth_m, float('nan')))

    def parameter_groups(self) -> list[dict[str, Any]]:
        encoder = [p for p in self.network.pyramid.parameters() if p.requires_grad]
        known = {id(parameter) for parameter in encoder}
        rest = [p for p in self.network.parameters() if p.requires_grad and id(p) not in known]
        groups = [{'params': encoder, 'lr': self.encoder_lr}, {'params': rest, 'lr': self.lr}]
        return [group for group in groups if group['params']]
