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
Ablation: what each part of the model is worth, by training it without.

A grid is a YAML file with the settings of the stages, in the order in which they are trained, and
the variants: what each of them changes.

    stages:
      coarse: {...}                     # a whole TrainConfig
      fine: {...}
    variants:
      full: {}
      no_language: {coarse: null, fine: {options: {...}}}   # null: without this stage
      no_pose: {coarse: full, fine: {...}}       # the name of a variant: its stage is used

Mappings are merged, anything else replaces. A stage starts from the weights of the one before. All
share seed and data as far as the file says so. Every stage of every variant is a run folder, and
what is finished is not trained again.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
import json
import logging
import math
from pathlib import Path
import time
from typing import Any

import yaml

from hybrid_depth.errors import ConfigError
from hybrid_depth_training import checkpoint
from hybrid_depth_training.config import make_config, TrainConfig
from hybrid_depth_training.evaluation.describe import describe
from hybrid_depth_training.train import train

_log = logging.getLogger(__name__)
Row = dict[str, Any]

# column of the table -> (figure of a validation row, digits)
COLUMNS = {
    'AbsRel, median-scaled': ('abs_rel_scaled', 3),
    'd1, median-scaled': ('d1_scaled', 3),
    'AbsRel, metric': ('abs_rel', 3),
    'photometric error': ('photometric', 4),
    'unmoved': ('photometric_unmoved', 4),
    'patch order': ('order_accuracy', 3),
    'proxy task': ('proxy_accuracy', 3),
    'order by row': ('order_by_row', 3),
}


def ablate(grid: Path, runs: Path, out: Path) -> list[Row]:
    """
    Train every variant of ``grid`` below the folder ``runs`` and write the rows to ``out`` (JSON).

    ``out`` is written after every variant, so that what is done can be read. Each row holds name,
    changes, parameters_m and gmac (of the network as deployed, see describe), steps, seconds and
    cpu_seconds (of this process) by stage, and the figures of the last validations, averaged over
    the held-out frames; None where a variant has no such figure, or a stage was interrupted and
    its time is not known. Raises ConfigError where the grid says something impossible.
    """
    stages, variants = read_grid(grid)
    plan = {name: resolve(name, stages, variants) for name in variants}
    rows = []
    for name, own in plan.items():
        row = _train_variant(name, own, runs)
        rows.append({'name': name, 'changes': variants[name], **row})
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(rows, indent=2) + '\n')
        _log.info('variant %s: %s', name, row)
    return rows


def read_grid(path: Path) -> tuple[dict[str, Row], dict[str, Row]]:
    """Return the stages and the variants of a grid file. Raises ConfigError."""
    try:
        grid = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f'the grid {path} cannot be read: {error}') from error
    if not isinstance(grid, dict) or set(grid) != {'stages', 'variants'}:
        raise ConfigError(f'{path} is no grid; expected the keys stages and variants')
    stages, variants = grid['stages'], grid['variants']
    for name, changes in variants.items():
        unknown = sorted(set(changes) - set(stages))
        if unknown:
            raise ConfigError(f'variant {name} changes the stages {unknown}; the grid has '
                              f'{sorted(stages)}')
    return stages, variants


def resolve(name: str, stages: Mapping[str, Row],
            variants: Mapping[str, Row]) -> dict[str, tuple[str, TrainConfig]]:
    """
    Return the stages of variant ``name``: stage -> (variant whose run folder it is, config).

    Raises ConfigError on unknown keys and on a stage taken from a variant that has none.
    """
    resolved = {}
    for stage, settings in stages.items():
        owner, changes = name, variants[name].get(stage, {})
        if isinstance(changes, str):
            owner = changes
            if owner not in variants:
                raise ConfigError(f'variant {name} takes stage {stage} from {owner}, which is not '
                                  f'in the grid; known: {sorted(variants)}')
            changes = variants[owner].get(stage, {})
            if not isinstance(changes, dict):
                raise ConfigError(f'variant {name} takes stage {stage} from {owner}, which has no '
                                  'such stage of its own')
        if changes is not None:
            resolved[stage] = owner, make_config(
                merge(settings, changes), f'variant {name}, stage {stage}')
    return resolved


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes``: mappings are merged, anything else replaces."""
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def _train_variant(name: str, stages: Mapping[str, tuple[str, TrainConfig]], runs: Path) -> Row:
    """Train the stages one after another; return the row without name and changes."""
    row: Row = {'steps': {}, 'seconds': {}, 'cpu_seconds': {},
                **dict.fromkeys(f for f, _ in COLUMNS.values())}
    before = ''
    for stage, (owner, config) in stages.items():
        run = runs / owner / stage
        config = TrainConfig(**{**vars(config), 'init_from': config.init_from or before})
        took = _train_once(config, run, f'{name}, stage {stage}')
        row['seconds'][stage], row['cpu_seconds'][stage] = took['seconds'], took['cpu_seconds']
        row['steps'][stage] = config.steps
        size = describe(config)
        row['parameters_m'], row['gmac'] = size['parameters_m'], size['gmac']
        row.update(last_figures(run / 'metrics.jsonl'))
        before = str(run)
    return row


def _train_once(config: TrainConfig, run: Path, label: str) -> dict[str, float | None]:
    """Train unless that is done already; return the time it took, None where interrupted."""
    done, known = run / 'done.json', run / 'config.yaml'
    if known.is_file() and yaml.safe_load(known.read_text()) != _as_saved(config):
        raise ConfigError(f'{run} was trained with other settings than {label} has now; remove '
                          'that folder, or give another one with --runs')
    took: dict[str, float | None]
    if done.is_file():
        _log.info('%s is done already', label)
        took = json.loads(done.read_text())
        return took
    is_fresh = checkpoint.newest(run) is None
    wall, cpu = time.monotonic(), time.process_time()
    train(config, run)
    took = {'seconds': None, 'cpu_seconds': None}
    if is_fresh:
        took = {'seconds': round(time.monotonic() - wall, 1),
                'cpu_seconds': round(time.process_time() - cpu, 1)}
    done.write_text(json.dumps(took))
    return took


def _as_saved(config: TrainConfig) -> Row:
    """Return ``config`` as it reads from a config.yaml."""
    saved: Row = yaml.safe_load(yaml.safe_dump(asdict(config)))
    return saved


def last_figures(metrics: Path) -> dict[str, float]:
    """
    Return the figures of COLUMNS at the last validation, averaged over the held-out frames.

    ``metrics`` is the metrics.jsonl of a run. A source without such a figure (no truth, no
    neighbours) counts for nothing.
    """
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    rows = [row for row in rows if 'validation' in row]
    last = max((row['step'] for row in rows), default=0)
    latest = {row['validation']: row for row in rows if row['step'] == last}.values()
    figures = {}
    for key, _ in COLUMNS.values():
        known = [row for row in latest if key in row and math.isfinite(row[key])]
        frames = sum(row['frames'] for row in known)
        if frames:
            figures[key] = sum(row[key] * row['frames'] for row in known) / frames
    return figures


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = ['| variant | parameters, M | GMAC | steps | ' + ' | '.join(COLUMNS)
             + ' | seconds | of CPU |',
             '|---|' + '---|' * (len(COLUMNS) + 5)]
    for row in rows:
        cells = [row['name'], f'{row["parameters_m"]:.1f}', f'{row["gmac"]:.1f}',
                 _joined(row['steps'])]
        cells += ['-' if row[key] is None else f'{row[key]:.{digits}f}'
                  for key, digits in COLUMNS.values()]
        lines.append('| ' + ' | '.join([*cells, _joined(row['seconds']),
                                        _joined(row['cpu_seconds'])]) + ' |')
    return '\n'.join(lines)


def _joined(by_stage: Mapping[str, float | None]) -> str:
    return ' + '.join('?' if value is None else f'{value:.0f}' for value in by_stage.values())
