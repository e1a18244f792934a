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
What the kernel and the GPU driver say of this machine and this process.

Each reading is a few small files of /proc or /sys, never more than MAX_ENTRIES of a kind, or a
call of NVIDIA's management library. What a machine does not have is None or missing; nothing is
raised.
``root`` stands in for / in tests.
"""
from __future__ import annotations

import ctypes
from dataclasses import dataclass
import functools
import os
from pathlib import Path

ROOT = Path('/')
MAX_ENTRIES = 64  # thermal zones, CPUs, trip points, GPUs
_MAX_BYTES = 4096
_MAX_DIGITS = 24
_MIB = float(1 << 20)
_NVML = 'libnvidia-ml.so.1'  # comes with the driver
_SLOWING = ('passive', 'hot', 'critical')  # trip points at which a machine does less


@dataclass(frozen=True)
class Heat:
    """The hottest thermal zone."""

    zone: str
    celsius: float
    limit_celsius: float | None  # from which on the kernel slows this zone down, None = not said


@dataclass(frozen=True)
class Spent:
    """What a process has had of the machine since it was started, in seconds."""

    wall_s: float | None
    cpu_s: float | None  # of all its threads
    waited_s: float | None  # its first thread could have run, and others had all the CPUs

    def text(self) -> str:
        """Return all three in one line."""
        took, cpu, waited = ('unknown' if value is None else f'{value:.2f} s'
                             for value in (self.wall_s, self.cpu_s, self.waited_s))
        return f'{took} since the process was started, with {cpu} of CPU time; waited {waited} ' \
               'for a CPU'


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU."""

    name: str
    used_mib: float  # by all processes
    total_mib: float
    celsius: float | None


def resident_mib(root: Path = ROOT) -> float | None:
    """Return the physical memory that this process holds, in MiB."""
    fields = _read(root / 'proc/self/statm').split()
    return int(fields[1]) * os.sysconf('SC_PAGE_SIZE') / _MIB if len(fields) > 1 else None


def available_mib(root: Path = ROOT) -> float | None:
    """Return the physical memory that new work can have without swapping, in MiB."""
    for line in _read(root / 'proc/meminfo').splitlines():
        if line.startswith('MemAvailable:'):
            return int(line.split()[1]) / 1024
    return None


def spent(root: Path = ROOT) -> Spent:
    """Return what this process has had so far; the kernel counts ticks, of 10 ms mostly."""
    # the name of the program, which may hold anything, ends with the last bracket
    fields = _read(root / 'proc/self/stat').rpartition(')')[2].split()
    uptime = _read(root / 'proc/uptime').split()
    queue = _read(root / 'proc/self/schedstat').split()  # absent where the kernel keeps none
    tick_s = 1 / os.sysconf('SC_CLK_TCK')
    wall_s = cpu_s = None
    if len(fields) > 19:  # fields 14, 15 and 22 of proc(5), which counts from 1
        cpu_s = (int(fields[11]) + int(fields[12])) * tick_s
        if uptime:
            wall_s = float(uptime[0]) - int(fields[19]) * tick_s
    return Spent(wall_s, cpu_s, int(queue[1]) * 1e-9 if len(queue) > 1 else None)


def hottest(root: Path = ROOT) -> Heat | None:
    """Return the thermal zone with the highest temperature."""
    zones = []
    for index in range(MAX_ENTRIES):
        folder = root / f'sys/class/thermal/thermal_zone{index}'
        millidegrees = _number(folder / 'temp')  # of a zone that sleeps it cannot be read
        if millidegrees is not None:
            zones.append((millidegrees, folder))
    if not zones:
        return None
    millidegrees, folder = max(zones, key=lambda zone: zone[0])
    trips = [_number(folder / f'trip_point_{index}_temp') for index in range(MAX_ENTRIES)
             if _read(folder / f'trip_point_{index}_type').strip() in _SLOWING]
    limit = min((trip for trip in trips if trip is not None and trip > 0), default=None)
    return Heat(_read(folder / 'type').strip() or folder.name, millidegrees / 1000,
                None if limit is None else limit / 1000)


def governors(root: Path = ROOT) -> tuple[str, ...]:
    """Return how the kernel chooses clock rates, each governor once; () = it has no say in it."""
    folder = root / 'sys/devices/system/cpu'
    found = (_read(folder / f'cpu{index}/cpufreq/scaling_governor').strip()
             for index in range(MAX_ENTRIES))
    return tuple(dict.fromkeys(name for name in found if name))


def frequency_driver(root: Path = ROOT) -> str:
    """Return who carries out what the governor says."""
    return _read(root / 'sys/devices/system/cpu/cpu0/cpufreq/scaling_driver').strip()


def receive_buffer_limit(root: Path = ROOT) -> int | None:
    """Return the largest receive buffer that a socket may ask for, in bytes."""
    return _number(root / 'proc/sys/net/core/rmem_max')


def usable_cpus() -> int:
    """Return the number of CPUs that this process may run on."""
    return len(os.sched_getaffinity(0))


def gpus(library: str = _NVML) -> tuple[Gpu, ...]:
    """Return the NVIDIA GPUs; () where there is no driver. A Jetson's GPU shares the memory."""
    nvml = _opened(library)
    count = ctypes.c_uint()
    if nvml is None or nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return ()
    found = (_gpu(nvml, index) for index in range(min(count.value, MAX_ENTRIES)))
    return tuple(gpu for gpu in found if gpu is not None)


@functools.cache
def _opened(library: str) -> ctypes.CDLL | None:
    """Return the library, initialised once for the life of the process; that may take a while."""
    try:
        nvml = ctypes.CDLL(library)
        return None if nvml.nvmlInit_v2() else nvml
    except (OSError, AttributeError):  # no such library, or one that is older
        return None


class _Memory(ctypes.Structure):
    """The struct nvmlMemory_t."""

    _fields_ = [(name, ctypes.c_ulonglong) for name in ('total', 'free', 'used')]


def _gpu(nvml: ctypes.CDLL, index: int) -> Gpu | None:
    """Ask of one GPU. Every function returns 0 where it worked."""
    handle, memory = ctypes.c_void_p(), _Memory()
    name, celsius = ctypes.create_string_buffer(96), ctypes.c_uint()
    if nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)) \
            or nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)):
        return None
    nvml.nvmlDeviceGetName(handle, name, len(name))
    is_silent = nvml.nvmlDeviceGetTemperature(handle, 0, ctypes.byref(celsius))  # 0 = the die
    return Gpu(name.value.decode(errors='replace'), memory.used / _MIB, memory.total / _MIB,
               None if is_silent else float(celsius.value))


def _read(path: Path) -> str:
    try:
        with path.open('rb') as file:
            return file.read(_MAX_BYTES).decode(errors='replace')
    except OSError:
        return ''


def _number(path: Path) -> int | None:
    text = _read(path)
    try:
        return int(text) if len(text) < _MAX_DIGITS else None
    except ValueError:
        return None
