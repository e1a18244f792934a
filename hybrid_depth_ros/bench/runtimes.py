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
"""Runtimes against each other and against the peak of the machine, and how cost grows."""
from __future__ import annotations

from collections.abc import Sequence
from functools import partial
import os
from pathlib import Path
import subprocess
import sys
import time

import numpy as np

from hybrid_depth.config import PipelineConfig
from hybrid_depth.contract import ModelSpec, read_spec
from hybrid_depth.errors import HybridDepthError
from hybrid_depth.models import find_model
from hybrid_depth.pipeline import DepthPipeline
from hybrid_depth.runtime import Backend, BackendOptions, BACKENDS, load_backend, PRECISIONS
from hybrid_depth.runtime.quantise import quantise
from hybrid_depth.types import Frame
from hybrid_depth_ros.bench.frames import camera
from hybrid_depth_ros.bench.gflop import count_gflop, example_inputs
from hybrid_depth_ros.bench.machine import ProcessMeter
from hybrid_depth_ros.bench.peak import gemm_gflops, peak
from hybrid_depth_ros.bench.statistics import blocks_ms, median_ms, median_ratio, ratio
from hybrid_depth_ros.demo import REPOSITORY

_OVER = 'openvino/fp32'  # what int8_mix is compared with
_INT8_ROWS = (_OVER, 'ort/fp32', 'ort/int8_mix', 'openvino/int8_mix')
_BLANK_S = 300  # at most, for writing a graph
_INT8_ROUNDS = 5  # of a block of each of them
_PEAK_S = 0.1  # for the products of one library


def runtimes(model: str, size: tuple[int, int], cpu_threads: int, seconds: float,
             precisions: Sequence[str] = PRECISIONS) -> dict[str, object]:
    """
    Time every runtime that is there on a camera of (width, height), in every precision it has.

    The machine's peak is measured anew beside each, as it may be busy. What cannot run says why.
    """
    path = find_model(model)
    spec = read_spec(path)
    network = spec.network_size(*size)
    gflop = count_gflop(path, spec, network)
    rows: dict[str, object] = {}
    for name in BACKENDS:
        for precision in precisions:
            if precision == 'auto':
                continue
            options = BackendOptions(cpu_threads=cpu_threads, precision=precision)
            rows[f'{name}/{precision}'] = _row(name, path, spec, network, options, gflop, seconds)
    return {'model': model, 'network': f'{network[1]}x{network[0]}', 'gflop': gflop,
            'cpu_threads': cpu_threads, 'rows': rows}


def _row(name: str, path: Path, spec: ModelSpec, size: tuple[int, int], options: BackendOptions,
         gflop: float, seconds: float) -> dict[str, object] | str:
    opened = time.perf_counter()
    try:
        backend = load_backend(name, path, spec, size, options)
    except HybridDepthError as error:
        return _not_run(error, path)
    load_s = time.perf_counter() - opened
    feed = _example_feed(spec, size)
    try:
        before = gemm_gflops(path, options.cpu_threads, _PEAK_S)
        ms = median_ms(lambda: backend.infer(feed), seconds, least=3)
        best, gemm = peak(before, gemm_gflops(path, options.cpu_threads, _PEAK_S))
        return {'description': backend.description, 'ms': ms, 'load_s': round(load_s, 2),
                'gflop_per_s': round(1e3 * gflop / ms, 1), 'gemm_gflop_per_s': best,
                'gemm': gemm, 'share_of_peak': ratio(1e3 * gflop / ms, best)}
    except HybridDepthError as error:
        return f'failed: {error}'
    finally:
        backend.close()


def _not_run(error: HybridDepthError, path: Path) -> str:
    # where the models lie is nobody's business: this goes into a page
    return f'not run: {error}'.replace(f'{path.parent}{os.sep}', '')


def untrained(recipe: str, size: tuple[int, int], cpu_threads: int, seconds: float,
              folder: Path) -> dict[str, object] | str:
    """
    Time the network of a training ``recipe``, with random weights, in fp32.

    Its graph is written into ``folder`` and removed again. Returns why where it cannot be made
    here: that takes torch.
    """
    path = folder.resolve() / f'{Path(recipe).stem}.onnx'
    try:
        made = subprocess.run(
            [sys.executable, '-m', 'hybrid_depth_training.deploy.blank', recipe, str(path)],
            cwd=REPOSITORY, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=_BLANK_S)
        if made.returncode:
            return f'not run: {(made.stderr.strip().splitlines() or ["no reason was given"])[-1]}'
        found = runtimes(str(path), size, cpu_threads, seconds, ('fp32',))
    except subprocess.TimeoutExpired:
        return f'not run: writing its graph took over {_BLANK_S} s'
    finally:
        path.unlink(missing_ok=True)
    return found | {'model': path.stem}


def _example_feed(spec: ModelSpec, size: tuple[int, int]) -> dict[str, object]:
    feed: dict[str, object] = dict(example_inputs(spec, size))
    if 'source_features' in feed:
        feed['source_features'] = (None,) * spec.sources
    return feed


def int8_mix(model: str, size: tuple[int, int], cpu_threads: int, seconds: float, folder: Path,
             frames: int) -> dict[str, object] | str:
    """
    Quantise ``model`` into ``folder``, and time it against fp32 of the same model, in blocks.

    Ranges are measured on ``frames`` of each drive but one, which says how far depth is from fp32.
    Returns why where the model cannot be quantised here.
    """
    path = find_model(model)
    spec = read_spec(path)
    network = spec.network_size(*size)
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    try:
        made = quantise(path, folder / 'model.int8.onnx', frames=frames)
    except HybridDepthError as error:
        return _not_run(error, path)
    quantise_s = round(time.perf_counter() - start, 1)
    backends: dict[str, Backend] = {}
    rows: dict[str, object] = {}
    try:
        for row in _INT8_ROWS:
            name, precision = row.split('/')
            try:
                backends[row] = load_backend(
                    name, made.path if precision == 'int8_mix' else path, spec, network,
                    BackendOptions(cpu_threads=cpu_threads, precision=precision))
            except HybridDepthError as error:
                rows[row] = _not_run(error, path)
        feed = _example_feed(spec, network)
        times = blocks_ms({row: partial(backend.infer, feed)
                           for row, backend in backends.items()},
                          seconds / (_INT8_ROUNDS + 1), _INT8_ROUNDS)
    finally:
        for backend in backends.values():
            backend.close()
    base = times.get(_OVER)
    over = {row: median_ratio(values, base) if base else None for row, values in times.items()}
    rows |= {row: {'description': backends[row].description,
                   'ms': round(float(np.median(values)), 3), 'over_openvino_fp32': over[row]}
             for row, values in times.items()}
    return {'model': model, 'network': f'{network[1]}x{network[0]}', 'quantise_s': quantise_s,
            'layers': made.layers, 'candidates': made.candidates, 'frames': made.frames,
            'depth_from_fp32': round(made.abs_rel, 5), 'sigma_from_fp32': round(made.sigma_rel, 5),
            'rows': rows, 'over_openvino_fp32': over.get('ort/int8_mix')}


def growth_with_sources(model: str, size: tuple[int, int], cpu_threads: int,
                        seconds: float) -> dict[str, object] | str:
    """Return ms of the network by the number of earlier frames that are fed and valid."""
    path = find_model(model)
    spec = read_spec(path)
    if spec.kind != 'posed':
        return f'not run: {model} takes no earlier frames'
    network = spec.network_size(*size)
    backend = load_backend('auto', path, spec, network, BackendOptions(cpu_threads=cpu_threads))
    try:
        feed = _example_feed(spec, network)
        handle = backend.infer(feed)['features']
        found = {}
        for count in range(spec.sources + 1):
            valid = np.zeros((1, spec.sources), np.float32)
            valid[0, :count] = 1
            feed['source_valid'] = valid
            feed['source_features'] = (*[handle] * count, *[None] * (spec.sources - count))
            found[str(count)] = median_ms(lambda: backend.infer(feed), seconds, least=3)
        return {'ms': found, 'ratio': ratio(found[str(spec.sources)], found['0'])}
    finally:
        backend.close()


def growth_with_cameras(model: str, backend: str, cpu_threads: int, image_rgb: np.ndarray,
                        counts: Sequence[int], seconds: float) -> dict[str, object]:
    """Return ms for one image of each camera, and memory, by the number of cameras."""
    view = camera((image_rgb.shape[1], image_rgb.shape[0]))
    first = DepthPipeline(PipelineConfig(model=model, backend=backend, cpu_threads=cpu_threads))
    pipelines = [first]
    found: dict[str, dict[str, float]] = {}
    try:
        for count in counts:
            while len(pipelines) < count:
                pipelines.append(first.for_another_camera())

            def work() -> None:
                for pipeline in pipelines:
                    pipeline.run(Frame(image_rgb, 0, 'camera', view), ())
            found[str(count)] = {'ms': median_ms(work, seconds, least=3),
                                 'rss_mib': ProcessMeter(os.getpid()).rss_mib()}
        base = found[str(counts[0])]['ms']
        return {'cameras': found, 'ratio': {count: ratio(row['ms'], base)
                                            for count, row in found.items()}}
    finally:
        for pipeline in pipelines:
            pipeline.close()
