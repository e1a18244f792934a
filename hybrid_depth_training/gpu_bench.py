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
Latency of networks through torch on a GPU, against what the device could do.

The device is calibrated in the same run: a large product for its arithmetic, a large copy for its
memory. Untried on CUDA: no GPU was at hand.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
import inspect
import json
from pathlib import Path
import platform
import time
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hybrid_depth.errors import ConfigError
from hybrid_depth.summary import latency_percentiles
from hybrid_depth_training.calibration import SigmaScale
from hybrid_depth_training.config import read_config
from hybrid_depth_training.export import (
    ExportedClipPrior,
    ExportedDepth,
    ExportedPosed,
    load_config,
    load_model,
)
from hybrid_depth_training.models.clip_prior.network import ClipPriorDepth
from hybrid_depth_training.models.hybrid import HybridDepth
from hybrid_depth_training.models.posed import PosedDepth
from hybrid_depth_training.models.sweep import FEATURE_STRIDE
from hybrid_depth_training.objectives import make_objective, objective_class
from hybrid_depth_training.torch_cuda import named_outputs, TorchSession
from hybrid_depth_training.weights import RANDOM


def gpu_bench(models: Sequence[Path], out: Path, *, device: str = 'cuda',
              size: tuple[int, int] = (224, 672), sources: int = 2,
              frames: int = 200) -> dict[str, Any]:
    """
    Measure ``models``, each a run folder or a recipe (then with random weights), and write JSON.

    ``size`` (H, W); ``sources`` earlier frames for networks that take them. Raises ConfigError
    where there is no such device or model.
    """
    if torch.device(device).type == 'cuda' and not torch.cuda.is_available():
        raise ConfigError('torch finds no CUDA device; expected a GPU, its driver and a build of '
                          'torch for CUDA. --device cpu tries the code, not the speed')
    peak = calibrate(torch.device(device))
    found = {
        'device': _device_name(device), 'torch': torch.__version__, 'cuda': torch.version.cuda,
        'platform': platform.platform(), 'size': list(size), 'sources': sources,
        'frames': frames, 'peak': peak,
        'models': {str(path): measure(path, device, size, sources, frames, peak)
                   for path in models}}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + '\n')
    return found


def measure(path: Path, device: str, size: tuple[int, int], sources: int, frames: int,
            peak: dict[str, float]) -> dict[str, Any]:
    """Return the figures of one model: latencies in ms, work, and the floor that follows."""
    is_half = torch.device(device).type == 'cuda'
    network = deployed(path)
    inputs = example_inputs(network, size, sources)
    single = TorchSession(network, inputs, device, is_half=False)
    reference = [single.fetch(single.step(inputs)['depth']) for _ in range(3)]
    single_ms = _latencies(single, inputs, max(3, frames // 10))
    gflop = _gflop(network, inputs, device)
    weights = sum(p.numel() for p in network.parameters())
    del single
    session = TorchSession(network, inputs, device, is_half)  # rounds the weights
    depths = [session.fetch(session.step(inputs)['depth']) for _ in range(3)]
    moved_gb = (2 if is_half else 4) * weights * 1e-9
    floor = {'compute_ms': gflop / peak['tflop_per_s'],
             'weights_ms': 1e3 * moved_gb / peak['copy_gb_per_s']}
    result = latency_percentiles(_latencies(session, inputs, frames))
    floor_ms = max(floor.values())
    return {
        'weights': 'of the run' if path.is_dir() else 'random', 'parameters_m': weights / 1e6,
        'gflop': round(gflop, 2), 'programs': session.graphs,
        'precision': 'fp16 products, fp32 elsewhere' if is_half else 'fp32',
        'is_graph_replay': is_half, 'host_to_host_ms': result,
        'fp32_host_to_host_ms': latency_percentiles(single_ms),
        'floor_ms': {name: round(value, 4) for name, value in floor.items()},
        'ratio_to_floor': round(result['p50'] / floor_ms, 2) if result['p50'] else None,
        'abs_rel_to_fp32': float(np.mean([np.mean(np.abs(a - b) / b) for a, b
                                          in zip(depths, reference, strict=True)]))}


def deployed(path: Path) -> nn.Module:
    """
    Return the network of a run folder, or of a recipe with random weights, as it is deployed.

    Attention stays torch's own fused one, unlike in an exported graph.
    """
    if path.is_dir():
        _, network = load_model(path, load_config(path))
    else:
        config = read_config(path)
        torch.manual_seed(0)
        options = random_weights(config.options, objective_class(config.objective).Options)
        network = make_objective(config.objective, options, 0, 0, 1, blank=True).network.eval()
    for part in network.modules():
        if isinstance(part, HybridDepth) and part.text is not None:
            with torch.no_grad():
                part.bake_text()
    kind: type[nn.Module] | None = None
    if isinstance(network, PosedDepth):
        kind = ExportedPosed
    elif isinstance(network, ClipPriorDepth) and network.has_language:
        kind = ExportedClipPrior
    elif list(inspect.signature(network.forward).parameters) == ['image', 'K']:
        kind = ExportedDepth
    return (network if kind is None else kind(network, SigmaScale())).eval()


def random_weights(options: Mapping[str, Any], kind: type | None = None) -> dict[str, Any]:
    """
    Return a recipe's options with all weights random: those it names, and its defaults.

    ``kind`` is the dataclass that has the defaults.
    """
    result = {key: random_weights(value) if isinstance(value, Mapping) else value
              for key, value in options.items()}
    names = {*result, *(entry.name for entry in (fields(kind) if kind else ()))}
    return result | {key: RANDOM for key in names if key.split('_')[-1] == 'weights'}


def example_inputs(network: nn.Module, size: tuple[int, int],
                   sources: int) -> dict[str, np.ndarray]:
    """Return an input of each name: noise, and ``sources`` frames 0.3 m apart along z."""
    height, width = size
    rng = np.random.default_rng(0)
    K = np.array([[[0.7 * width, 0, width / 2], [0, 0.7 * width, height / 2], [0, 0, 1]]])
    motion = np.tile(np.eye(4, dtype=np.float32), (1, sources, 1, 1))
    motion[0, :, 2, 3] = 0.3 * np.arange(1, sources + 1)
    known: dict[str, Callable[[], np.ndarray]] = {
        'image': lambda: rng.integers(0, 256, (1, height, width, 3), np.uint8),
        'K': lambda: K.astype(np.float32),
        'text': lambda: np.ones((1, network.network.text_dim), np.float32),
        'source_features': lambda: np.zeros(
            (1, sources, network.network.channels, height // FEATURE_STRIDE,
             width // FEATURE_STRIDE), np.float32),
        'source_T_target': lambda: motion,
        'source_valid': lambda: np.ones((1, sources), np.float32)}
    names = inspect.signature(network.forward).parameters
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ConfigError(f'{type(network).__name__} takes {unknown}, which nothing here can feed')
    return {name: known[name]() for name in names}


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


def _best_ms(work: Callable[[], object], device: torch.device, count: int = 10) -> float:
    times = []
    for _ in range(count + 1):
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        times.append(1e3 * (time.perf_counter() - start))
    return min(times[1:])


def _latencies(session: TorchSession, inputs: dict[str, np.ndarray], frames: int) -> list[float]:
    """Return ms from an image in memory to its depth in memory, one frame at a time."""
    times = []
    for index in range(frames + 5):
        start = time.perf_counter()
        session.fetch(session.step(inputs)['depth'])
        if index >= 5:
            times.append(1e3 * (time.perf_counter() - start))
    return times


def _gflop(network: nn.Module, inputs: dict[str, np.ndarray], device: str) -> float:
    """Count 2 x multiply-adds of products and convolutions; before weights are rounded."""
    feed = [torch.from_numpy(value).to(device) for value in inputs.values()]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        named_outputs(network, network(*feed))
    return 1e-9 * counter.get_total_flops()


def _wait(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def _device_name(device: str) -> str:
    if torch.device(device).type == 'cuda':
        return torch.cuda.get_device_name(device)
    return f'{platform.machine()} CPU: the code was tried, no GPU was measured'
