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
"""OpenVINO on the CPU: used only where it is named."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hybrid_depth.contract import ModelSpec
from hybrid_depth.errors import BackendUnavailable, ContractError
from hybrid_depth.runtime import BackendOptions, precision_refused
from hybrid_depth.runtime.cpu_backend import CpuBackend, PRECISIONS
from hybrid_depth.runtime.int8 import file_for

_TYPES = {'u8': 'uint8', 'f32': 'float32'}  # as OpenVINO writes them


def available() -> str:
    """Return '' where OpenVINO can be imported, else why not and the remedy."""
    try:
        import openvino  # noqa: F401 - the robot may lack it, so nothing imports it earlier
    except ImportError as error:
        return f'{error}; install it with: pip install openvino'
    return ''


def open_backend(path: Path, spec: ModelSpec, size: tuple[int, int],
                 options: BackendOptions) -> CpuBackend:
    """
    Load the model at ``path`` for images of ``size`` (H, W).

    Raises ContractError where the file cannot be loaded or its graph breaks the contract,
    BackendUnavailable where OpenVINO is not installed, or the precision is none of a CPU.
    """
    reason = precision_refused(PRECISIONS, options.precision) or available()
    if reason:
        raise BackendUnavailable(f'openvino: {reason}')
    import openvino as ov
    path = file_for(path, options.precision)
    settings = {'INFERENCE_NUM_THREADS': options.cpu_threads, 'NUM_STREAMS': 1,
                'PERFORMANCE_HINT': 'LATENCY',
                # of its own accord it takes bf16 where a CPU has it
                'INFERENCE_PRECISION_HINT': 'f32'}
    try:
        core = ov.Core()
        model = core.read_model(path)
        _check_names(model, path, spec, size)
        model.reshape({name: list(shape) for name, (_, shape) in spec.inputs(size).items()})
        request = core.compile_model(model, 'CPU', settings).create_infer_request()
    except ContractError:
        raise
    except Exception as error:  # its exceptions share no narrower base class
        raise ContractError(f'OpenVINO cannot load {path} for {size[1]}x{size[0]}: {error}; '
                            'copy the file or export the model again') from error
    _check_outputs(request.model_outputs, path, spec, size)
    names = list(spec.outputs(size))

    def run(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        request.infer(feed, share_inputs=True, share_outputs=True)
        outputs = {name: request.get_tensor(name).data for name in names}
        if 'features' in outputs:  # kept by the caller, while the next call writes over the rest
            outputs['features'] = outputs['features'].copy()
        return outputs

    return CpuBackend('openvino', f'OpenVINO {ov.__version__.split("-")[0]}', path, spec, size,
                      options, run)


def _check_names(model: Any, path: Path, spec: ModelSpec, size: tuple[int, int]) -> None:
    for what, ports, tensors in (('inputs', model.inputs, spec.inputs(size)),
                                 ('outputs', model.outputs, spec.outputs(size))):
        found = {port.any_name: _TYPES.get(port.element_type.get_type_name(), 'another type')
                 for port in ports}
        expected = {name: dtype for name, (dtype, _) in tensors.items()}
        if found != expected:
            raise ContractError(f'{path} ({spec.name}) has {what} {found}; the contract says '
                                f'{expected}; export the model again')


def _check_outputs(ports: Any, path: Path, spec: ModelSpec, size: tuple[int, int]) -> None:
    found = {port.any_name: tuple(port.shape) for port in ports}
    expected = {name: shape for name, (_, shape) in spec.outputs(size).items()}
    if found != expected:
        raise ContractError(f'{path} ({spec.name}) gives {found}; the contract says {expected}; '
                            'export the model again')
