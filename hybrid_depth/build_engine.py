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
"""Build engines before they are needed, and look after those that are there."""
from __future__ import annotations

import argparse
from importlib import import_module
import json
from math import inf
from pathlib import Path
import time
from typing import Any

from hybrid_depth.config import PipelineConfig
from hybrid_depth.contract import read_spec
from hybrid_depth.errors import BackendUnavailable, ConfigError
from hybrid_depth.models import find_model
from hybrid_depth.runtime import BACKENDS, builds_engines, rows_of, why_not
from hybrid_depth.runtime.build_process import BuildProcess
from hybrid_depth.runtime.engine_cache import EngineCache, Entry
from hybrid_depth.runtime.ladder import LADDER, open_accepted, Progress

_DAY_S = 86400.0
_GIB = 1 << 30


def build(config: PipelineConfig, camera_size: tuple[int, int], progress: Progress | None = None,
          process: BuildProcess | None = None) -> str:
    """
    Make sure that an accepted engine is in the cache for a camera of (width, height).

    The engine is that which ``config`` leads to, also where it was refused or failed before.
    Returns its description. Raises BackendUnavailable with the reasons where there is none.
    """
    path = find_model(config.model)
    spec = read_spec(path)
    options = config.backend_options()
    reasons = []
    for row in rows_of(config.backend):
        if not builds_engines(import_module(BACKENDS[row])):
            reasons.append(f'{row}: it builds no engines')
        elif reason := why_not(row, options):
            reasons.append(f'{row}: {reason}')
        else:
            backend = open_accepted(row, path, spec, spec.network_size(*camera_size), options,
                                    process=process, progress=progress, retry=True)
            backend.close()
            return backend.description
    raise BackendUnavailable('no engine can be built: ' + '; '.join(reasons))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``run`` reads."""
    default = PipelineConfig()
    parser.add_argument('model', nargs='?', default=default.model,
                        help=f"shipped name or .onnx file (default: '{default.model}')")
    parser.add_argument('--size', metavar='WxH', help='of the camera, such as 1280x720')
    parser.add_argument('--backend', default=default.backend, help='runtime, or auto')
    parser.add_argument('--precision', choices=tuple(LADDER), default=default.precision,
                        help="'auto' takes the fastest that is accepted")
    parser.add_argument('--gpu', type=int, default=default.gpu, help='index of the CUDA device')
    parser.add_argument('--cache', default=default.engine_cache, help='folder of engines')
    parser.add_argument('--list', action='store_true', help='show what is in the cache')
    parser.add_argument('--json', action='store_true', help='with --list: print JSON')
    parser.add_argument('--prune', type=float, metavar='GIB',
                        help='remove the least recently used engines beyond so much; 0 = all')
    parser.add_argument('--older-than', type=float, metavar='DAYS',
                        help='remove the engines that were not used for so long')


def run(options: argparse.Namespace) -> int:
    """Do what the command line asks; return 0."""
    limits = [inf if limit is None else limit * unit for limit, unit
              in ((options.prune, _GIB), (options.older_than, _DAY_S))]
    if not all(limit >= 0 for limit in limits):  # nor NaN
        raise ConfigError('--prune and --older-than are limits: 0 or more is expected')
    if options.list or min(limits) < inf:
        cache = EngineCache(options.cache)
        if min(limits) < inf:
            removed = cache.prune(*limits)
            print(f'{len(removed)} removed from {cache.folder}')
        if options.list:
            entries = cache.entries()
            print(json.dumps([_row(entry) for entry in entries], indent=2) if options.json
                  else _table(cache.folder, entries))
        return 0
    if not options.size:
        raise ConfigError('--size is missing: an engine is built for one size of camera, such as '
                          '--size 1280x720')
    config = PipelineConfig(model=options.model, backend=options.backend,
                            precision=options.precision, engine_cache=options.cache,
                            gpu=options.gpu)
    print(f'ready: {build(config, camera_size(options.size))}')
    return 0


def camera_size(text: str) -> tuple[int, int]:
    """Read 'WxH'. Raises ConfigError."""
    width, _, height = text.partition('x')
    if not (width.isdecimal() and height.isdecimal() and 0 < int(width) <= 1 << 14
            and 0 < int(height) <= 1 << 14):
        raise ConfigError(f'the size {text!r} is none; expected WIDTHxHEIGHT such as 1280x720')
    return int(width), int(height)


def _row(entry: Entry) -> dict[str, Any]:
    return {'key': entry.key, 'bytes': entry.bytes, 'used': round(entry.used_s),
            'facts': entry.facts, 'report': entry.report}


def _table(folder: Path, entries: list[Entry]) -> str:
    lines = [f'{folder}: {len(entries)} entries, '
             f'{sum(entry.bytes for entry in entries) / (1 << 20):.0f} MiB']
    for entry in entries:
        height, width = entry.facts['size']
        figures = ', '.join(f'{name} {value:.3g}' for name, value
                            in entry.report.get('figures', {}).items())
        lines.append(f'{entry.key[:12]}  {entry.facts["precision"]:9s} {width}x{height}  '
                     f'{entry.bytes / (1 << 20):7.1f} MiB  used '
                     f'{(time.time() - entry.used_s) / _DAY_S:.1f} days ago  '
                     f'{entry.report["outcome"]} ({entry.report.get("reason") or figures})')
    return '\n'.join(lines)
