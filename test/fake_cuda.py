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
An imitation of ``cuda.bindings.runtime``: host memory plays the device.

Work is queued and done when it is waited for, as on a GPU, so code that does not wait reads old
values. Fresh memory holds rubbish; what is not freed can be counted; foreign addresses fail.
"""
from __future__ import annotations

from collections.abc import Callable
import ctypes
import enum
import itertools
import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

_MAPPED = 1 << 60  # added to the address of mapped host memory, as the GPU sees it


class Error(enum.Enum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorInvalidDevice = 101
    cudaErrorStreamCaptureUnsupported = 900


class FakeCuda:
    """The state behind the module."""

    def __init__(self, *, gpus: int = 1, integrated: bool = False) -> None:
        self.gpus, self.integrated = gpus, integrated
        self.device: dict[int, ctypes.Array] = {}
        self.host: dict[int, ctypes.Array] = {}
        self.handles: dict[int, str] = {}
        self.fail: dict[str, Error | Exception] = {}  # call -> what it returns, or raises
        self.copies: list[int] = []  # bytes, of copies that were done
        self.allocations = 0
        self.current: dict[int, int] = {}  # thread -> GPU
        self._numbers = itertools.count(1000)
        self._queue: list[Callable[[], None]] = []
        self._captured: list[Callable[[], None]] | None = None
        self._graphs: dict[int, list[Callable[[], None]]] = {}

    @property
    def is_capturing(self) -> bool:
        """Whether work is being recorded."""
        return self._captured is not None

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        """Queue ``work`` behind everything else, or record it."""
        assert self.handles.get(stream) == 'stream', 'the default stream is never to be used'
        (self._queue if self._captured is None else self._captured).append(work)

    def resolve(self, address: int, size: int) -> int:
        """Return the real address of ``size`` bytes; LookupError where they are nobody's."""
        real = int(address) & ~_MAPPED
        for start, memory in (*self.device.items(), *self.host.items()):
            if start <= real and real + size <= start + len(memory):
                return real
        raise LookupError(hex(address))

    def module(self) -> ModuleType:
        """Return the module."""
        made = ModuleType('cuda.bindings.runtime')
        made.__dict__.update({name[1:]: self._guarded(name[1:], getattr(self, name))
                              for name in dir(self) if name.startswith('_cuda')})
        attributes = ('Integrated', 'ComputeCapabilityMajor', 'ComputeCapabilityMinor',
                      'MultiProcessorCount')
        made.__dict__.update(
            cudaError_t=Error, cudaStreamNonBlocking=1, cudaEventBlockingSync=1,
            cudaEventDisableTiming=2, cudaHostAllocPortable=1, cudaHostAllocMapped=2,
            cudaDeviceAttr=SimpleNamespace(**{f'cudaDevAttr{name}': name for name in attributes}),
            cudaMemcpyKind=SimpleNamespace(cudaMemcpyDefault=4),
            cudaStreamCaptureMode=SimpleNamespace(cudaStreamCaptureModeThreadLocal=1))
        return made

    def _guarded(self, name: str, call: Callable) -> Callable:
        def guarded(*arguments: Any) -> tuple:
            failure = self.fail.get(name)
            if isinstance(failure, Exception):
                raise failure
            if failure is not None:
                return failure, None
            try:
                value = call(*arguments)
            except LookupError:
                return Error.cudaErrorInvalidValue, None
            if isinstance(value, Error):
                return value, None
            return (Error.cudaSuccess,) if value is None else (Error.cudaSuccess, value)
        return guarded

    def _cudaGetErrorString(self, error: Error) -> bytes:
        return f'meaning of {error.value}'.encode()

    def _cudaGetDeviceCount(self) -> int | Error:
        return self.gpus or Error.cudaErrorNoDevice

    def _cudaRuntimeGetVersion(self) -> int:
        return 12060

    def _cudaSetDevice(self, gpu: int) -> Error | None:
        if not 0 <= gpu < self.gpus:
            return Error.cudaErrorInvalidDevice
        self.current[threading.get_ident()] = gpu
        return None

    def _cudaGetDeviceProperties(self, gpu: int) -> Any:
        if not 0 <= gpu < self.gpus:
            return Error.cudaErrorInvalidDevice
        return SimpleNamespace(name=b'Fake GPU', totalGlobalMem=8 << 30)

    def _cudaDeviceGetAttribute(self, attribute: str, gpu: int) -> int:
        return {'Integrated': int(self.integrated), 'ComputeCapabilityMajor': 8,
                'ComputeCapabilityMinor': 7, 'MultiProcessorCount': 16}[attribute]

    def _cudaMalloc(self, size: int) -> int:
        self.allocations += 1
        return self._new(self.device, size)

    def _cudaFree(self, address: int) -> None:
        del self.device[address]

    def _cudaHostAlloc(self, size: int, flags: int) -> int:
        assert bool(flags & 2) == self.integrated
        return self._new(self.host, size)

    def _cudaHostGetDevicePointer(self, host: int, flags: int) -> int:
        return self.resolve(host, 1) | _MAPPED

    def _cudaFreeHost(self, address: int) -> None:
        del self.host[address]

    def _cudaMemcpyAsync(self, to: int, source: int, size: int, kind: int, stream: int) -> None:
        to, source = self.resolve(to, size), self.resolve(source, size)

        def copy() -> None:
            self.copies.append(size)
            ctypes.memmove(to, source, size)
        self.enqueue(stream, copy)

    def _cudaMemsetAsync(self, address: int, value: int, size: int, stream: int) -> None:
        address = self.resolve(address, size)
        self.enqueue(stream, lambda: ctypes.memset(address, value, size) and None)

    def _cudaStreamCreateWithFlags(self, flags: int) -> int:
        return self._handle('stream')

    def _cudaStreamDestroy(self, stream: int) -> None:
        del self.handles[stream]

    def _cudaEventCreateWithFlags(self, flags: int) -> int:
        assert flags & 1, 'who waits shall sleep'
        return self._handle('event')

    def _cudaEventRecord(self, event: int, stream: int) -> None:
        assert self.handles[event] == 'event'

    def _cudaEventSynchronize(self, event: int) -> None:
        self._cudaStreamSynchronize(0)

    def _cudaEventDestroy(self, event: int) -> None:
        del self.handles[event]

    def _cudaStreamSynchronize(self, stream: int) -> None:
        assert self._captured is None, 'waiting is forbidden while recording'
        work, self._queue = self._queue, []
        for item in work:
            item()

    def _cudaStreamBeginCapture(self, stream: int, mode: int) -> None:
        self._captured = []

    def _cudaStreamEndCapture(self, stream: int) -> int:
        handle = self._handle('graph')
        self._graphs[handle], self._captured = self._captured or [], None
        return handle

    def _cudaGraphInstantiate(self, graph: int, flags: int) -> int:
        handle = self._handle('exec')
        self._graphs[handle] = self._graphs[graph]
        return handle

    def _cudaGraphDestroy(self, graph: int) -> None:
        del self.handles[graph], self._graphs[graph]

    _cudaGraphExecDestroy = _cudaGraphDestroy

    def _cudaGraphLaunch(self, graph: int, stream: int) -> None:
        for work in self._graphs[graph]:
            self.enqueue(stream, work)

    def _handle(self, kind: str) -> int:
        number = next(self._numbers)
        self.handles[number] = kind
        return number

    def _new(self, where: dict[int, ctypes.Array], size: int) -> int:
        memory = (ctypes.c_uint8 * size)()
        ctypes.memset(memory, 0xCD, size)
        address = ctypes.addressof(memory)
        where[address] = memory
        return address


def install(monkeypatch: pytest.MonkeyPatch, fake: FakeCuda) -> FakeCuda:
    """Make ``from cuda.bindings import runtime`` give ``fake``'s module."""
    packages = ModuleType('cuda'), ModuleType('cuda.bindings')
    packages[1].runtime = fake.module()  # type: ignore[attr-defined]
    for package in packages:
        package.__path__ = []  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setitem(sys.modules, 'cuda.bindings.runtime', packages[1].runtime)
    return fake
