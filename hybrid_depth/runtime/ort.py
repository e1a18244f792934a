# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime on the CPU: the runtime that works everywhere."""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hybrid_depth.contract import ModelSpec
from hybrid_depth.errors import BackendUnavailable, ContractError

# tensor name -> (type as ONNX Runtime writes it, number of axes)
INPUTS = {'image': ('tensor(uint8)', 4), 'K': ('tensor(float)', 3)}
OUTPUTS = {'depth': ('tensor(float)', 4), 'sigma': ('tensor(float)', 4)}


def available() -> str:
    """Return '' where ONNX Runtime can be imported, else why not and the remedy."""
    try:
        import onnxruntime  # noqa: F401 - the robot may lack it, so nothing imports it earlier
    except ImportError as error:
        return f'{error}; install it with: pip install onnxruntime'
    return ''


def open_backend(path: Path, spec: ModelSpec, size: tuple[int, int],
                 cpu_threads: int) -> OrtBackend:
    """
    Load the model at ``path`` for images of ``size`` (H, W).

    Raises ContractError where the file cannot be loaded or its graph breaks the contract,
    BackendUnavailable where ONNX Runtime is not installed.
    """
    reason = available()
    if reason:
        raise BackendUnavailable(f'ort: {reason}')
    return OrtBackend(path, spec, size, cpu_threads)


class OrtBackend:
    """One inference session, fixed to one network size."""

    name = 'ort'

    def __init__(self, path: Path, spec: ModelSpec, size: tuple[int, int],
                 cpu_threads: int) -> None:
        import onnxruntime as ort
        height, width = size
        self.description = (f'ONNX Runtime {ort.__version__}, CPU, {cpu_threads} threads, '
                            f'{width}x{height}')
        self._path = path
        self._expected = {'image': (np.dtype(np.uint8), (1, height, width, 3)),
                          'K': (np.dtype(np.float32), (1, 3, 3))}
        self._output_shape = (1, 1, height, width)
        self._session = _open_session(ort, path, size, cpu_threads)
        _check_graph(self._session, path, spec, size)

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the graph once. Raises ContractError where an array is not as agreed."""
        if self._session is None:
            raise BackendUnavailable('this model was closed; open it again before running it')
        for name, (dtype, shape) in self._expected.items():
            if name not in inputs:
                raise ContractError(f'the model input {name!r} is missing')
            array = inputs[name]
            if array.dtype != dtype or array.shape != shape:
                raise ContractError(f'the model input {name!r} is {array.dtype} {array.shape}; '
                                    f'the model was opened for {dtype} {shape}')
        feed = {name: inputs[name] for name in self._expected}
        try:
            arrays = self._session.run(list(OUTPUTS), feed)
        except Exception as error:  # its exceptions share no narrower base class
            raise ContractError(f'{self._path} failed while running: {error}; export the model '
                                'again') from error
        for name, array in zip(OUTPUTS, arrays, strict=True):
            if array.shape != self._output_shape:
                raise ContractError(f'the model output {name!r} is {array.shape}; the contract '
                                    f'says {self._output_shape}; export the model again')
        return dict(zip(OUTPUTS, arrays, strict=True))

    def close(self) -> None:
        """Release the model's memory."""
        self._session = None


def _open_session(ort: Any, path: Path, size: tuple[int, int], cpu_threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = cpu_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only: they come back as exceptions as well
    # spinning workers would take the cores from the rest of the robot between two frames
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    # fixed sizes let the optimiser fold all shape arithmetic
    for name, value in zip(('height', 'width'), size, strict=True):
        options.add_free_dimension_override_by_name(name, value)
    try:
        return ort.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
    except Exception as error:  # its exceptions share no narrower base class
        raise ContractError(f'ONNX Runtime cannot load {path}: {error}; copy the file or export '
                            'the model again') from error


def _check_graph(session: Any, path: Path, spec: ModelSpec, size: tuple[int, int]) -> None:
    for what, nodes, expected in (('inputs', session.get_inputs(), INPUTS),
                                  ('outputs', session.get_outputs(), OUTPUTS)):
        found = {node.name: (node.type, len(node.shape)) for node in nodes}
        if found != expected:
            raise ContractError(f'{path} ({spec.name}) has {what} {found}; the contract says '
                                f'{expected} (type, axes); export the model again')
    shape = {node.name: node.shape for node in session.get_inputs()}['image']
    fixed = tuple(shape[1:3])
    if any(isinstance(length, int) and length != wanted
           for length, wanted in zip(fixed, size, strict=True)):
        raise ContractError(f'{path} ({spec.name}) is fixed to images of {fixed} (H, W), not '
                            f'{size}; export it with dynamic height and width')
