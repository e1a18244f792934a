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
From a model file to a TensorRT engine for one network size and one precision.

Takes minutes and much memory, and may crash: to be called in a process of its own.
"""
from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import onnx

from hybrid_depth.contract import ModelSpec
from hybrid_depth.errors import BackendUnavailable, ContractError
from hybrid_depth.runtime import BackendOptions
from hybrid_depth.runtime.engine_cache import EngineCache
from hybrid_depth.runtime.precision import (
    check_share,
    geometry_layers,
    half_share,
    MATRIX_OPS,
    resolve,
    single_layers,
    typed,
)
from hybrid_depth.runtime.trt import adapter, BUILD_SETTINGS, cuda, environment_facts

logger = logging.getLogger(__name__)


def build_engine(path: Path, spec: ModelSpec, size: tuple[int, int],
                 options: BackendOptions) -> bytes:
    """
    Build the engine of the model at ``path`` for network ``size`` (H, W); return the plan.

    What the builder measured is kept in the engine cache for the next build. Raises ContractError
    where the model cannot be read or breaks its contract, BackendUnavailable where TensorRT cannot
    build it, or built an fp16 engine that does not compute in half precision.
    """
    trt = adapter.load()
    precision = resolve(options.precision, 'gpu')
    model = with_static_shapes(_load(path), spec, size)
    geometry = geometry_layers(model)
    model = typed(model, precision)
    check_share(half_share(model, geometry), precision, 'the graph')
    meant_single = single_layers(model)
    cuda.Cuda(options.gpu).close()  # chooses the GPU for this thread
    cache, environment = EngineCache(options.engine_cache), environment_facts(options.gpu)
    order = adapter.BuildOrder(precision, BUILD_SETTINGS['workspace'],
                               BUILD_SETTINGS['optimization_level'], cache.times(environment))

    def check_network(network: Any) -> None:
        check_share(adapter.network_share(trt, network, meant_single), precision,
                    'the network that TensorRT read')

    built = adapter.build(trt, model.SerializeToString(), order, check_network)
    try:
        cache.keep_times(environment, built.timing_cache)
    except OSError as error:  # the next build is slower, and nothing else
        logger.warning("TensorRT's timing cache cannot be written in %s: %s", cache.folder, error)
    engine = adapter.Engine(built.plan)
    share = adapter.inspected_share(engine.layers(), meant_single)
    engine.close()
    if share is not None:
        check_share(share, precision, 'the engine')
    elif precision == 'fp16' and not adapter.is_strongly_typed(trt) \
            and any(node.op_type in MATRIX_OPS for node in model.graph.node):
        # a strongly typed engine computes in the types of its network, which were checked
        raise BackendUnavailable(f'TensorRT {trt.__version__} does not say what its layers '
                                 'compute in, so fp16 cannot be vouched for; use precision fp32')
    return built.plan


def with_static_shapes(model: onnx.ModelProto, spec: ModelSpec,
                       size: tuple[int, int]) -> onnx.ModelProto:
    """
    Return ``model`` with all inputs and outputs of the shapes for network ``size`` (H, W).

    Raises ContractError where the graph is fixed to other shapes, or lacks a tensor.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for what, values, tensors in (('input', result.graph.input, spec.inputs(size)),
                                  ('output', result.graph.output, spec.outputs(size))):
        if sorted(value.name for value in values) != sorted(tensors):
            raise ContractError(f'the graph of {spec.name} has the {what}s '
                                f'{[value.name for value in values]}; the contract says '
                                f'{list(tensors)}; export the model again')
        for value in values:
            shape = tensors[value.name][1]
            dims = value.type.tensor_type.shape.dim
            found = [dim.dim_value if dim.HasField('dim_value') else dim.dim_param for dim in dims]
            if len(dims) != len(shape) or any(
                    isinstance(length, int) and length != wanted
                    for length, wanted in zip(found, shape, strict=True)):
                raise ContractError(f'the {what} {value.name!r} of {spec.name} is fixed to '
                                    f'{found}; {shape} is needed; export it with dynamic height '
                                    'and width')
            for dim, length in zip(dims, shape, strict=True):
                dim.dim_value = length
    del result.graph.value_info[:]
    try:
        return onnx.shape_inference.infer_shapes(result, strict_mode=True, data_prop=True)
    except Exception as error:  # its exceptions share no narrower base class
        raise ContractError(f'the graph of {spec.name} does not fit network size '
                            f'{size[1]}x{size[0]}: {error}; export the model again') from error


def _load(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(str(path))
    except Exception as error:  # of protobuf, of the file system
        raise ContractError(f'{path} cannot be loaded: {error}; copy the file or export the model '
                            'again') from error
