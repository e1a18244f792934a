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
"""Counts, levels, throttling, and logging through rclpy."""
from __future__ import annotations

from collections.abc import Callable
import logging

from diagnostic_msgs.msg import DiagnosticStatus
import pytest

from hybrid_depth_ros import diagnostics
from hybrid_depth_ros.diagnostics import FrameStats, Health, RclpyLogHandler, ThrottledWarnings

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


class Ticker:
    """Counts and health, one tick at a time."""

    def __init__(self) -> None:
        self.stats = FrameStats()
        self.health = Health()

    def tick(self, *, good: int = 0, bad: int = 0, replaced: int = 0, state: str = 'active',
             has_listener: bool = True, failure: str = '',
             at_work_s: float = 0.0) -> tuple[bytes, str]:
        for count, note in ((good, lambda: self.stats.processed(5.0, 4.0, {}, 'single_frame')),
                            (bad, lambda: self.stats.dropped('truncated')),
                            (replaced, lambda: self.stats.dropped('replaced'))):
            for _ in range(count):
                self.stats.received()
                note()
        return self.health.level(self.stats.snapshot(), state, has_listener, failure,
                                 at_work_s=at_work_s)


def test_levels_follow_what_just_happened() -> None:
    ticker = Ticker()
    assert ticker.tick(state='inactive') == (OK, 'inactive')
    assert ticker.tick(has_listener=False)[0] == OK
    assert ticker.tick(good=5)[0] == OK
    assert ticker.tick(good=5, replaced=3)[0] == OK
    level, text = ticker.tick(good=4, bad=1)
    assert level == WARN
    assert 'truncated 1' in text
    assert ticker.tick(bad=5)[0] == ERROR
    assert ticker.tick(good=1)[0] == OK
    level, text = ticker.tick(failure='no model')
    assert (level, text) == (ERROR, 'no model')


def test_silence_is_a_warning_after_two_ticks() -> None:
    ticker = Ticker()
    ticker.tick(good=1)
    assert ticker.tick()[0] == OK
    assert ticker.tick() == (WARN, 'no image arrives')
    assert [ticker.tick()[0] for _ in range(8)] == [WARN] * 7 + [DiagnosticStatus.STALE]
    assert ticker.tick(has_listener=False)[0] == OK
    assert ticker.tick(good=1)[0] == OK


def test_a_frame_that_takes_for_ever_is_an_error_though_images_go_on_arriving() -> None:
    ticker = Ticker()
    ticker.tick(good=1)
    assert ticker.tick(replaced=30, at_work_s=1.0) == (OK, 'active')
    assert ticker.tick(replaced=30, at_work_s=4.2) == (
        WARN, 'one frame has been in work for 4 s')
    level, text = ticker.tick(replaced=30, at_work_s=12.3)
    assert level == ERROR
    assert text.startswith('no depth: one frame has been in work for 12 s')
    assert ticker.tick(good=1, replaced=30) == (OK, 'active')
    assert ticker.tick(state='inactive') == (OK, 'inactive')


def test_snapshot_counts_and_percentiles(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(diagnostics.time, 'monotonic', lambda: now[0])
    stats = FrameStats()
    for latency in range(1, 101):
        now[0] += 0.1
        stats.received()
        stats.processed(float(latency), 1.0, {'inference': 0.5}, 'single_frame')
    snapshot = stats.snapshot()
    assert (snapshot.received, snapshot.processed) == (100, 100)
    assert snapshot.input_hz == pytest.approx(10.0)
    assert snapshot.latency_ms == {'p50': 50.5, 'p95': pytest.approx(95.05), 'max': 100.0}
    assert snapshot.stages_ms == {'inference': 0.5}
    now[0] += 10
    assert stats.snapshot().input_hz == 0.0  # not the rate of long ago


def test_warnings_are_throttled_by_reason(caplog: pytest.LogCaptureFixture,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(diagnostics.time, 'monotonic', lambda: now[0])
    warnings = ThrottledWarnings(logging.getLogger('throttled'), period_s=5.0)
    for _ in range(3):
        warnings.warn('truncated', 'short')
    warnings.warn('other', 'else')
    now[0] += 6
    warnings.warn('truncated', 'short')
    assert [record.getMessage() for record in caplog.records] == [
        'truncated: short', 'other: else', 'truncated: short (2 more like this in between)']


@pytest.mark.parametrize(('level', 'method'), [
    (logging.CRITICAL, 'error'), (logging.ERROR, 'error'), (logging.WARNING, 'warning'),
    (logging.INFO, 'info'), (logging.DEBUG, 'debug')])
def test_log_records_keep_their_severity(level: int, method: str) -> None:
    calls = []

    class Logger:

        def __getattr__(self, name: str) -> Callable[[str], None]:
            return lambda text: calls.append((name, text))
    logger = logging.Logger('bridged')
    logger.addHandler(RclpyLogHandler(Logger()))
    logger.log(level, 'depth of %d m', 5)
    assert calls == [(method, 'depth of 5 m')]
