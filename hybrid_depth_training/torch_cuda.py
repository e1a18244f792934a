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

On CUDA: weights of products and convolutions in half precision, the rest in single by autocast;
torch's own fused attention; and one recorded CUDA graph per place in a ring of feature buffers,
so that a frame's features are the next frames' sources without leaving the device (with two
sources, two graphs take turns). On a CPU the same steps run one after the other.

Whatever needs CUDA is untried: no GPU was at hand.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
import inspect
from typing import Any

import numpy as np
import torch
from torch import nn

from hybrid_depth.errors import ConfigError, ContractError

_PRODUCTS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)
_WARM_UPS = 3  # before a capture: libraries choose their kernels then
FEATURES = 'features'
SOURCES = 'source_features'


class TorchSession:
    """
    ``network`` for one size, its latest frames being the sources of the next.

    ``inputs`` holds an example of each input of ``network.forward`` by name, arrays as in
    ModelSpec; ``source_features`` (1, S, C, h, w) gives their shape. Source 0 is the frame before,
    source 1 the one before that, and so on. The network is changed: moved, and with ``is_half``
    its weights rounded. Raises ConfigError where there is no such device, ContractError where an
    input is missing.
    """

    def __init__(self, network: nn.Module, inputs: Mapping[str, np.ndarray], device: str = 'cuda',
                 is_half: bool = True) -> None:
        self.device = torch.device(device)
        if self.device.type == 'cuda' and not torch.cuda.is_available():
            raise ConfigError('torch finds no CUDA device; expected a GPU, its driver and a build '
                              'of torch for CUDA, or the device cpu')
        names = list(inspect.signature(network.forward).parameters)
        missing = [name for name in names if name not in inputs]
        if missing:
            raise ContractError(f'inputs {missing} of {type(network).__name__} are missing')
        self._network = network.eval().to(self.device)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.to(memory_format=torch.channels_last)  # what half precision is fast in
        self._is_half = is_half
        if is_half:
            halve(self._network)
        self._names = names
        self._sources = inputs[SOURCES].shape[1] if SOURCES in names else 0
        self._static = {name: torch.from_numpy(np.array(inputs[name])).to(self.device)
                        for name in names if name != SOURCES}
        self._host = {name: tensor.cpu().pin_memory() if self._on_cuda else tensor
                      for name, tensor in self._static.items()}
        self._uploaded = torch.cuda.Event() if self._on_cuda else None
        self._ring = self._make_ring(inputs)
        self._turn = 0
        self._programs = [self._program(place) for place in range(max(1, len(self._ring)))]
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
        outputs = self._programs[self._turn]()
        self._turn = (self._turn + 1) % len(self._programs)
        return outputs

    def fetch(self, tensor: torch.Tensor) -> np.ndarray:
        """Return a tensor of the device as float32, after all that was asked of it is done."""
        return tensor.float().cpu().numpy()

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

    def _body(self, place: int) -> dict[str, torch.Tensor]:
        feed = dict(self._static)
        if self._sources:
            feed[SOURCES] = torch.stack([self._ring[(place - 1 - age) % len(self._ring)]
                                         for age in range(self._sources)], dim=1)
        # its cache of rounded weights would be recorded, and be stale when replayed
        with torch.no_grad(), torch.autocast(self.device.type, torch.float16,
                                             enabled=self._is_half, cache_enabled=False):
            outputs = named_outputs(self._network, self._network(*(feed[n] for n in self._names)))
        if self._sources:
            # the oldest source lies where the new features go; it has been read by now
            self._ring[place].copy_(outputs[FEATURES])
        return outputs

    def _program(self, place: int) -> Callable[[], dict[str, torch.Tensor]]:
        if not self._on_cuda:
            return lambda: self._body(place)
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                self._body(place)
        torch.cuda.current_stream(self.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # memory of its own: another graph's outputs must outlive this one's replay
        with torch.cuda.graph(graph):
            outputs = self._body(place)

        def replay() -> dict[str, torch.Tensor]:
            graph.replay()
            return outputs
        return replay


def halve(network: nn.Module) -> None:
    """Round the weights of products and convolutions to half precision; norms stay as they are."""
    for module in network.modules():
        if isinstance(module, _PRODUCTS):
            module.half()


def named_outputs(network: nn.Module, outputs: Any) -> dict[str, torch.Tensor]:
    """Return the outputs by name; of a network that names none the first, as ``depth``."""
    if isinstance(outputs, torch.Tensor):
        outputs = (outputs,)
    names = getattr(network, 'outputs', ('depth',))
    return dict(zip(names, outputs, strict=False))
