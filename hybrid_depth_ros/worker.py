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
"""
One inference thread behind one-slot mailboxes, one per camera: the newest item of each wins.

Latency stays at one item per camera however slow the work is: nothing ever queues.
"""
from __future__ import annotations

from collections.abc import Sequence
import logging
import threading
import time
from typing import Any, Protocol

_LOG = logging.getLogger(__name__)
_PATIENCE_S = 3.0  # with an item in work, until its end is waited for aloud


class Handler(Protocol):
    """What becomes of the items of one mailbox."""

    def process(self, item: Any) -> None:
        """Do the work; in the inference thread."""

    def replaced(self, item: Any) -> None:
        """Hear of an item that gave way to a newer one or to ``stop``; in the thread of those."""

    def failed(self, item: Any, error: Exception) -> None:
        """Hear of an exception that ``process`` let through; in the inference thread."""


class NewestWorker:
    """
    Thread that runs ``process`` of each handler on the newest item that was offered to it.

    Mailboxes with an item take turns, so that a fast camera never keeps a slow one waiting for
    more than one item of each other camera.
    """

    def __init__(self, handlers: Sequence[Handler]) -> None:
        self._handlers = handlers
        self._condition = threading.Condition()
        self._slots: list[list[Any]] = [[] for _ in handlers]  # each empty or one item
        self._turn = 0  # the mailbox that is asked first
        self._stopping = False
        self._since_s: float | None = None  # when the item in work was taken
        # daemon: a crash elsewhere must end the process, not leave it hanging here
        self._thread = threading.Thread(target=self._loop, name='hybrid_depth_inference',
                                        daemon=True)
        self._thread.start()

    def offer(self, item: Any, mailbox: int = 0) -> None:
        """Hand over ``item``; returns at once. Ignored once ``stop`` was called."""
        with self._condition:
            if self._stopping:
                return
            replaced, self._slots[mailbox] = self._slots[mailbox], [item]
            self._condition.notify()
        for old in replaced:
            self._handlers[mailbox].replaced(old)

    def offer_if_empty(self, item: Any, mailbox: int = 0) -> None:
        """Hand over ``item`` unless another one waits in its mailbox."""
        with self._condition:
            if not self._stopping and not self._slots[mailbox]:
                self._slots[mailbox] = [item]
                self._condition.notify()

    def at_work_s(self) -> float:
        """Return for how many seconds the item in work has been worked on; 0 = there is none."""
        since_s = self._since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    def stop(self) -> None:
        """Forget the waiting items, let the current one finish and join the thread."""
        with self._condition:
            self._stopping = True
            unread, self._slots = self._slots, [[] for _ in self._handlers]
            self._condition.notify()
        for handler, items in zip(self._handlers, unread, strict=True):
            for item in items:
                handler.replaced(item)
        self._thread.join(_PATIENCE_S)
        if self._thread.is_alive():
            _LOG.error('waiting for the frame in work, for %.0f s so far: the runtime of the '
                       'model does not return; two signals end the process', self.at_work_s())
            self._thread.join()

    def _next(self) -> int | None:
        """Return the mailbox whose turn it is, None where all are empty."""
        count = len(self._slots)
        in_turn = ((self._turn + step) % count for step in range(count))
        return next((mailbox for mailbox in in_turn if self._slots[mailbox]), None)

    def _loop(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._stopping or self._next() is not None)
                mailbox = self._next()
                if self._stopping or mailbox is None:
                    return
                item = self._slots[mailbox].pop()
                self._turn = (mailbox + 1) % len(self._slots)
                self._since_s = time.monotonic()
            handler = self._handlers[mailbox]
            try:
                handler.process(item)
            except Exception as error:  # the edge: one bad frame must not end the thread
                handler.failed(item, error)
            self._since_s = None
            del item  # an image must not live on until the next one comes
