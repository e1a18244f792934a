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
"""Learning rate over a run, as functions of the step, so that a stopped run needs no state."""
from __future__ import annotations

from collections.abc import Callable
import math
from typing import NamedTuple, TYPE_CHECKING

if TYPE_CHECKING:
    from hybrid_depth_training.config import TrainConfig

BETA1 = 0.9  # of AdamW, where the schedule leaves it alone
# One cycle (Smith and Topin 2019), with the settings of the coarse stage of Hybrid-depth
_RISE = 0.3  # share of the run
_FIRST, _LAST = 1 / 25, 1 / 2500  # of the highest rate
_BETA1_SLOW, _BETA1_FAST = 0.95, 0.85  # at the lowest and at the highest rate


class Rates(NamedTuple):
    """What the optimizer is told before a step."""

    factor: float  # on the highest learning rate of every parameter group
    beta1: float  # of AdamW


def cosine(step: int, config: TrainConfig) -> Rates:
    """Linear warm-up, then a cosine to zero at the last step."""
    if step < config.warmup_steps:
        return Rates((step + 1) / config.warmup_steps, BETA1)
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return Rates(0.5 * (1 + math.cos(math.pi * min(1.0, progress))), BETA1)


def drops(step: int, config: TrainConfig) -> Rates:
    """Linear warm-up, then a tenth after every ``drop_every`` steps (0 = once, at 3/4)."""
    every = config.drop_every or math.ceil(0.75 * config.steps)
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    return Rates(warm * 0.1 ** (step // every), BETA1)


def one_cycle(step: int, config: TrainConfig) -> Rates:
    """
    Rise over 30 % of the run and fall, both as half a cosine; beta1 goes the other way.

    From 1/25 of the highest rate, and to 1/2500. ``warmup_steps`` has no part in it.
    """
    top, end = _RISE * config.steps - 1, config.steps - 1
    if step <= top:
        share, first, last = step / max(top, 1e-9), _FIRST, 1.0
        slow_to_fast = (_BETA1_SLOW, _BETA1_FAST)
    else:
        share, first, last = min(1.0, (step - top) / (end - top)), 1.0, _LAST
        slow_to_fast = (_BETA1_FAST, _BETA1_SLOW)
    weight = 0.5 * (1 + math.cos(math.pi * share))
    return Rates(last + (first - last) * weight,
                 slow_to_fast[1] + (slow_to_fast[0] - slow_to_fast[1]) * weight)


def polynomial(step: int, config: TrainConfig) -> Rates:
    """Linear warm-up, then down to a tenth by (1 - progress)^0.9, as PixelFormer is trained."""
    if step < config.warmup_steps:
        return Rates((step + 1) / config.warmup_steps, BETA1)
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return Rates(0.1 + 0.9 * (1 - min(1.0, progress)) ** 0.9, BETA1)


# name -> function of (step, TrainConfig); steps count from 0
SCHEDULES: dict[str, Callable[[int, TrainConfig], Rates]] = {
    'cosine': cosine,
    'step': drops,
    'onecycle': one_cycle,
    'polynomial': polynomial,
}
