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
"""What the node counts, what it says on /diagnostics, and logging through rclpy."""
from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import logging
import threading
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
import numpy as np

# drops that are how the node is meant to work; every other reason is a fault of the input
HARMLESS_DROPS = frozenset({'replaced', 'no_subscriber'})
_WINDOW = 200  # frames over which latency percentiles are taken
_RATE_WINDOW_S = 3.0
_SILENT_TICKS, _STALE_TICKS = 2, 10  # without an image, until it is a warning, and out of date
_SLOW_S, _STUCK_S = 3.0, 10.0  # at work on one frame, until it is a warning, and an error


@dataclass(frozen=True)
class Snapshot:
    """The counts at one moment. Latencies in milliseconds."""

    received: int
    processed: int
    drops: Mapping[str, int]
    input_hz: float
    output_hz: float
    latency_ms: Mapping[str, float]  # p50, p95, max of stamp -> published
    work_ms: Mapping[str, float]  # p50, p95 of taken from the mailbox -> published
    stages_ms: Mapping[str, float]  # of the latest frame
    mode: str
    lost: int = 0  # sent, but never reached a callback


@dataclass
class FrameStats:
    """Counters shared by the executor and the inference thread."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _received: int = 0
    _processed: int = 0
    _drops: Counter[str] = field(default_factory=Counter)
    _arrivals: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))
    _departures: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))
    _latency: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))
    _work: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))
    _stages: Mapping[str, float] = field(default_factory=dict)
    _mode: str = ''
    _lost: int = 0

    def received(self) -> None:
        """Count an image that arrived."""
        with self._lock:
            self._received += 1
            self._arrivals.append(time.monotonic())

    def lost(self, count: int) -> None:
        """Count images that were sent and never arrived."""
        with self._lock:
            self._lost += count

    def dropped(self, reason: str) -> None:
        """Count an image that will not become depth."""
        with self._lock:
            self._drops[reason] += 1

    def processed(self, latency_ms: float, work_ms: float, stages_ms: Mapping[str, float],
                  mode: str) -> None:
        """Count an image whose depth was published."""
        with self._lock:
            self._processed += 1
            self._departures.append(time.monotonic())
            self._latency.append(latency_ms)
            self._work.append(work_ms)
            self._stages = dict(stages_ms)
            self._mode = mode

    def is_image_waiting(self) -> bool:
        """Return whether an image has arrived and nothing has become of it yet."""
        with self._lock:
            return self._received > self._processed + sum(self._drops.values())

    def snapshot(self) -> Snapshot:
        """Return all counts, consistent with each other."""
        with self._lock:
            now = time.monotonic()
            return Snapshot(
                self._received, self._processed, dict(self._drops),
                _rate(self._arrivals, now), _rate(self._departures, now),
                _percentiles(self._latency), _percentiles(self._work), self._stages, self._mode,
                self._lost)


def _rate(times: deque[float], now: float) -> float:
    recent = [moment for moment in times if now - moment <= _RATE_WINDOW_S]
    if len(recent) < 2:
        return 0.0
    return (len(recent) - 1) / (recent[-1] - recent[0])


def _percentiles(values: deque[float]) -> dict[str, float]:
    if not values:
        return {}
    p50, p95 = np.percentile(np.fromiter(values, float), [50, 95])
    return {'p50': float(p50), 'p95': float(p95), 'max': max(values)}


class Health:
    """Turns snapshots into a diagnostic level: compares each with the one before."""

    def __init__(self) -> None:
        self._before: Snapshot | None = None
        self._silent_ticks = 0

    def level(self, now: Snapshot, state: str, has_listener: bool, failure: str,
              complaints: Sequence[tuple[bytes, str]] = (),
              at_work_s: float = 0.0) -> tuple[bytes, str]:
        """
        Return level and message; call once per period.

        ``complaints``, each with its level, are about the latest frame: they count where one was
        processed in this period. ``at_work_s``: for how long one frame has been worked on.
        """
        before = self._before
        level, text = self._level(now, state, has_listener, failure, at_work_s)
        if state != 'active' or failure or now.processed == (before.processed if before else 0):
            complaints = ()
        texts = [text] if level != DiagnosticStatus.OK or not complaints else []
        return (max([level, *(level for level, _ in complaints)]),
                '; '.join(texts + [text for _, text in complaints]))

    def _level(self, now: Snapshot, state: str, has_listener: bool,
               failure: str, at_work_s: float) -> tuple[bytes, str]:
        before, self._before = self._before, now
        if failure:
            return DiagnosticStatus.ERROR, failure
        if state != 'active':
            self._silent_ticks = 0
            return DiagnosticStatus.OK, state
        if at_work_s > _STUCK_S:  # a GPU that hangs: images arrive, nothing becomes of them
            return DiagnosticStatus.ERROR, \
                f'no depth: one frame has been in work for {at_work_s:.0f} s. The runtime of ' \
                'the model does not return; end the process (two signals) and start it again'
        if at_work_s > _SLOW_S:
            return DiagnosticStatus.WARN, f'one frame has been in work for {at_work_s:.0f} s'
        bad = {reason: count - (before.drops.get(reason, 0) if before else 0)
               for reason, count in now.drops.items() if reason not in HARMLESS_DROPS}
        bad = {reason: count for reason, count in bad.items() if count > 0}
        if bad:
            all_lost = now.processed == (before.processed if before else 0)
            text = 'dropping frames: ' + ', '.join(f'{reason} {count}'
                                                   for reason, count in sorted(bad.items()))
            return DiagnosticStatus.ERROR if all_lost else DiagnosticStatus.WARN, text
        if not has_listener:
            self._silent_ticks = 0
            return DiagnosticStatus.OK, 'active, idle: no output has a subscriber'
        silent = now.received == (before.received if before else 0)
        self._silent_ticks = self._silent_ticks + 1 if silent else 0
        if self._silent_ticks >= _STALE_TICKS:
            return DiagnosticStatus.STALE, 'no image arrives: what was published last is stale'
        if self._silent_ticks >= _SILENT_TICKS:
            return DiagnosticStatus.WARN, 'no image arrives'
        return DiagnosticStatus.OK, 'active'


def diagnostic_status(name: str, hardware_id: str, level: bytes, message: str,
                      snapshot: Snapshot, facts: Mapping[str, str]) -> DiagnosticStatus:
    """Build the status of a camera: the counts of ``snapshot`` and then ``facts``."""
    values = {
        'frames_received': str(snapshot.received),
        'frames_processed': str(snapshot.processed),
        'frames_lost': str(snapshot.lost),
        'input_rate_hz': f'{snapshot.input_hz:.2f}',
        'output_rate_hz': f'{snapshot.output_hz:.2f}',
        **{f'drops.{reason}': str(count) for reason, count in sorted(snapshot.drops.items())},
        **{f'latency_ms.{key}': f'{value:.1f}' for key, value in snapshot.latency_ms.items()},
        **{f'work_ms.{key}': f'{value:.1f}' for key, value in snapshot.work_ms.items()},
        **{f'stage_ms.{key}': f'{value:.2f}' for key, value in snapshot.stages_ms.items()},
        'mode': snapshot.mode or 'none yet',
        **facts,
    }
    return DiagnosticStatus(level=level, name=name, message=message, hardware_id=hardware_id,
                            values=[KeyValue(key=key, value=value)
                                    for key, value in values.items()])


class ThrottledWarnings:
    """At most one warning per reason and period; says how many were held back."""

    def __init__(self, logger: logging.Logger, period_s: float = 5.0) -> None:
        self._logger = logger
        self._period_s = period_s
        self._last: dict[str, float] = {}
        self._held_back: Counter[str] = Counter()

    def warn(self, reason: str, message: str, error: BaseException | None = None) -> None:
        """Log ``message``, with the traceback of ``error``, unless ``reason`` was just logged."""
        now = time.monotonic()
        if now - self._last.get(reason, -self._period_s) < self._period_s:
            self._held_back[reason] += 1
            return
        self._last[reason] = now
        held_back = self._held_back.pop(reason, 0)
        more = f' ({held_back} more like this in between)' if held_back else ''
        self._logger.warning('%s: %s%s', reason, message, more, exc_info=error)


class RclpyLogHandler(logging.Handler):
    """Passes records of the standard library's logging to an rclpy logger."""

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._rclpy_logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Log ``record`` with the same severity."""
        text = self.format(record)
        # one call site per severity: rclpy refuses a call site that changes its severity
        if record.levelno >= logging.ERROR:
            self._rclpy_logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._rclpy_logger.warning(text)
        elif record.levelno >= logging.INFO:
            self._rclpy_logger.info(text)
        else:
            self._rclpy_logger.debug(text)
