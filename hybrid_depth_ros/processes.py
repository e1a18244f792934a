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
"""Child processes that never outlive their parent, each in a process group of its own."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, ExitStack
import os
from pathlib import Path
import shutil
import signal
import subprocess
import time

STOP_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """This process was told to end; ``number`` is the signal that told it."""

    def __init__(self, number: int) -> None:
        super().__init__(f'stopped by {signal.Signals(number).name}')
        self.number = number


@contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the stack as Stopped, as SIGINT does as KeyboardInterrupt."""
    def stop(number: int, _frame: object) -> None:
        raise Stopped(number)
    previous = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
    # a shell that starts us in the background hands down an ignored SIGINT
    previous[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Children:
    """Started children by name. Use as a context: whatever happens, leaving it ends them all."""

    def __init__(self, environment: Mapping[str, str], log_folder: Path) -> None:
        self._environment = dict(environment)
        self._log_folder = log_folder
        self._logs = ExitStack()
        self._processes: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> Children:
        self._log_folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(*self._processes)
        self._logs.close()

    def start(self, name: str, command: Sequence[str], *, is_shown: bool = False) -> None:
        """
        Start a command; LOG_FOLDER/NAME.log takes its output, or its errors alone if shown.

        One that has ended may be started again under its name; its log goes on.
        """
        log = self._logs.enter_context(self.log(name).open('w' if name not in self._processes
                                                           else 'a'))
        self._processes[name] = subprocess.Popen(
            _dying_with_parent(command), env=self._environment, stdin=subprocess.DEVNULL,
            stdout=None if is_shown else log, stderr=log, start_new_session=True)

    def log(self, name: str) -> Path:
        """Return the file that holds what a child printed."""
        return self._log_folder / f'{name}.log'

    def pid(self, name: str) -> int:
        """Return a child's process id."""
        return self._processes[name].pid

    def status(self, name: str) -> int | None:
        """Return a child's exit status, None while it runs."""
        return self._processes[name].poll()

    def wait(self, name: str, timeout_s: float) -> int | None:
        """Return a child's exit status, None when it still runs after ``timeout_s``."""
        try:
            return self._processes[name].wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, *names: str, patience_s: float = 5.0) -> None:
        """Ask children to end as Ctrl-C would, wait, then kill what is left of their groups."""
        for name in names:
            if self.status(name) is None:
                _signal_group(self._processes[name].pid, signal.SIGINT)
        deadline = time.monotonic() + patience_s
        try:
            for name in names:
                self.wait(name, max(0.0, deadline - time.monotonic()))
        finally:
            for name in names:
                _signal_group(self._processes[name].pid, signal.SIGKILL)
                self._processes[name].wait()


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return  # it and all its children have ended


def _dying_with_parent(command: Sequence[str]) -> list[str]:
    """
    Return ``command`` so that the kernel kills it when its parent is killed outright.

    No handler sees that case. ``setpriv`` is on every Debian and Ubuntu; a function that runs
    between fork and exec would do without it, and can deadlock beside other threads.
    """
    setpriv = shutil.which('setpriv')
    return [setpriv, '--pdeathsig', 'KILL', *command] if setpriv else list(command)
