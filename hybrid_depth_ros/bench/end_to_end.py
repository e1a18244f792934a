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
"""End to end through real processes: overhead, fixed rates, the highest rate, overload, idle."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hybrid_depth_ros.bench.chain import Chain
from hybrid_depth_ros.bench.frames import resolution
from hybrid_depth_ros.bench.plan import Plan
from hybrid_depth_ros.bench.statistics import highest_rate, percentiles, ratio

CLOUD_STRIDE = 2
TOPICS = ('depth/image', 'points')
_NETWORK = ('inference',)  # stages that are the model's own


def measure(plan: Plan, backend: str, environment: Mapping[str, str], out: Path,
            views: Sequence[np.ndarray], sizes: Sequence[tuple[int, int]], *,
            with_idle: bool) -> dict[str, Any]:
    """
    Measure one node with ``backend`` at ``sizes``, from its start to its end.

    Raises ChainError where the processes do not come together.
    """
    parameters = {'model': plan.model, 'backend': backend, 'cpu_threads': plan.cpu_threads,
                  'cloud.stride': CLOUD_STRIDE}
    found: dict[str, Any] = {'backend': backend, 'cloud_stride': CLOUD_STRIDE,
                             'topics': list(TOPICS)}
    with Chain(environment, out, views, parameters) as chain:
        chain.show(sizes[0])
        chain.until_ready()
        if with_idle:
            chain.play(30.0, plan.load_s)
            idle = chain.play(30.0, plan.idle_s)
            found['idle'] = {key: idle[key] for key in ('hz', 'cpu_percent', 'rss_mib')}
        chain.listen(TOPICS)
        found['sizes'] = {}
        for size in sizes:
            chain.show(size)
            frames = chain.step(plan.frames, plan.frames_s)
            row: dict[str, Any] = {'frames': len(frames), **frame_times(frames)}
            if plan.all_sizes_streamed or size == plan.main_size:
                row |= _streams(chain, plan, 1e3 / row['work_ms']['p50'])
            found['sizes'][resolution(size)] = row
    return found


def frame_times(frames: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """
    Sum up what the node's stopwatch said of each frame.

    ``overhead_ms`` is all but the model: taking the message, and the time from the mailbox to the
    last output published, less inference.
    """
    overhead = [(frame['take_ms'] or 0.0) + frame['work_ms']
                - sum(frame['stages'].get(name, 0.0) for name in _NETWORK) for frame in frames]
    takes = [frame['take_ms'] for frame in frames if frame['take_ms'] is not None]
    names = sorted({name for frame in frames for name in frame['stages']} - {'total'})
    return {'overhead_ms': percentiles(overhead),
            'work_ms': percentiles([frame['work_ms'] for frame in frames]),
            'take_ms': percentiles(takes),
            'stages_ms': {name: percentiles([frame['stages'].get(name, 0.0) for frame in frames])
                          for name in names}}


def _streams(chain: Chain, plan: Plan, about_hz: float) -> dict[str, Any]:
    """Play fixed rates, search the highest one near ``about_hz``, then play twice that."""
    fixed = {f'{hz:g}': chain.play(hz, plan.stream_s) for hz in plan.rates_hz}
    tried: list[dict[str, Any]] = []

    def loss_at(hz: float) -> float:
        # at a low rate one image would be a large part of all
        tried.append(chain.play(hz, max(plan.search_s, plan.least_images / hz)))
        return float(tried[-1]['loss'])

    best = highest_rate(loss_at, 0.35 * about_hz, 1.6 * about_hz, plan.search_steps)
    found: dict[str, Any] = {'fixed_hz': fixed, 'highest_hz': best, 'search': tried}
    if best is not None:
        at_best = next(row for row in reversed(tried) if row['hz'] == round(best, 2))
        over = chain.play(2 * best, max(plan.stream_s, plan.least_images / best))
        found['overload'] = {
            'latency_ratio': ratio(over['latency_ms']['p50'], at_best['latency_ms']['p50']),
            'latency_growth': over['latency_growth'], 'at_highest': at_best, 'at_twice': over}
    return found
