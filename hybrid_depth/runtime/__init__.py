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
Runtimes that execute a model file, behind one protocol and one table.

Adding one: a file here with the functions that BACKENDS names, and a row there.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
import logging
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from hybrid_depth.contract import ModelSpec
from hybrid_depth.errors import BackendUnavailable

logger = logging.getLogger(__name__)

# What a graph may compute in; 'auto' is fp32 on a CPU and fp16 on a GPU. fp16_safe keeps what
# overflows or loses depth in half precision in single; int8_mix is for CPUs.
PRECISIONS = ('auto', 'fp32', 'fp16', 'fp16_safe', 'int8_mix')


@dataclass(frozen=True)
class BackendOptions:
    """How a runtime shall execute a model."""

    cpu_threads: int = 2  # of a CPU runtime; they never spin between frames
    precision: str = 'auto'  # one of PRECISIONS
    engine_cache: str = ''  # folder of built engines; '' = hybrid_depth in the user's cache folder
    gpu: int = 0  # index of the CUDA device


class Backend(Protocol):
    """A model loaded for one network size, ready to run."""

    name: str  # row in BACKENDS
    description: str  # runtime, version and device, for people

    def infer(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """
        Run the graph once.

        Inputs and outputs are arrays as ModelSpec says, but for the features of kind 'posed':
        the output ``features`` is a handle that nobody else looks into, good until ``close``
        however many calls follow; the input ``source_features`` is a tuple of ``spec.sources``
        such handles, None where there is no source. So features stay on the device. An array
        of the shape and type of ``features`` is a handle too: reference inputs are. The other
        arrays that are returned may be reused by the next call.
        """

    def close(self) -> None:
        """Release the model's memory. Calling twice is harmless."""


# name -> module with available() -> str (empty = yes, else why not and the remedy) and
# open_backend(path, spec, (H, W), BackendOptions) -> Backend. The order is the order of 'auto'.
# A runtime that builds engines has instead of open_backend: environment_facts(gpu) -> dict of what
# an engine depends on, build_engine(path, spec, (H, W), BackendOptions) -> bytes, and
# open_engine(bytes, spec, (H, W), BackendOptions) -> Backend. Its engines are cached, built in
# another process, and none is used that has not been accepted (see ladder).
# PRECISIONS of a module that opens files: those of the table above that it can compute in.
BACKENDS: dict[str, str] = {
    'trt': 'hybrid_depth.runtime.trt',
    'ort_cuda': 'hybrid_depth.runtime.ort_cuda',
    'ort': 'hybrid_depth.runtime.ort',
    'ort_tensorrt': 'hybrid_depth.runtime.ort_tensorrt',
    'openvino': 'hybrid_depth.runtime.openvino',
}
# used only where they are named: engines built while a node waits, and a second CPU runtime
OPT_IN = ('ort_tensorrt', 'openvino')


def load_backend(name: str, path: Path, spec: ModelSpec, size: tuple[int, int],
                 options: BackendOptions) -> Backend:
    """
    Open the model at ``path`` for network ``size`` (H, W) with the runtime called ``name``.

    'auto' takes the first row of BACKENDS that is available and, where it has to be, accepted;
    where an engine is built this takes minutes (``serving`` does not wait). A named runtime never
    falls back, and neither does a named precision.
    Raises BackendUnavailable with the reasons, ContractError where the graph breaks its contract.
    """
    reasons = []
    for row in rows_of(name):
        reason = why_not(row, options)
        if not reason:
            module = import_module(BACKENDS[row])
            try:
                if not builds_engines(module):
                    backend: Backend = module.open_backend(path, spec, size, options)
                    return backend
                from hybrid_depth.runtime.ladder import open_accepted  # which needs this module
                return open_accepted(row, path, spec, size, options)
            except BackendUnavailable as error:
                if name != 'auto' or options.precision != 'auto':
                    raise
                reason = str(error)
                logger.warning('%s; trying the next runtime', reason)
        reasons.append(f'{row}: {reason}')
    raise BackendUnavailable('no runtime can be used: ' + '; '.join(reasons))


def rows_of(name: str) -> tuple[str, ...]:
    """Return the rows of BACKENDS that ``name`` means. Raises BackendUnavailable if none."""
    if name == 'auto':
        return tuple(row for row in BACKENDS if row not in OPT_IN)
    if name not in BACKENDS:
        raise BackendUnavailable(f'there is no runtime {name!r}; known: auto, '
                                 f'{", ".join(BACKENDS)}')
    return (name,)


def why_not(row: str, options: BackendOptions) -> str:
    """Return why a runtime cannot be used here and so, and the remedy; '' where it can."""
    module = import_module(BACKENDS[row])
    reason: str = module.available()
    if builds_engines(module):
        if not reason:
            from hybrid_depth.runtime.ladder import LADDER  # only where there is one to climb
            if options.precision not in LADDER:
                return f'it has no engines of precision {options.precision!r}, only of ' \
                       + ', '.join(LADDER)
    elif refused := precision_refused(module.PRECISIONS, options.precision):
        return refused
    return reason


def precision_refused(can: tuple[str, ...], precision: str) -> str:
    """Return why a runtime that computes in ``can`` is not opened for ``precision``, or ''."""
    return '' if precision in can else \
        f'it does not compute in {precision!r}, only in {", ".join(can)}'


def builds_engines(module: ModuleType) -> bool:
    """Tell whether a runtime of BACKENDS builds engines."""
    return hasattr(module, 'build_engine')
