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
"""What a model is fed: arrays as its contract says, features of earlier frames in one buffer."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hybrid_depth.contract import TensorType
from hybrid_depth.errors import ContractError

SOURCES = 'source_features'  # the input that is given as handles, one per source


def checked_input(inputs: Mapping[str, Any], name: str, tensor: TensorType) -> np.ndarray:
    """Return the input called ``name``. Raises ContractError where it is not as agreed."""
    array: np.ndarray = _present(inputs, name)
    dtype, shape = tensor
    if array.dtype != dtype or array.shape != shape:
        raise ContractError(f'the model input {name!r} is {array.dtype} {array.shape}; '
                            f'the model was opened for {dtype} {shape}')
    return array


def checked_handles(inputs: Mapping[str, Any], count: int) -> Sequence[Any]:
    """Return the handles of the sources. Raises ContractError where there are not ``count``."""
    handles: Sequence[Any] = _present(inputs, SOURCES)
    if len(handles) != count:
        raise ContractError(f'there are {len(handles)} source_features; the model takes '
                            f'{count} (None where there is no source)')
    return handles


def foreign_handle(index: int, shape: tuple[int, ...]) -> ContractError:
    """Return the error for a handle of source ``index`` that is none of features of ``shape``."""
    return ContractError(f'source_features {index} is not an output of this model at this size; '
                         f'expected {shape}')


class ArrayFeed:
    """
    What a runtime on the CPU is fed, by name -> (dtype, shape).

    ``source_features``, (1, S, C, h, w), is one buffer for the life of the model.
    """

    def __init__(self, inputs: Mapping[str, TensorType]) -> None:
        self._inputs = dict(inputs)
        sources = self._inputs.pop(SOURCES, None)
        self._buffer = None if sources is None else np.zeros(sources[1], np.float32)
        self._held: list[np.ndarray | None] = [] if sources is None else [None] * sources[1][1]

    def of(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Return contiguous arrays. Raises ContractError where one is not as agreed."""
        feed = {name: np.ascontiguousarray(checked_input(inputs, name, tensor))
                for name, tensor in self._inputs.items()}
        if self._buffer is not None:
            self._stack(self._buffer, checked_handles(inputs, len(self._held)))
            feed[SOURCES] = self._buffer
        return feed

    def _stack(self, buffer: np.ndarray, handles: Sequence[np.ndarray | None]) -> None:
        """Copy what changed since the last call."""
        shape = (1, *buffer.shape[2:])
        for index, handle in enumerate(handles):
            if handle is self._held[index]:
                continue
            if handle is not None and getattr(handle, 'shape', None) != shape:
                raise foreign_handle(index, shape)
            buffer[0, index] = 0 if handle is None else handle[0]
            self._held[index] = handle


def _present(inputs: Mapping[str, Any], name: str) -> Any:
    if name not in inputs:
        raise ContractError(f'the model input {name!r} is missing')
    return inputs[name]
