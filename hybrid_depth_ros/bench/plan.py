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
"""What is measured, and for how long: the whole of it, or what fits into a minute."""
from __future__ import annotations

from dataclasses import dataclass

from hybrid_depth_ros.bench.frames import SIZES


@dataclass(frozen=True)
class Plan:
    """Seconds and counts of one run."""

    model: str = 'compact'
    backend: str = 'auto'
    cpu_threads: int = 2
    is_quick: bool = False
    sizes: tuple[tuple[int, int], ...] = SIZES
    main_size: tuple[int, int] = (1280, 720)  # of what is measured at one size only
    work_s: float = 1.5  # for one piece of work in this process
    backend_s: float = 6.0  # for one runtime
    frames: int = 100  # one by one, at each size
    frames_s: float = 60.0
    rates_hz: tuple[float, ...] = (10.0, 30.0)
    stream_s: float = 10.0
    search_s: float = 5.0
    search_steps: int = 6
    least_images: int = 20  # of a stream, however slow
    load_s: float = 3.0  # for the node to load its model, before it is watched idling
    idle_s: float = 15.0
    pipeline_frames: int = 40
    cameras: tuple[int, ...] = (1, 2, 3)
    precisions: tuple[str, ...] = ('fp32', 'fp16', 'int8_mix')
    all_sizes_streamed: bool = True  # else streams, and the runtime 'null', at main_size alone
    large_model: str = 'small'  # of which the runtimes are timed too, for its wide layers; '' = no
    # network of the publication, untrained, of which the runtimes are timed too; '' = no
    wide_recipe: str = 'config/training/hybrid_base.yaml'
    int8_frames: int = 4  # of each drive, that large_model is quantised with


def quick(model: str, backend: str, cpu_threads: int) -> Plan:
    """Return a plan for one minute."""
    return Plan(model, backend, cpu_threads, is_quick=True, work_s=0.1, backend_s=0.3, frames=15,
                frames_s=1.5, stream_s=1.2, search_s=1.0, search_steps=2, least_images=6,
                load_s=1.0, idle_s=2.0, pipeline_frames=4, cameras=(1, 2), precisions=('fp32',),
                all_sizes_streamed=False, large_model='', wide_recipe='')
