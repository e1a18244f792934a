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
Latency of networks through torch on a GPU, against what the device could do.

The device is calibrated in the same run: a large product for its arithmetic, a large copy for its
memory. Every network is run as it is and through torch.compile. Untried on CUDA: no GPU was at
hand.
"""
from __future__ import annotations

from collections.abc import Sequence
import copy
from dataclasses import dataclass
import json
from pathlib import Path
import platform
from typing import Any

import numpy as np
import torch
from torch import nn

from hybrid_depth.errors import ConfigError
from hybrid_depth.summary import latency_percentiles
from hybrid_depth_training.gpu.feed import deployed, street_frames
from hybrid_depth_training.gpu.session import no_compiler, TorchSession
from hybrid_depth_training.gpu.timing import (
    calibrate,
    count_gflop,
    host_to_host_ms,
    kernels,
    replay_ms,
    successive_ms,
)

# Limits of ms per frame by graph replay on an H100 or H200, of 224x672 and two sources; by what
# the run folder or the recipe is called. Of the depth in half precision besides: AbsRel to single.
GOALS_MS = {'small': 1.5, 'hybrid_base': 3.0}
GOAL_SIZE, GOAL_SOURCES = (224, 672), 2
GOAL_ABS_REL = 0.005
WAYS = {'eager': '', 'compiled': 'default', 'tuned': 'max-autotune-no-cudagraphs'}
_DRIVE = 8  # frames


@dataclass
class _Model:
    """A network before anything was rounded, and what is known of it."""

    row: dict[str, Any]  # of the JSON
    network: nn.Module
    drive: list[dict[str, np.ndarray]]
    reference: list[np.ndarray]  # depth of each frame in single precision
    floor_ms: float


def gpu_bench(models: Sequence[Path], out: Path, *, device: str = 'cuda',
              size: tuple[int, int] = GOAL_SIZE, sources: int = GOAL_SOURCES,
              frames: int = 200, is_half: bool | None = None, is_compiled: bool | None = None,
              is_tuned: bool = False) -> dict[str, Any]:
    """
    Measure ``models``, each a run folder or a recipe (then with random weights), and write JSON.

    ``size`` (H, W); ``sources`` earlier frames for networks that take them; ``is_half``: in half
    precision, None: on CUDA (a CPU is slow at it, and shows what it does to depth);
    ``is_compiled``: through torch.compile as well, None: on CUDA where there is a compiler;
    ``is_tuned``: besides let it try kernels of its own against the libraries', for minutes. What
    is measured is written at once, so that a run that is cut short leaves its figures. Raises
    ConfigError where there is no such device, model or compiler.
    """
    where = torch.device(device)
    if where.type == 'cuda' and not torch.cuda.is_available():
        raise ConfigError('torch finds no CUDA device; expected a GPU, its driver and a build of '
                          'torch for CUDA. --device cpu tries the code, not the speed')
    if is_half is None:
        is_half = where.type == 'cuda'
    why_not = {'eager': '', 'compiled': _why_not_compiled(where, is_compiled)}
    why_not['tuned'] = why_not['compiled'] or (
        '' if is_tuned else 'it takes minutes; --tuned true asks for it')
    rows: dict[str, dict[str, Any]] = {str(path): {} for path in models}
    found = {
        'device': _device_name(device), 'torch': torch.__version__, 'cuda': torch.version.cuda,
        'platform': platform.platform(), 'size': list(size), 'sources': sources,
        'frames': frames, 'peak': calibrate(where), 'models': rows, 'goals': {}}
    out.parent.mkdir(parents=True, exist_ok=True)

    def save() -> None:
        found['goals'] = goals(rows, size, sources)
        out.write_text(json.dumps(found, indent=1) + '\n')

    known = [_prepared(path, rows[str(path)], device, is_half, size, sources, frames,
                       found['peak']) for path in models]
    sessions = []
    for way in WAYS:  # the quick ones of all models first
        for model in known:
            if why_not[way]:
                model.row[way] = {'why_not': why_not[way]}
            else:
                sessions += _measured(model, way, device, frames)
            save()
    for figures, session in sessions:  # last, for what is timed afterwards may be slower
        figures['kernels'] = kernels(session)
    save()
    return found


def goals(rows: dict[str, dict[str, Any]], size: tuple[int, int],
          sources: int) -> dict[str, dict[str, Any]]:
    """Return {name: {'goal', 'measured', 'is_met'}}; None for what this run did not measure."""
    result = {}
    for name, goal in GOALS_MS.items():
        row = next((row for path, row in rows.items() if Path(path).stem == name), {})
        is_asked = (tuple(size) == GOAL_SIZE and sources == GOAL_SOURCES
                    and row.get('precision') == 'fp16')
        replay = row.get(row.get('fastest', ''), {}).get('replay_ms', {}) if is_asked else {}
        result[f'{name}_224x672_ms'] = _goal(goal, replay.get('p50'))
    errors = [row[way]['abs_rel_to_fp32'] for row in rows.values()
              if row.get('precision') == 'fp16' for way in WAYS
              if 'abs_rel_to_fp32' in row.get(way, {})]
    return result | {'fp16_abs_rel': _goal(GOAL_ABS_REL, max(errors, default=None))}


def _goal(goal: float, measured: float | None) -> dict[str, Any]:
    return {'goal': goal, 'measured': measured,
            'is_met': None if measured is None else measured <= goal}


def _why_not_compiled(device: torch.device, is_compiled: bool | None) -> str:
    """Return why nothing is compiled, or nothing. Raises ConfigError where it was asked for."""
    if is_compiled is False:
        return 'it was asked not to'
    if is_compiled is None and device.type != 'cuda':
        return 'only on CUDA, where it was not asked for'
    reason = no_compiler(device)
    if reason and is_compiled:
        raise ConfigError(f'torch.compile was asked for, but {reason}')
    return reason


def _prepared(path: Path, row: dict[str, Any], device: str, is_half: bool, size: tuple[int, int],
              sources: int, frames: int, peak: dict[str, float]) -> _Model:
    """Open a model, and measure it in single precision: ``row`` gets what holds for every way."""
    network = deployed(path)
    drive = street_frames(network, size, sources, _DRIVE)
    weights = sum(parameter.numel() for parameter in network.parameters())
    gflop = count_gflop(network, drive[0])
    floor = {'compute_ms': round(gflop / peak['tflop_per_s'], 4),
             'weights_ms': round((2 if is_half else 4) * 1e-6 * weights
                                 / peak['copy_gb_per_s'], 4)}
    single = TorchSession(copy.deepcopy(network), drive[0], device, is_half=False)
    reference = _depths(single, drive)
    row.update({
        'weights': 'of the run' if path.is_dir() else 'random', 'parameters_m': weights / 1e6,
        'gflop': gflop, 'floor_ms': floor, 'precision': 'fp16' if is_half else 'fp32',
        'is_graph_replay': torch.device(device).type == 'cuda',
        'fp32_host_to_host_ms': latency_percentiles(
            host_to_host_ms(single, drive, max(3, frames // 10)))})
    return _Model(row, network, drive, reference, max(floor.values()))


def _measured(model: _Model, way: str, device: str,
              frames: int) -> list[tuple[dict[str, Any], TorchSession]]:
    """Measure a model in one way; return its figures and session, nothing if it won't compile."""
    row = model.row
    try:
        session = TorchSession(copy.deepcopy(model.network), model.drive[0], device,
                               row['precision'] == 'fp16', WAYS[way])
    except Exception as error:  # whatever a compiler fails with is a finding
        if not WAYS[way]:
            raise
        row[way] = {'why_not': f'{type(error).__name__}: {error}'[:2000]}
        return []
    row[way] = _figures(session, model.drive, frames, model.reference, model.floor_ms)
    row['fastest'] = min((name for name in WAYS if 'programs' in row.get(name, {})),
                         key=lambda name: _median(row[name]))
    return [(row[way], session)]


def _figures(session: TorchSession, drive: Sequence[dict[str, np.ndarray]], frames: int,
             reference: Sequence[np.ndarray], floor_ms: float) -> dict[str, Any]:
    depths = _depths(session, drive)
    errors = [float(np.mean(np.abs(depth - exact) / exact))
              for depth, exact in zip(depths, reference, strict=True)]
    figures = {
        'ready_s': round(session.ready_s, 1), 'programs': session.graphs,
        'exact_layers': session.exact_layers,
        'abs_rel_to_fp32': float(np.mean(errors)), 'abs_rel_to_fp32_worst_frame': max(errors),
        'host_to_host_ms': latency_percentiles(host_to_host_ms(session, drive, frames)),
        'replay_ms': latency_percentiles(replay_ms(session, frames)),
        'successive_ms': successive_ms(session, frames)}
    return figures | {'ratio_to_floor': round(_median(figures) / floor_ms, 2)}


def _median(figures: dict[str, Any]) -> float:
    """Return ms per frame: of the device, or where it has no clock from host to host."""
    return figures['replay_ms']['p50'] or figures['host_to_host_ms']['p50']


def _depths(session: TorchSession, drive: Sequence[dict[str, np.ndarray]]) -> list[np.ndarray]:
    session.reset()
    return [session.fetch(session.step(frame)['depth']) for frame in drive]


def _device_name(device: str) -> str:
    if torch.device(device).type == 'cuda':
        return torch.cuda.get_device_name(device)
    return f'{platform.machine()} CPU: the code was tried, no GPU was measured'
