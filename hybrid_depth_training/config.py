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
"""What a training run is told: dataclasses, filled from a YAML file and the command line."""
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser
import yaml

from hybrid_depth.errors import ConfigError
from hybrid_depth_training.augment import AugmentConfig
from hybrid_depth_training.schedules import SCHEDULES

PRECISIONS = ('32-true', 'bf16-mixed', '16-mixed')


@dataclass(frozen=True)
class SourceConfig:
    """One dataset of the mix."""

    dataset: str
    """Row of DATASETS"""
    path: str
    """Folder that the dataset reads"""
    group: str
    """Which network size it is shown at: a key of TrainConfig.groups"""
    weight: float = 1.0
    """Share of its group's samples, relative to the others of the group"""
    hold_out: float = 0.1
    """Share at the end of the sequence that is kept for validation, never trained on"""
    all_frames: bool = False
    """Learn from frames without truth too, as objectives that need none can"""
    captions: str = ''
    """YAML table of scene captions (see data/captions.py); '' = those of the dataset, if any"""
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
class NeighbourConfig:
    """Which other frames of its recording a sample is shown with."""

    offsets: list[int] = field(default_factory=list)
    """Frames at these distances in time, such as [-1, 1]; none where the recording ends"""
    count: int = 0
    """Instead of offsets: so many frames, chosen by how far the camera moved"""
    baseline: tuple[float, float] = (0.03, 0.5)
    """Range of the way moved, as a share of the median depth of the sample"""
    max_angle_deg: float = 25.0
    """Largest angle between the two directions of view"""
    past: float = 0.75
    """Share of samples whose neighbours must be earlier in time, as on a robot"""
    absent: float = 0.2
    """Share of samples without any neighbour, as the first frame and a robot standing still"""

    def __post_init__(self) -> None:
        if self.offsets and self.count:
            raise ConfigError('neighbours has both offsets and count; expected one of them')
        if 0 in self.offsets or self.count < 0:
            raise ConfigError(f'neighbours: offsets are {self.offsets} and count is {self.count}; '
                              'expected offsets other than 0, or a count')
        if not 0 <= self.baseline[0] < self.baseline[1]:
            raise ConfigError(f'neighbours: baseline is {self.baseline}; expected low < high')


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
    objective: str = 'supervised'
    """Row of OBJECTIVES: the network and its loss"""
    options: dict[str, Any] = field(default_factory=dict)
    """Settings of the objective: see its Options"""
    neighbours: NeighbourConfig = field(default_factory=NeighbourConfig)
    """Other frames of the recording that come with each sample"""
    deploy_pixels: int = 0
    """Pixels of the network on the robot, what it costs there; 0 = those of the widest group"""
    init_from: str = ''
    """Run whose newest checkpoint gives the first weights, as far as names and shapes agree"""
    steps: int = 4000
    """Optimizer steps of the whole run"""
    batch: int = 6
    """Samples of one pass through the network, on each device"""
    accumulate: int = 1
    """Passes per step, whose gradients are averaged"""
    lr: float = 4e-4
    """Highest learning rate of the decoder"""
    encoder_lr: float = 1.5e-4
    """Highest learning rate of the encoder"""
    schedule: str = 'cosine'
    """Learning rate over the run: cosine, step, onecycle or polynomial; see schedules.py"""
    warmup_steps: int = 100
    """Steps of linear warm-up; onecycle has its own"""
    drop_every: int = 0
    """Steps after which 'step' divides the rate by ten; 0 = once, at three quarters of the run"""
    weight_decay: float = 0.02
    """AdamW weight decay"""
    clip_norm: float = 1.0
    """Largest norm of the gradient"""
    precision: str = '32-true'
    """32-true, bf16-mixed or 16-mixed"""
    devices: int = 1
    """Number of GPUs, -1 = all; without a GPU the number of CPU processes"""
    workers: int = 0
    """Processes that read and augment data; 0 = the training process does"""
    cache_gb: float = 3.0
    """Memory for frames that were read, shared out among the workers, on each device"""
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
        for key in ('steps', 'batch', 'accumulate', 'checkpoint_every', 'validate_every',
                    'threads'):
            if getattr(self, key) < 1:
                raise ConfigError(f'{key} is {getattr(self, key)}; expected at least 1')
        for key in ('warmup_steps', 'drop_every', 'workers', 'cache_gb', 'weight_decay'):
            if getattr(self, key) < 0:
                raise ConfigError(f'{key} is {getattr(self, key)}; expected 0 or more')
        for key, known in (('schedule', tuple(SCHEDULES)), ('precision', PRECISIONS)):
            if getattr(self, key) not in known:
                raise ConfigError(f'{key} is {getattr(self, key)!r}; expected one of '
                                  f'{", ".join(known)}')
        if self.clip_norm <= 0:
            raise ConfigError(f'clip_norm is {self.clip_norm}; expected more than 0')
        if self.devices < 1 and self.devices != -1:
            raise ConfigError(f'devices is {self.devices}; expected 1 or more, or -1 for all')


def make_config(settings: object, where: str) -> TrainConfig:
    """Build a configuration from plain values. Raises ConfigError naming ``where`` they are."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(TrainConfig, 'run')
    try:
        config: TrainConfig = parser.instantiate(parser.parse_object({'run': settings})).run
    except (ArgumentError, TypeError, ValueError) as error:
        raise ConfigError(f'{where} is no configuration of a training run: {error}') from error
    return config


def read_config(path: Path) -> TrainConfig:
    """Read the training YAML at ``path``. Raises ConfigError."""
    try:
        settings = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f'{path} cannot be read as a training YAML: {error}') from error
    return make_config(settings, str(path))
