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
TensorRT on an NVIDIA GPU, through its own Python package and cuda-python; no framework.

``adapter`` touches TensorRT, ``cuda`` touches CUDA, ``build`` makes an engine, ``session`` runs
it. Written against the recorded interfaces of TensorRT 8.6 to 11.4 and tested with imitations of
both libraries; not yet run on a GPU. ``make test-gpu`` is for the first machine that has one.
"""
from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hybrid_depth.contract import ModelSpec
from hybrid_depth.runtime import Backend, BackendOptions

# what the builder is told, beside size and precision; a change makes other engines
BUILD_SETTINGS = {'workspace': 1 << 30,  # bytes; the smallest boards have 8 GB for everything
                  'optimization_level': 3,  # of 5, TensorRT's own default
                  'typing': 3}  # of precision.typed: raise it when that does something else


def available() -> str:
    """Return '' where engines can be built and run, else the first reason why not, with remedy."""
    from hybrid_depth.runtime.trt import adapter, cuda
    reason = adapter.unavailable() or cuda.unavailable()
    if not reason and find_spec('onnx') is None:
        reason = 'the package onnx is missing, by which graphs are typed; install it with: ' \
                 'pip install onnx'
    return reason


def environment_facts(gpu: int) -> dict[str, Any]:
    """
    Return what an engine depends on beside the model, for JSON: TensorRT, CUDA, the GPU.

    Raises BackendUnavailable where one of them is missing.
    """
    from hybrid_depth.runtime.trt import adapter, cuda
    return {'tensorrt': adapter.load().__version__, **cuda.facts(gpu)}


def build_engine(path: Path, spec: ModelSpec, size: tuple[int, int],
                 options: BackendOptions) -> bytes:
    """Build the engine for one network size and precision: see build.build_engine."""
    from hybrid_depth.runtime.trt import build
    return build.build_engine(path, spec, size, options)


def open_engine(plan: bytes, spec: ModelSpec, size: tuple[int, int],
                options: BackendOptions) -> Backend:
    """Open what ``build_engine`` returned on this machine: see session.TrtBackend."""
    from hybrid_depth.runtime.trt.session import TrtBackend
    return TrtBackend(plan, spec, size, options)
