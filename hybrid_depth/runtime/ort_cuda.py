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
"""ONNX Runtime on an NVIDIA GPU by its CUDA provider. Untried: no GPU was at hand."""
from __future__ import annotations

from pathlib import Path
from typing import Any

from hybrid_depth.contract import ModelSpec
from hybrid_depth.errors import BackendUnavailable
from hybrid_depth.runtime import BackendOptions, precision_refused
from hybrid_depth.runtime.ort_device import (
    open_accepted_session,
    OrtDeviceBackend,
    PRECISIONS,
    provider_missing,
    Providers,
)

PROVIDER = 'CUDAExecutionProvider'


def available() -> str:
    """Return '' where the CUDA provider can run, else why not and the remedy."""
    return provider_missing(PROVIDER)


def open_backend(path: Path, spec: ModelSpec, size: tuple[int, int],
                 options: BackendOptions) -> OrtDeviceBackend:
    """
    Load the model at ``path`` for images of ``size`` (H, W).

    Raises BackendUnavailable where it cannot run here or its outputs are not accepted,
    ContractError where the file cannot be loaded or its graph breaks the contract.
    """
    reason = precision_refused(PRECISIONS, options.precision) \
        or provider_missing(PROVIDER, options.gpu)
    if reason:
        raise BackendUnavailable(f'ort_cuda: {reason}')
    return open_accepted_session('ort_cuda', lambda precision: providers(precision, options.gpu),
                                 path, spec, size, options)


def providers(precision: str, gpu: int) -> Providers:
    """Return the CUDA provider with its options; what it has no kernel for runs on the CPU."""
    settings: dict[str, Any] = {
        'device_id': gpu,
        'arena_extend_strategy': 'kSameAsRequested',  # no memory is taken in advance
        'cudnn_conv_use_max_workspace': '1',
        # TF32 has the 10 bits of half precision: fp32 means what it says
        'use_tf32': '0' if precision == 'fp32' else '1',
    }
    return [(PROVIDER, settings), 'CPUExecutionProvider']
