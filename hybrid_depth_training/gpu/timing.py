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
"""Times on a GPU, and what the device could do; on a CPU the same by the clock."""
from __future__ import annotations

from collections.abc import Callable, Sequence
import time

import numpy as np
import torch
from torch import nn
from torch.autograd import DeviceType
from torch.nn.attention import sdpa_kernel, SDPBackend
from torch.profiler import profile, ProfilerActivity
from torch.utils.flop_counter import FlopCounterMode

from hybrid_depth_training.gpu.half import named_outputs
from hybrid_depth_training.gpu.session import TorchSession

_IGNORED = 5  # frames before a measurement: clocks rise, caches fill


def host_to_host_ms(session: TorchSession, frames: Sequence[dict[str, np.ndarray]],
                    count: int) -> list[float]:
    """Return ms from an image in memory to its depth in memory, one frame at a time."""
    times = []
    for index in range(count + _IGNORED):
        start = time.perf_counter()
        session.fetch(session.step(frames[index % len(frames)])['depth'])
        times.append(1e3 * (time.perf_counter() - start))
    return times[_IGNORED:]


def replay_ms(session: TorchSession, count: int) -> list[float]:
    """Return ms of the device per frame, by its own clock, one frame at a time."""
    if session.device.type != 'cuda':
        return []
    times = []
    for _ in range(count + _IGNORED):
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        session.advance()
        after.record()
        after.synchronize()
        times.append(before.elapsed_time(after))
    return times[_IGNORED:]


def successive_ms(session: TorchSession, count: int) -> float | None:
    """Return ms of the device per frame where frames follow without a pause."""
    if session.device.type != 'cuda':
        return None
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    for _ in range(count):
        session.advance()
    after.record()
    after.synchronize()
    return round(before.elapsed_time(after) / count, 4)


def kernels(session: TorchSession) -> int | None:
    """
    Count what the device runs for a frame, copies aside; None where that cannot be seen.

    What is timed after it may be slower: the profiler stays attached to the driver.
    """
    if session.device.type != 'cuda':
        return None
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        session.advance()
        torch.cuda.synchronize(session.device)
    return sum(event.device_type == DeviceType.CUDA
               and not event.name.startswith(('Memcpy', 'Memset')) for event in seen.events()) \
        or None


def calibrate(device: torch.device) -> dict[str, float]:
    """Return what the device reaches: TFLOP/s of a product, GB/s read and written by a copy."""
    on_cuda = device.type == 'cuda'
    side, bytes_ = (8192, 1 << 30) if on_cuda else (512, 1 << 24)
    a = torch.ones(side, side, device=device, dtype=torch.float16 if on_cuda else torch.float32)
    source = torch.zeros(bytes_, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return {'tflop_per_s': round(2e-9 * side**3 / _best_ms(lambda: a @ a, device), 4),
            'copy_gb_per_s': round(2e-6 * bytes_ / _best_ms(lambda: target.copy_(source), device),
                                   2)}


def count_gflop(network: nn.Module, inputs: dict[str, np.ndarray]) -> float:
    """Count 2 x multiply-adds of products and convolutions, on the CPU; before any is rounded."""
    feed = [torch.from_numpy(value) for value in inputs.values()]
    # attention as products: the counter knows no fused one of a CPU
    with FlopCounterMode(display=False) as counter, torch.no_grad(), \
            sdpa_kernel(SDPBackend.MATH):
        named_outputs(network, network(*feed))
    return round(1e-9 * counter.get_total_flops(), 2)


def _best_ms(work: Callable[[], object], device: torch.device, count: int = 10) -> float:
    times = []
    for _ in range(count + 1):
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        times.append(1e3 * (time.perf_counter() - start))
    return min(times[1:])


def _wait(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
