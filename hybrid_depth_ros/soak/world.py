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
"""The processes of a soak: the node, which is started again when it ends, and a listener."""
from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
import os
from pathlib import Path
import random
import signal
import sys
import time

from hybrid_depth_ros.processes import Children
from hybrid_depth_ros.soak import scene
from hybrid_depth_ros.soak.driver import Driver, PERIOD_S

READY_S = 40.0  # a busy machine imports slowly


@dataclass(frozen=True)
class Restart:
    """
    A start of the node after it had ended; all in seconds, None = the node could not tell.

    ``active_s``, ``cpu_s`` and ``waited_s`` are the node's own: from the start of its process to
    its activation, the CPU time of that, and how long its first thread was ready to run but had
    no CPU. ``depth_s`` is seen from outside: from the end of the process before to the first
    right depth of images that come all the time.
    """

    active_s: float | None
    cpu_s: float | None
    waited_s: float | None
    depth_s: float

    @property
    def own_s(self) -> float | None:
        """Time until the node is active in which it was its turn, or nobody's."""
        return None if self.active_s is None else self.active_s - (self.waited_s or 0.0)


class World:
    """
    Everything a fault can lay hands on.

    ``expect_end`` before a fault ends the node; any other end is a crash.
    """

    def __init__(self, children: Children, driver: Driver, rng: random.Random,
                 folder: Path) -> None:
        self.children, self.driver, self.rng = children, driver, rng
        self.model = folder / 'model.onnx'
        scene.write_model(self.model)
        self.crashes: list[str] = []
        self.restarts: list[Restart] = []  # of those that were let finish
        self.ends = 0  # of the process: one that is ended while it starts makes no Restart
        self._ended_at: float | None = None
        self._is_end_expected = False
        self._old_readers: set[bytes] = set()
        self._shm: set[str] = set()
        self._start()
        children.start('listener', [sys.executable, '-m', 'hybrid_depth_ros.listener',
                                    '--reliable', '--topics', 'depth/image', 'points'])

    @property
    def pid(self) -> int:
        """Process id of the node."""
        return self.children.pid('node')

    def _start(self) -> None:
        self.children.start('node', [
            sys.executable, '-m', 'hybrid_depth_ros.soak.node', '--ros-args',
            '-p', f'model:={self.model}', '-p', 'backend:=soak', '-p', 'cpu_threads:=1',
            '-p', f'engine_cache:={self.model.parent}', '-p', 'odom.max_wait_ms:=20.0'])

    def signal_node(self, number: int) -> None:
        """Send the node a signal that it may end by."""
        self._is_end_expected = True
        self._shm = shared_memory_of(self.pid)
        self._old_readers = self.driver.image_readers()
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def supervise(self) -> bool:
        """Start the node again where it has ended; return whether it had."""
        status = self.children.status('node')
        if status is None:
            return False
        if not self._is_end_expected:
            self._old_readers = self.driver.image_readers()
            self.crashes.append(f'the node ended by itself with status {status}')
        elif status not in (0, -signal.SIGKILL) and self.driver.status:
            # before it has said anything, the interpreter itself may have been interrupted
            self.crashes.append(f'the node ended with status {status} when told to stop')
        for name in self._shm:  # a killed process leaves its shared memory behind
            Path(name).unlink(missing_ok=True)
        self._shm = set()
        self._is_end_expected = False
        self._ended_at = time.monotonic()
        self.ends += 1
        self._start()
        self.driver.status, self.driver.process = {}, {}
        return True

    def wait_ended(self, timeout_s: float) -> bool:
        """Wait until the node has ended; return whether it has."""
        return self.driver.until(lambda: self.children.status('node') is not None, timeout_s)

    def wait_ready(self) -> bool:
        """Wait until the node takes images, after a restart until depth flows; False: in vain."""
        driver = self.driver

        def is_ready() -> bool:
            self.supervise()
            return driver.status.get('state') == 'active' and \
                bool(driver.image_readers() - self._old_readers)
        if not driver.until(is_ready, READY_S):
            return False
        if self._ended_at is None:
            return True
        seen = len(driver.right)

        def has_depth() -> bool:
            self.supervise()
            driver.good()
            return driver.until(lambda: len(driver.right) > seen, PERIOD_S)
        if not driver.until(has_depth, READY_S):
            return False
        depth_s = time.monotonic() - self._ended_at
        driver.process = {}  # may be the last word of the process before
        if not driver.until(lambda: bool(driver.process), READY_S):
            return False
        start = {name: _seconds(driver.process[f'start.{name}'])
                 for name in ('active_s', 'cpu_s', 'waited_s')}
        self.restarts.append(Restart(**start, depth_s=depth_s))
        self._ended_at = None
        self._old_readers = set()
        return True

    def private_bytes(self) -> int:
        """
        Return the memory that the node alone has written to, in memory or swapped out.

        Pages of libraries that are only read are left out: they are private or shared by whether
        another process happens to have the same file open.
        """
        total = 0
        for line in Path(f'/proc/{self.pid}/smaps_rollup').read_text().splitlines():
            if line.startswith(('Private_Dirty:', 'Swap:')):
                total += int(line.split()[1]) * 1024
        return total


def _seconds(text: str) -> float | None:
    return None if text == 'unknown' else float(text)


def shared_memory_of(pid: int) -> set[str]:
    """Return the files of shared memory that belong to a process alone by their names' owner."""
    found = set()
    with suppress(OSError):
        for line in Path(f'/proc/{pid}/maps').read_text().splitlines():
            name = line.split(maxsplit=5)[-1]
            # segments carry a participant's own random number; ports are shared with others
            if name.startswith('/dev/shm/fastrtps_') and 'port' not in name:
                found.add(name)
    return found
