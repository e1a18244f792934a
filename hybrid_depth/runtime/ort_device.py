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
ONNX Runtime on a device: buffers bound once, features that never leave it.

What the rows of ONNX Runtime on GPUs share. A model is opened in the first precision whose outputs
are accepted (see ``acceptance``). Everything but the device itself runs with device 'cpu' as well.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import contextlib
import io
import logging
from pathlib import Path
from typing import Any
import weakref

import numpy as np

from hybrid_depth.contract import ModelSpec
from hybrid_depth.errors import BackendUnavailable, ContractError
from hybrid_depth.runtime import BackendOptions
from hybrid_depth.runtime.feed import checked_handles, checked_input, foreign_handle, SOURCES
from hybrid_depth.runtime.ort import check_graph, open_session, session_options

Providers = list[Any]  # as InferenceSession takes them, the wanted one first
PRECISIONS = ('auto', 'fp32', 'fp16', 'fp16_safe')
_CPU = 'CPUExecutionProvider'
_log = logging.getLogger(__name__)


def provider_missing(provider: str, gpu: int = 0) -> str:
    """Return why ``provider`` cannot be used with GPU number ``gpu``, and the remedy, or ''."""
    try:
        import onnxruntime as ort
    except ImportError as error:
        return f'{error}; install it with: pip install onnxruntime-gpu'
    found = ort.get_available_providers()
    if provider not in found:
        return (f'this build of ONNX Runtime {ort.__version__} has no {provider}, only '
                f'{", ".join(found)}; replace it with: pip uninstall onnxruntime, then pip '
                "install onnxruntime-gpu (on a Jetson: NVIDIA's wheel for its JetPack)")
    try:
        import onnx  # noqa: F401 - graphs are typed and rewritten with it
    except ImportError as error:
        return f'{error}; install it with: pip install onnx'
    if hasattr(ort, 'preload_dlls'):  # CUDA that was installed by pip; it prints what is absent
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()
    try:  # asks the driver, where opening a session would go on without it
        ort.OrtValue.ortvalue_from_shape_and_type([1], np.float32, 'cuda', gpu)
    except Exception as error:  # its exceptions share no narrower base class
        return (f'the CUDA device {gpu} cannot be used: {str(error).splitlines()[0]}; check '
                'nvidia-smi, and that the CUDA and cuDNN that this build wants are there: pip '
                "install 'onnxruntime-gpu[cuda,cudnn]'")
    return ''


def open_accepted_session(name: str, providers_for: Callable[[str], Providers], path: Path,
                          spec: ModelSpec, size: tuple[int, int], options: BackendOptions,
                          device: str = 'cuda') -> OrtDeviceBackend:
    """
    Open the model at ``path`` in the first precision of the ladder that is accepted.

    ``providers_for(precision)`` gives the providers. Raises BackendUnavailable with the reason of
    each step, ContractError where the graph breaks its contract.
    """
    from hybrid_depth.runtime.acceptance import accept
    from hybrid_depth.runtime.ladder import LADDER
    from hybrid_depth.runtime.reference import find_reference
    check_graph(open_session(path, path, session_options(spec, size, 1),
                             [_CPU]), path, spec, size)
    reference = find_reference(path, spec, size, options)
    reasons = []
    for precision in LADDER[options.precision]:
        backend = OrtDeviceBackend(name, providers_for(precision), path, spec, size, options,
                                   precision, device)
        verdict = accept(backend, spec, reference, precision)
        _log.log(logging.INFO if verdict.ok else logging.WARNING, '%s %s: %s', name, precision,
                 verdict.text())
        if verdict.ok:
            return backend
        backend.close()
        reasons.append(f'{precision} {verdict.text()}')
    raise BackendUnavailable(f'{name} does not give the depth of this model: {"; ".join(reasons)}')


def with_separate_sources(model: Any, spec: ModelSpec, size: tuple[int, int]) -> Any:
    """
    Give a 'posed' graph one input ``source_features_I`` (1, C, h, w) per source, in place.

    So each source is bound where it lies on the device; the graph puts them together there.
    """
    if spec.kind != 'posed':
        return model
    import onnx
    _, shape = spec.inputs(size)['source_features']
    names = [source_name(index) for index in range(spec.sources)]
    graph = model.graph
    kept = [value for value in graph.input if value.name != 'source_features']
    element = next(value.type.tensor_type.elem_type for value in graph.input
                   if value.name == 'source_features')
    del graph.input[:]
    graph.input.extend(kept)
    graph.input.extend(onnx.helper.make_tensor_value_info(name, element, (1, *shape[2:]))
                       for name in names)
    graph.initializer.append(onnx.numpy_helper.from_array(
        np.array(shape, np.int64), 'source_features_shape'))
    nodes = [onnx.helper.make_node('Concat', names, ['source_features_flat'], axis=1,
                                   name='join_sources'),
             onnx.helper.make_node('Reshape', ['source_features_flat', 'source_features_shape'],
                                   ['source_features'], name='shape_sources'), *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def layers_on_cpu(session: Any) -> list[str]:
    """Return the matrix layers that are computed on the CPU; [] where ORT cannot tell (< 1.24)."""
    if not hasattr(session, 'get_provider_graph_assignment_info'):
        return []
    from hybrid_depth.runtime.precision import MATRIX_OPS
    return [node.name for part in session.get_provider_graph_assignment_info()
            if part.ep_name == _CPU for node in part.get_nodes() if node.op_type in MATRIX_OPS]


def source_name(index: int) -> str:
    """Return the name of the input for source ``index``."""
    return f'source_features_{index}'


class _Features:
    """A handle: features of one frame on the device. Its buffer is used again once it is gone."""

    def __init__(self, value: Any) -> None:
        self.value = value


class OrtDeviceBackend:
    """One inference session with bound buffers, fixed to one network size and precision."""

    def __init__(self, name: str, providers: Providers, path: Path, spec: ModelSpec,
                 size: tuple[int, int], options: BackendOptions, precision: str,
                 device: str) -> None:
        import onnxruntime as ort

        from hybrid_depth.runtime.graph_lint import read
        from hybrid_depth.runtime.precision import typed
        self.name = name
        self.description = (f'ONNX Runtime {ort.__version__}, {_name_of(providers[0])}, {device} '
                            f'{options.gpu}, {precision}, {size[1]}x{size[0]}')
        self._device = (device, options.gpu)
        self._path, self._value = path, ort.OrtValue
        self._inputs, self._outputs = spec.inputs(size), spec.outputs(size)
        settings = session_options(spec, size, options.cpu_threads)
        settings.add_session_config_entry('session.record_ep_graph_assignment_info', '1')
        model = with_separate_sources(typed(read(path), precision), spec, size)
        self._session = open_session(model.SerializeToString(), path, settings, providers)
        wanted, found = _name_of(providers[0]), self._session.get_providers()
        if found[0] != wanted:
            raise BackendUnavailable(f'{name}: ONNX Runtime could not start {wanted} and took '
                                     f'{found[0]}; see its messages, and check the CUDA, cuDNN '
                                     'and TensorRT versions that this build wants')
        if wanted != _CPU and (stray := layers_on_cpu(self._session)):
            raise BackendUnavailable(f'{name}: ONNX Runtime has no kernel of {wanted} for '
                                     f'{len(stray)} matrix layers ({", ".join(stray[:3])}) in '
                                     f'{precision} and would compute them on the CPU; use another '
                                     'precision or version of it')
        self._free: list[Any] = []  # feature buffers that no handle holds
        self._binding = self._session.io_binding()
        self._fed: dict[str, Any] = {}
        self._given: dict[str, np.ndarray] = {}
        self._sources: list[Any] = []
        self._bind()

    def infer(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run the graph once. Raises ContractError where an array is not as agreed."""
        if self._session is None:
            raise BackendUnavailable('this model was closed; open it again before running it')
        for name, value in self._fed.items():
            array = checked_input(inputs, name, self._inputs[name])
            value.update_inplace(np.ascontiguousarray(array))
        if SOURCES in self._inputs:
            self._bind_sources(checked_handles(inputs, len(self._sources)))
        handle = None
        if 'features' in self._outputs:
            handle = _Features(self._free.pop() if self._free else self._new('features'))
            weakref.finalize(handle, self._free.append, handle.value)
            self._binding.bind_ortvalue_output('features', handle.value)
        try:
            self._session.run_with_iobinding(self._binding)
            self._binding.synchronize_outputs()
        except Exception as error:  # its exceptions share no narrower base class
            raise ContractError(f'{self._path} failed while running: {error}; export the model '
                                'again') from error
        return self._given | ({} if handle is None else {'features': handle})

    def close(self) -> None:
        """Release the model's memory, on the device as well."""
        self._session = self._binding = None
        self._fed, self._sources = {}, []
        self._free.clear()

    def _bind(self) -> None:
        """Bind what stays where it is: inputs on the device, outputs on the CPU."""
        for name, (dtype, shape) in self._inputs.items():
            if name == SOURCES:
                self._none = self._value.ortvalue_from_numpy(
                    np.zeros((1, *shape[2:]), dtype), *self._device)
                self._sources = [None] * shape[1]
                self._bind_sources(self._sources, anew=True)
                continue
            self._fed[name] = self._value.ortvalue_from_shape_and_type(
                list(shape), np.dtype(dtype), *self._device)
            self._binding.bind_ortvalue_input(name, self._fed[name])
        for name, (dtype, shape) in self._outputs.items():
            if name != 'features':
                self._given[name] = np.zeros(shape, dtype)
                self._binding.bind_ortvalue_output(  # shares the array's memory
                    name, self._value.ortvalue_from_numpy(self._given[name]))

    def _bind_sources(self, handles: Sequence[Any], *, anew: bool = False) -> None:
        for index, handle in enumerate(handles):
            if handle is self._sources[index] and not anew:
                continue
            self._binding.bind_ortvalue_input(source_name(index), self._on_device(handle, index))
            self._sources[index] = handle

    def _on_device(self, handle: Any, index: int) -> Any:
        if handle is None:
            return self._none
        if isinstance(handle, _Features) and handle.value.shape() == self._none.shape():
            return handle.value
        if isinstance(handle, np.ndarray) and list(handle.shape) == self._none.shape() \
                and handle.dtype == np.float32:  # of the reference outputs
            return self._value.ortvalue_from_numpy(np.ascontiguousarray(handle), *self._device)
        raise foreign_handle(index, tuple(self._none.shape()))

    def _new(self, name: str) -> Any:
        dtype, shape = self._outputs[name]
        return self._value.ortvalue_from_shape_and_type(list(shape), np.dtype(dtype),
                                                        *self._device)


def _name_of(provider: Any) -> str:
    return provider if isinstance(provider, str) else provider[0]
