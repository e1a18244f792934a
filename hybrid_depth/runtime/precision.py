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
Typed graphs: the same model with every tensor declared float16 or float32.

A strongly typed engine computes in exactly the types that the graph declares, so precision is
decided here and not by a builder's timing. What goes in and comes out of the model keeps its type.

Geometry is never in half precision: a pixel coordinate of 600 would be off by a quarter, and
look-ups land in the wrong cell. Geometry is found in the graph, not named: what leads to the
indices of a look-up, and what follows from the camera matrix and the poses by arithmetic alone.

Nor are the first layers on the way from the image to the features that frames are matched by:
where an image is nearly flat, what is left of it to match is of the order of a rounding error, and
depth follows one hypothesis or another by it; nor is the layer that says the depth of the single
frame, around which is looked again. As many layers as ``FP16_SHARE`` leaves room for.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator
import math

import onnx
from onnx import TensorProto

from hybrid_depth.errors import BackendUnavailable, ContractError
from hybrid_depth.runtime.typed_graph import (
    cast_first,
    float_tensors,
    inferred,
    name_nodes,
    retype,
    unpack_weights,
)

FP16_SHARE = 0.95  # of the matrix layers of an fp16 graph that must be in half precision
MATRIX_OPS = frozenset({'Conv', 'ConvTranspose', 'MatMul', 'Gemm'})
_GEOMETRY_INPUTS = ('K', 'source_T_target')
# look-ups by computed index: op -> which input is the index
_INDEX_INPUT = {'Gather': 1, 'GatherElements': 1, 'GatherND': 1, 'GridSample': 1}
_NORMALISATIONS = frozenset({'LayerNormalization', 'InstanceNormalization', 'GroupNormalization',
                             'BatchNormalization', 'LpNormalization'})
# sums, and functions that leave the range of half precision soonest
_SENSITIVE = frozenset({
    'Softmax', 'LogSoftmax', 'Exp', 'Log', 'Pow', 'Sqrt', 'Reciprocal', 'CumSum', 'ReduceMean',
    'ReduceSum', 'ReduceL1', 'ReduceL2', 'ReduceSumSquare', 'ReduceLogSumExp', 'ReduceProd',
    'GlobalAveragePool'})


def resolve(precision: str, device: str) -> str:
    """
    Return what 'auto' means on ``device`` ('cpu' or 'gpu'), and any other precision as it is.

    Raises BackendUnavailable for one that the device has no use for.
    """
    if precision == 'auto':
        return 'fp16' if device == 'gpu' else 'fp32'
    if precision == 'bf16':
        raise BackendUnavailable(
            'bf16 is not offered: its 8 significant bits are too few for log depth, and CPUs '
            'without AVX512-BF16 or AMX emulate it much slower than fp32; use fp32, int8_mix on '
            'a CPU, or fp16 on a GPU')
    allowed = {'cpu': ('fp32', 'int8_mix'), 'gpu': ('fp32', 'fp16', 'fp16_safe')}[device]
    if precision not in allowed:
        raise BackendUnavailable(f'precision {precision!r} is of no use on a {device.upper()}; '
                                 f'use auto or one of {", ".join(allowed)}')
    return precision


def typed(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """
    Return ``model`` in ``precision``: 'fp32', 'fp16' or 'fp16_safe'; the argument is not changed.

    fp16: half precision but for geometry, what follows from it (the last steps to metres), the
    first layers before matching and the last of the single frame. fp16_safe: as well in single
    precision are all layers before matching, the first one after the image, normalisation,
    attention scores and softmax, sums, exponentials and the last matrix layer before each output.
    Weights that are stored in half precision behind a Cast become plain weights, and bytes become
    numbers first. Raises ContractError for a graph with branches or loops, or one whose types
    cannot be inferred.
    """
    if precision not in ('fp32', 'fp16', 'fp16_safe'):
        raise ContractError(f'no graph can be typed as {precision!r}; expected fp32, fp16 or '
                            'fp16_safe')
    result = onnx.ModelProto()
    result.CopyFrom(model)
    name_nodes(result.graph)
    unpack_weights(result.graph)
    cast_first(result.graph)
    del result.graph.value_info[:]  # speaks of the old types
    if precision == 'fp32':
        return result
    floats = float_tensors(result)
    islands = _geometry(result.graph, floats)
    before_matching = _before_features(result.graph)
    if precision == 'fp16_safe':
        islands |= _names(before_matching) | _sensitive(result.graph)
    else:
        layers = sum(node.op_type in MATRIX_OPS and node.name not in islands
                     for node in result.graph.node)
        room = layers - math.ceil(FP16_SHARE * layers)
        said = _back_to_layers(result.graph, ['single_depth'])
        if room > sum(node.op_type in MATRIX_OPS for node in said):
            islands |= _names(said)
            room -= sum(node.op_type in MATRIX_OPS for node in said)
        islands |= _names(_first(before_matching, room))
    retype(result.graph, floats, islands, result.opset_import[0].version)
    return result


def geometry_layers(model: onnx.ModelProto) -> frozenset[str]:
    """Return the names of the matrix layers that are camera geometry: never in half precision."""
    copy = typed(model, 'fp32')
    geometry = _geometry(copy.graph, float_tensors(copy))
    return frozenset(node.name for node in copy.graph.node
                     if node.op_type in MATRIX_OPS and node.name in geometry)


def single_layers(typed_model: onnx.ModelProto) -> frozenset[str]:
    """Return the names of the matrix layers that a typed graph declares in single precision."""
    return frozenset(name for name, kind in _result_types(typed_model).items()
                     if kind == TensorProto.FLOAT)


def half_share(model: onnx.ModelProto, geometry: Iterable[str] = ()) -> float:
    """
    Return the share of matrix layers whose result is half precision, those of ``geometry`` aside.

    ``geometry``: from ``geometry_layers`` of the model this one was typed from. 1.0 without any
    layer. Raises ContractError where types cannot be inferred.
    """
    aside = frozenset(geometry)
    kinds = [kind for name, kind in _result_types(model).items() if name not in aside]
    return kinds.count(TensorProto.FLOAT16) / len(kinds) if kinds else 1.0


def _result_types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the type of the result of each matrix layer, by its name."""
    types = {value.name: value.type.tensor_type.elem_type
             for value in (*inferred(model).value_info, *model.graph.output)}
    return {node.name: types[node.output[0]] for node in model.graph.node
            if node.op_type in MATRIX_OPS}


def check_share(share: float, precision: str, what: str) -> None:
    """Raise BackendUnavailable where what was to be fp16 is not, for the most part."""
    if precision == 'fp16' and share < FP16_SHARE:
        raise BackendUnavailable(
            f'{what} was to be fp16, but only {share:.0%} of its matrix and convolution layers '
            f'compute in half precision (expected at least {FP16_SHARE:.0%}); use precision fp32, '
            'or report this version of the runtime')


def _geometry(graph: onnx.GraphProto, floats: frozenset[str]) -> set[str]:
    """Return the names of the nodes whose values are coordinates, or follow from such."""
    fixed = {weight.name for weight in graph.initializer}  # whatever the inputs are
    found = _after_geometry(graph, floats, fixed, set())
    # a product of a constant and coordinates is no layer that the way back could end at
    found |= _before_indices(graph, fixed, found)
    return _after_geometry(graph, floats, fixed, found)


def _after_geometry(graph: onnx.GraphProto, floats: frozenset[str], fixed: set[str],
                    known: set[str]) -> set[str]:
    """Return ``known`` and the names of the nodes that follow from them, or from the camera."""
    found, exact = set(known), {*_GEOMETRY_INPUTS}
    for node in graph.node:  # in order, so that each sees what its inputs are
        data = [name for name in node.input if name in floats and name not in fixed]
        if node.op_type in ('Shape', 'Size') or (
                node.op_type != 'Range' and fixed.issuperset(filter(None, node.input))):
            fixed.update(node.output)
        index = _INDEX_INPUT.get(node.op_type)
        if index is not None and len(node.input) > index:
            data = [name for name in data if name != node.input[index]]
        if node.op_type == 'Range' or _follows(node, data, exact):
            found.add(node.name)
        if node.name in found:
            exact.update(name for name in node.output if name in floats)
    return found


def _follows(node: onnx.NodeProto, data: list[str], exact: set[str]) -> bool:
    """Whether ``node`` works on coordinates; ``data``: its float inputs but for constants."""
    if node.op_type in ('Conv', 'ConvTranspose', 'Gemm') or node.op_type in _NORMALISATIONS:
        return False  # a network looks at them: from here on they are features
    if node.op_type in ('MatMul', 'Concat'):  # with features: features
        return bool(data) and all(name in exact for name in data)
    return any(name in exact for name in data)


def _before_indices(graph: onnx.GraphProto, weights: set[str], known: set[str]) -> set[str]:
    """Return the nodes that lead to the index of a look-up, back to layers that were trained."""
    producers = {name: node for node in graph.node for name in node.output}
    queue = [node.input[_INDEX_INPUT[node.op_type]] for node in graph.node
             if node.op_type in _INDEX_INPUT]
    found: set[str] = set()
    while queue:
        node = producers.get(queue.pop())
        if node is None or node.name in found or node.op_type == 'Shape' \
                or node.op_type in _NORMALISATIONS \
                or (node.op_type in MATRIX_OPS and node.name not in known
                    and not weights.isdisjoint(node.input)):
            continue
        found.add(node.name)
        queue += node.input
    return found


def _names(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    return {node.name for node in nodes}


def _before_features(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the nodes that lead to the features which frames are matched by, in order."""
    wanted = {'features'} & {value.name for value in graph.output}
    found = []
    for node in reversed(graph.node):
        if not wanted.isdisjoint(node.output):
            wanted.update(node.input)
            found.append(node)
    return found[::-1]


def _first(nodes: Iterable[onnx.NodeProto], layers: int) -> Iterator[onnx.NodeProto]:
    """Yield so many matrix layers of ``nodes``, nearest to the image first, and what is before."""
    behind: dict[str, int] = {}  # tensor -> matrix layers on the longest way to it
    depths = []
    for node in nodes:
        depth = max((behind.get(name, 0) for name in node.input), default=0)
        depths.append((depth, node))
        behind.update(dict.fromkeys(node.output, depth + (node.op_type in MATRIX_OPS)))
    for _, node in sorted(depths, key=lambda pair: pair[0]):
        if layers <= 0:
            return
        layers -= node.op_type in MATRIX_OPS
        yield node


def _back_to_layers(graph: onnx.GraphProto, names: Iterable[str]) -> list[onnx.NodeProto]:
    """Return the nodes that made the tensors ``names``, back to the nearest matrix layers."""
    producers = {name: node for node in graph.node for name in node.output}
    queue, seen, found = list(names), set[str](), []
    while queue:
        node = producers.get(queue.pop())
        if node is None or node.name in seen or node.op_type == 'Shape':
            continue
        seen.add(node.name)
        found.append(node)
        if node.op_type not in MATRIX_OPS:
            queue += node.input
    return found


def _sensitive(graph: onnx.GraphProto) -> set[str]:
    """Return the names of the nodes that fp16_safe keeps in single precision."""
    ones = {weight.name for weight in graph.initializer
            if max(weight.dims, default=0) > 1 and (onnx.numpy_helper.to_array(weight) == 1).all()}
    found = {node.name for node in graph.node
             if node.op_type in _SENSITIVE or node.op_type in _NORMALISATIONS
             # sums may be written as products with ones, which CPUs are faster at
             or (node.op_type == 'MatMul' and not ones.isdisjoint(node.input))}
    images = {value.name for value in graph.input
              if value.type.tensor_type.elem_type == TensorProto.UINT8}
    for node in graph.node:  # forwards to the first matrix layer
        if not images.isdisjoint(node.input) and node.op_type != 'Shape':
            found.add(node.name)
            if node.op_type not in MATRIX_OPS:
                images.update(node.output)
    starts = [name for node in graph.node if node.op_type in ('Softmax', 'LogSoftmax')
              for name in node.input]
    starts += [output.name for output in graph.output if output.name != 'features']
    return found | _names(_back_to_layers(graph, starts))
