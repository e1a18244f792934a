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
"""Start the builder of an engine, watch and end it: whatever it does, this process stays up."""
from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import threading

from hybrid_depth.runtime import BackendOptions, builder

TIMEOUT_S = 3600.0  # of one engine; small boards take up to 20 minutes
_TAIL = 40  # lines kept of what a builder prints
# The child looks for modules where this process found them, and nowhere else: -m would look into
# the folder that it is started in first, whatever lies there.
_START = f'import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); ' \
         f'from {builder.__name__} import main; sys.exit(main())'


@dataclass(frozen=True)
class BuildRequest:
    """One engine to be built."""

    module: str  # of the runtime, importable
    path: Path  # of the model
    size: tuple[int, int]  # of the network, (H, W)
    options: BackendOptions  # precision: never 'auto'
    folder: Path  # of the engine cache


@dataclass(frozen=True)
class BuildResult:
    """How a build ended."""

    status: int  # builder.ACCEPTED, REFUSED or FAILED
    reason: str  # where it failed
    log: tuple[str, ...]  # last lines


class BuildProcess:
    """
    Runs builders, one after the other, each in a process group of its own.

    ``on_stage`` and ``on_line`` are told what it prints, in the thread that calls ``build``.
    ``close``, from any thread, kills what runs and lets nothing start again.
    """

    def __init__(self, on_stage: Callable[[str], None], on_line: Callable[[str], None],
                 timeout_s: float = TIMEOUT_S) -> None:
        self._on_stage = on_stage
        self._on_line = on_line
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._child: subprocess.Popen | None = None
        self._is_closed = False
        self._is_late = False

    def build(self, request: BuildRequest) -> BuildResult:
        """Build; returns when the builder has ended, by itself or not. Never raises for it."""
        options = request.options
        command = [sys.executable, '-c', _START, json.dumps([*map(str, sys.path)]),
                   '--module', request.module,
                   '--model', str(request.path), '--size', *map(str, request.size),
                   '--precision', options.precision, '--cache', str(request.folder),
                   '--gpu', str(options.gpu), '--threads', str(options.cpu_threads),
                   '--parent', str(os.getpid())]
        with self._lock:
            if self._is_closed:
                return BuildResult(builder.FAILED, 'stopped', ())
            self._is_late = False
            try:
                self._child = child = subprocess.Popen(
                    command, env={**os.environ, 'PYTHONUNBUFFERED': '1'}, stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
            except OSError as error:
                return BuildResult(builder.FAILED, f'the builder did not start: {error}', ())
        timer = threading.Timer(self._timeout_s, self._give_up)
        timer.daemon = True
        timer.start()
        tail: deque[str] = deque(maxlen=_TAIL)
        failure = ''
        assert child.stdout is not None
        with child.stdout:
            for raw in child.stdout:
                line = raw.decode(errors='replace').rstrip()
                if line.startswith(builder.STAGE):
                    self._on_stage(line.removeprefix(builder.STAGE))
                elif line.startswith(builder.ERROR):
                    failure = line.removeprefix(builder.ERROR)
                elif line:
                    tail.append(line)
                    self._on_line(line)
        status = child.wait()
        timer.cancel()
        with self._lock:
            self._child = None
        if status in (builder.ACCEPTED, builder.REFUSED):
            return BuildResult(status, '', tuple(tail))
        return BuildResult(builder.FAILED, failure or self._why(status, tail), tuple(tail))

    def close(self) -> None:
        """Kill the builder that runs, with all its children. Calling twice is harmless."""
        with self._lock:
            self._is_closed = True
            self._kill()

    @property
    def is_closed(self) -> bool:
        """Whether ``close`` was called: what a build returns then says nothing of the engine."""
        return self._is_closed

    def _give_up(self) -> None:
        with self._lock:
            self._is_late = True
            self._kill()

    def _kill(self) -> None:
        # not reaped before build() has taken it out: the number is still its own
        if self._child is not None and self._child.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)

    def _why(self, status: int, tail: deque[str]) -> str:
        if self._is_closed:
            return 'stopped'
        if self._is_late:
            return f'not done after {self._timeout_s:g} s'
        last = f'; it said last: {tail[-1]}' if tail else ''
        if status == -signal.SIGKILL:
            return f'the builder was killed (SIGKILL), most likely for want of memory{last}'
        if status < 0:
            return f'the builder crashed ({signal.Signals(-status).name}){last}'
        return f'the builder ended with status {status}{last}'
