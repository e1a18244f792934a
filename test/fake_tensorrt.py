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
An imitation of ``tensorrt`` that has exactly the attributes that a real version has.

The attributes come from the real Python packages of five versions (core/runtime/
tensorrt_api.json). An attribute that the version lacks raises AttributeError, read or written.
Its engine runs the ONNX graph with ONNX Runtime, on the memory of ``fake_cuda``, and a plan is
taken by the version that made it alone.
"""
from __future__ import annotations

import ctypes
import json
from pathlib import Path
import sys
from types import ModuleType
from typing import Any

from fake_cuda import FakeCuda
import numpy as np
import onnx
import onnxruntime as ort
import pytest

API: dict[str, dict[str, list[str]]] = json.loads(
    (Path(__file__).parent / 'core' / 'runtime' / 'tensorrt_api.json').read_text())
VERSIONS = tuple(API)
# the numbers that differ, as the real packages have them; others do not matter
_NUMBERS = {('NetworkDefinitionCreationFlag', 'EXPLICIT_BATCH'): 0}
_LAYERS = {'Conv': 'CONVOLUTION', 'ConvTranspose': 'DECONVOLUTION', 'MatMul': 'MATRIX_MULTIPLY',
           'Gemm': 'MATRIX_MULTIPLY', 'Cast': 'CAST', 'Shape': 'SHAPE'}
_TYPES = {onnx.TensorProto.FLOAT: 'FLOAT', onnx.TensorProto.FLOAT16: 'HALF',
          onnx.TensorProto.UINT8: 'UINT8', onnx.TensorProto.INT32: 'INT32',
          onnx.TensorProto.BOOL: 'BOOL'}


class FakeTensorRT:
    """One version. Settings a test may change are plain attributes."""

    def __init__(self, version: str, cuda: FakeCuda) -> None:
        self.version, self.cuda = version, cuda
        self.has_gpu = True
        self.builds_nothing = False  # the builder fails
        self.refuses_capture = False  # an engine does not let itself be recorded
        self.computes_in_float = False  # the network's types are not obeyed, and not said so
        self.inspector_text: str | None = None
        self.used: set[tuple[str, str]] = set()  # (class, attribute) that were touched
        self.flags: set[str] = {'TF32'}  # of the last builder config
        self.pinned: dict[str, str] = {}  # layer -> type, in the last network
        self.told: dict[str, Any] = {}  # pools and settings of the last build
        self.runs = 0  # of engines
        self.module = self._make()

    def install(self, monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
        """Make ``import tensorrt`` give this version."""
        monkeypatch.setitem(sys.modules, 'tensorrt', self.module)
        return self

    def member(self, name: str, member: str) -> Any:
        """Return a member of an enumeration."""
        return getattr(getattr(self.module, name), member)

    def _make(self) -> ModuleType:
        module = ModuleType('tensorrt')
        module.__version__ = self.version  # type: ignore[attr-defined]
        api = API[self.version]
        for name in api:
            if '.' not in name:
                setattr(module, name, _Enumeration(self, name, api[name]))
        for kind in (_Builder, _Network, _Layer, _Tensor, _Config, _Parser, _ParserError, _Runtime,
                     _Engine, _Context, _Inspector, _TimingCache):
            surface = frozenset(api[kind._of])
            made = type(kind._of, (kind,), {'_fake': self, '_surface': surface})
            setattr(module, kind._of, made)
        severity = _Enumeration(self, 'ILogger.Severity', api['ILogger.Severity'])
        module.ILogger = type('ILogger', (), {'Severity': severity})  # type: ignore[attr-defined]
        return module


class _Member:

    def __init__(self, owner: str, name: str, number: int) -> None:
        self.owner, self.name, self.value = owner, name, number

    def __int__(self) -> int:
        return self.value


class _Enumeration:

    def __init__(self, fake: FakeTensorRT, name: str, members: list[str]) -> None:
        self._fake, self._name = fake, name
        strongly_typed = 0 if fake.version.startswith('11') else 1
        numbers = _NUMBERS | {('NetworkDefinitionCreationFlag', 'STRONGLY_TYPED'): strongly_typed}
        self._members = {member: _Member(name, member, numbers.get((name, member), 100 + index))
                         for index, member in enumerate(members) if member.isupper()}

    def __getattr__(self, member: str) -> _Member:
        if member.startswith('_') or member not in self._members:
            raise AttributeError(f'TensorRT {self._fake.version} has no {self._name}.{member}')
        self._fake.used.add((self._name, member))
        return self._members[member]


class _Guarded:
    _fake: FakeTensorRT
    _of = ''  # the class that this imitates
    _surface: frozenset[str] = frozenset()

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith('_'):
            type(self)._check(name)
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith('_'):
            type(self)._check(name)
        object.__setattr__(self, name, value)

    @classmethod
    def _check(cls, name: str) -> None:
        if name not in cls._surface:
            raise AttributeError(f'TensorRT {cls._fake.version} has no {cls.__name__}.{name}')
        cls._fake.used.add((cls.__name__, name))

    def _new(self, name: str, *arguments: Any) -> Any:
        return getattr(self._fake.module, name)(*arguments)


class _Builder(_Guarded):
    _of = 'Builder'

    def __init__(self, log: Any) -> None:
        if not self._fake.has_gpu:
            raise TypeError('pybind11::init(): factory function returned nullptr')
        self._log = log

    def create_network(self, flags: int) -> Any:
        known = self._fake.module.NetworkDefinitionCreationFlag._members
        names = {name for name, member in known.items() if flags & 1 << int(member)}
        if self._fake.version.startswith('8'):
            assert names == {'EXPLICIT_BATCH'}
        is_typed = 'STRONGLY_TYPED' in names or self._fake.version.startswith('11')
        return self._new('INetworkDefinition', is_typed)

    def create_builder_config(self) -> Any:
        self._fake.flags = {'TF32'}  # is on unless it is switched off
        return self._new('IBuilderConfig')

    def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
        severity = self._fake.module.ILogger.Severity
        if network._is_typed and 'FP16' in self._fake.flags:
            self._log.log(severity.ERROR, 'condition: !config.getFlag(kFP16)')
            return None
        if self._fake.builds_nothing:
            self._log.log(severity.ERROR, 'out of memory')
            return None
        self._fake.told = {**config._pools, 'level': config.builder_optimization_level,
                           'verbosity': getattr(config.profiling_verbosity, 'name', '')}
        config._times = b'times of ' + self._fake.version.encode()
        return self._fake.version.encode() + b'\n' + network._model


class _Network(_Guarded):
    _of = 'INetworkDefinition'

    def __init__(self, is_typed: bool) -> None:
        self._is_typed = is_typed
        self._model = b''
        self._layers: list[Any] = []
        self._fake.pinned = {}

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    def get_layer(self, index: int) -> Any:
        return self._layers[index]


class _Layer(_Guarded):
    _of = 'ILayer'

    def __init__(self, name: str, kind: str, types: list[str]) -> None:
        self._name, self._kind, self._types = name, kind, types

    @property
    def name(self) -> str:
        return self._name

    @property
    def type(self) -> _Member:
        return self._fake.member('LayerType', self._kind)

    @property
    def num_outputs(self) -> int:
        return len(self._types)

    def get_output(self, index: int) -> Any:
        return self._new('ITensor', self._types[index])

    @property
    def precision(self) -> Any:
        raise NotImplementedError

    @precision.setter
    def precision(self, value: _Member) -> None:
        self._fake.pinned[self._name] = value.name

    def set_output_type(self, index: int, value: _Member) -> None:
        assert self._fake.pinned[self._name] == value.name


class _Tensor(_Guarded):
    _of = 'ITensor'

    def __init__(self, kind: str) -> None:
        self._kind = kind

    @property
    def dtype(self) -> _Member:
        return self._fake.member('DataType', self._kind)


class _Config(_Guarded):
    _of = 'IBuilderConfig'

    builder_optimization_level: Any = None
    profiling_verbosity: Any = None
    _times = b''
    _cache: Any = None

    def __init__(self) -> None:
        self._pools: dict[str, int] = {}

    def set_flag(self, flag: _Member) -> None:
        self._fake.flags.add(flag.name)

    def clear_flag(self, flag: _Member) -> None:
        self._fake.flags.discard(flag.name)

    def set_memory_pool_limit(self, pool: _Member, size: int) -> None:
        self._pools[pool.name] = size

    def create_timing_cache(self, data: bytes) -> Any:
        return self._new('ITimingCache', data)

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        fits = not cache._data or cache._data == b'times of ' + self._fake.version.encode()
        if fits:
            self._cache = cache
        return fits

    def get_timing_cache(self) -> Any:
        self._cache._data = self._times
        return self._cache


class _TimingCache(_Guarded):
    _of = 'ITimingCache'

    def __init__(self, data: bytes) -> None:
        self._data = data

    def serialize(self) -> bytes:
        return self._data


class _Parser(_Guarded):
    _of = 'OnnxParser'

    def __init__(self, network: Any, log: Any) -> None:
        self._network = network
        self._errors: list[Any] = []

    def parse(self, data: bytes) -> bool:
        model = onnx.shape_inference.infer_shapes(onnx.load_from_string(data), data_prop=True)
        graph = model.graph
        types = {value.name: value.type.tensor_type.elem_type
                 for value in (*graph.input, *graph.output, *graph.value_info)}
        for node in graph.node:
            of_bytes = any(types.get(name) == onnx.TensorProto.UINT8 for name in node.input)
            if (of_bytes and node.op_type != 'Cast') or node.op_type == 'NonZero':
                self._errors.append(self._new('ParserError', node))
                continue
            named = [_TYPES.get(types[name], 'INT32') for name in node.output]
            if self._fake.computes_in_float:
                named = ['FLOAT' if name == 'HALF' else name for name in named]
            self._network._layers.append(self._new(
                'ILayer', node.name, _LAYERS.get(node.op_type, 'ELEMENTWISE'), named))
        self._network._model = data
        return not self._errors

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return self._errors[index]


class _ParserError(_Guarded):
    _of = 'ParserError'

    def __init__(self, node: onnx.NodeProto) -> None:
        self._node = node

    def desc(self) -> str:
        return f'{self._node.op_type} is not supported here'

    def node_name(self) -> str:
        return self._node.name

    def node_operator(self) -> str:
        return self._node.op_type


class _Runtime(_Guarded):
    _of = 'Runtime'

    def __init__(self, log: Any) -> None:
        if not self._fake.has_gpu:
            raise TypeError('pybind11::init(): factory function returned nullptr')
        self._log = log

    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        version, _, model = plan.partition(b'\n')
        if version.decode(errors='replace') != self._fake.version:
            self._log.log(self._fake.module.ILogger.Severity.ERROR, 'Version tag does not match')
            return None
        return self._new('ICudaEngine', model)


class _Engine(_Guarded):
    _of = 'ICudaEngine'

    def __init__(self, model: bytes) -> None:
        self._bytes = model
        self._model = onnx.load_from_string(model)
        graph = self._model.graph
        self._tensors = {value.name: (mode, value.type.tensor_type)
                         for mode, values in (('INPUT', graph.input), ('OUTPUT', graph.output))
                         for value in values}

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> _Member:
        return self._fake.member('TensorIOMode', self._tensors[name][0])

    def get_tensor_dtype(self, name: str) -> _Member:
        return self._fake.member('DataType', _TYPES[self._tensors[name][1].elem_type])

    def get_tensor_shape(self, name: str) -> list[int]:
        return [dim.dim_value for dim in self._tensors[name][1].shape.dim]

    def create_execution_context(self) -> Any:
        return self._new('IExecutionContext', self)

    def create_engine_inspector(self) -> Any:
        return self._new('EngineInspector', self)

    device_memory_size = 1000
    device_memory_size_v2 = 1000


class _Context(_Guarded):
    _of = 'IExecutionContext'

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._addresses: dict[str, int] = {}
        self._has_run = False
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(engine._bytes, options,
                                             providers=['CPUExecutionProvider'])

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return name in self._engine._tensors

    def execute_async_v3(self, stream: int) -> bool:
        addresses = dict(self._addresses)  # a graph keeps those of when it was recorded
        if set(addresses) != set(self._engine._tensors):
            return False
        if self._fake.cuda.is_capturing and (self._fake.refuses_capture or not self._has_run):
            return False  # the first run does what cannot be recorded
        self._has_run = True
        self._fake.cuda.enqueue(stream, lambda: self._execute(addresses))
        return True

    def _execute(self, addresses: dict[str, int]) -> None:
        self._fake.runs += 1
        views = {}
        for name, (_, kind) in self._engine._tensors.items():
            dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
            shape = [dim.dim_value for dim in kind.shape.dim]
            size = int(np.prod(shape)) * dtype.itemsize
            memory = (ctypes.c_uint8 * size).from_address(
                self._fake.cuda.resolve(addresses[name], size))
            views[name] = np.frombuffer(memory, dtype).reshape(shape)
        names = [output.name for output in self._session.get_outputs()]
        feed = {node.name: views[node.name] for node in self._session.get_inputs()}
        for matrix in feed.get('K', ()):  # a GPU might read anywhere at such coordinates
            assert np.linalg.det(matrix) > 0, 'illegal memory access'
        for name, value in zip(names, self._session.run(names, feed), strict=True):
            views[name][...] = value


class _Inspector(_Guarded):
    _of = 'EngineInspector'

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def get_engine_information(self, format: _Member) -> str:
        assert format.name == 'JSON'
        if self._fake.inspector_text is not None:
            return self._fake.inspector_text
        if self._fake.told['verbosity'] != 'DETAILED':
            return json.dumps({'Layers': [node.name for node in self._engine._model.graph.node]})
        model = onnx.shape_inference.infer_shapes(self._engine._model, data_prop=True)
        types = {value.name: value.type.tensor_type.elem_type
                 for value in (*model.graph.output, *model.graph.value_info)}

        def described(name: str) -> dict[str, str]:
            half = types[name] == onnx.TensorProto.FLOAT16 and not self._fake.computes_in_float
            return {'Name': name, 'Format/Datatype':
                    f'Row major linear {"FP16" if half else "FP32"}'}
        kinds = {'Conv': 'CaskConvolution', 'MatMul': 'gemm'}
        return json.dumps({'Layers': [
            {'Name': f'fused_{index}', 'LayerType': kinds.get(node.op_type, 'kgen'),
             'Inputs': [], 'Outputs': [described(name) for name in node.output],
             'Metadata': f'[ONNX Layer: {node.name}]'}
            for index, node in enumerate(model.graph.node)]})
