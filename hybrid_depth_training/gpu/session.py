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
A network run by torch itself, for machines with a GPU and without TensorRT.

On CUDA: weights in half precision as gpu.half says; torch's own fused attention; torch.compile,
which makes one kernel of neighbouring small operators; and one recorded CUDA graph per place in a
ring of feature buffers, so that a frame's features are the next frames' sources without leaving
the device (with two sources, two graphs take turns). On a CPU the same steps run one after the
other.

Whatever needs CUDA is untried: no GPU was at hand.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
import importlib.util
import inspect
import os
import shutil
import time

import numpy as np
import torch
from torch import nn

from hybrid_depth.errors import ConfigError, ContractError
from hybrid_depth_training.gpu.half import exact_layers, halve, named_outputs, TypedByWeights

_WARM_UPS = 3  # before a capture: libraries choose their kernels then
FEATURES = 'features'
SOURCES = 'source_features'


class TorchSession:
    """
    ``network`` for one size, its latest frames being the sources of the next.

    ``inputs`` holds an example of each input of ``network.forward`` by name, arrays as in
    ModelSpec; ``source_features`` (1, S, C, h, w) gives their shape. Source 0 is the frame before,
    source 1 the one before that, and so on. The network is changed: moved, and with ``is_half``
    its weights rounded. With a ``compile_mode`` of torch.compile, one without CUDA graphs of its
    own, it is compiled as a whole, once for all places; ask ``no_compiler`` before. Raises
    ConfigError where there is no such device, ContractError where an input is missing, and what
    torch.compile raises.
    """

    def __init__(self, network: nn.Module, inputs: Mapping[str, np.ndarray], device: str = 'cuda',
                 is_half: bool = True, compile_mode: str = '') -> None:
        self.device = torch.device(device)
        if self.device.type == 'cuda' and not torch.cuda.is_available():
            raise ConfigError('torch finds no CUDA device; expected a GPU, its driver and a build '
                              'of torch for CUDA, or the device cpu')
        names = list(inspect.signature(network.forward).parameters)
        missing = [name for name in names if name not in inputs]
        if missing:
            raise ContractError(f'inputs {missing} of {type(network).__name__} are missing')
        network.eval().to(self.device)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.to(memory_format=torch.channels_last)  # what half precision is fast in
        self._is_half = is_half
        self._sources = inputs[SOURCES].shape[1] if SOURCES in names else 0
        self._static = {name: torch.from_numpy(np.array(inputs[name])).to(self.device)
                        for name in names if name != SOURCES}
        self.exact_layers = 0
        """How many layers of a network in half precision are not"""
        if is_half:
            example = self._static | {
                name: torch.from_numpy(inputs[name]).to(self.device)
                for name in names if name == SOURCES}
            exact = exact_layers(network, [example[name] for name in names])
            self.exact_layers = len(exact)
            halve(network, exact)
        self._host = {name: tensor.cpu().pin_memory() if self._on_cuda else tensor
                      for name, tensor in self._static.items()}
        self._fetched: dict[torch.Size, torch.Tensor] = {}
        self._uploaded = torch.cuda.Event() if self._on_cuda else None
        self._ring = self._make_ring(inputs)
        self._turn = 0
        start = time.perf_counter()
        self._forward: Callable[..., dict[str, torch.Tensor]] = _ByName(network, is_half)
        if compile_mode:
            self._forward = self._compiled(self._forward, compile_mode)
        self._programs = [self._program(place) for place in range(max(1, len(self._ring)))]
        self.ready_s = time.perf_counter() - start
        """Seconds that compiling and recording took"""
        self.reset()  # warming up has left features behind

    @property
    def _on_cuda(self) -> bool:
        return self.device.type == 'cuda'

    @property
    def graphs(self) -> int:
        """How many programs take turns."""
        return len(self._programs)

    def step(self, inputs: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
        """
        Run one frame; all inputs but ``source_features``, shaped as in the example.

        Returns tensors on the device, good until as many steps later as there are programs. Does
        not wait for the device.
        """
        if self._uploaded is not None:
            self._uploaded.synchronize()  # or what is on its way would be overwritten
        for name, tensor in self._static.items():
            host = self._host[name]
            if inputs[name].shape != tuple(host.shape):
                raise ContractError(f'the input {name!r} is {inputs[name].shape}; the session was '
                                    f'made for {tuple(host.shape)}')
            host.copy_(torch.from_numpy(inputs[name]))
            if host is not tensor:
                tensor.copy_(host, non_blocking=True)
        if self._uploaded is not None:
            self._uploaded.record()
        return self.advance()

    def advance(self) -> dict[str, torch.Tensor]:
        """Run one frame on the inputs that lie on the device; see ``step``."""
        outputs = self._programs[self._turn]()
        self._turn = (self._turn + 1) % len(self._programs)
        return outputs

    def fetch(self, tensor: torch.Tensor) -> np.ndarray:
        """Return a tensor of the device as float32, after all that was asked of it is done."""
        tensor = tensor.float()
        if not self._on_cuda:
            return tensor.numpy().copy()
        if tensor.shape not in self._fetched:  # pinned memory is copied to without a detour
            self._fetched[tensor.shape] = torch.empty(tensor.shape, pin_memory=True)
        host = self._fetched[tensor.shape]
        host.copy_(tensor, non_blocking=True)
        torch.cuda.current_stream(self.device).synchronize()
        return host.numpy().copy()

    def reset(self) -> None:
        """Forget the frames before; say so in ``source_valid`` of the next ones."""
        self._turn = 0
        for features in self._ring:
            features.zero_()

    def _make_ring(self, inputs: Mapping[str, np.ndarray]) -> list[torch.Tensor]:
        if not self._sources:
            return []
        _, count, *shape = inputs[SOURCES].shape
        dtype = torch.float16 if self._is_half else torch.float32
        # one place more than a single source needs: a graph must not read what it writes
        return [torch.zeros(1, *shape, dtype=dtype, device=self.device)
                for _ in range(max(2, count))]

    def _compiled(self, network: nn.Module,
                  mode: str) -> Callable[..., dict[str, torch.Tensor]]:
        # written out first: the compiler does not follow all that Python does on the way
        with torch.no_grad():
            program = torch.export.export(network, (self._static, self._sources_of(0)),
                                          strict=False)
        return torch.compile(program.module(check_guards=False), fullgraph=True, dynamic=False,
                             mode=mode)

    def _sources_of(self, place: int) -> list[torch.Tensor]:
        return [self._ring[(place - 1 - age) % len(self._ring)] for age in range(self._sources)]

    def _body(self, place: int) -> dict[str, torch.Tensor]:
        with torch.no_grad(), exact_single_precision():
            outputs = self._forward(self._static, self._sources_of(place))
        if self._sources:
            # the oldest source lies where the new features go; it has been read by now
            self._ring[place].copy_(outputs[FEATURES])
        return outputs

    def _program(self, place: int) -> Callable[[], dict[str, torch.Tensor]]:
        if not self._on_cuda:
            self._body(place)
            return lambda: self._body(place)
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                self._body(place)
        torch.cuda.current_stream(self.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # memory of its own: another graph's outputs must outlive this one's replay
        with torch.cuda.graph(graph, capture_error_mode='thread_local'):
            outputs = self._body(place)

        def replay() -> dict[str, torch.Tensor]:
            graph.replay()
            return outputs
        return replay


class _ByName(nn.Module):
    """A network on its inputs by name; sources apart, so that one program does for all turns."""

    def __init__(self, network: nn.Module, is_half: bool) -> None:
        super().__init__()
        self.network = network
        self._is_half = is_half
        self._names = list(inspect.signature(network.forward).parameters)

    def forward(self, static: dict[str, torch.Tensor],
                sources: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        feed = dict(static)
        if sources:
            feed[SOURCES] = torch.stack(sources, dim=1)
        with TypedByWeights() if self._is_half else nullcontext():
            outputs = self.network(*[feed[name] for name in self._names])
        return dict(named_outputs(self.network, outputs))


@contextmanager
def exact_single_precision() -> Iterator[None]:
    """Compute convolutions in all 24 bits where they are single: torch's default on CUDA is 11."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False,
                                    allow_tf32=False):
        yield


def no_compiler(device: torch.device) -> str:
    """Return why torch.compile is of no use on ``device``, or nothing where it is."""
    if device.type == 'cuda':
        if importlib.util.find_spec('triton') is None:
            return 'there is no package triton; it comes with builds of torch for CUDA'
        if not (os.environ.get('CC') or shutil.which('gcc') or shutil.which('clang')):
            return 'there is no C compiler, which triton needs; install gcc'
    elif not (os.environ.get('CXX') or shutil.which('g++')):
        return 'there is no C++ compiler; install g++'
    return ''
