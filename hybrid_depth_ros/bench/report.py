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
"""docs/performance.md from the figures: nothing in it is typed in by hand."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hybrid_depth_ros.bench.peak import LENGTH, LIBRARIES

GOAL_OVERHEAD_MS, GOAL_PREPROCESS_MS, GOAL_IDLE_PERCENT = 8.0, 0.5, 3.0
GOAL_INT8 = 0.75  # of the time of fp32
GOAL_SHARE = 0.8  # of the peak of matrix products


def markdown(found: dict[str, Any]) -> str:
    """Return the report on what ``bench`` found."""
    config, real, null = found['config'], *(found['end_to_end'][k] for k in ('model', 'null'))
    parts = [
        '# Performance', _intro(found), '## Goals', _goals(found),
        '## End to end, with the model',
        f"Model `{config['model']}`, runtime `{config['backend']}`, {config['cpu_threads']} "
        'threads; the node publishes depth and the cloud at stride '
        f"{real['cloud_stride']} to a listener. Overhead is taking the image and all work on it "
        'up to the last output published, less inference; one image at a time.',
        _overhead(real), _streams(real),
        '## End to end, with a model that takes no time',
        'The same, but the runtime answers at once with a fixed depth: what is left is the node.',
        _overhead(null), _streams(null),
        '## Stages alone', 'Medians in ms, in one process, without middleware.',
        _by_size(found['stages_alone']),
        'With poses, on the synthetic drive, at its own size (ms):',
        _by_size(found['stages_with_poses'], 'model/runtime'),
        '## Messages and clouds',
        f"At {_size(config['main_size'])}. The naive ways are in "
        '`hybrid_depth_ros/bench/messages.py`.',
        _messages(found), '## Runtimes', _backends(found['backends']),
        *([_backends(found['backends_large'])] if found['backends_large'] else []),
        *([f"The network of `{config['wide_recipe']}`, the publication's, with random weights:",
           _backends(found['backends_wide'])] if isinstance(found['backends_wide'], dict) else []),
        *([_int8(found['int8_mix'])] if not isinstance(found['int8_mix'], str) else []),
        '## Growth', _growth(found),
        '## Not run', table(['what', 'why'], found['not_run'].items()),
        '## Versions', table(['what', 'version'], found['versions'].items())]
    return '\n\n'.join(parts) + '\n'


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [head, ['---'] * len(head), *rows]
    return '\n'.join('| ' + ' | '.join(_text(cell) for cell in line) + ' |' for line in lines)


def _text(cell: object) -> str:
    return '-' if cell is None else str(cell).replace('|', '\\|').replace('\n', ' ')


def _size(size: Sequence[int]) -> str:
    return 'x'.join(map(str, size))


def _intro(found: dict[str, Any]) -> str:
    device, quick = found['device'], ' ARGS=--quick' if found['config']['is_quick'] else ''
    text = (f"Written by `make bench{quick}` at commit `{found['commit'] or 'unknown'}` on "
            f"{device['cpu']}; load average before: "
            f"{', '.join(map(str, device['load_average']))}. Every ratio compares two figures of "
            'this one run.')
    if quick:
        text += ' A quick run has few samples: a rough look, not a reference.'
    return text


def _goals(found: dict[str, Any]) -> str:
    size = _size(found['config']['main_size'])
    overhead = found['node_overhead_ms'][size]['p50']
    pre = found['stages_alone'][size]['preprocess']
    idle = found['idle_cpu_percent']
    main = found['end_to_end']['model']['sizes'][size].get('overload', {})
    return table(['what', 'goal', 'measured'], [
        [f'node overhead at {size}, median', f'<= {GOAL_OVERHEAD_MS:g} ms', f'{overhead} ms'],
        [f'preprocessing at {size}, median', f'<= {GOAL_PREPROCESS_MS:g} ms', f'{pre} ms'],
        ['idle: camera at 30 Hz, nobody listens', f'<= {GOAL_IDLE_PERCENT:g} % of a core',
         f'{idle} %'],
        *([f"ONNX Runtime fp32 of the machine's GEMM peak, `{model}`", f'>= {GOAL_SHARE:g}', share]
          for model, share in found['ort_fp32_share_of_peak'].items()),
        ['ONNX Runtime int8_mix / OpenVINO fp32, the large model', f'<= {GOAL_INT8:g}',
         found['int8_mix_over_openvino_fp32']],
        ['median latency at twice the highest rate / at that rate', 'does not grow',
         found['overload_latency_ratio']],
        ['second half of that overload / first half', 'about 1', main.get('latency_growth')]])


def _overhead(run: dict[str, Any]) -> str:
    names = sorted({name for row in run['sizes'].values() for name in row['stages_ms']})
    return table(
        ['camera', 'frames', 'overhead p50 (ms)', 'p95', 'take',
         *(f'{name}' for name in names)],
        [[size, row['frames'], row['overhead_ms']['p50'], row['overhead_ms']['p95'],
          row['take_ms']['p50'],
          *(row['stages_ms'].get(name, {}).get('p50') for name in names)]
         for size, row in run['sizes'].items()])


def _streams(run: dict[str, Any]) -> str:
    rows = []
    for size, row in run['sizes'].items():
        streams = [(f'fixed {hz} Hz', stream) for hz, stream in row.get('fixed_hz', {}).items()]
        if 'overload' in row:
            streams += [('highest rate', row['overload']['at_highest']),
                        ('twice that', row['overload']['at_twice'])]
        rows += [[size, name, stream['hz'], f"{100 * stream['loss']:.1f}",
                  *(stream['latency_ms'][p] for p in ('p50', 'p95', 'p99')), stream['jitter_ms'],
                  stream['cpu_percent'], stream['rss_mib']] for name, stream in streams]
    return table(['camera', 'stream', 'Hz', 'lost (%)', 'latency p50 (ms)', 'p95', 'p99',
                  'jitter (ms)', 'CPU (% of a core)', 'memory (MiB)'], rows)


def _by_size(rows: dict[str, dict[str, Any]], head: str = 'camera') -> str:
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    return table([head, *names], [[key, *(row.get(name) for name in names)]
                                  for key, row in rows.items()])


def _messages(found: dict[str, Any]) -> str:
    conversions = dict(found['messages'])
    bridge = conversions.pop('cv_bridge')
    rows = [*conversions.items(), *((f'cloud, {k}', row) for k, row in found['clouds'].items())]
    text = table(['what', 'ours (ms)', 'naive (ms)', 'ratio'],
                 [[name, row['ms'], row['naive_ms'], row['ratio']] for name, row in rows])
    return text if isinstance(bridge, str) else text + '\n\ncv_bridge (ms):\n\n' + table(
        ['what', 'ms'], bridge.items())


def _backends(found: dict[str, Any]) -> str:
    rows: list[list[object]] = []
    for name, row in found['rows'].items():
        if not isinstance(row, str):
            rows.append([name, row['description'], row['ms'], row['gflop_per_s'],
                         *(row['gemm'][library] for library in LIBRARIES),
                         f"{row['gemm_gflop_per_s']} ({row['gemm']['best']})",
                         row['share_of_peak']])
    return (f"`{found['model']}` at {found['network']}: {found['gflop']} GFLOP a frame (2 x "
            'multiply-adds of products and convolutions, counted while it runs), '
            f"{found['cpu_threads']} threads. The peak is the best of the float32 matrix products "
            f"({LENGTH} x {LENGTH}) of {' and '.join(LIBRARIES)} on as many threads, in a process "
            'of its own just before and just after.\n\n'
            + table(['runtime/precision', 'what', 'ms', 'GFLOP/s',
                     *(f'product of {library} (GFLOP/s)' for library in LIBRARIES),
                     'peak (GFLOP/s)', 'share'], rows))


def _int8(found: dict[str, Any]) -> str:
    rows = [[name, row['description'], row['ms'], row['over_openvino_fp32']]
            for name, row in found['rows'].items() if not isinstance(row, str)]
    return (f"`{found['model']}` at {found['network']} in 8 bits, quantised for this in "
            f"{found['quantise_s']} s: {found['layers']} of {found['candidates']} layers; depth "
            f"is {100 * found['depth_from_fp32']:.2f} % from fp32 on {found['frames']} frames "
            'of a drive that no range was measured on. Times are medians over rounds, in each of '
            'which every row has a block of calls to itself, after a pause; ratios are medians of '
            'those of single rounds.\n\n'
            + table(['runtime/precision', 'what', 'ms', 'over OpenVINO fp32'], rows))


def _growth(found: dict[str, Any]) -> str:
    growth = found['growth']
    parts = ['Cost over that at the first size, by stage:', _by_size(growth['resolution'])]
    sources = growth['sources']
    if not isinstance(sources, str):
        parts.append('Inference by the number of earlier frames matched (ms): '
                     + ', '.join(f'{count}: {ms}' for count, ms in sources['ms'].items()) + '.')
    parts.append('One image of each camera through a shared model:')
    cameras = growth['cameras']
    parts.append(table(['cameras', 'ms', 'ratio', 'memory (MiB)'],
                       [[count, row['ms'], cameras['ratio'][count], row['rss_mib']]
                        for count, row in cameras['cameras'].items()]))
    return '\n\n'.join(parts)
