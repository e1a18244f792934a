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
"""The runtime 'soak': ONNX Runtime that runs out of memory at an image that asks for it."""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hybrid_depth.contract import ModelSpec
from hybrid_depth.runtime import Backend, BackendOptions, load_backend, ort
from hybrid_depth_ros.soak.scene import POISON

PRECISIONS = ort.PRECISIONS
_TOO_MUCH = 1 << 60  # bytes: no machine has them


def available() -> str:
    """Return '': the runtime underneath says itself what it lacks."""
    return ''


def open_backend(path: Path, spec: ModelSpec, size: tuple[int, int],
                 options: BackendOptions) -> SoakBackend:
    """Open the model on ONNX Runtime. Raises as load_backend."""
    return SoakBackend(load_backend('ort', path, spec, size, options))


class SoakBackend:
    """A backend that fails as a real one does: by an allocation that cannot be had."""

    name = 'soak'

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.description = f'{backend.description}, of the soak'

    def infer(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run the graph. Raises MemoryError where the first pixel is POISON."""
        if tuple(inputs['image'][0, 0, 0]) == POISON:
            np.empty(_TOO_MUCH, np.uint8)
        return self._backend.infer(inputs)

    def close(self) -> None:
        """Release the model's memory."""
        self._backend.close()
