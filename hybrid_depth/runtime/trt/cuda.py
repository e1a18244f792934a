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
The little of CUDA that a runtime needs: memory, copies, one stream, one graph.

Through cuda-python alone, so no framework has to be on the robot. Every call is checked. Not yet
tried on a GPU: the tests run this file against an imitation of cuda-python. The real one (12.8,
12.9, 13.0 and 13.5) takes every call of this file, and refuses it for want of a driver.
"""
from __future__ import annotations

from collections.abc import Callable
import ctypes
from dataclasses import dataclass
import math
from typing import Any
import weakref

import numpy as np

from hybrid_depth.errors import BackendUnavailable

# From 12.9 on cuda-bindings brings NVIDIA's CUDA runtime along, which the driver of a Jetson takes
# up to its own version; 12.8 asks the driver itself. There is no 12.6 of it to be had.
_FITTING = 'of the major version that nvidia-smi shows as CUDA version, and no newer than that ' \
           '(on JetPack 6: cuda-bindings==12.8.0)'
_INSTALL = f'pip install cuda-bindings, {_FITTING}'
_REMEDIES = {
    'cudaErrorInsufficientDriver': 'install an NVIDIA driver that is recent enough, or a '
                                   f'cuda-bindings {_FITTING}',
    'cudaErrorNoDevice': 'check that nvidia-smi lists a GPU, and in a container that it was '
                         'started with the GPU',
    'cudaErrorInvalidDevice': 'set the parameter gpu to the index of a GPU that nvidia-smi lists',
    'cudaErrorMemoryAllocation': 'end other programs that use the GPU, or choose a smaller model',
}
_RESTART = 'start again; if it happens again, look for NVIDIA messages in the kernel log (dmesg)'


def unavailable() -> str:
    """Return '' where cuda-python and a GPU can be used, else why not and the remedy."""
    try:
        load()
        return '' if device_count() else f'there is no GPU; {_REMEDIES["cudaErrorNoDevice"]}'
    except BackendUnavailable as error:
        return str(error)


def load() -> Any:
    """Return the module of cuda-python. Raises BackendUnavailable where it cannot be imported."""
    try:
        from cuda.bindings import runtime
    except Exception as error:  # ImportError, or RuntimeError of its loader of libraries
        raise BackendUnavailable(f'cuda-python cannot be imported ({error}); install it with: '
                                 f'{_INSTALL}') from error
    return runtime


def device_count() -> int:
    """Return how many GPUs there are. Raises BackendUnavailable where the driver is missing."""
    runtime = load()
    return int(call(runtime, 'GetDeviceCount'))


def facts(gpu: int) -> dict[str, Any]:
    """Return what an engine depends on of CUDA and of the GPU of index ``gpu``, for JSON."""
    runtime = load()
    properties = call(runtime, 'GetDeviceProperties', gpu)
    major, minor, processors = (
        int(call(runtime, 'DeviceGetAttribute',
                 getattr(runtime.cudaDeviceAttr, f'cudaDevAttr{name}'), gpu))
        for name in ('ComputeCapabilityMajor', 'ComputeCapabilityMinor', 'MultiProcessorCount'))
    name = properties.name
    return {'cuda_runtime': int(call(runtime, 'RuntimeGetVersion')),
            'gpu_name': name.decode(errors='replace') if isinstance(name, bytes) else str(name),
            'compute_capability': f'{major}.{minor}', 'multiprocessors': processors,
            'memory_gib': round(int(properties.totalGlobalMem) / 2**30)}


def call(runtime: Any, name: str, *arguments: Any) -> Any:
    """
    Return what the function ``name`` of CUDA gives, for example 'Malloc'.

    Raises BackendUnavailable with error, meaning and remedy.
    """
    try:
        error, *values = getattr(runtime, f'cuda{name}')(*arguments)
    except (RuntimeError, LookupError, ValueError) as failure:
        # up to 12.8 where there is no driver; an error that only a newer version knows
        raise BackendUnavailable(f'CUDA: cuda-python cannot call cuda{name} ({failure}); '
                                 f'{_REMEDIES["cudaErrorInsufficientDriver"]}') from failure
    if error != runtime.cudaError_t.cudaSuccess:
        name = getattr(error, 'name', str(error))
        meaning = runtime.cudaGetErrorString(error)[1]
        meaning = meaning.decode(errors='replace') if isinstance(meaning, bytes) else meaning
        raise BackendUnavailable(f'CUDA: {meaning} ({name}); {_REMEDIES.get(name, _RESTART)}')
    return values[0] if values else None


@dataclass(frozen=True)
class Staging:
    """
    Host memory that the GPU can reach: a NumPy array over pinned pages.

    The pages are freed when nothing uses ``array`` or a view of it any more.
    """

    array: np.ndarray
    host: int  # address on the CPU
    device: int  # the same memory as the GPU sees it; 0 where it would have to cross a bus


class Cuda:
    """
    One GPU and one stream on it, in whose order everything happens.

    May be used from any thread, by one at a time. Raises BackendUnavailable where there is no
    such GPU, from every method where CUDA fails.
    """

    def __init__(self, gpu: int) -> None:
        self._runtime = runtime = load()
        self._gpu = gpu
        self._buffers: dict[int, int] = {}  # address -> bytes
        self._graph: Any = None
        self._stream: Any = None
        self._done: Any = None
        self.make_current()
        # the CPU and the GPU of a Jetson share their memory
        self.is_integrated = bool(self._call(
            'DeviceGetAttribute', runtime.cudaDeviceAttr.cudaDevAttrIntegrated, gpu))
        self._stream = self._call('StreamCreateWithFlags', runtime.cudaStreamNonBlocking)
        # who waits for it sleeps: polling would take a core from the rest of the robot
        flags = runtime.cudaEventBlockingSync | runtime.cudaEventDisableTiming
        try:
            self._done = self._call('EventCreateWithFlags', flags)
        except BackendUnavailable:
            self.close()
            raise

    @property
    def stream(self) -> int:
        """Return the stream's handle, as other libraries take it."""
        return int(self._stream)

    @property
    def allocated(self) -> int:
        """Return the bytes of device memory that are held."""
        return sum(self._buffers.values())

    def make_current(self) -> None:
        """Make the calling thread use this GPU; each thread has its own."""
        self._call('SetDevice', self._gpu)

    def allocate(self, size: int) -> int:
        """Return the address of ``size`` new bytes on the device, all 0."""
        address = int(self._call('Malloc', size))
        self._buffers[address] = size
        self.clear(address, size)
        return address

    def staging(self, shape: tuple[int, ...], dtype: str) -> Staging:
        """Make pinned host memory for an array, mapped where the GPU shares the memory."""
        runtime = self._runtime
        size = math.prod(shape) * np.dtype(dtype).itemsize
        mapped = runtime.cudaHostAllocMapped if self.is_integrated else 0
        host = int(self._call('HostAlloc', size, runtime.cudaHostAllocPortable | mapped))
        pages = (ctypes.c_uint8 * size).from_address(host)
        weakref.finalize(pages, runtime.cudaFreeHost, host).atexit = False
        device = int(self._call('HostGetDevicePointer', host, 0)) if self.is_integrated else 0
        array = np.frombuffer(memoryview(pages), np.dtype(dtype)).reshape(shape)
        array[...] = 0
        return Staging(array, host, device)

    def copy(self, to: int, source: int, size: int) -> None:
        """Enqueue a copy of ``size`` bytes; either address may be of the device or pinned."""
        self._call('MemcpyAsync', to, source, size,
                   self._runtime.cudaMemcpyKind.cudaMemcpyDefault, self._stream)

    def clear(self, address: int, size: int) -> None:
        """Enqueue setting ``size`` bytes to 0."""
        self._call('MemsetAsync', address, 0, size, self._stream)

    def wait(self) -> None:
        """Return when everything that was enqueued is done."""
        self._call('EventRecord', self._done, self._stream)
        self._call('EventSynchronize', self._done)

    def capture(self, enqueue: Callable[[], None]) -> None:
        """
        Record what ``enqueue`` enqueues as the graph, without doing it.

        The graph holds addresses: what it uses has to stay where it is.
        """
        runtime = self._runtime
        # thread-local: what other threads do with the GPU meanwhile is not forbidden
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call('StreamBeginCapture', self._stream, mode)
        try:
            enqueue()
        except BaseException:
            # else the stream takes no more work
            _, graph = runtime.cudaStreamEndCapture(self._stream)
            if graph is not None and int(graph):
                runtime.cudaGraphDestroy(graph)
            raise
        graph = self._call('StreamEndCapture', self._stream)
        try:
            self._graph = self._call('GraphInstantiate', graph, 0)
        finally:
            runtime.cudaGraphDestroy(graph)

    def launch(self) -> None:
        """Enqueue the graph."""
        self._call('GraphLaunch', self._graph, self._stream)

    def rest(self) -> None:
        """
        Let what is enqueued end and forget the graph, on this GPU; never raises.

        To be called before what the graph runs is released.
        """
        runtime = self._runtime
        runtime.cudaSetDevice(self._gpu)
        if self._stream is not None:
            runtime.cudaStreamSynchronize(self._stream)
        if self._graph is not None:
            runtime.cudaGraphExecDestroy(self._graph)
        self._graph = None

    def close(self) -> None:
        """Release all but the pages of arrays in use; never raises. Calling twice is harmless."""
        self.rest()
        runtime = self._runtime
        for address in self._buffers:
            runtime.cudaFree(address)
        for release, handle in ((runtime.cudaEventDestroy, self._done),
                                (runtime.cudaStreamDestroy, self._stream)):
            if handle is not None:
                release(handle)
        self._buffers.clear()
        self._done = self._stream = None

    def _call(self, name: str, *arguments: Any) -> Any:
        return call(self._runtime, name, *arguments)
