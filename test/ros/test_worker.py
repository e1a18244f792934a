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
"""The one-slot worker, without ROS messages."""
from __future__ import annotations

import threading
import time

import pytest

from hybrid_depth_ros import worker as worker_module
from hybrid_depth_ros.worker import NewestWorker


def wait_for(condition, timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, 'waited in vain'
        time.sleep(0.002)


class Handler:

    def __init__(self, process, replaced=None, errors=None) -> None:
        self.process = process
        self.replaced = ([] if replaced is None else replaced).append
        self._errors = [] if errors is None else errors

    def failed(self, item, error) -> None:
        self._errors.append((item, error))


def test_newest_wins_and_every_item_is_accounted_for() -> None:
    gate, done, replaced = threading.Event(), [], []

    def process(item: int) -> None:
        gate.wait(60)
        done.append(item)
    worker = NewestWorker([Handler(process, replaced)])
    worker.offer(0)
    wait_for(lambda: not worker._slots[0])
    for item in range(1, 10):
        worker.offer(item)
    worker.offer_if_empty(99)
    gate.set()
    wait_for(lambda: len(done) == 2)
    worker.stop()
    assert done == [0, 9]
    assert replaced == list(range(1, 9))


def test_it_tells_for_how_long_it_has_been_at_work() -> None:
    gate, started = threading.Event(), threading.Event()

    def process(item: int) -> None:
        started.set()
        gate.wait(60)
        if item == 0:
            raise ValueError('this one fails')
    worker = NewestWorker([Handler(process)])
    assert worker.at_work_s() == 0
    for item in (0, 1):
        gate.clear()
        started.clear()
        offered_s = time.monotonic()
        worker.offer(item)
        assert started.wait(60)
        time.sleep(0.03)
        assert 0.03 <= worker.at_work_s() <= time.monotonic() - offered_s
        gate.set()
        wait_for(lambda: worker.at_work_s() == 0)
    worker.stop()


def test_to_stop_is_not_to_wait_without_a_word(monkeypatch: pytest.MonkeyPatch,
                                               caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(worker_module, '_PATIENCE_S', 0.02)
    gate, started, done = threading.Event(), threading.Event(), []

    def process(item: int) -> None:
        started.set()
        gate.wait(60)
        done.append(item)
    worker = NewestWorker([Handler(process)])
    worker.offer(0)
    assert started.wait(60)
    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    wait_for(lambda: 'waiting for the frame in work' in caplog.text)
    gate.set()
    stopping.join(60)
    assert done == [0]
    caplog.clear()
    NewestWorker([Handler(process)]).stop()
    assert not caplog.text


def test_an_error_does_not_end_the_thread() -> None:
    done, errors = [], []

    def process(item: int) -> None:
        done.append(1 / item)
    worker = NewestWorker([Handler(process, errors=errors)])
    worker.offer(0)
    wait_for(lambda: len(errors) == 1)
    worker.offer_if_empty(2)
    wait_for(lambda: done == [0.5])
    worker.stop()
    assert errors[0][0] == 0
    assert isinstance(errors[0][1], ZeroDivisionError)


def test_stop_finishes_the_current_item_and_gives_up_the_waiting_one() -> None:
    started, gate, done, replaced = threading.Event(), threading.Event(), [], []

    def process(item: int) -> None:
        started.set()
        gate.wait(60)
        done.append(item)
    worker = NewestWorker([Handler(process, replaced)])
    worker.offer(1)
    assert started.wait(60)
    worker.offer(2)
    threading.Timer(0.05, gate.set).start()
    worker.stop()
    assert (done, replaced) == ([1], [2])
    worker.offer(3)
    assert done == [1]


def test_mailboxes_take_turns() -> None:
    gate, order = threading.Event(), []
    replaced = [[], [], []]

    def process_of(name: str):
        def process(item: int) -> None:
            gate.wait(60)
            order.append((name, item))
        return process
    worker = NewestWorker([Handler(process_of(name), replaced[index])
                           for index, name in enumerate('abc')])
    worker.offer(0, 1)
    wait_for(lambda: not worker._slots[1])  # b is at work
    for item in range(1, 4):  # the fast one offers most, and first
        worker.offer(item, 0)
    worker.offer(1, 1)
    worker.offer(1, 2)
    gate.set()
    wait_for(lambda: len(order) == 4)
    worker.stop()
    assert order == [('b', 0), ('c', 1), ('a', 3), ('b', 1)]
    assert replaced == [[1, 2], [], []]


def test_a_fast_camera_does_not_starve_a_slow_one() -> None:
    order: list[str] = []
    worker = NewestWorker([Handler(lambda _: (order.append('fast'), worker.offer(0, 0))),
                           Handler(lambda _: order.append('slow'))])
    worker.offer(0, 0)
    for count in range(5):
        worker.offer(0, 1)
        wait_for(lambda count=count: order.count('slow') == count + 1)
    worker.stop()
    assert 'fast' in order
