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
"""The statistics of a measurement: what they are, apart from what is measured."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
import time
from typing import Any, NamedTuple

import numpy as np

MAX_LOSS = 0.05  # of a rate that counts as kept up with
PAUSE_S = 0.15  # before a block: threads of other runtimes spin on for some tens of ms
_HALVINGS = 5


class Arrival(NamedTuple):
    """One output of the node, as a listener saw it; both in ns of the same clock."""

    stamp_ns: int  # of the image
    arrival_ns: int


def read_arrivals(path: Path, topic: str) -> list[Arrival]:
    """Return what a listener has written of ``topic`` so far."""
    rows = (line.split() for line in path.read_text().splitlines())
    return [Arrival(int(row[1]), int(row[2])) for row in rows
            if len(row) == 3 and row[0] == topic]


def percentiles(values: Sequence[float], *, digits: int = 3) -> dict[str, float | None]:
    """Return p50, p95 and p99 of ``values``; None each where there are none."""
    if not len(values):
        return {'p50': None, 'p95': None, 'p99': None}
    found = np.percentile(np.asarray(values, np.float64), [50, 95, 99])
    return {f'p{percent}': round(float(value), digits)
            for percent, value in zip((50, 95, 99), found, strict=True)}


def stream_figures(sent_ns: Sequence[int], arrivals: Sequence[Arrival],
                   seconds: float) -> dict[str, Any]:
    """
    Sum up one stream: images stamped ``sent_ns`` within ``seconds``, and what came of them.

    ``jitter_ms`` is the standard deviation of the intervals between arrivals, ``growth`` the
    median latency of the second half over that of the first: 1 where nothing queues up.
    """
    stamps = set(sent_ns)
    own = sorted(a for a in arrivals if a.stamp_ns in stamps)
    latency = [1e-6 * (a.arrival_ns - a.stamp_ns) for a in own]
    gaps = np.diff(np.array(sorted(a.arrival_ns for a in own), np.int64)) * 1e-6
    half = len(latency) // 2
    growth = None
    if half:
        growth = round(float(np.median(latency[half:]) / np.median(latency[:half])), 3)
    return {'sent': len(sent_ns), 'received': len(own),
            'loss': round(loss(len(sent_ns), len(own)), 4),
            'sent_hz': round(len(sent_ns) / seconds, 2),
            'received_hz': round(len(own) / seconds, 2),
            'latency_ms': percentiles(latency),
            'jitter_ms': round(float(gaps.std()), 3) if len(gaps) > 1 else None,
            'latency_growth': growth}


def loss(sent: int, received: int) -> float:
    """Return which part of ``sent`` was not received."""
    return 1 - received / sent if sent else 0.0


def highest_rate(loss_at: Callable[[float], float], low_hz: float, high_hz: float,
                 steps: int) -> float | None:
    """
    Search the highest rate whose loss is at most MAX_LOSS, by halving the logarithm.

    ``loss_at(hz)`` measures. Tries ``low_hz`` first, and half of it up to four times while that is
    too much, then ``steps`` rates between it and ``high_hz``. Returns the highest that was kept up
    with, None where none was.
    """
    for _ in range(_HALVINGS):
        if loss_at(low_hz) <= MAX_LOSS:
            break
        low_hz, high_hz = low_hz / 2, low_hz
    else:
        return None
    for _ in range(steps):
        middle = (low_hz * high_hz) ** 0.5
        if loss_at(middle) <= MAX_LOSS:
            low_hz = middle
        else:
            high_hz = middle
    return low_hz


def times_ms(work: Callable[[], object], seconds: float, least: int = 5) -> list[float]:
    """Return the times of ``work``: ``least`` at least, for ``seconds``, less the very first."""
    work()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - start))
    return times


def blocks_ms(works: Mapping[str, Callable[[], object]], block_s: float,
              rounds: int) -> dict[str, list[float]]:
    """
    Return the median time of each of ``works`` in each of ``rounds``, in milliseconds.

    In a round each work has its block: a pause, two calls that do not count, and calls for
    ``block_s``. Were single calls to take turns, threads of one work would still spin in another.
    """
    medians: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            time.sleep(PAUSE_S)
            work()
            medians[name].append(median_ms(work, block_s, least=3))
    return medians


def median_ratio(values: Sequence[float], bases: Sequence[float]) -> float:
    """Return the median of value / base of single rounds: the machine may be busy in some."""
    return round(float(np.median(np.divide(values, bases))), 3)


def median_ms(work: Callable[[], object], seconds: float, least: int = 5) -> float:
    """Return the median time of ``work`` in milliseconds; see ``times_ms``."""
    return round(float(np.median(times_ms(work, seconds, least))), 3)


def ratio(value: float | None, base: float | None) -> float | None:
    """Return value / base; None where one is not known or base is 0."""
    return round(value / base, 3) if value is not None and base else None
