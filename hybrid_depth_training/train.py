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
The training loop: any objective on any mix of data, on any devices, resumable at any moment.

Everything random is a function of the seed and the step, so a run that was killed goes on as if it
had not been.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
import logging
import math
from pathlib import Path
import time
from typing import Any

from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm
import yaml

from hybrid_depth.errors import ConfigError
from hybrid_depth_training import checkpoint
from hybrid_depth_training.config import TrainConfig
from hybrid_depth_training.metrics_log import MetricsLog
from hybrid_depth_training.objectives import Batch, make_objective, Objective
from hybrid_depth_training.schedules import SCHEDULES
from hybrid_depth_training.views import DataMix

_log = logging.getLogger(__name__)
_LOG_EVERY = 10
_BAD_STEPS = 20  # in a row without a finite gradient, after which a run is given up


def train(config: TrainConfig, run: Path, overfit: bool = False) -> Path:
    """
    Train ``config`` in the folder ``run``, going on from its newest sound checkpoint.

    Writes config.yaml, metrics.jsonl, TensorBoard events and checkpoints there; returns the last
    checkpoint. ``overfit`` trains and validates on the first batch only, to see that learning
    works at all. Raises ConfigError where there is nothing to train or the loss stays not finite.
    """
    run.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(config.threads)
    fabric = make_fabric(config)
    fabric.launch()
    if not fabric.is_global_zero:
        logging.getLogger('hybrid_depth_training').setLevel(logging.WARNING)
    torch.manual_seed(config.seed)
    objective = build(config)
    optimizer = torch.optim.AdamW(objective.parameter_groups(), lr=config.lr,
                                  weight_decay=config.weight_decay)
    peaks = [group['lr'] for group in optimizer.param_groups]
    wrapped, stepper = fabric.setup(objective, optimizer)
    wrapped.mark_forward_method('loss')
    step = _resume(run, config, fabric, objective, optimizer)
    if step >= config.steps:
        _log.info('nothing to do: the run is at step %d of %d', step, config.steps)
        return run / checkpoint.folder_name(step)
    mix = DataMix(config, overfit)
    validation = mix.validation() if fabric.is_global_zero else []
    log = _open_log(run, config, step) if fabric.is_global_zero else None
    bad, first, started = 0, step, time.monotonic()
    with logging_redirect_tqdm(), tqdm(
            total=config.steps, initial=step, unit='step', dynamic_ncols=True,
            disable=None if log else True) as bar:  # None = where there is no terminal
        for batches in batches_from(mix, step, config, fabric):
            rates = SCHEDULES[config.schedule](step, config)
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group['lr'] = peak * rates.factor
                group['betas'] = (rates.beta1, group['betas'][1])
            torch.manual_seed(_seed(config.seed, step, fabric.global_rank))
            terms, is_good = train_step(fabric, wrapped, stepper, batches, step, config.clip_norm)
            bad = 0 if is_good else bad + 1
            if bad == _BAD_STEPS:
                raise ConfigError(f'the gradient was not finite for {bad} steps up to {step}; '
                                  'expected finite ones: lower lr, or use precision: 32-true')
            step += 1
            is_last = step == config.steps
            bar.update()
            if log and (step % _LOG_EVERY == 0 or is_last):
                row = {key: float(value) for key, value in terms.items()}
                log.add({'step': step, **row, 'lr': config.lr * rates.factor})
                text = '  '.join(f'{key} {value:.3f}' for key, value in row.items())
                bar.set_postfix_str(text)
                if bar.disable:
                    pace = (time.monotonic() - started) / (step - first)
                    _log.info('step %d of %d  %s  %.2f s/step, %.0f min left', step, config.steps,
                              text, pace, pace * (config.steps - step) / 60)
            if log and (step % config.validate_every == 0 or is_last):
                for row in validate(objective, validation, fabric):
                    _log.info('validation %s', row)
                    log.add({'step': step, **row})
            if log and (step % config.checkpoint_every == 0 or is_last):
                trainer = {'initial_weights': initial_weights(objective),
                           'optimizer': optimizer.state_dict(),
                           'precision': fabric.strategy.precision.state_dict()}
                checkpoint.save(run, step, objective.state_dict(), trainer, asdict(config))
                log.flush()
    if log:
        log.close()
    fabric.barrier()
    return run / checkpoint.folder_name(step)


def initial_weights(objective: Objective) -> dict[str, str]:
    """Return part -> what its weights started from, for every part that says so."""
    return {name: module.provenance for name, module in objective.named_modules()
            if isinstance(getattr(module, 'provenance', None), str)}


def make_fabric(config: TrainConfig) -> Fabric:
    """Return what spreads a run over devices and precisions. Raises ConfigError."""
    fabric = Fabric(
        accelerator='auto', devices=config.devices, precision=config.precision,
        # of objectives that learn from some of the samples only, a step may use a part
        strategy='auto' if config.devices == 1 else DDPStrategy(find_unused_parameters=True))
    if config.precision == '16-mixed' and fabric.device.type == 'cpu':
        raise ConfigError('precision is 16-mixed on a CPU, which cannot; expected a GPU, or '
                          'bf16-mixed, or 32-true')
    return fabric


def build(config: TrainConfig) -> Objective:
    """Build the objective of ``config``, with the weights of ``init_from`` where that is set."""
    objective = make_objective(config.objective, config.options, config.lr, config.encoder_lr,
                               config.steps)
    if config.init_from:
        folder = checkpoint.newest(Path(config.init_from))
        if folder is None:
            raise ConfigError(f'init_from: {config.init_from} holds no sound checkpoint')
        _, weights, _ = checkpoint.load(folder)
        own = objective.state_dict()
        taken = {key: value for key, value in weights.items()
                 if key in own and own[key].shape == value.shape}
        if not taken:
            raise ConfigError(f'init_from: no weight of {folder} fits this objective')
        objective.load_state_dict(taken, strict=False)
        _log.info('%d of %d weights are taken from %s', len(taken), len(own), folder)
    return objective


def batches_from(mix: DataMix, first: int, config: TrainConfig,
                 fabric: Fabric) -> Iterator[list[Batch]]:
    """Yield this device's batches of every step from ``first`` on, one for each pass."""
    parts = [fabric.global_rank * config.accumulate + index for index in range(config.accumulate)]
    keys = ((step, part) for step in range(first, config.steps) for part in parts)
    loader = DataLoader(
        mix, batch_size=None, sampler=keys, num_workers=config.workers,
        multiprocessing_context='fork' if config.workers else None,  # the recordings stay shared
        collate_fn=_as_it_is, pin_memory=fabric.device.type == 'cuda',
        generator=torch.Generator())  # of its own, not to draw from the network's
    batches = iter(loader)
    for _ in range(first, config.steps):
        yield [fabric.to_device(next(batches)) for _ in parts]


def train_step(fabric: Fabric, objective: Any, optimizer: Any, batches: list[Batch], step: int,
               clip_norm: float = 1.0) -> tuple[dict[str, torch.Tensor], bool]:
    """
    Take one optimizer step on ``batches``, whose gradients are averaged.

    ``objective`` and ``optimizer`` are what fabric.setup() returned. Returns the means of the loss
    terms with 'gradient_norm', and whether the gradient was finite: a step is left out otherwise.
    """
    objective.train()
    optimizer.zero_grad(set_to_none=True)
    means: dict[str, torch.Tensor] = {}
    for index, batch in enumerate(batches):
        with fabric.no_backward_sync(objective, enabled=index + 1 < len(batches)):
            terms = objective.loss(batch, step)
            fabric.backward(terms['loss'] / len(batches))
        for key, value in terms.items():
            means[key] = means.get(key, 0) + value.detach() / len(batches)
    norm = fabric.clip_gradients(objective, optimizer, max_norm=clip_norm,
                                 error_if_nonfinite=False)
    is_good = bool(torch.isfinite(norm))
    if is_good or fabric.strategy.precision.state_dict():  # loss scaling adapts to what it skips
        optimizer.step()
    else:
        _log.warning('step %d is left out: its gradient is not finite', step)
    return {**means, 'gradient_norm': norm}, is_good


@torch.no_grad()
def validate(objective: Objective, validation: list[tuple[str, list[Batch]]],
             fabric: Fabric | None = None) -> list[dict[str, Any]]:
    """Measure every source on its held-out frames; one row each."""
    objective.eval()
    rows = []
    for name, batches in validation:
        figures = [objective.validate(fabric.to_device(batch) if fabric else batch)
                   for batch in batches]
        rows.append({'validation': name, 'frames': len(batches),
                     **{key: _mean([f[key] for f in figures]) for key in figures[0]}})
    return rows


def _mean(values: list[float]) -> float | None:
    """Mean over the views that have such a figure: NaN is none, as without truth or source."""
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else None


def _resume(run: Path, config: TrainConfig, fabric: Fabric, objective: Objective,
            optimizer: torch.optim.Optimizer) -> int:
    """Load the newest sound checkpoint of ``run``; return its step, 0 where there is none."""
    folder = checkpoint.newest(run)
    fabric.barrier()  # nobody writes before everybody has read
    if folder is None:
        return 0
    step, weights, trainer = checkpoint.load(folder)
    objective.load_state_dict(weights, strict=True)
    optimizer.load_state_dict(trainer['optimizer'])
    fabric.strategy.precision.load_state_dict(trainer.get('precision', {}))
    _log.info('going on from %s', folder)
    before, now = checkpoint.read_config(folder), yaml.safe_load(yaml.safe_dump(asdict(config)))
    for key in now:
        if before and before.get(key) != now[key]:
            _log.warning('%s was %s up to step %d and is %s now', key, before.get(key), step,
                         now[key])
    return step


def _open_log(run: Path, config: TrainConfig, step: int) -> MetricsLog:
    (run / checkpoint.CONFIG).write_text(yaml.safe_dump(asdict(config), sort_keys=False))
    return MetricsLog(run, step)


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _as_it_is(batch: Batch) -> Batch:
    return batch
