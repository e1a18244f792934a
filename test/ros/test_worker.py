# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The one-slot worker, without ROS messages."""
from __future__ import annotations

import threading
import time

from hybrid_depth_ros.worker import NewestWorker


def wait_for(condition, timeout_s: float = 3.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, 'waited in vain'
        time.sleep(0.002)


def test_newest_wins_and_every_item_is_accounted_for() -> None:
    gate, done, replaced = threading.Event(), [], []

    def process(item: int) -> None:
        gate.wait(3)
        done.append(item)
    worker = NewestWorker(process, replaced.append, lambda *_: None)
    worker.offer(0)
    wait_for(lambda: not worker._slot)
    for item in range(1, 10):
        worker.offer(item)
    worker.offer_if_empty(99)
    gate.set()
    wait_for(lambda: len(done) == 2)
    worker.stop()
    assert done == [0, 9]
    assert replaced == list(range(1, 9))


def test_an_error_does_not_end_the_thread() -> None:
    done, errors = [], []

    def process(item: int) -> None:
        done.append(1 / item)
    worker = NewestWorker(process, lambda _: None, lambda *pair: errors.append(pair))
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
        gate.wait(3)
        done.append(item)
    worker = NewestWorker(process, replaced.append, lambda *_: None)
    worker.offer(1)
    assert started.wait(3)
    worker.offer(2)
    threading.Timer(0.05, gate.set).start()
    worker.stop()
    assert (done, replaced) == ([1], [2])
    worker.offer(3)
    assert done == [1]
