# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the node says on /diagnostics about its process and the machine: memory, heat, GPUs."""
from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from hybrid_depth import machine


def process_status(name: str, hardware_id: str, uptime_s: float) -> DiagnosticStatus:
    """Build the status of the process; WARN where heat makes the kernel slow the machine down."""
    heat = machine.hottest()
    values = {
        'uptime_s': f'{uptime_s:.0f}',
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


def _number(value: float | None) -> str:
    return 'unknown' if value is None else f'{value:.1f}'
