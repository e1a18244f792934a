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
"""What the figures were taken on: processor, versions, commit, and what a process uses."""
from __future__ import annotations

import os
from pathlib import Path
import subprocess
import time

from hybrid_depth.summary import machine, versions
from hybrid_depth_ros.demo import REPOSITORY

_VERSIONED = ('openvino', 'onnxruntime-gpu', 'tensorrt', 'torch', 'cv_bridge')


def all_versions() -> dict[str, str]:
    """Return the versions that the figures depend on, also of what is absent."""
    return versions(*_VERSIONED)


def device() -> dict[str, object]:
    """Return the machine, and what else it was doing when asked."""
    return {'cpu': machine(), 'cores': os.cpu_count(),
            'load_average': [round(load, 2) for load in os.getloadavg()],
            'gpu': 'none was used'}


def commit() -> str:
    """Return the commit of the repository, with '-dirty' where files differ; '' = not known."""
    try:
        result = subprocess.run(['git', 'describe', '--always', '--dirty', '--abbrev=12',
                                 '--exclude=*'],
                                cwd=REPOSITORY, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ''
    return result.stdout.strip() if result.returncode == 0 else ''


class ProcessMeter:
    """CPU time of a process from its making on, and its memory."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._start = (self._cpu_s(), time.monotonic())

    def cpu_percent(self) -> float:
        """Return the load since the start; 100 = one core."""
        cpu_s, now = self._cpu_s(), time.monotonic()
        return round(100 * (cpu_s - self._start[0]) / (now - self._start[1]), 1)

    def rss_mib(self) -> float:
        """Return the resident memory."""
        pages = int(Path(f'/proc/{self._pid}/statm').read_text().split()[1])
        return round(pages * os.sysconf('SC_PAGE_SIZE') / 2**20, 1)

    def _cpu_s(self) -> float:
        fields = Path(f'/proc/{self._pid}/stat').read_text().rpartition(')')[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')
