# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a training run is told: dataclasses, filled from a YAML file and the command line."""
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from hybrid_depth.errors import ConfigError
from hybrid_depth_training.augment import AugmentConfig


@dataclass(frozen=True)
class SourceConfig:
    """One dataset of the mix."""

    dataset: str
    """Row of DATASETS"""
    path: str
    """Folder that the dataset reads"""
    group: str
    """Which network size it is shown at: a key of TrainConfig.sizes"""
    weight: float = 1.0
    """Share of its group's samples, relative to the others of the group"""
    hold_out: float = 0.1
    """Share at the end of the sequence that is kept for validation, never trained on"""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the dataset's load()"""

    def __post_init__(self) -> None:
        if not 0 <= self.hold_out <= 1 or self.weight < 0:
            raise ConfigError(f'{self.label}: hold_out is {self.hold_out} and weight '
                              f'{self.weight}; expected 0 to 1, and 0 or more')
        if self.hold_out == 1 and self.weight:
            raise ConfigError(f'{self.label} holds out everything but has weight {self.weight}; '
                              'expected 0: there is nothing to draw')

    @property
    def label(self) -> str:
        """Name of the source in logs and cards."""
        return f'{self.dataset} {PurePath(self.path).name}'


@dataclass(frozen=True)
class GroupConfig:
    """Samples that share one network size and so one batch."""

    height: int
    """Network height, pixels"""
    width: int
    """Network width, pixels"""
    weight: float = 1.0
    """Share of the steps, relative to the other groups"""


@dataclass(frozen=True)
class TrainConfig:
    """A whole run."""

    name: str
    """Name of the model"""
    sources: list[SourceConfig]
    """The data mix"""
    groups: dict[str, GroupConfig]
    """Network sizes, by name"""
    licence: str
    """SPDX identifier of the weights, as the data's licences oblige"""
    encoder: str = 'efficientnet_lite0'
    """Row of ENCODERS"""
    weights: str = 'imagenet'
    """Initial weights of the encoder: imagenet, random, or a .safetensors file"""
    steps: int = 4000
    """Optimizer steps of the whole run"""
    batch: int = 6
    """Samples per step"""
    lr: float = 4e-4
    """Highest learning rate of the decoder"""
    encoder_lr: float = 1.5e-4
    """Highest learning rate of the encoder"""
    warmup_steps: int = 100
    """Steps of linear warm-up, before the cosine to zero"""
    weight_decay: float = 0.02
    """AdamW weight decay"""
    l1_weight: float = 1.0
    """Weight of the L1 error of log depth, beside the likelihood"""
    gradient_weight: float = 0.5
    """Weight of the gradient matching"""
    validate_every: int = 250
    """Steps between validations"""
    checkpoint_every: int = 100
    """Steps between checkpoints: at most so many are lost when the run is killed"""
    seed: int = 0
    """Of every random choice"""
    threads: int = 2
    """CPU threads of torch"""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """How far samples are moved and recoloured"""

    def __post_init__(self) -> None:
        groups = {source.group for source in self.sources}
        if groups != set(self.groups):
            raise ConfigError(f'sources name the groups {sorted(groups)}, groups defines '
                              f'{sorted(self.groups)}; expected the same')
        for name, group in self.groups.items():
            if group.height % 32 or group.width % 32 or min(group.height, group.width) < 32:
                raise ConfigError(f'group {name} is {group.height}x{group.width}; expected '
                                  'multiples of 32')
        for key in ('steps', 'batch', 'checkpoint_every', 'validate_every', 'threads'):
            if getattr(self, key) < 1:
                raise ConfigError(f'{key} is {getattr(self, key)}; expected at least 1')
