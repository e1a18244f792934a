# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Runtimes that execute a model file, behind one protocol and one table.

Adding one: a file here with ``available()`` and ``open_backend()``, and a row in BACKENDS.
"""
from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from hybrid_depth.contract import ModelSpec
from hybrid_depth.errors import BackendUnavailable


class Backend(Protocol):
    """A model loaded for one network size, ready to run."""

    name: str  # row in BACKENDS
    description: str  # runtime, version and device, for people

    def infer(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """
        Run the graph once.

        Inputs and outputs are arrays as ModelSpec says, but for the features of kind 'posed':
        the output ``features`` is a handle that nobody else looks into, good until ``close``
        however many calls follow; the input ``source_features`` is a tuple of ``spec.sources``
        such handles, None where there is no source. So features stay on the device. The other
        arrays that are returned may be reused by the next call.
        """

    def close(self) -> None:
        """Release the model's memory. Calling twice is harmless."""


# name -> module with available() -> str (empty = yes, else why not and the remedy) and
# open_backend(path, spec, (H, W), cpu_threads) -> Backend. The order is the order of 'auto'.
BACKENDS: dict[str, str] = {
    'ort': 'hybrid_depth.runtime.ort',
}


def load_backend(name: str, path: Path, spec: ModelSpec, size: tuple[int, int],
                 cpu_threads: int) -> Backend:
    """
    Open the model at ``path`` for network ``size`` (H, W) with the runtime called ``name``.

    'auto' takes the first row of BACKENDS that is available. A named runtime never falls back.
    Raises BackendUnavailable with the reasons, ContractError where the graph breaks its contract.
    """
    if name != 'auto' and name not in BACKENDS:
        raise BackendUnavailable(f'there is no runtime {name!r}; known: auto, '
                                 f'{", ".join(BACKENDS)}')
    reasons = []
    for row in BACKENDS if name == 'auto' else (name,):
        module = import_module(BACKENDS[row])
        reason = module.available()
        if not reason:
            return module.open_backend(path, spec, size, cpu_threads)
        reasons.append(f'{row}: {reason}')
    raise BackendUnavailable('no runtime can be used: ' + '; '.join(reasons))
