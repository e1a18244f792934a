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
What language is worth: PixelFormer, with TRCA, with TBCP, with both, and told the wrong thing.

The grid is one of ablation.py with a single stage, ``fit``. Every variant is measured on all
held-out frames, at the network's resolution; those that take words with the scene's caption, with
no caption (the neutral one), with the caption of another of the scenes that were learned, and with
one that never occurred.
"""
from __future__ import annotations

from collections.abc import Callable
import json
import logging
from pathlib import Path
import textwrap
from typing import Any

import numpy as np
import torch

from hybrid_depth.errors import ConfigError
from hybrid_depth.metrics import depth_metrics
from hybrid_depth_training import checkpoint
from hybrid_depth_training.augment import make_view, NO_AUGMENT
from hybrid_depth_training.config import TrainConfig
from hybrid_depth_training.evaluation.ablation import ablate, read_grid, resolve
from hybrid_depth_training.objectives import Batch, make_objective
from hybrid_depth_training.objectives.clip_prior import ClipPrior
from hybrid_depth_training.views import collate, DataMix
from hybrid_depth_training.weights import RANDOM

STAGE = 'fit'
MEASURES = ('abs_rel', 'rmse', 'log10', 'd1', 'd2', 'd3')
UNSEEN = 'a motorway'
BEGIN, END = '<!-- table: begin -->', '<!-- table: end -->'
_COLUMNS = 110  # of the text above the table
Row = dict[str, Any]
_log = logging.getLogger(__name__)


def clip_prior_ablation(grid: Path, runs: Path, out: Path,
                        markdown: Path | None = None) -> list[Row]:
    """
    Train what is not trained yet below ``runs``, measure everything, write the rows to ``out``.

    Rows: name, frames, MEASURES (averaged over the frames, nothing is scaled to the truth) and
    prompt; and, for reading them, backbone, text_tower, steps and seed. ``markdown`` is a file
    whose text between the table's marks is replaced. Raises ConfigError where the grid is none of
    this kind.
    """
    stages, variants = read_grid(grid)
    plan = {name: resolve(name, stages, variants) for name in variants}
    for name, own in plan.items():
        if set(own) != {STAGE} or own[STAGE][1].objective != 'clip_prior':
            raise ConfigError(f'variant {name} of {grid} has the stages {sorted(own)}; expected '
                              f'{STAGE} alone, of the objective clip_prior')
    ablate(grid, runs, runs / 'training.json')
    rows = []
    for name, own in plan.items():
        rows += measure(name, own[STAGE][1], runs / own[STAGE][0] / STAGE)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(rows, indent=2) + '\n')
    if markdown is not None:
        markdown.write_text(with_table(markdown.read_text(), rows))
    return rows


@torch.no_grad()
def measure(name: str, config: TrainConfig, run: Path) -> list[Row]:
    """Return the rows of one trained variant, one for each way of prompting it."""
    folder = checkpoint.newest(run)
    if folder is None:
        raise ConfigError(f'{run} holds no sound checkpoint; train it first')
    step, weights, _ = checkpoint.load(folder)
    objective = make_objective(config.objective, config.options, 0, 0, 1)
    assert isinstance(objective, ClipPrior)
    objective.load_state_dict(weights, strict=True)
    network = objective.eval().network
    frames = held_out(config)
    learned = sorted({caption for batch in frames for caption in batch['caption'] if caption})
    choices = prompts(learned) if network.has_language else {'-': lambda caption: ''}
    figures: dict[str, list[dict[str, float]]] = {choice: [] for choice in choices}
    for batch in frames:
        maps = network.pyramid(batch['image'])
        for choice, choose in choices.items():
            text = objective.text_of([choose(caption) for caption in batch['caption']],
                                     batch['image'])
            depth, _ = network.bins(maps, batch['K'], text)
            depth = torch.nn.functional.interpolate(
                depth, scale_factor=4.0, mode='bilinear', align_corners=False)
            figures[choice].append(depth_metrics(
                depth[0, 0].numpy(), batch['depth_m'][0, 0].numpy(),
                max_m=network.config.max_depth_m, min_m=objective.settings.min_truth_m))
    _log.info('%s is measured on %d frames', name, len(frames))
    return [{'name': name, 'frames': len(scores),
             **{key: float(np.mean([score[key] for score in scores])) for key in MEASURES},
             'prompt': choice, 'backbone': network.config.backbone,
             'text_tower': f'{network.config.text_model} '
             f'({Path(objective.settings.text_weights).name})' if network.has_language else '',
             'steps': step, 'seed': config.seed}
            for choice, scores in figures.items()]


def prompts(learned: list[str]) -> dict[str, Callable[[str], str]]:
    """Return the ways to prompt: name -> function of a frame's own caption to what is said."""
    ways: dict[str, Callable[[str], str]] = {
        'scene': lambda caption: caption,
        'neutral': lambda caption: '',
        f'never learned: {UNSEEN}': lambda caption: UNSEEN,
    }
    if len(learned) > 1:
        following = dict(zip(learned, [*learned[1:], learned[0]], strict=True))
        ways['wrong: of another scene'] = lambda caption: following.get(caption, learned[0])
    return ways


def held_out(config: TrainConfig) -> list[Batch]:
    """Return every held-out frame with truth, as the robot sees it, one to a batch."""
    rng = np.random.default_rng(config.seed)  # nothing is drawn from it
    frames = []
    for source, targets in DataMix(config).held_out:
        group = config.groups[source.group]
        for recording, index in targets:
            view = make_view(recording[index], (group.height, group.width), NO_AUGMENT, rng)
            if np.isfinite(view.depth_m).any():
                frames.append(collate([view]))
    if not frames:
        raise ConfigError(f'{config.name} holds no frame with truth out; set hold_out')
    return frames


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = ['| variant | prompt | frames | AbsRel | RMSE | log10 | d1 | d2 | d3 |',
             '|---|---|---|---|---|---|---|---|---|']
    lines += ['| ' + ' | '.join([row['name'], row['prompt'], str(row['frames']),
                                 *(f'{row[key]:.3f}' for key in MEASURES)]) + ' |'
              for row in rows]
    return '\n'.join(lines)


def with_table(text: str, rows: list[Row]) -> str:
    """Return ``text`` with the table and what it was made of between BEGIN and END."""
    if BEGIN not in text or END not in text:
        raise ConfigError(f'the text has no place for the table; expected {BEGIN} and {END}')
    before, _, rest = text.partition(BEGIN)
    towers = sorted({row['text_tower'] for row in rows if row['text_tower']})
    note = (f'{rows[0]["steps"]} steps each, backbone {rows[0]["backbone"]}, text tower '
            f'{", ".join(towers)}.')
    if any(f'({RANDOM})' in tower for tower in towers):
        note += ' Random text tower: this shows the mechanism, not what CLIP knows.'
    note = textwrap.fill(note, _COLUMNS)
    return f'{before}{BEGIN}\n{note}\n\n{table(rows)}\n{END}{rest.partition(END)[2]}'
