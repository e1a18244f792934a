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
A TensorRT engine as a Backend: everything is bound once and replayed as one CUDA graph.

A CUDA graph holds addresses. Yet any of the frames that are kept, sixteen of them or so, may come
back as a source, so no pair of graphs that take turns could have all their features at fixed
places. Inputs and outputs therefore stay where they are, and features move: those of a frame are
copied out of the graph's output into memory of their own, and a source is copied into its place in
the graph's input when it is another than before. These copies stay on the device, a megabyte
for 'compact', and need no capture of their own.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import logging
import math
from typing import Any

import numpy as np

from hybrid_depth.contract import ModelSpec, TensorType
from hybrid_depth.errors import BackendUnavailable, ContractError
from hybrid_depth.runtime import BackendOptions
from hybrid_depth.runtime.trt.adapter import Engine, inspected_share
from hybrid_depth.runtime.trt.cuda import Cuda, facts, Staging

logger = logging.getLogger(__name__)

_SOURCES, _FEATURES = 'source_features', 'features'
_FOREIGN = object()  # what a source's place holds, where that was no frame of ours


class Features:
    """The features of one frame, on the device; its memory is used again when it is dropped."""

    def __init__(self, pool: _Pool, address: int) -> None:
        self.pool = pool
        self.address = address

    def __del__(self) -> None:
        self.pool.give(self.address)


class TrtBackend:
    """
    One engine, fixed to one network size; for one thread at a time.

    Raises BackendUnavailable where CUDA or TensorRT fail, ContractError where the engine is not
    one of ``spec`` at ``size`` (H, W).
    """

    name = 'trt'

    def __init__(self, plan: bytes, spec: ModelSpec, size: tuple[int, int],
                 options: BackendOptions) -> None:
        self._inputs, self._outputs = spec.inputs(size), spec.outputs(size)
        self._staging: dict[str, Staging] = {}
        self._engine: Engine | None = None
        self._pool: _Pool | None = None
        self._run: Callable[[Cuda], None]
        self._cuda: Cuda | None = Cuda(options.gpu)
        try:
            # after Cuda, which has chosen the GPU
            self._engine = Engine(plan)
            _check_contract(self._engine, spec, size)
            self._places = self._bind(self._cuda, self._engine)
            if _FEATURES in self._outputs:
                self._pool = _Pool(self._cuda, _bytes(self._outputs[_FEATURES]))
            self._held: list[object | None] = [None] * spec.sources  # None = zeros
            graph = self._record(self._cuda)
            share = inspected_share(self._engine.layers(), ())
        except BaseException:
            self.close()
            raise
        # share of the matrix layers by type, where the engine tells
        self.layers = {} if share is None else {'half': share, 'float': 1 - share}
        self.description = (f'TensorRT {self._engine.version}, {facts(options.gpu)["gpu_name"]}, '
                            f'{options.precision}, {size[1]}x{size[0]}, {graph}')

    def infer(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run the graph once. Raises ContractError where an array is not as agreed."""
        cuda = self._cuda
        if cuda is None:
            raise BackendUnavailable('this model was closed; open it again before running it')
        cuda.make_current()
        for name, (dtype, shape) in self._inputs.items():
            if name not in inputs:
                raise ContractError(f'the model input {name!r} is missing')
            if name == _SOURCES:
                continue
            array = inputs[name]
            if array.dtype != dtype or array.shape != shape:
                raise ContractError(f'the model input {name!r} is {array.dtype} {array.shape}; '
                                    f'the model was opened for {dtype} {shape}')
            np.copyto(self._staging[name].array, array)
        if _SOURCES in self._inputs:
            self._put_sources(cuda, inputs[_SOURCES])
        self._run(cuda)
        outputs: dict[str, Any] = {name: self._staging[name].array for name in self._outputs
                                   if name != _FEATURES}
        if self._pool is not None:
            outputs[_FEATURES] = features = Features(self._pool, self._pool.take())
            cuda.copy(features.address, self._places[_FEATURES], self._pool.size)
        cuda.wait()
        return outputs

    def close(self) -> None:
        """Release the memory on the device. Calling twice is harmless."""
        if self._cuda is not None:
            self._cuda.rest()  # a frame that failed half-way may still run
        if self._engine is not None:
            self._engine.close()
        if self._cuda is not None:
            self._cuda.close()
        self._staging.clear()
        self._held = []
        self._engine = self._cuda = self._pool = None

    def _bind(self, cuda: Cuda, engine: Engine) -> dict[str, int]:
        """Give every tensor its place; return name -> device address."""
        places = {}
        for name, (dtype, shape) in (self._inputs | self._outputs).items():
            if name in (_SOURCES, _FEATURES):  # of no use to the CPU
                places[name] = cuda.allocate(_bytes((dtype, shape)))
            else:
                self._staging[name] = staging = cuda.staging(shape, dtype)
                places[name] = staging.device or cuda.allocate(_bytes((dtype, shape)))
            engine.bind(name, places[name])
        return places

    def _record(self, cuda: Cuda) -> str:
        """Run once, then record the same as a graph; return how frames will be run, for people."""
        # a camera that may be: look-ups at coordinates that are no numbers could be anywhere
        for name, staging in self._staging.items():
            if name == 'K':
                staging.array[...] = np.array([[100, 0, 50], [0, 100, 50], [0, 0, 1]])
            elif name == 'source_T_target':
                staging.array[...] = np.eye(4)
        self._enqueue(cuda)  # TensorRT may prepare things that must not happen while recording
        cuda.wait()
        try:
            cuda.capture(lambda: self._enqueue(cuda))
        except BackendUnavailable as error:
            logger.warning('the engine runs without a CUDA graph, which is slower: %s', error)
            self._run = self._enqueue
            return 'without CUDA graph'
        self._run = Cuda.launch
        return 'CUDA graph'

    def _enqueue(self, cuda: Cuda) -> None:
        """Enqueue upload, execution and download; mapped memory needs neither."""
        assert self._engine is not None
        staged = {name: staging for name, staging in self._staging.items() if not staging.device}
        for name, staging in staged.items():
            if name in self._inputs:
                cuda.copy(self._places[name], staging.host, staging.array.nbytes)
        self._engine.enqueue(cuda.stream)
        for name, staging in staged.items():
            if name in self._outputs:
                cuda.copy(staging.host, self._places[name], staging.array.nbytes)

    def _put_sources(self, cuda: Cuda, handles: Sequence[Any]) -> None:
        """Bring what changed since the last frame to its place in the engine's input."""
        assert self._pool is not None
        _, count, *shape = self._inputs[_SOURCES][1]
        if len(handles) != count:
            raise ContractError(f'there are {len(handles)} source_features; the model takes '
                                f'{count} (None where there is no source)')
        for index, handle in enumerate(handles):
            if not (handle is None or (isinstance(handle, Features) and handle.pool is self._pool)
                    or (isinstance(handle, np.ndarray) and handle.dtype == np.float32
                        and handle.shape == (1, *shape))):
                raise ContractError(f'source_features {index} is not an output of this model at '
                                    f'this size; expected {(1, *shape)}')
        for index, handle in enumerate(handles):
            place = self._places[_SOURCES] + index * self._pool.size
            if isinstance(handle, np.ndarray):  # reference values, from outside
                pages = cuda.staging(handle.shape, 'float32')
                pages.array[...] = handle
                cuda.copy(place, pages.host, self._pool.size)
                cuda.wait()  # before the pages go
                self._held[index] = _FOREIGN
            elif handle is not self._held[index]:
                if handle is None:
                    cuda.clear(place, self._pool.size)
                else:
                    cuda.copy(place, handle.address, self._pool.size)
                self._held[index] = handle


class _Pool:
    """Device memory for features: as much as the most frames that were kept at any time."""

    def __init__(self, cuda: Cuda, size: int) -> None:
        self.size = size  # bytes of one frame's features
        self._cuda = cuda
        self._free: list[int] = []

    def take(self) -> int:
        """Return the address of memory that nobody uses."""
        return self._free.pop() if self._free else self._cuda.allocate(self.size)

    def give(self, address: int) -> None:
        """Take back memory; what is enqueued with it comes before what will be."""
        self._free.append(address)


def _check_contract(engine: Engine, spec: ModelSpec, size: tuple[int, int]) -> None:
    found = {name: (tensor.is_input, tensor.dtype, tensor.shape)
             for name, tensor in engine.tensors().items()}
    expected = {name: (is_input, dtype, shape)
                for is_input, tensors in ((True, spec.inputs(size)), (False, spec.outputs(size)))
                for name, (dtype, shape) in tensors.items()}
    if found != expected:
        raise ContractError(f'the engine has the tensors {found}; the contract of {spec.name} '
                            f'says {expected} (is input, type, shape); build it again')


def _bytes(tensor: TensorType) -> int:
    dtype, shape = tensor
    return math.prod(shape) * np.dtype(dtype).itemsize
