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
Everything that touches the module ``tensorrt``, and all that differs between its versions.

Supported: 10.3 and later, 11.x; 8.6 as far as it goes. What a version lacks is asked for by name,
never by number: the same flag has other numbers in other versions. Tests hold this file against
the recorded Python surfaces of five versions; it has not been tried with a GPU yet.

    version   network                      precision
    8.6       EXPLICIT_BATCH, weak types   flag FP16, and the type of every layer pinned
    10.x      STRONGLY_TYPED               the graph's own types
    11.x      always strongly typed        the graph's own types
"""
from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
import functools
import json
import logging
import re
from typing import Any

from hybrid_depth.errors import BackendUnavailable

logger = logging.getLogger(__name__)

OLDEST = (8, 6)
_INSTALL = 'on a Jetson it comes with JetPack (sudo apt-get install python3-libnvinfer; a ' \
           'virtual environment needs --system-site-packages), elsewhere: pip install tensorrt'
_LAYER_NAME = re.compile(r'[\w./:\-]+')
_INSPECTOR_MATRIX = re.compile(r'conv|gemm|matrixmultiply|matmul|fc_|mha', re.IGNORECASE)
_INSPECTOR_HALF = re.compile(r'half|fp16', re.IGNORECASE)


def unavailable() -> str:
    """Return '' where TensorRT can be imported, else why not and the remedy."""
    try:
        load()
    except BackendUnavailable as error:
        return str(error)
    return ''


def load() -> Any:
    """Return the module. Raises BackendUnavailable where it, or its libraries, are missing."""
    try:
        import tensorrt as trt
        found = version(trt)
    except ModuleNotFoundError as error:
        raise BackendUnavailable(f'TensorRT is not installed ({error}); {_INSTALL}') from error
    except Exception as error:  # ImportError of a library; AttributeError of half a package
        raise BackendUnavailable("TensorRT's Python package is there, but not its libraries "
                                 f'({error}); install both of one version: {_INSTALL}') from error
    if found < OLDEST:
        raise BackendUnavailable(f'TensorRT is {trt.__version__}; 8.6 or later is needed, 10.3 or '
                                 'later wanted: upgrade JetPack or TensorRT')
    return trt


def version(trt: Any) -> tuple[int, ...]:
    """Return the version as numbers."""
    return tuple(int(part) for part in re.findall(r'\d+', trt.__version__))


def network_flags(trt: Any) -> int:
    """Return the flags to create a network with: strongly typed wherever that exists."""
    flags = trt.NetworkDefinitionCreationFlag
    explicit_batch = getattr(flags, 'EXPLICIT_BATCH', None)
    strongly_typed = getattr(flags, 'STRONGLY_TYPED', None)
    if explicit_batch is None:  # 11: there is nothing else any more
        return 0
    return 1 << int(explicit_batch if strongly_typed is None else strongly_typed)


def is_strongly_typed(trt: Any) -> bool:
    """Whether an engine computes in the types that the graph declares, and in no others."""
    return hasattr(trt.NetworkDefinitionCreationFlag, 'STRONGLY_TYPED')


def apply_precision(trt: Any, config: Any, network: Any, precision: str) -> None:
    """Tell the builder to compute in the types of ``network``, which was parsed from such."""
    # TF32 rounds the inputs of a float32 product to 11 bits: pixel coordinates do not survive it
    config.clear_flag(trt.BuilderFlag.TF32)
    if is_strongly_typed(trt) or precision == 'fp32':
        return
    config.set_flag(trt.BuilderFlag.FP16)
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    kinds = (trt.DataType.FLOAT, trt.DataType.HALF)
    for layer in _layers(network):
        types = [layer.get_output(index).dtype for index in range(layer.num_outputs)]
        if types and all(kind in kinds for kind in types) \
                and layer.type not in (trt.LayerType.CONSTANT, trt.LayerType.SHAPE):
            layer.precision = types[0]
            for index, kind in enumerate(types):
                layer.set_output_type(index, kind)


def network_share(trt: Any, network: Any, geometry: Iterable[str]) -> float:
    """
    Return the share of matrix layers of ``network`` in half precision; 1.0 without any.

    ``geometry``: names of layers that do not count, as precision.geometry_layers gives them.
    """
    kinds = (trt.LayerType.CONVOLUTION, trt.LayerType.DECONVOLUTION, trt.LayerType.MATRIX_MULTIPLY)
    aside = frozenset(geometry)
    halves = [layer.get_output(0).dtype == trt.DataType.HALF for layer in _layers(network)
              if layer.type in kinds and layer.name not in aside]
    return sum(halves) / len(halves) if halves else 1.0


def inspected_share(layers: Iterable[Mapping[str, Any]], geometry: Iterable[str]) -> float | None:
    """
    Return the share of matrix layers of an engine in half precision, by what its inspector says.

    None where that cannot be told, for what is written of a layer differs between versions: no
    layer is recognised, none says its types, or no name of ``geometry`` is to be seen. A layer is
    in half precision where it reads or writes it; the results may be written in float32.
    """
    aside = frozenset(geometry)
    is_named = not aside
    halves = []
    for layer in layers:
        kind = ' '.join(str(layer.get(key, '')) for key in ('LayerType', 'TacticName'))
        names = ' '.join(str(layer.get(key, '')) for key in ('Name', 'Metadata'))
        if not aside.isdisjoint(_LAYER_NAME.findall(names)):
            is_named = True
        elif _INSPECTOR_MATRIX.search(kind) and (types := _inspected_types(layer)):
            halves.append(bool(_INSPECTOR_HALF.search(types)))
    return sum(halves) / len(halves) if halves and is_named else None


@dataclass(frozen=True)
class BuildOrder:
    """What the builder is told."""

    precision: str  # fp32, fp16 or fp16_safe
    workspace: int  # bytes that a layer may use beside its tensors
    optimization_level: int  # 0 to 5
    timing_cache: bytes = b''  # of an earlier build; anything unfit is ignored


@dataclass(frozen=True)
class Built:
    """What came of it."""

    plan: bytes
    timing_cache: bytes


def build(trt: Any, model: bytes, order: BuildOrder,
          check_network: Callable[[Any], None] = lambda network: None) -> Built:
    """
    Build an engine of a typed ONNX ``model`` with static shapes.

    ``check_network`` sees the parsed network before minutes are spent on it. Raises
    BackendUnavailable with the messages of parser or builder.
    """
    log = make_log(trt)
    builder = _started(lambda: trt.Builder(log))
    network = builder.create_network(network_flags(trt))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        errors = '; '.join(_parser_error(parser.get_error(index))
                           for index in range(parser.num_errors))
        raise BackendUnavailable(f'TensorRT {trt.__version__} cannot read the model: '
                                 f'{errors or log.said()}; export it again, or use another '
                                 'runtime')
    check_network(network)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, order.workspace)
    config.builder_optimization_level = order.optimization_level
    # else the inspector does not say what the layers compute in
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    apply_precision(trt, config, network, order.precision)
    _use_timing_cache(config, order.timing_cache)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BackendUnavailable(f'TensorRT {trt.__version__} cannot build the engine: '
                                 f'{log.said()}; free GPU memory, or use another precision')
    times = config.get_timing_cache()
    return Built(bytes(plan), b'' if times is None else bytes(times.serialize()))


@dataclass(frozen=True)
class Tensor:
    """One input or output of an engine."""

    is_input: bool
    dtype: str  # as NumPy names it
    shape: tuple[int, ...]


class Engine:
    """
    A plan, loaded, with one execution context.

    Raises BackendUnavailable where TensorRT does not take the plan: plans fit the version and the
    GPU that they were built with.
    """

    def __init__(self, plan: bytes) -> None:
        self._trt = trt = load()
        self._log = make_log(trt)
        self._runtime = _started(lambda: trt.Runtime(self._log))
        # never engine_host_code_allowed: a plan may then bring its own host code
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise BackendUnavailable(f'TensorRT {trt.__version__} does not take the engine: '
                                     f'{self._log.said()}; build it again on this machine')
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise BackendUnavailable(f'TensorRT cannot prepare the engine: {self._log.said()}; '
                                     'free GPU memory')

    @property
    def version(self) -> str:
        """Return the version of TensorRT."""
        return str(self._trt.__version__)

    @property
    def device_memory(self) -> int:
        """Return the bytes of device memory that one execution needs beside its tensors."""
        size = getattr(self._engine, 'device_memory_size_v2', None)  # 10.1 and later
        return int(self._engine.device_memory_size if size is None else size)

    def tensors(self) -> dict[str, Tensor]:
        """Return name -> tensor of all inputs and outputs."""
        trt, engine = self._trt, self._engine
        dtypes = {getattr(trt.DataType, theirs): ours for theirs, ours in (
            ('FLOAT', 'float32'), ('HALF', 'float16'), ('UINT8', 'uint8'), ('INT32', 'int32'),
            ('INT8', 'int8'), ('BOOL', 'bool'))}
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        return {name: Tensor(engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT,
                             dtypes.get(engine.get_tensor_dtype(name), 'other'),
                             tuple(engine.get_tensor_shape(name))) for name in names}

    def bind(self, name: str, address: int) -> None:
        """Let the tensor ``name`` be at a device address from now on."""
        if not self._context.set_tensor_address(name, address):
            raise BackendUnavailable(f'TensorRT refuses memory for {name!r}: {self._log.said()}')

    def enqueue(self, stream: int) -> None:
        """Enqueue one execution on the stream of that handle; no stream but the default one."""
        if not self._context.execute_async_v3(stream):
            raise BackendUnavailable(f'TensorRT failed while running: {self._log.said()}; start '
                                     'again')

    def layers(self) -> list[dict[str, Any]]:
        """Return what the engine's inspector tells of its layers; [] where that is not known."""
        inspector = self._engine.create_engine_inspector()
        text = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
        try:
            told = json.loads(text)
            layers = told if isinstance(told, list) else told['Layers']
        except (ValueError, KeyError, TypeError):
            return []
        return [layer for layer in layers if isinstance(layer, dict)]  # else names only

    def close(self) -> None:
        """Release the device memory. Calling twice is harmless."""
        self._context = self._engine = self._runtime = None  # in this order


@functools.cache
def make_log(trt: Any) -> Any:
    """
    Return the logger, which hands on to Python's; ``said()`` gives the last errors, once.

    One for all and for good: TensorRT keeps the first that it is given for whatever belongs to no
    builder or engine, also when that one's has gone.
    """
    severity = trt.ILogger.Severity
    levels = {severity.INTERNAL_ERROR: logging.ERROR, severity.ERROR: logging.ERROR,
              severity.WARNING: logging.WARNING, severity.INFO: logging.DEBUG}

    class Log(trt.ILogger):

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: deque[str] = deque(maxlen=5)

        def log(self, severity: Any, message: str) -> None:
            level = levels.get(severity, 0)
            if level:
                logger.log(level, 'TensorRT: %s', message)
            if level == logging.ERROR:
                self._errors.append(message.strip())

        def said(self) -> str:
            errors, self._errors = self._errors, deque(maxlen=5)
            return '; '.join(errors) or 'it gives no reason'

    return Log()


def _started(create: Callable[[], Any]) -> Any:
    try:
        return create()
    except TypeError as error:  # what its bindings raise where the library returns nothing
        raise BackendUnavailable(f'TensorRT cannot start ({error}): no GPU that it supports, or '
                                 'the driver is too old; check nvidia-smi') from error


def _layers(network: Any) -> Iterable[Any]:
    return (network.get_layer(index) for index in range(network.num_layers))


def _inspected_types(layer: Mapping[str, Any]) -> str:
    """Return the types of a layer's tensors; the key has been spelt in several ways."""
    tensors = [tensor for key in ('Inputs', 'Outputs') for tensor in layer.get(key) or ()
               if isinstance(tensor, Mapping)]
    return ' '.join(str(value) for tensor in tensors for key, value in tensor.items()
                    if 'datatype' in key.lower() or key == 'Format')


def _parser_error(error: Any) -> str:
    parts = [f'{name()}' for key in ('node_operator', 'node_name')
             if (name := getattr(error, key, None)) is not None and name()]
    return ' '.join([*parts, error.desc()])


def _use_timing_cache(config: Any, earlier: bytes) -> None:
    cache = config.create_timing_cache(earlier)
    if cache is None or not config.set_timing_cache(cache, False):
        logger.warning("TensorRT's timing cache is of another version or GPU; a new one is made")
        config.set_timing_cache(config.create_timing_cache(b''), False)
