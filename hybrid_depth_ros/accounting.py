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
"""What became of every published frame: the numbers of summary.json, and the table of them."""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def rate_hz(arrivals_ns: Sequence[int]) -> float | None:
    """Return the mean rate of arrivals; None for fewer than two."""
    if len(arrivals_ns) < 2 or arrivals_ns[-1] <= arrivals_ns[0]:
        return None
    return round((len(arrivals_ns) - 1) / ((arrivals_ns[-1] - arrivals_ns[0]) * 1e-9), 3)


def accounting_problems(published: int, processed: int, received_by_node: int,
                        drops: Mapping[str, int]) -> list[str]:
    """Say which published frames are missing, and why as far as anybody knows."""
    problems = []
    if drops:
        reasons = ', '.join(f'{count} {reason}' for reason, count in sorted(drops.items()))
        problems.append(f'dropped by the node: {reasons}')
    lost = published - processed - sum(drops.values())
    if lost > 0:
        on_the_way = max(0, published - received_by_node)
        problems.append(f'lost: {lost} of {published} frames neither came out nor were counted '
                        f'as dropped ({on_the_way} of them never reached the node)')
    elif lost < 0:
        problems.append(f'counted twice: {processed} came out and {sum(drops.values())} were '
                        f'dropped of {published} published')
    return problems


def count_texts(texts: Iterable[str]) -> list[str]:
    """Return each text once, with how often it was said."""
    return [f'{text} ({count} x)' if count > 1 else text
            for text, count in Counter(texts).items()]


def table(summary: Mapping[str, Any]) -> str:
    """Return the summary as a table for the terminal."""
    def text(value: Any, unit: str = '') -> str:
        return '-' if value is None else f'{value:g}{unit}' if unit or isinstance(
            value, float) else str(value)
    latency = summary['latency_ms']
    drops = ', '.join(f'{reason} {count}' for reason, count in summary['drops'].items())
    rows = [
        ('frames published', text(summary['frames_published'])),
        ('frames processed', text(summary['frames_processed'])),
        ('frames dropped', drops or '0'),
        ('latency p50 / p95 / p99',
         ' / '.join(text(latency[key]) for key in ('p50', 'p95', 'p99')) + ' ms'),
        ('rate', text(summary['rate_hz'], ' Hz')),
        ('share with odometry', text(summary['posed_share'])),
        ('ms by stage', ', '.join(f'{name} {value:g}'
                                  for name, value in summary['stages_ms'].items()) or '-'),
        ('model', summary['model']),
        ('backend', summary['backend']),
    ]
    accuracy = summary['accuracy']
    if accuracy is None:
        rows.append(('accuracy', 'the drive has no ground truth'))
    else:
        for name, values in accuracy.items():
            rows.append((f'accuracy, {name.replace("_", " ")}', ', '.join(
                f'{key} {values[key]:.3f}' for key in ('abs_rel', 'rmse', 'd1'))))
    width = max(len(name) for name, _ in rows)
    lines = [f'  {name:<{width}}  {value}' for name, value in rows]
    lines += [f'  PROBLEM: {problem}' for problem in summary['problems']]
    return '\n'.join(lines)
