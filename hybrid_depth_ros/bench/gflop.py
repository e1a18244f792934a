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
"""Multiply-adds of an ONNX file as it is run at one size, from the runtime's own profile."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
from pathlib import Path
import tempfile
from typing import Any

import numpy as np

from hybrid_depth.contract import ModelSpec
from hybrid_depth.matching import source_inputs

_TYPES = {'tensor(uint8)': np.uint8, 'tensor(float)': np.float32}


def count_gflop(path: Path, spec: ModelSpec, size: tuple[int, int]) -> float:
    """
    Return 2 x multiply-adds of matrix products and convolutions, in 1e9, for ``size`` (H, W).

    Runs the unoptimised graph once, as its shapes are only known while it runs.
    """
    import onnxruntime as ort
    with tempfile.TemporaryDirectory(prefix='hybrid_depth_bench_') as folder:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / 'profile')
        options.log_severity_level = 3
        session = ort.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
        session.run(None, example_inputs(spec, size))
        events = json.loads(Path(session.end_profiling()).read_text())
    return round(1e-9 * sum(_flop(event.get('args', {})) for event in events), 4)


def example_inputs(spec: ModelSpec, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Return an input of each name: noise for the image, no sources."""
    rng = np.random.default_rng(0)
    inputs = {name: np.zeros(shape, dtype) for name, (dtype, shape) in spec.inputs(size).items()}
    inputs['image'] = rng.integers(0, 256, inputs['image'].shape, np.uint8)
    inputs['K'][0] = np.diag([0.7 * size[1], 0.7 * size[1], 1])
    inputs['K'][0, :2, 2] = size[1] / 2, size[0] / 2
    no_sources = source_inputs(spec, [])
    return inputs | {name: array for name, array in no_sources.items()
                     if isinstance(array, np.ndarray)}


def _flop(event: Mapping[str, Any]) -> float:
    kind = event.get('op_name')
    if kind not in ('MatMul', 'Gemm', 'Conv', 'ConvTranspose'):
        return 0.0
    inputs, output = _shapes(event['input_type_shape']), _shapes(event['output_type_shape'])[0]
    if kind == 'MatMul':
        return 2.0 * np.prod(output) * inputs[0][-1]
    if kind == 'Gemm':  # (M, K), or (K, M) and transposed
        return 2.0 * np.prod(inputs[0]) * output[1]
    # every weight is used once at each place; shapes of stored weights are not told, only their
    # bytes, the bias among them
    stored = int(event.get('parameter_size', 0)) / 4
    weights = stored if len(inputs) == 1 else float(np.prod(inputs[1]))
    places = inputs[0] if kind == 'ConvTranspose' else output
    return 2.0 * places[0] * np.prod(places[2:]) * weights


def _shapes(entries: Sequence[Mapping[str, Sequence[int]]]) -> list[list[int]]:
    return [list(shape) for entry in entries for shape in entry.values()]
