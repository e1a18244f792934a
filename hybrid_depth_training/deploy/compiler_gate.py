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
Does NVIDIA's own parser and compiler take a model? Asked on the CPU, without a GPU.

TensorRT-RTX compiles ahead of time on any x86_64 machine and shares its parser and operators with
TensorRT 11. What it makes here is thrown away: it is a gate, not a runtime. Its libraries come in
a wheel that ONNX Runtime can load as a plugin, its Python bindings in another; that the two are
used together is our doing. Both are under NVIDIA's licence and are downloaded, never shipped.

    python -m hybrid_depth_training.deploy.compiler_gate MODEL --precision fp16 --size 160 544

The compiler may crash on a graph, hence ``compiled`` asks another process.
"""
from __future__ import annotations

import argparse
from collections import Counter
import ctypes
from dataclasses import asdict, dataclass
from importlib.util import find_spec
import json
from pathlib import Path
import signal
import subprocess
import sys
import time
from typing import Any

import onnx

from hybrid_depth.contract import read_spec
from hybrid_depth.errors import BackendUnavailable, ContractError, HybridDepthError
from hybrid_depth.runtime.ort import lengths
from hybrid_depth.runtime.precision import geometry_layers, typed

LIBRARIES, BINDINGS = 'onnxruntime_ep_nv_tensorrt_rtx', 'tensorrt_rtx_bindings'
MATRIX_LAYERS = ('MATRIX_MULTIPLY', 'CONVOLUTION', 'DECONVOLUTION')


@dataclass(frozen=True)
class Compiled:
    """What the compiler made of one graph."""

    layers: dict[str, int]  # 'CONVOLUTION HALF' -> how many
    matrix_layers: int  # multiplications and convolutions but for those of camera geometry
    half_share: float  # of these, how many compute in half precision
    engine_bytes: int
    parse_s: float
    compile_s: float


def unavailable() -> str:
    """Return why the gate cannot be asked here, '' where it can."""
    missing = [name for name in (LIBRARIES, BINDINGS) if find_spec(name) is None]
    return f'{" and ".join(missing)} not installed: make compiler-gate installs them (150 MB)' \
        if missing else ''


def compiled(path: Path, size: tuple[int, int], precision: str = 'fp16',
             timeout_s: float = 600.0) -> Compiled:
    """
    Parse and compile the model at ``path`` for network ``size`` (H, W), in a process of its own.

    Raises BackendUnavailable where the compiler is not installed, ContractError with what it says
    where it refuses the graph, crashes or takes longer than ``timeout_s``.
    """
    reason = unavailable()
    if reason:
        raise BackendUnavailable(reason)
    command = [sys.executable, '-m', __name__, str(path), '--precision', precision, '--size',
               *map(str, size)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s,
                              check=False)
    except subprocess.TimeoutExpired as error:
        raise ContractError(f'the compiler did not finish {path} in {timeout_s:g} s') from error
    if done.returncode == 0:
        return Compiled(**json.loads(done.stdout.splitlines()[-1]))
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise ContractError(f'the compiler crashed on {path} ({name}): {_tail(done.stderr)}')
    raise ContractError(f'the compiler refuses {path} in {precision}: {_tail(done.stderr)}')


def main(arguments: list[str] | None = None) -> int:
    """Compile one model in this process and print a Compiled as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('model', type=Path)
    parser.add_argument('--precision', default='fp16', choices=('fp32', 'fp16', 'fp16_safe'))
    parser.add_argument('--size', type=int, nargs=2, required=True, help='of the network: H W')
    given = parser.parse_args(arguments)
    try:
        print(json.dumps(asdict(_compile(given.model, tuple(given.size), given.precision))))
    except HybridDepthError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _compile(path: Path, size: tuple[int, int], precision: str) -> Compiled:
    model = onnx.load(str(path))
    geometry = geometry_layers(model)
    graph = typed(model, precision)
    _fix_sizes(graph, lengths(read_spec(path), size))
    trt = _load()
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(0)  # always strongly typed
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
    start = time.monotonic()
    if not parser.parse(graph.SerializeToString()):
        raise ContractError('; '.join(str(parser.get_error(index))
                                      for index in range(parser.num_errors)))
    parsed = time.monotonic()
    layers, share = _types(network, geometry)
    engine = builder.build_serialized_network(network, builder.create_builder_config())
    if engine is None:
        raise ContractError('the graph was parsed, but no engine came of it')
    return Compiled(dict(layers.most_common()), *share, engine.nbytes, round(parsed - start, 2),
                    round(time.monotonic() - parsed, 2))


def _types(network: Any, geometry: frozenset[str]) -> tuple[Counter[str], tuple[int, float]]:
    counts: Counter[str] = Counter()
    matrix: list[str] = []
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        kind = _last(layer.type)
        dtype = _last(layer.get_output(0).dtype) if layer.num_outputs else '-'
        counts[f'{kind} {dtype}'] += 1
        if kind in MATRIX_LAYERS and layer.name not in geometry:
            matrix.append(dtype)
    return counts, (len(matrix), matrix.count('HALF') / len(matrix) if matrix else 1.0)


def _last(enumerator: object) -> str:
    return str(enumerator).rpartition('.')[2]


def _fix_sizes(model: onnx.ModelProto, fixed: dict[str, int]) -> None:
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = fixed[dim.dim_param]


def _load() -> Any:
    """Import the bindings on top of the libraries of the other wheel."""
    place = find_spec(LIBRARIES)
    if place is None or not place.submodule_search_locations:
        raise BackendUnavailable(unavailable())
    folder = Path(place.submodule_search_locations[0])
    for name in ('libtensorrt_rtx.so', 'libtensorrt_onnxparser_rtx.so'):
        (library,) = folder.glob(f'{name}.*')
        # once loaded it is found by the name that the bindings ask for
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    import tensorrt_rtx_bindings as trt
    return trt


def _tail(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line]
    return ' | '.join(lines[-3:]) or 'without a word'


if __name__ == '__main__':
    sys.exit(main())
