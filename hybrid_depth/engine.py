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
"""A model and the runtimes it is open in, shared by all the cameras that are looked through it."""
from __future__ import annotations

from collections import Counter
import logging
from pathlib import Path

import numpy as np

from hybrid_depth.config import PipelineConfig
from hybrid_depth.contract import read_spec
from hybrid_depth.errors import ConfigError, ContractError
from hybrid_depth.models import find_model
from hybrid_depth.runtime import load_backend
from hybrid_depth.runtime.serving import serve, Serving
from hybrid_depth.scene_prompts import text_inputs

_LOG = logging.getLogger(__name__)

STATIC_SETTINGS = ('model', 'backend', 'cpu_threads', 'precision', 'engine_cache',
                   'gpu')  # a change of these needs a new engine


class Engine:
    """
    A model file with one open backend per network size, however many pipelines use it.

    ``acquire`` opens a size for its first user, ``release`` closes it after the last one. The
    backends hold nothing of a camera but the features that its pipeline keeps. All users belong to
    one thread: a backend runs one frame at a time. With ``is_live`` nobody waits for a runtime
    that has to build first: the CPU serves meanwhile, see ``runtime.serving``.

    Raises ContractError where the model is missing, damaged or of another contract.
    """

    def __init__(self, config: PipelineConfig, *, is_live: bool = False) -> None:
        self._config = config
        self._is_live = is_live
        self._path = find_model(config.model)
        self._file = _identity(self._path)
        self.spec = read_spec(self._path)
        self._backends: dict[tuple[int, int], Serving] = {}
        self._users: Counter[tuple[int, int]] = Counter()

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Return the network sizes that are open, as (H, W)."""
        return sorted(self._backends)

    def check(self, config: PipelineConfig) -> None:
        """Raise ConfigError where ``config`` is of another engine."""
        for key in STATIC_SETTINGS:
            old, new = getattr(self._config, key), getattr(config, key)
            if old != new:
                raise ConfigError(f'{key} cannot change from {old!r} to {new!r} while running; '
                                  'start again with the new value')

    def text_inputs(self, prompt: str) -> dict[str, np.ndarray]:
        """Return the model's input for words about the scene, if any; see scene_prompts."""
        return text_inputs(self._path, self.spec, prompt)

    def acquire(self, size: tuple[int, int]) -> Serving:
        """
        Return the backends for network ``size`` (H, W), open until as many calls of ``release``.

        Raises BackendUnavailable where the runtime asked for cannot be used, ContractError where
        the graph breaks its contract.
        """
        if size not in self._backends:
            self._check_file()
            _LOG.info('loading %s for network size %dx%d', self.spec.name, size[1], size[0])
            arguments = (self._config.backend, self._path, self.spec, size,
                         self._config.backend_options())
            self._backends[size] = serve(*arguments) if self._is_live \
                else Serving(load_backend(*arguments), self._config.backend)
        self._users[size] += 1
        return self._backends[size]

    def _check_file(self) -> None:
        """
        Raise ContractError where the model file is another one than at the start.

        A camera of another size would else be looked at through another model, of another scale,
        without a word.
        """
        if _identity(self._path) != self._file:
            raise ContractError(f'{self._path} was replaced, changed or removed after it had been '
                                'opened; configure the node again (cleanup, then configure) to '
                                'use what is there now')

    def release(self, size: tuple[int, int]) -> None:
        """Give back what ``acquire`` gave."""
        self._users[size] -= 1
        if self._users[size] == 0:
            self._backends.pop(size).close()


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Return what tells a file from one that has taken its place, None where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
