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
A runtime for a robot that must not wait: the CPU answers until an engine is built and accepted.

The change-over happens between two frames, when the caller asks for the runtime of the next one.
So does the way back: a GPU may drop out, and its driver then refuses everything until a restart.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
import logging
from pathlib import Path
import threading
import time
from typing import TYPE_CHECKING

from hybrid_depth.contract import ModelSpec
from hybrid_depth.errors import BackendUnavailable, HybridDepthError
from hybrid_depth.runtime import (
    Backend,
    BackendOptions,
    BACKENDS,
    builds_engines,
    load_backend,
    rows_of,
    why_not,
)

if TYPE_CHECKING:  # what builds engines is imported where one is built: a start shall be quick
    from hybrid_depth.runtime.build_process import BuildProcess
    from hybrid_depth.runtime.ladder import Progress

logger = logging.getLogger(__name__)

MEANWHILE = 'ort'  # the runtime that needs no building
_FAILURES = 3  # frames that an engine may fail, one soon after the other, until it is given up
_SOON_S = 5.0


class Serving:
    """
    The runtime for the next frame, and what is to be said about it.

    ``current`` belongs to the thread that infers; ``facts`` and ``complaint`` may be called from
    any; ``close`` when no frame is in work. Features of one backend mean nothing to the next: who
    keeps them forgets them when ``current`` gives another backend than before.
    """

    def __init__(self, backend: Backend, choice: str) -> None:
        self._backend = backend
        self._choice = choice
        self._lock = threading.Lock()
        self._next: Backend | None = None
        self._failure = ''  # why the engine that was asked for will not come
        self._is_bound = False  # to that engine: without it there is no depth
        self._without: Callable[[], Backend] | None = None  # opens the CPU's runtime once more
        self._failed_s: list[float] = []  # when the last frames failed
        self._progress: Progress | None = None
        self._process: BuildProcess | None = None
        self._thread: threading.Thread | None = None

    def current(self) -> Backend:
        """
        Return the backend to run the next frame with; the one before is closed if it changed.

        Raises BackendUnavailable where a runtime was named and its engine was not accepted.
        """
        with self._lock:
            if self._failure and self._is_bound:
                raise BackendUnavailable(self._failure)
            if self._next is None:
                return self._backend
            old, self._backend, self._next = self._backend, self._next, None
        logger.info('depth is from now on by %s', self._backend.description)
        old.close()
        return self._backend

    def failed(self, error: BackendUnavailable) -> None:
        """
        Hear, in the thread that infers, that the current backend failed at a frame.

        Where the runtime was chosen by 'auto' an engine that keeps failing gives way to the CPU.
        """
        now = time.monotonic()
        self._failed_s = [past for past in self._failed_s if now - past < _SOON_S] + [now]
        with self._lock:
            is_over = self._without is None or self._next is not None or bool(self._failure) \
                or self._backend.name == MEANWHILE
        if is_over or len(self._failed_s) < _FAILURES:
            return
        assert self._without is not None
        backend = self._without()
        logger.warning('%s failed at %d frames and is given up until the model is opened anew: '
                       '%s', self._backend.description, _FAILURES, error)
        with self._lock:
            self._next, self._failure = backend, f'the engine was given up: {error}'

    @property
    def description(self) -> str:
        """Runtime, version, device and network size, for people."""
        return self._backend.description

    @property
    def is_settled(self) -> bool:
        """Whether no engine is on its way any more."""
        return self._thread is None or not self._thread.is_alive()

    def facts(self) -> dict[str, str]:
        """Return what diagnostics say: choice, engine (where it stands), and its steps."""
        steps = self._progress.steps if self._progress else ()
        with self._lock:
            if self._progress is None:
                state = 'nothing is being built'
            elif self._failure:
                state = f'none: {self._failure}'
            elif not self.is_settled:
                state = f'on its way, {self._progress.text()}'
            else:
                state = 'in use' if self._next is None else 'takes over with the next frame'
            return {'engine.choice': self._choice, 'engine.state': state,
                    'engine.steps': '; '.join(step.text() for step in steps) or 'none'}

    def complaint(self) -> str:
        """Return why depth is not from the engine that it should be from; '' = no fault."""
        with self._lock:
            if not self._failure:
                return ''
            rest = 'there is no depth' if self._is_bound else f'depth is by {self.description}'
            return f'{self._failure}; {rest}'

    def close(self) -> None:
        """Stop building and release everything. Calling twice is harmless."""
        if self._process is not None:
            self._process.close()
        if self._thread is not None:
            self._thread.join()
        for backend in (self._backend, self._next):
            if backend is not None:
                backend.close()

    def start(self, row: str, path: Path, spec: ModelSpec, size: tuple[int, int],
              options: BackendOptions, *, later: Sequence[str] | None) -> None:
        """
        Let the engine of the runtime ``row`` take over once it is there; to be called once.

        Without it the first of the rows ``later`` does that can be used; None = there shall be no
        depth then.
        """
        from hybrid_depth.runtime.build_process import BuildProcess
        from hybrid_depth.runtime.ladder import open_accepted, Progress
        self._progress = progress = Progress()
        self._process = process = BuildProcess(progress.stage, progress.line)
        self._is_bound = later is None
        if later is not None:
            cpu = replace(options, precision='auto')
            self._without = partial(load_backend, MEANWHILE, path, spec, size, cpu)

        def work() -> None:
            backend, failure = None, ''
            try:
                backend = open_accepted(row, path, spec, size, options, process=process,
                                        progress=progress)
            except HybridDepthError as error:
                failure = str(error)
            except Exception as error:  # the edge of the thread: frames must go on
                failure = f'{row}: unexpected {type(error).__name__}: {error}'
                logger.exception('while an engine was made')
            if failure and not process.is_closed:
                logger.log(logging.ERROR if later is None else logging.WARNING, '%s', failure)
                backend = _first_of(later or (), path, spec, size, options)
            with self._lock:
                self._next, self._failure = backend, failure

        # it starts the builders, which die with it
        self._thread = threading.Thread(target=work, name='hybrid_depth_engine', daemon=True)
        self._thread.start()


def serve(name: str, path: Path, spec: ModelSpec, size: tuple[int, int],
          options: BackendOptions) -> Serving:
    """
    Open the model for network ``size`` (H, W) at once, by the runtime called ``name`` or for it.

    As ``load_backend``, but for a runtime that builds engines: then the CPU serves, at fp32 and
    not in secret, until an engine is accepted; only without ONNX Runtime it waits. With backend
    and precision 'auto' the CPU goes on where none is; else ``Serving.current`` raises. Raises
    BackendUnavailable and ContractError.
    """
    reasons = []
    rows = rows_of(name)
    for index, row in enumerate(rows):
        reason = why_not(row, options)
        if reason:
            reasons.append(f'{row}: {reason}')
            continue
        choice = row if name != 'auto' else \
            f'{row}, the first of auto' + (f' ({"; ".join(reasons)})' if reasons else '')
        is_free = name == 'auto' and options.precision == 'auto'
        is_slow = builds_engines(import_module(BACKENDS[row]))
        cpu = replace(options, precision='auto')
        if is_slow and (missing := why_not(MEANWHILE, cpu)):
            logger.warning('nothing can serve until an engine of %s is there: %s: %s', row,
                           MEANWHILE, missing)
            is_slow = False  # or rather, there is no choice but to wait
        if not is_slow:
            try:
                return Serving(load_backend(row, path, spec, size, options), choice)
            except BackendUnavailable as error:
                if not is_free:
                    raise
                logger.warning('%s; trying the next runtime', error)
                reasons.append(f'{row}: {error}')
                continue
        serving = Serving(load_backend(MEANWHILE, path, spec, size, cpu), choice)
        logger.info('depth is by %s until an engine of %s is there', serving.description, row)
        serving.start(row, path, spec, size, options,
                      later=rows[index + 1:] if is_free else None)
        return serving
    raise BackendUnavailable('no runtime can be used: ' + '; '.join(reasons))


def _first_of(rows: Sequence[str], path: Path, spec: ModelSpec, size: tuple[int, int],
              options: BackendOptions) -> Backend | None:
    """Open the first runtime that can be used; None = that is the one that serves already."""
    for row in rows:
        if row == MEANWHILE:
            break
        try:
            if not why_not(row, options):
                return load_backend(row, path, spec, size, options)
        except HybridDepthError as error:
            logger.warning('%s: %s', row, error)
    return None
