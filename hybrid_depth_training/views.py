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
From recordings to batches: which frame, with which neighbours, shown how.

A batch depends on the configuration, the seed and the step only, so a run that was stopped goes on
with the very batches it would have had.
"""
from __future__ import annotations

from dataclasses import replace
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hybrid_depth.errors import ConfigError
from hybrid_depth_training.augment import AugmentConfig, make_view, NO_AUGMENT, View
from hybrid_depth_training.config import NeighbourConfig, SourceConfig, TrainConfig
from hybrid_depth_training.data import DATASETS, DepthSample, load, Recording
from hybrid_depth_training.data.captions import captioned, read_captions
from hybrid_depth_training.data.frame_cache import FrameCache

_log = logging.getLogger(__name__)
_VALIDATION_FRAMES = 12  # of each source, evenly spread over what is held out
Target = tuple[Recording, int]


class DataMix:
    """The recordings of a run, split into what is learned from and what is held out."""

    def __init__(self, config: TrainConfig, overfit: bool = False) -> None:
        self.config = config
        self.overfit = overfit
        self.training: list[tuple[SourceConfig, list[Target]]] = []
        self.held_out: list[tuple[SourceConfig, list[Target]]] = []
        self._last: dict[int, int] = {}  # id of a recording -> its last frame to learn from
        cache = FrameCache(config.cache_gb * 2**30 / max(1, config.workers))
        for source in config.sources:
            if source.dataset not in DATASETS:
                raise ConfigError(f'unknown dataset {source.dataset!r}; known: {list(DATASETS)}')
            recordings = [cache.over(recording) for recording in
                          load(source.dataset, source.path, **source.options)]
            if source.captions:
                table = read_captions(Path(source.captions))
                recordings = [captioned(recording, table) for recording in recordings]
            if source.all_frames:
                recordings = [replace(r, targets=range(len(r))) for r in recordings]
            training, held = split(recordings, source.hold_out)
            for recording, index in training:
                self._last[id(recording)] = max(index, self._last.get(id(recording), 0))
            if not training and (source.weight or not held):
                raise ConfigError(f'{source.label} has no frame with truth to learn from; with '
                                  'all_frames: true an objective that needs no truth learns from '
                                  'the others, with weight: 0 it is held out whole')
            self.training.append((source, training))
            if held:
                self.held_out.append((source, held))
            _log.info('%s %s: %d frames to train on, %d held out', source.dataset, source.path,
                      len(training), len(held))

    def batch(self, step: int, part: int = 0) -> dict[str, torch.Tensor]:
        """
        Draw the batch of ``step``.

        ``part`` numbers the batches of one step where several devices or passes share it; all of
        them are of one group.
        """
        step = 0 if self.overfit else step
        rng = np.random.default_rng([self.config.seed, step])
        names = list(self.config.groups)
        weights = np.array([self.config.groups[name].weight for name in names])
        name = rng.choice(names, p=weights / weights.sum())
        group = self.config.groups[name]
        sources = [(s, targets) for s, targets in self.training if s.group == name]
        if part and not self.overfit:
            rng = np.random.default_rng([self.config.seed, step, part])
        shares = np.array([source.weight for source, _ in sources])
        augment: AugmentConfig = NO_AUGMENT if self.overfit else self.config.augment
        views = []
        for _ in range(self.config.batch):
            _, targets = sources[rng.choice(len(sources), p=shares / shares.sum())]
            recording, index = targets[rng.integers(len(targets))]
            sample = recording[index]
            near = neighbours(recording, index, sample, self.config.neighbours, rng,
                              self._last[id(recording)])
            views.append(make_view(sample, (group.height, group.width), augment, rng, near))
        return collate(views)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        """Return ``batch(*key)``: what a DataLoader asks for."""
        return self.batch(*key)

    def validation(self) -> list[tuple[str, list[dict[str, torch.Tensor]]]]:
        """
        Return the held-out views of every source, one to a batch, as the robot sees them.

        With ``overfit`` those are the views of the one batch.
        """
        if self.overfit:
            batch = self.batch(0)
            return [('overfit', [{key: value[index:index + 1] for key, value in batch.items()}
                                 for index in range(self.config.batch)])]
        rng = np.random.default_rng(self.config.seed)
        result = []
        for source, held in self.held_out:
            group = self.config.groups[source.group]
            spread = np.linspace(0, len(held) - 1, min(len(held), _VALIDATION_FRAMES)).astype(int)
            batches = []
            for recording, index in (held[i] for i in spread):
                sample = recording[index]
                near = neighbours(recording, index, sample, self.config.neighbours, None)
                batches.append(collate([make_view(sample, (group.height, group.width), NO_AUGMENT,
                                                  rng, near)]))
            result.append((source.label, batches))
        return result


def split(recordings: list[Recording], hold_out: float) -> tuple[list[Target], list[Target]]:
    """
    Part the targets into those to learn from and those held out, at the end.

    Of several recordings the last ones are held out whole, of a single one its last frames.
    """
    if len(recordings) == 1:
        targets = [(recordings[0], index) for index in recordings[0].targets]
        cut = len(targets) - round(hold_out * len(targets))
        return targets[:cut], targets[cut:]
    whole = len(recordings) - round(hold_out * len(recordings))
    parts = [[(r, index) for r in group for index in r.targets]
             for group in (recordings[:whole], recordings[whole:])]
    return parts[0], parts[1]


def neighbours(recording: Recording, index: int, sample: DepthSample, config: NeighbourConfig,
               rng: np.random.Generator | None, last: int | None = None,
               ) -> list[DepthSample | None]:
    """
    Choose the source frames of frame ``index``; None where there is none that fits.

    ``rng`` None chooses as the robot does: from the past, spread over the range of baselines.
    Frames after ``last`` are left out: they are held out.
    """
    if config.offsets:
        end = len(recording) if last is None else last + 1
        return [recording[index + offset] if 0 <= index + offset < end else None
                for offset in config.offsets]
    none: list[DepthSample | None] = [None] * config.count
    if rng is not None and rng.random() < config.absent:
        return none
    only_past = rng is None or rng.random() < config.past
    usable = usable_sources(recording, index, sample, config)
    usable = [i for i in usable if (i < index or not only_past) and (last is None or i <= last)]
    if not usable or config.count == 0:
        return none
    if rng is None:
        order = sorted(usable, key=lambda i: abs(i - index))
        chosen = [order[round(i)] for i in np.linspace(0, len(order) - 1, config.count + 2)[1:-1]]
    else:
        chosen = list(rng.choice(usable, min(config.count, len(usable)), replace=False))
    chosen = list(dict.fromkeys(chosen))
    return [recording[i] for i in chosen] + none[len(chosen):]


def usable_sources(recording: Recording, index: int, sample: DepthSample,
                   config: NeighbourConfig) -> list[int]:
    """Return the frames whose way and angle to frame ``index`` are within ``config``'s bounds."""
    pose = recording.world_T_camera[index]
    has_depth = np.isfinite(sample.depth_m)
    if pose is None or not has_depth.any():
        return []
    median_m = float(np.median(sample.depth_m[has_depth]))
    known = [other for other, other_pose in enumerate(recording.world_T_camera)
             if other_pose is not None and other != index]
    if not known:
        return []
    poses = np.stack([recording.world_T_camera[other] for other in known])
    way = np.linalg.norm(poses[:, :3, 3] - pose[:3, 3], axis=1) / median_m
    angle = np.degrees(np.arccos(np.clip(poses[:, :3, 2] @ pose[:3, 2], -1, 1)))
    is_usable = ((way >= config.baseline[0]) & (way <= config.baseline[1])
                 & (angle <= config.max_angle_deg))
    return [other for other, usable in zip(known, is_usable, strict=True) if usable]


def collate(views: list[View]) -> dict[str, Any]:
    """
    Stack views into a batch.

    image, image_plain (B, H, W, 3) uint8; K (B, 3, 3); depth_m (B, 1, H, W); is_sparse (B,);
    source_image, source_plain (B, S, H, W, 3) uint8; source_T_target (B, S, 4, 4);
    source_valid, source_posed (B, S); caption: B texts, '' = nothing is said.
    """
    def stack(key: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([getattr(view, key) for view in views]))
    batch: dict[str, Any] = {key: stack(key) for key in (
        'image', 'image_plain', 'K', 'depth_m', 'source_image', 'source_plain', 'source_T_target',
        'source_valid', 'source_posed')}
    batch['depth_m'] = batch['depth_m'][:, None]
    batch['is_sparse'] = torch.tensor([view.is_sparse for view in views])
    batch['caption'] = [view.caption for view in views]
    return batch
