# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
One inference thread behind a one-slot mailbox: the newest item wins, an unread one is dropped.

Latency stays at one item however slow the work is: nothing ever queues.
"""
from __future__ import annotations

from collections.abc import Callable
import threading
from typing import Generic, TypeVar

T = TypeVar('T')


class NewestWorker(Generic[T]):
    """
    Thread that runs ``process(item)`` on the newest item offered.

    ``on_replaced(item)`` is told each item that gave way to a newer one or to ``stop``, in the
    thread that offers or stops; ``on_error(item, error)`` each exception that ``process`` let
    through, in this thread, which goes on.
    """

    def __init__(self, process: Callable[[T], None], on_replaced: Callable[[T], None],
                 on_error: Callable[[T, Exception], None]) -> None:
        self._process = process
        self._on_replaced = on_replaced
        self._on_error = on_error
        self._condition = threading.Condition()
        self._slot: list[T] = []  # empty or one item
        self._stopping = False
        # daemon: a crash elsewhere must end the process, not leave it hanging here
        self._thread = threading.Thread(target=self._loop, name='hybrid_depth_inference',
                                        daemon=True)
        self._thread.start()

    def offer(self, item: T) -> None:
        """Hand over ``item``; returns at once. Ignored once ``stop`` was called."""
        with self._condition:
            if self._stopping:
                return
            replaced, self._slot = self._slot, [item]
            self._condition.notify()
        for old in replaced:
            self._on_replaced(old)

    def offer_if_empty(self, item: T) -> None:
        """Hand over ``item`` unless another one waits."""
        with self._condition:
            if not self._stopping and not self._slot:
                self._slot = [item]
                self._condition.notify()

    def stop(self) -> None:
        """Forget a waiting item, let the current one finish and join the thread."""
        with self._condition:
            self._stopping = True
            unread, self._slot = self._slot, []
            self._condition.notify()
        for item in unread:
            self._on_replaced(item)
        self._thread.join()

    def _loop(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._slot or self._stopping)
                if self._stopping:
                    return
                item = self._slot.pop()
            try:
                self._process(item)
            except Exception as error:  # the edge: one bad frame must not end the thread
                self._on_error(item, error)
            del item  # an image must not live on until the next one comes
