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
"""Works timed in blocks, on a machine whose clock, load and spinning threads are made up."""
from __future__ import annotations

from collections.abc import Callable

import pytest

from hybrid_depth_ros.bench import statistics
from hybrid_depth_ros.bench.statistics import blocks_ms, median_ratio


class FakeMachine:
    """A clock, and works that take their time; more just after another's, whose threads spin."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.load = 1.0  # factor on all times
        self.calls: list[str] = []
        self._last_s: dict[str, float] = {}

    def perf_counter(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def work(self, name: str, ms: float) -> Callable[[], None]:
        def call() -> None:
            spun = any(self.now_s - last_s < 0.14 for other, last_s in self._last_s.items()
                       if other != name)
            is_warm = self.calls[-2:] == [name] * 2
            self.now_s += 1e-3 * ms * self.load * (1.3 if spun else 1) * (1 if is_warm else 2)
            self._last_s[name] = self.now_s
            self.calls.append(name)
        return call


@pytest.fixture
def fake_machine(monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    machine = FakeMachine()
    monkeypatch.setattr(statistics, 'time', machine)
    return machine


def test_a_block_knows_nothing_of_the_work_before_it(fake_machine: FakeMachine) -> None:
    works = {'base': fake_machine.work('base', 20), 'int8': fake_machine.work('int8', 15)}
    found = blocks_ms(works, 0.1, 2)
    assert found == {'base': pytest.approx([20, 20]), 'int8': pytest.approx([15, 15])}
    # pause, two calls that do not count, then calls for 0.1 s
    assert fake_machine.calls == (['base'] * 7 + ['int8'] * 9) * 2
    assert median_ratio(found['int8'], found['base']) == 0.75


def test_a_busy_round_changes_no_ratio(fake_machine: FakeMachine) -> None:
    base, int8 = fake_machine.work('base', 20), fake_machine.work('int8', 15)

    def base_under_load() -> None:
        # another process comes in the second round, and is gone in the third
        fake_machine.load = 3.0 if 5 <= fake_machine.calls.count('base') < 10 else 1.0
        base()
    found = blocks_ms({'base': base_under_load, 'int8': int8}, 0.0, 3)
    assert found == {'base': pytest.approx([20, 60, 20]), 'int8': pytest.approx([15, 45, 15])}
    assert median_ratio(found['int8'], found['base']) == 0.75
    assert median_ratio([1, 9, 4], [2, 2, 4]) == 1.0  # 0.5, 4.5 and 1: of rounds, not of medians
