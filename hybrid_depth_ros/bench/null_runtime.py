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
"""The runtime 'null': answers at once with a slope, so that the node itself can be measured."""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hybrid_depth.contract import ModelSpec
from hybrid_depth.runtime import BackendOptions, PRECISIONS

__all__ = ['PRECISIONS', 'NullBackend', 'available', 'open_backend']


def available() -> str:
    """Return '': it needs nothing."""
    return ''


def open_backend(path: Path, spec: ModelSpec, size: tuple[int, int],
                 options: BackendOptions) -> NullBackend:
    """Make the answers for ``size`` (H, W)."""
    return NullBackend(spec, size)


class NullBackend:
    """Depth from 40 m at the top to 2 m at the bottom, with an edge down the middle."""

    name = 'null'
    description = 'null: answers without computing'

    def __init__(self, spec: ModelSpec, size: tuple[int, int]) -> None:
        self._outputs = {name: np.zeros(shape, dtype)
                         for name, (dtype, shape) in spec.outputs(size).items()}
        for name in {'depth', 'single_depth', 'matched_depth'} & set(self._outputs):
            array = self._outputs[name]
            array[:] = np.geomspace(40, 2, array.shape[2], dtype=np.float32)[:, None]
            array[..., :array.shape[3] // 2] *= 0.7
        self._outputs['sigma'] = 0.1 * self._outputs['depth']

    def infer(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answers."""
        return dict(self._outputs)

    def close(self) -> None:
        """Do nothing: there is nothing to release."""
