# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The training loop: supervised on LiDAR, stereo, RGB-D and synthetic depth, resumable."""
from __future__ import annotations

from dataclasses import asdict
import json
import logging
import math
from pathlib import Path
import time
from typing import Any

import numpy as np
import torch
import yaml

from hybrid_depth.errors import ConfigError
from hybrid_depth_training import checkpoint, losses
from hybrid_depth_training.augment import AugmentConfig, make_view, NO_AUGMENT, View
from hybrid_depth_training.config import SourceConfig, TrainConfig
from hybrid_depth_training.data import DATASETS, DepthSample
from hybrid_depth_training.models.compact import CompactDepth

_log = logging.getLogger(__name__)
_VALIDATION_FRAMES = 12  # of each source, evenly spread over what is held out


def train(config: TrainConfig, run: Path, overfit: bool = False) -> Path:
    """
    Train ``config`` in the folder ``run``, going on from its newest sound checkpoint.

    Writes config.yaml, metrics.jsonl and checkpoints there; returns the last checkpoint.
    ``overfit`` trains and validates on the first batch only, to see that learning works at all.
    """
    run.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    model = CompactDepth(config.encoder, config.weights)
    optimizer = make_optimizer(model, config)
    step = 0
    folder = checkpoint.newest(run)
    if folder is not None:
        step, weights, trainer = checkpoint.load(folder)
        model.load_state_dict(weights, strict=True)
        optimizer.load_state_dict(trainer['optimizer'])
        _log.info('going on from %s', folder)
    _save_config(config, run)
    mix = DataMix(config, overfit)
    started, first = time.monotonic(), step
    while step < config.steps:
        batch = mix.batch(step)
        for group, peak in zip(optimizer.param_groups, (config.encoder_lr, config.lr),
                               strict=True):
            group['lr'] = peak * learning_rate_factor(step, config)
        terms = train_step(model, optimizer, batch, config)
        step += 1
        if step % 10 == 0 or step == config.steps:
            pace = (time.monotonic() - started) / (step - first)
            _log.info('step %d of %d  %s  %.2f s/step, %.0f min left', step, config.steps,
                      '  '.join(f'{k} {v:.3f}' for k, v in terms.items()), pace,
                      pace * (config.steps - step) / 60)
            _append(run, {'step': step, **terms})
        if step % config.validate_every == 0 or step == config.steps:
            for row in validate(model, mix):
                _log.info('validation %s', row)
                _append(run, {'step': step, **row})
        if step % config.checkpoint_every == 0 or step == config.steps:
            folder = checkpoint.save(run, step, model.state_dict(),
                                     {'optimizer': optimizer.state_dict()})
    if folder is None:
        raise ConfigError(f'{run} has nothing to train: steps is {config.steps}')
    return folder


def make_optimizer(model: CompactDepth, config: TrainConfig) -> torch.optim.Optimizer:
    """Make AdamW with one group for the encoder and one for the rest."""
    encoder = list(model.encoder.parameters())
    known = {id(parameter) for parameter in encoder}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in known]
    return torch.optim.AdamW([{'params': encoder}, {'params': rest}], lr=config.lr,
                             weight_decay=config.weight_decay)


def learning_rate_factor(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then a cosine to zero at the last step."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def train_step(model: CompactDepth, optimizer: torch.optim.Optimizer,
               batch: dict[str, torch.Tensor], config: TrainConfig) -> dict[str, float]:
    """Take one optimizer step; return the loss terms."""
    model.train()
    log_depth, log_b = model(batch['image'], batch['K'])
    terms = {
        'nll': losses.laplace_nll(log_depth, log_b, batch['depth_m']),
        'l1': losses.log_l1(log_depth, batch['depth_m']),
        'gradient': losses.gradient_matching(log_depth, batch['depth_m'], batch['is_sparse']),
    }
    loss = terms['nll'] + config.l1_weight * terms['l1'] \
        + config.gradient_weight * terms['gradient']
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return {key: float(value.detach()) for key, value in terms.items()}


@torch.no_grad()
def validate(model: CompactDepth, mix: DataMix) -> list[dict[str, Any]]:
    """Measure every source on its held-out frames: AbsRel, d1, and how honest sigma is."""
    model.eval()
    rows = []
    for name, views in mix.validation.items():
        errors, inside, within = [], [], []
        for view in views:
            batch = collate([view])
            log_depth, log_b = model(batch['image'], batch['K'])
            has_truth = torch.isfinite(batch['depth_m']) & (batch['depth_m'] < 80)
            truth = batch['depth_m'][has_truth]
            depth, b = log_depth.exp()[has_truth], log_b.exp()[has_truth]
            error = (depth - truth).abs()
            errors.append(float((error / truth).mean()))
            ratio = torch.maximum(depth / truth, truth / depth)
            inside.append(float((ratio < 1.25).float().mean()))
            within.append(float((error < losses.SIGMA_PER_B * b * depth).float().mean()))
        rows.append({'validation': name, 'frames': len(views), 'abs_rel': float(np.mean(errors)),
                     'd1': float(np.mean(inside)), 'within_1_sigma': float(np.mean(within))})
    return rows


class DataMix:
    """All samples in memory, drawn by weight; a batch depends on seed and step only."""

    def __init__(self, config: TrainConfig, overfit: bool = False) -> None:
        self.config = config
        self.overfit = overfit
        self.training: list[tuple[SourceConfig, list[DepthSample]]] = []
        self.validation: dict[str, list[View]] = {}
        rng = np.random.default_rng(config.seed)
        for source in config.sources:
            if source.dataset not in DATASETS:
                raise ConfigError(f'unknown dataset {source.dataset!r}; known: {list(DATASETS)}')
            samples = DATASETS[source.dataset](source.path, **source.options)
            held = round(source.hold_out * len(samples))
            self.training.append((source, samples[:len(samples) - held]))
            _log.info('%s %s: %d frames to train on, %d held out', source.dataset, source.path,
                      len(samples) - held, held)
            if held:
                group = config.groups[source.group]
                spread = np.linspace(len(samples) - held, len(samples) - 1,
                                     min(held, _VALIDATION_FRAMES)).astype(int)
                self.validation[source.label] = [
                    make_view(samples[i], (group.height, group.width), NO_AUGMENT, rng)
                    for i in spread]

    def batch(self, step: int) -> dict[str, torch.Tensor]:
        """Draw the batch of ``step``."""
        rng = np.random.default_rng([self.config.seed, 0 if self.overfit else step])
        names = list(self.config.groups)
        weights = np.array([self.config.groups[name].weight for name in names])
        name = rng.choice(names, p=weights / weights.sum())
        group = self.config.groups[name]
        sources = [(s, samples) for s, samples in self.training if s.group == name]
        shares = np.array([source.weight for source, _ in sources])
        augment: AugmentConfig = NO_AUGMENT if self.overfit else self.config.augment
        views = []
        for _ in range(self.config.batch):
            _, samples = sources[rng.choice(len(sources), p=shares / shares.sum())]
            sample = samples[rng.integers(len(samples))]
            views.append(make_view(sample, (group.height, group.width), augment, rng))
        return collate(views)


def collate(views: list[View]) -> dict[str, torch.Tensor]:
    """Stack views: image (B, H, W, 3) uint8, K (B, 3, 3), depth_m (B, 1, H, W), is_sparse (B,)."""
    return {'image': torch.from_numpy(np.stack([view.image for view in views])),
            'K': torch.from_numpy(np.stack([view.K for view in views])),
            'depth_m': torch.from_numpy(np.stack([view.depth_m for view in views]))[:, None],
            'is_sparse': torch.tensor([view.is_sparse for view in views])}


def _append(run: Path, row: dict[str, Any]) -> None:
    with (run / 'metrics.jsonl').open('a') as stream:
        stream.write(json.dumps(row) + '\n')


def _save_config(config: TrainConfig, run: Path) -> None:
    (run / 'config.yaml').write_text(yaml.safe_dump(asdict(config), sort_keys=False))
