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
ONNX Runtime on an NVIDIA GPU by its TensorRT provider. Untried: no GPU was at hand.

It builds its engine in this process while the model is opened, which may take minutes: used only
where it is named. The runtime 'trt' builds in a process of its own.
"""
from __future__ import annotations

from pathlib import Path
from typing import Any

from hybrid_depth.contract import ModelSpec
from hybrid_depth.errors import BackendUnavailable
from hybrid_depth.runtime import BackendOptions, ort_cuda, precision_refused
from hybrid_depth.runtime.engine_cache import EngineCache
from hybrid_depth.runtime.int8 import sha256_of
from hybrid_depth.runtime.ort_device import (
    open_accepted_session,
    OrtDeviceBackend,
    PRECISIONS,
    provider_missing,
    Providers,
)

PROVIDER = 'TensorrtExecutionProvider'


def available() -> str:
    """Return '' where the TensorRT provider can run, else why not and the remedy."""
    return provider_missing(PROVIDER)


def open_backend(path: Path, spec: ModelSpec, size: tuple[int, int],
                 options: BackendOptions) -> OrtDeviceBackend:
    """
    Load the model at ``path`` for images of ``size`` (H, W), building its engine if need be.

    Raises BackendUnavailable where it cannot run here or its outputs are not accepted,
    ContractError where the file cannot be loaded or its graph breaks the contract.
    """
    reason = precision_refused(PRECISIONS, options.precision) \
        or provider_missing(PROVIDER, options.gpu)
    if reason:
        raise BackendUnavailable(f'ort_tensorrt: {reason}')
    folder = EngineCache(options.engine_cache).folder / 'onnxruntime'
    folder.mkdir(mode=0o700, exist_ok=True)

    def providers_for(precision: str) -> Providers:
        model = f'{sha256_of(path)[:16]}_{size[1]}x{size[0]}'
        return providers(precision, options.gpu, folder, model)

    return open_accepted_session('ort_tensorrt', providers_for, path, spec, size, options)


def providers(precision: str, gpu: int, folder: Path, model: str) -> Providers:
    """
    Return the TensorRT provider with its options, then CUDA for what it leaves over.

    ``model`` names weights and network size: the provider's own name for an engine tells neither,
    and it would take the engine of another model of the same structure.
    ``trt_fp16_enable`` is not set: without it the provider obeys the types of the graph, which
    decide the precision here (ONNX Runtime 1.18 and later). Nor is ``trt_cuda_graph_enable``: a
    captured graph reads and writes where it did before, and features come and go.
    """
    settings: dict[str, Any] = {
        'device_id': gpu,
        'trt_engine_cache_enable': '1',
        'trt_engine_cache_path': str(folder),
        'trt_engine_cache_prefix': f'hybrid_depth_{model}_{precision}',
        'trt_timing_cache_enable': '1',
        'trt_timing_cache_path': str(folder),
    }
    return [(PROVIDER, settings), *ort_cuda.providers(precision, gpu)]
