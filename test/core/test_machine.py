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
"""What is read of the kernel, from a /proc and /sys of the test's own, and of the GPU driver."""
from __future__ import annotations

import ctypes
import os
from pathlib import Path
import shutil
import subprocess
import sys
import time

import pytest

from hybrid_depth import machine

NVML_C = r"""
#include <string.h>
typedef struct { unsigned long long total, free, used; } memory_t;
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 3; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
  *handle = (void *)(long)(index + 1);
  return index == 1 ? 15 : 0;  /* 15 = the GPU is lost */
}
int nvmlDeviceGetMemoryInfo(void *handle, memory_t *memory) {
  memory->total = 8192ULL << 20; memory->used = 512ULL << 20; memory->free = 0;
  return 0;
}
int nvmlDeviceGetName(void *handle, char *name, unsigned length) {
  strncpy(name, "Test GPU", length);
  return 0;
}
int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *celsius) {
  *celsius = 61;
  return (long)handle == 3 ? 3 : 0;  /* 3 = not supported */
}
"""


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_nothing_is_known_of_an_empty_machine(tmp_path: Path) -> None:
    assert machine.resident_mib(tmp_path) is None
    assert machine.available_mib(tmp_path) is None
    assert machine.spent(tmp_path) == machine.Spent(None, None, None)
    assert machine.hottest(tmp_path) is None
    assert machine.governors(tmp_path) == ()
    assert machine.receive_buffer_limit(tmp_path) is None
    assert machine.gpus('libnothing-of-this-name.so.1') == ()


def test_what_a_process_has_spent(tmp_path: Path) -> None:
    ticks = os.sysconf('SC_CLK_TCK')
    fields = ['0'] * 50
    fields[11], fields[12], fields[19] = str(3 * ticks), str(2 * ticks), str(95 * ticks)
    write(tmp_path, {'proc/self/stat': f'17 (a ) 9 name) {" ".join(fields)}\n',
                     'proc/uptime': '107.50 400.00\n',
                     'proc/self/schedstat': '4000000000 1250000000 77\n'})
    spent = machine.spent(tmp_path)
    assert spent == machine.Spent(12.5, 5.0, 1.25)
    assert '12.50 s' in spent.text()
    assert 'waited 1.25 s' in spent.text()


def test_this_process_has_spent_something() -> None:
    code = 'from hybrid_depth.machine import spent; sum(range(10**6)); now = spent(); ' \
           'print(now.wall_s, now.cpu_s)'
    start = time.monotonic()
    printed = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                             check=True, cwd=Path(machine.__file__).parents[1]).stdout
    wall_s, cpu_s = map(float, printed.split())
    assert 0 < wall_s <= time.monotonic() - start + 0.02
    assert 0 < cpu_s < 60


def test_memory(tmp_path: Path) -> None:
    write(tmp_path, {'proc/self/statm': '9000 2048 300 1 0 1 0\n',
                     'proc/meminfo': 'MemTotal:  9000000 kB\nMemAvailable:   2097152 kB\n'})
    assert machine.resident_mib(tmp_path) == 2048 * os.sysconf('SC_PAGE_SIZE') / 2**20
    assert machine.available_mib(tmp_path) == 2048


def test_the_hottest_zone_and_where_it_slows_down(tmp_path: Path) -> None:
    zones = tmp_path / 'sys/class/thermal'
    write(zones, {
        'thermal_zone0/type': 'gpu-thermal\n', 'thermal_zone0/temp': '41500\n',
        'thermal_zone2/type': 'cpu-thermal\n', 'thermal_zone2/temp': '61250\n',
        'thermal_zone2/trip_point_0_type': 'active\n', 'thermal_zone2/trip_point_0_temp': '50000',
        'thermal_zone2/trip_point_1_type': 'critical\n',
        'thermal_zone2/trip_point_1_temp': '105000',
        'thermal_zone2/trip_point_2_type': 'passive\n',
        'thermal_zone2/trip_point_2_temp': '99000',
        'thermal_zone2/trip_point_3_type': 'hot\n', 'thermal_zone2/trip_point_3_temp': '-274000',
        'thermal_zone3/type': 'asleep\n', 'thermal_zone3/temp': ''})
    assert machine.hottest(tmp_path) == machine.Heat('cpu-thermal', 61.25, 99.0)
    (zones / 'thermal_zone2/temp').unlink()
    assert machine.hottest(tmp_path) == machine.Heat('gpu-thermal', 41.5, None)


def test_governors_and_limits(tmp_path: Path) -> None:
    cpus = 'sys/devices/system/cpu'
    write(tmp_path, {f'{cpus}/cpu0/cpufreq/scaling_governor': 'powersave\n',
                     f'{cpus}/cpu0/cpufreq/scaling_driver': 'intel_pstate\n',
                     f'{cpus}/cpu1/cpufreq/scaling_governor': 'performance\n',
                     f'{cpus}/cpu2/cpufreq/scaling_governor': 'powersave\n',
                     'proc/sys/net/core/rmem_max': '212992\n'})
    assert machine.governors(tmp_path) == ('powersave', 'performance')
    assert machine.frequency_driver(tmp_path) == 'intel_pstate'
    assert machine.receive_buffer_limit(tmp_path) == 212992


def test_files_are_not_read_without_end(tmp_path: Path) -> None:
    write(tmp_path, {'sys/class/thermal/thermal_zone0/temp': '1' * 100_000})
    assert machine.hottest(tmp_path) is None


def test_this_machine() -> None:
    memory = machine.resident_mib()
    assert memory is not None
    assert memory > 5
    assert machine.usable_cpus() >= 1


@pytest.mark.skipif(shutil.which('cc') is None, reason='no C compiler to make a library with')
def test_gpus_by_the_library_of_the_driver(tmp_path: Path) -> None:
    source, library = tmp_path / 'nvml.c', tmp_path / 'libnvml.so'
    source.write_text(NVML_C)
    subprocess.run(['cc', '-shared', '-fPIC', '-o', str(library), str(source)], check=True)
    assert machine.gpus(str(library)) == (machine.Gpu('Test GPU', 512.0, 8192.0, 61.0),
                                          machine.Gpu('Test GPU', 512.0, 8192.0, None))


@pytest.mark.skipif(shutil.which('cc') is None, reason='no C compiler to make a library with')
def test_a_driver_that_does_not_answer(tmp_path: Path) -> None:
    source, library = tmp_path / 'nvml.c', tmp_path / 'libnvml.so'
    source.write_text('int nvmlInit_v2(void) { return 9; }')  # the driver is not loaded
    subprocess.run(['cc', '-shared', '-fPIC', '-o', str(library), str(source)], check=True)
    assert isinstance(ctypes.CDLL(str(library)), ctypes.CDLL)
    assert machine.gpus(str(library)) == ()
