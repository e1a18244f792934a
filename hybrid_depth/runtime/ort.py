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
ONNX Runtime on the CPU: the runtime that works everywhere.

Also what its rows on other devices share with this one (see ``ort_device``).
"""
from __future__ import annotations

from pathlib import Path
import tempfile
from typing import Any

import numpy as np

from hybrid_depth.contract import ModelSpec
from hybrid_depth.errors import BackendUnavailable, ContractError
from hybrid_depth.runtime import BackendOptions, precision_refused
from hybrid_depth.runtime.cpu_backend import CpuBackend, PRECISIONS
from hybrid_depth.runtime.int8 import file_for

_TYPES = {'uint8': 'tensor(uint8)', 'float32': 'tensor(float)'}  # as ONNX Runtime writes them


def available() -> str:
    """Return '' where ONNX Runtime can be imported, else why not and the remedy."""
    try:
        import onnxruntime  # noqa: F401 - the robot may lack it, so nothing imports it earlier
    except ImportError as error:
        return f'{error}; install it with: pip install onnxruntime'
    return ''


def open_backend(path: Path, spec: ModelSpec, size: tuple[int, int],
                 options: BackendOptions) -> CpuBackend:
    """
    Load the model at ``path`` for images of ``size`` (H, W).

    Raises ContractError where the file cannot be loaded or its graph breaks the contract,
    BackendUnavailable where ONNX Runtime is not installed, or the precision is none of a CPU.
    """
    reason = available() or precision_refused(PRECISIONS, options.precision)
    if reason:
        raise BackendUnavailable(f'ort: {reason}')
    import onnxruntime as ort
    path = file_for(path, options.precision)
    session = open_session(path, path, session_options(spec, size, options.cpu_threads),
                           ['CPUExecutionProvider'])
    check_graph(session, path, spec, size)
    outputs = spec.outputs(size)

    def run(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        # gives new arrays without copying (measured: binding buffers is no faster), so
        # 'features' can be kept as it is
        arrays = session.run(list(outputs), feed)
        for (name, (_, shape)), array in zip(outputs.items(), arrays, strict=True):
            if array.shape != shape:
                raise ContractError(f'the model output {name!r} is {array.shape}; the contract '
                                    f'says {shape}; export the model again')
        return dict(zip(outputs, arrays, strict=True))

    return CpuBackend('ort', f'ONNX Runtime {ort.__version__}', path, spec, size, options, run)


def session_options(spec: ModelSpec, size: tuple[int, int] | None, cpu_threads: int) -> Any:
    """
    Return the SessionOptions of every session: few threads, still between frames.

    And for one ``size`` (H, W), but where that is None.
    """
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads = cpu_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only: they come back as exceptions as well
    # spinning workers would take the cores from the rest of the robot between two frames
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    # fixed sizes let the optimiser fold all shape arithmetic
    for name, value in (lengths(spec, size) if size else {}).items():
        options.add_free_dimension_override_by_name(name, value)
    return options


def lengths(spec: ModelSpec, size: tuple[int, int]) -> dict[str, int]:
    """Return what the symbolic lengths in a model file are for network ``size`` (H, W)."""
    fixed = dict(zip(('height', 'width'), size, strict=True))
    if spec.kind == 'posed':
        fixed |= zip(('feature_height', 'feature_width'), spec.feature_size(size), strict=True)
    return fixed


def open_session(model: Path | bytes, path: Path, options: Any, providers: list[Any]) -> Any:
    """Open an InferenceSession. Raises ContractError that names ``path``."""
    import onnxruntime as ort
    try:
        return ort.InferenceSession(model if isinstance(model, bytes) else str(model), options,
                                    providers=providers)
    except Exception as error:  # its exceptions share no narrower base class
        raise ContractError(f'ONNX Runtime cannot load {path}: {error}; copy the file or export '
                            'the model again') from error


def save_folded(path: Path, spec: ModelSpec, size: tuple[int, int] | None) -> Any:
    """
    Return the ModelProto at ``path`` with all that is constant computed, standard operators only.

    ``size`` (H, W) fixes the lengths, and so folds all shape arithmetic; None leaves them open.
    Needs onnx. Raises ContractError.
    """
    import onnx
    import onnxruntime as ort
    options = session_options(spec, size, 1)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / 'folded.onnx')
        open_session(path, path, options, ['CPUExecutionProvider'])
        return onnx.load(options.optimized_model_filepath)


def check_graph(session: Any, path: Path, spec: ModelSpec, size: tuple[int, int]) -> None:
    """Raise ContractError where the graph has other inputs or outputs than ``spec`` says."""
    for what, nodes, tensors in (('inputs', session.get_inputs(), spec.inputs(size)),
                                 ('outputs', session.get_outputs(), spec.outputs(size))):
        try:
            found = {node.name: (node.type, len(node.shape)) for node in nodes}
        except ValueError as error:  # a damaged file: names that are no text
            raise ContractError(f'{path} has {what} whose names cannot be read: {error}; copy the '
                                'file or export the model again') from error
        expected = {name: (_TYPES[dtype], len(shape)) for name, (dtype, shape) in tensors.items()}
        if found != expected:
            raise ContractError(f'{path} ({spec.name}) has {what} {found}; the contract says '
                                f'{expected} (type, axes); export the model again')
        for node in nodes if what == 'inputs' else ():
            shape = tensors[node.name][1]
            if any(isinstance(length, int) and length != wanted
                   for length, wanted in zip(node.shape, shape, strict=True)):
                fixed = 'images of ' if node.name == 'image' else f'{node.name} of '
                raise ContractError(f'{path} ({spec.name}) is fixed to {fixed}{node.shape}, not '
                                    f'{shape}; export it with dynamic height and width, and with '
                                    'the contract that fits it')
