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
"""A model that a library has opened on the CPU, fixed to one network size."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hybrid_depth.contract import ModelSpec
from hybrid_depth.errors import BackendUnavailable, ContractError
from hybrid_depth.runtime import BackendOptions
from hybrid_depth.runtime.feed import ArrayFeed

PRECISIONS = ('auto', 'fp32', 'int8_mix')

# runs the graph once: arrays by the names of the inputs, to arrays by the names of the outputs, of
# which 'features' is new each time
Run = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


class CpuBackend:
    """
    What ``run`` computes, asked as Backend says.

    ``name`` is the row in BACKENDS, ``library`` name and version for people, ``path`` the file
    that was opened for images of ``size`` (H, W).
    """

    def __init__(self, name: str, library: str, path: Path, spec: ModelSpec,
                 size: tuple[int, int], options: BackendOptions, run: Run) -> None:
        precision = 'int8_mix, ' if options.precision == 'int8_mix' else ''
        self.name = name
        self.description = (f'{library}, CPU, {precision}{options.cpu_threads} threads, '
                            f'{size[1]}x{size[0]}')
        self._path = path
        self._feed: ArrayFeed | None = ArrayFeed(spec.inputs(size))
        self._run: Run | None = run

    def infer(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run the graph once. Raises ContractError where an array is not as agreed."""
        if self._feed is None or self._run is None:
            raise BackendUnavailable('this model was closed; open it again before running it')
        feed = self._feed.of(inputs)
        try:
            return self._run(feed)
        except ContractError:
            raise
        except Exception as error:  # its exceptions share no narrower base class
            raise ContractError(f'{self._path} failed while running: {error}; export the model '
                                'again') from error

    def close(self) -> None:
        """Release the model's memory."""
        self._feed = self._run = None
