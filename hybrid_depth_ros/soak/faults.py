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
The table of faults. Adding one: a generator, and a row.

The generator sends what it wants and yields until the next image is due.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
import random

from hybrid_depth_ros.soak import process_faults, stream_faults
from hybrid_depth_ros.soak.driver import Driver
from hybrid_depth_ros.soak.world import World

Stream = Callable[[Driver, random.Random], Iterator[None]]


@dataclass(frozen=True)
class Fault:
    """One kind of fault."""

    inject: Callable[[World], Iterator[None]]
    description: str
    restarts_count: bool = False  # the node's counters start at zero again meanwhile
    ends_process: bool = False


def _stream(inject: Stream) -> Fault:
    return Fault(lambda world: inject(world.driver, world.rng), _said(inject))


def _process(inject: Callable[[World], Iterator[None]], *, restarts_count: bool = False,
             ends_process: bool = False) -> Fault:
    return Fault(inject, _said(inject), restarts_count or ends_process, ends_process)


def _said(inject: Callable[..., Iterator[None]]) -> str:
    return (inject.__doc__ or '').strip()


FAULTS: dict[str, Fault] = {
    'frame_loss': _stream(stream_faults.frame_loss),
    'duplicates': _stream(stream_faults.duplicates),
    'reordering': _stream(stream_faults.reordering),
    'jitter': _stream(stream_faults.jitter),
    'clock_jump': _stream(stream_faults.clock_jump),
    'resolution_switch': _stream(stream_faults.resolution_switch),
    'camera_swap': _stream(stream_faults.camera_swap),
    'odometry_stall': _stream(stream_faults.odometry_stall),
    'odometry_jump': _stream(stream_faults.odometry_jump),
    'odometry_nan': _stream(stream_faults.odometry_nan),
    'odometry_wrong_frame': _stream(stream_faults.odometry_wrong_frame),
    'tf_gap': _stream(stream_faults.tf_gap),
    'corrupt_fields': _stream(stream_faults.corrupt_fields),
    'corrupt_cdr': _stream(stream_faults.corrupt_cdr),
    'out_of_memory': _stream(stream_faults.out_of_memory),
    'slow_subscriber': _process(process_faults.slow_subscriber),
    'full_disk': _process(process_faults.full_disk, restarts_count=True),
    'model_replaced': _process(process_faults.model_replaced),
    'lifecycle': _process(process_faults.lifecycle, restarts_count=True),
    'kill_9': _process(process_faults.kill, ends_process=True),
    'sigint': _process(process_faults.interrupt, ends_process=True),
}
