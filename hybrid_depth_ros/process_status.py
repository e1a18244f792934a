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
"""What the node says on /diagnostics about its process and the machine: memory, heat, GPUs."""
from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from hybrid_depth import machine


def process_status(name: str, hardware_id: str, uptime_s: float,
                   start: machine.Spent | None) -> DiagnosticStatus:
    """
    Build the status of the process; WARN where heat makes the kernel slow the machine down.

    ``start`` is what the process had spent when it was active for the first time.
    """
    heat = machine.hottest()
    values = {
        'uptime_s': f'{uptime_s:.0f}',
        'start.active_s': _number(start.wall_s if start else None, 2),
        'start.cpu_s': _number(start.cpu_s if start else None, 2),
        'start.waited_s': _number(start.waited_s if start else None, 2),
        'memory.resident_mib': _number(machine.resident_mib()),
        'memory.available_mib': _number(machine.available_mib()),
        'temperature.zone': heat.zone if heat else 'none',
        'temperature.celsius': _number(heat.celsius if heat else None),
        'temperature.limit_celsius': _number(heat.limit_celsius if heat else None),
    }
    for index, gpu in enumerate(machine.gpus()):
        values |= {f'gpu{index}.name': gpu.name,
                   f'gpu{index}.memory_used_mib': _number(gpu.used_mib),
                   f'gpu{index}.memory_total_mib': _number(gpu.total_mib),
                   f'gpu{index}.celsius': _number(gpu.celsius)}
    level, message = DiagnosticStatus.OK, 'running'
    if heat and heat.limit_celsius is not None and heat.celsius >= heat.limit_celsius:
        level = DiagnosticStatus.WARN
        message = (f'{heat.zone} is at {heat.celsius:.0f} degrees C and slowed down from '
                   f'{heat.limit_celsius:.0f} on: cool it, or ask for less (cpu_threads, '
                   'resolution, camera rate)')
    return DiagnosticStatus(level=level, name=name, message=message, hardware_id=hardware_id,
                            values=[KeyValue(key=key, value=value)
                                    for key, value in values.items()])


def _number(value: float | None, digits: int = 1) -> str:
    return 'unknown' if value is None else f'{value:.{digits}f}'
