# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Typed graphs: the same model with every tensor declared float16 or float32.

A strongly typed engine computes in exactly the types that the graph declares, so precision is
decided here and not by a builder's timing. What goes in and comes out of the model keeps its type.

Geometry is never in half precision: a pixel coordinate of 600 would be off by a quarter, and
look-ups land in the wrong cell. Geometry is found in the graph, not named: what leads to the
indices of a look-up, and what follows from the camera matrix and the poses by arithmetic alone.

The converter that comes with ONNX Runtime keeps listed nodes in float32 as well, but rounds each
tensor between two of them to half precision: of no use where a chain has to stay exact.
"""
from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import helper, numpy_helper, TensorProto

from hybrid_depth.errors import BackendUnavailable, ContractError

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
_MOVERS = frozenset({'Transpose', 'Reshape', 'Slice', 'Squeeze', 'Unsqueeze', 'Gather', 'Identity',
                     'Flatten', 'Split', 'Concat'})
# their output is of an input's type whatever that is, or not a float at all
_ANY_FLOAT = frozenset({'Cast', 'Shape', 'Size', 'IsNaN', 'IsInf'})
_FLOAT_ALWAYS = {'Resize': (1, 2)}  # inputs that are no data: region and scales


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

    fp16: half precision but for geometry and what follows from it (the last steps to metres).
    fp16_safe: as well in single precision are normalisation, attention scores and softmax, sums,
    exponentials and the last matrix layer before each output. Weights that are stored in half
    precision behind a Cast become plain weights, and bytes become numbers first. Raises
    ContractError for a graph with branches or loops, or one whose types cannot be inferred.
    """
    if precision not in ('fp32', 'fp16', 'fp16_safe'):
        raise ContractError(f'no graph can be typed as {precision!r}; expected fp32, fp16 or '
                            'fp16_safe')
    result = onnx.ModelProto()
    result.CopyFrom(model)
    _name_nodes(result.graph)
    _unpack_weights(result.graph)
    _cast_first(result.graph)
    del result.graph.value_info[:]  # speaks of the old types
    if precision == 'fp32':
        return result
    floats = _float_tensors(result)
    islands = _geometry(result.graph, floats)
    if precision == 'fp16_safe':
        islands |= _sensitive(result.graph)
    _retype(result.graph, floats, islands, result.opset_import[0].version)
    return result


def geometry_layers(model: onnx.ModelProto) -> frozenset[str]:
    """Return the names of the matrix layers that are camera geometry: never in half precision."""
    copy = typed(model, 'fp32')
    geometry = _geometry(copy.graph, _float_tensors(copy))
    return frozenset(node.name for node in copy.graph.node
                     if node.op_type in MATRIX_OPS and node.name in geometry)


def half_share(model: onnx.ModelProto, geometry: Iterable[str] = ()) -> float:
    """
    Return the share of matrix layers whose result is half precision, those of ``geometry`` aside.

    ``geometry``: from ``geometry_layers`` of the model this one was typed from. 1.0 without any
    layer. Raises ContractError where types cannot be inferred.
    """
    types = {value.name: value.type.tensor_type.elem_type
             for value in _inferred(model).value_info}
    types |= {value.name: value.type.tensor_type.elem_type for value in model.graph.output}
    aside = frozenset(geometry)
    layers = [types[node.output[0]] for node in model.graph.node
              if node.op_type in MATRIX_OPS and node.name not in aside]
    return layers.count(TensorProto.FLOAT16) / len(layers) if layers else 1.0


def check_share(share: float, precision: str, what: str) -> None:
    """Raise BackendUnavailable where what was to be fp16 is not, for the most part."""
    if precision == 'fp16' and share < FP16_SHARE:
        raise BackendUnavailable(
            f'{what} was to be fp16, but only {share:.0%} of its matrix and convolution layers '
            f'compute in half precision (expected at least {FP16_SHARE:.0%}); use precision fp32, '
            'or report this version of the runtime')


def _name_nodes(graph: onnx.GraphProto) -> None:
    seen: set[str] = set()
    for index, node in enumerate(graph.node):
        if any(attribute.HasField('g') or attribute.graphs for attribute in node.attribute):
            raise ContractError(f'the graph has a {node.op_type}, whose branches cannot be typed; '
                                'export the model without control flow')
        if not node.name or node.name in seen:
            node.name = f'{node.op_type}_{index}_of_graph'
        seen.add(node.name)


def _unpack_weights(graph: onnx.GraphProto) -> None:
    """Turn stored weights behind a Cast, and constants that are nodes, into plain weights."""
    weights = {weight.name: weight for weight in graph.initializer}
    kept = []
    for node in graph.node:
        if node.op_type == 'Constant' and node.attribute[0].name == 'value':
            tensor = node.attribute[0].t
            value = numpy_helper.to_array(tensor)
        elif node.op_type == 'Cast' and node.input[0] in weights \
                and node.attribute[0].i == TensorProto.FLOAT:
            value = numpy_helper.to_array(weights[node.input[0]]).astype(np.float32)
        else:
            kept.append(node)
            continue
        graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
    del graph.node[:]
    graph.node.extend(kept)
    used = {name for node in kept for name in node.input} | {v.name for v in graph.output}
    needed = [weight for weight in graph.initializer if weight.name in used]
    del graph.initializer[:]
    graph.initializer.extend(needed)


def _cast_first(graph: onnx.GraphProto) -> None:
    """
    Make numbers of bytes before anything else is done with them.

    TensorRT takes uint8 in a Cast alone; an exporter may move an image's axes first. Raises
    ContractError where bytes are computed with.
    """
    for value in graph.input:
        if value.type.tensor_type.elem_type != TensorProto.UINT8:
            continue
        names = {value.name}
        for node in graph.node:
            if names.isdisjoint(node.input):
                continue
            if node.op_type in _MOVERS:
                names.update(node.output)
            elif node.op_type not in ('Cast', 'Shape', 'Size'):
                raise ContractError(f'{node.op_type} {node.name!r} computes with the bytes of '
                                    f'{value.name!r}; export the model with a Cast before it')
        if len(names) == 1:  # no mover: nothing to do
            continue
        first = f'{value.name}_as_float'
        for node in graph.node:
            for index, name in enumerate(node.input):
                if name == value.name:
                    node.input[index] = first
        graph.node.insert(0, helper.make_node('Cast', [value.name], [first], f'to_{first}',
                                              to=TensorProto.FLOAT))


def _inferred(model: onnx.ModelProto) -> onnx.GraphProto:
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception as error:  # its exceptions share no narrower base class
        raise ContractError(f'the types of the graph cannot be inferred: {error}; export the '
                            'model again') from error


def _float_tensors(model: onnx.ModelProto) -> frozenset[str]:
    """Return the names of all float32 tensors. Raises ContractError where a type is not known."""
    graph = _inferred(model)
    types = {value.name: value.type.tensor_type.elem_type
             for value in (*graph.input, *graph.output, *graph.value_info)}
    types |= {weight.name: weight.data_type for weight in graph.initializer}
    for node in graph.node:
        for name in filter(None, node.output):
            if not types.get(name):
                raise ContractError(f'the type of {name!r}, from {node.op_type} {node.name!r}, '
                                    'cannot be inferred; export the model again')
    return frozenset(name for name, kind in types.items() if kind == TensorProto.FLOAT)


def _geometry(graph: onnx.GraphProto, floats: frozenset[str]) -> set[str]:
    """Return the names of the nodes whose values are coordinates, or follow from such."""
    producers = {name: node for node in graph.node for name in node.output}
    fixed = {weight.name for weight in graph.initializer}  # whatever the inputs are
    found = _before_indices(graph, producers, fixed)
    exact = {*_GEOMETRY_INPUTS}
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


def _before_indices(graph: onnx.GraphProto, producers: dict[str, onnx.NodeProto],
                    weights: set[str]) -> set[str]:
    """Return the nodes that lead to the index of a look-up, back to layers that were trained."""
    queue = [node.input[_INDEX_INPUT[node.op_type]] for node in graph.node
             if node.op_type in _INDEX_INPUT]
    found: set[str] = set()
    while queue:
        node = producers.get(queue.pop())
        if node is None or node.name in found or node.op_type == 'Shape' \
                or node.op_type in _NORMALISATIONS \
                or (node.op_type in MATRIX_OPS and not weights.isdisjoint(node.input)):
            continue
        found.add(node.name)
        queue += node.input
    return found


def _sensitive(graph: onnx.GraphProto) -> set[str]:
    """Return the names of the nodes that fp16_safe keeps in single precision."""
    producers = {name: node for node in graph.node for name in node.output}
    found = {node.name for node in graph.node
             if node.op_type in _SENSITIVE or node.op_type in _NORMALISATIONS}
    starts = [name for node in graph.node if node.op_type in ('Softmax', 'LogSoftmax')
              for name in node.input]
    starts += [output.name for output in graph.output if output.name != 'features']
    seen: set[str] = set()
    while starts:  # back to the matrix layer that made the scores, or the depth
        node = producers.get(starts.pop())
        if node is None or node.name in seen or node.op_type == 'Shape':
            continue
        seen.add(node.name)
        if node.op_type not in MATRIX_OPS:
            starts += node.input
    return found | seen


def _retype(graph: onnx.GraphProto, floats: frozenset[str], islands: set[str],
            opset: int) -> None:
    """Rewrite the nodes in place, with a Cast where a value passes from one type to the other."""
    have = dict.fromkeys((value.name for value in graph.input if value.name in floats),
                         TensorProto.FLOAT)
    weights = {weight.name: weight for weight in graph.initializer if weight.name in floats}
    outputs = {value.name for value in graph.output}
    made: dict[tuple[str, int], str] = {}
    nodes: list[onnx.NodeProto] = []

    def as_type(name: str, wanted: int) -> str:
        """Return the name under which tensor ``name`` can be had in the type ``wanted``."""
        if have.get(name, TensorProto.FLOAT) == wanted:
            return name
        if (name, wanted) not in made:
            half = wanted == TensorProto.FLOAT16
            made[name, wanted] = other = f'{name}_as_{"half" if half else "float"}'
            if name in weights:
                value = _to_half(numpy_helper.to_array(weights[name]), name)
                graph.initializer.append(numpy_helper.from_array(value, other))
            else:
                nodes.append(helper.make_node('Cast', [name], [other], f'to_{other}', to=wanted))
        return made[name, wanted]

    for node in graph.node:
        is_single = node.name in islands or not _can_be_half(node.op_type, opset)
        kind = TensorProto.FLOAT if is_single else TensorProto.FLOAT16
        if node.op_type not in _ANY_FLOAT:
            for index, name in enumerate(node.input):
                if name in floats:
                    always = index in _FLOAT_ALWAYS.get(node.op_type, ())
                    node.input[index] = as_type(name, TensorProto.FLOAT if always else kind)
        _set_type_attribute(node, kind)
        for index, name in enumerate(node.output):
            if name not in floats:
                continue
            if name in outputs and kind == TensorProto.FLOAT16:
                node.output[index] = inner = f'{name}_in_half'
                have[inner] = kind
                made[name, kind] = inner  # who reads it needs no Cast there and back
            else:
                have[name] = kind
        nodes.append(node)
        nodes += [helper.make_node('Cast', [f'{name}_in_half'], [name], f'to_{name}',
                                   to=TensorProto.FLOAT)
                  for name in outputs if f'{name}_in_half' in node.output]
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input} | outputs
    needed = [weight for weight in graph.initializer if weight.name in used]
    del graph.initializer[:]
    graph.initializer.extend(needed)


def _set_type_attribute(node: onnx.NodeProto, kind: int) -> None:
    """Make nodes that name their type name ``kind``, where that was float32."""
    for attribute in node.attribute:
        if node.op_type == 'Cast' and attribute.name == 'to' \
                and attribute.i == TensorProto.FLOAT:
            attribute.i = kind
        if node.op_type == 'ConstantOfShape' and attribute.name == 'value' \
                and attribute.t.data_type == TensorProto.FLOAT and kind == TensorProto.FLOAT16:
            value = numpy_helper.to_array(attribute.t).astype(np.float16)
            attribute.t.CopyFrom(numpy_helper.from_array(value))


def _can_be_half(op_type: str, opset: int) -> bool:
    """Whether the operator's definition allows half precision for its inputs and result."""
    schema = onnx.defs.get_schema(op_type, opset)
    used = {formal.type_str for formal in (*schema.inputs, schema.outputs[0])}
    allowed = [set(constraint.allowed_type_strs) for constraint in schema.type_constraints
               if constraint.type_param_str in used]
    return all('tensor(float16)' in types for types in allowed if 'tensor(float)' in types)


def _to_half(value: np.ndarray, name: str) -> np.ndarray:
    """Round to half precision; infinities, which masks are made of, stay what they are."""
    with np.errstate(over='ignore'):
        half = value.astype(np.float16)
    if np.isinf(half[np.isfinite(value)]).any():
        largest = np.abs(value[np.isfinite(value)]).max()
        if half.size > 1:
            raise ContractError(f'the weight {name!r} holds {largest:g}, beyond the range of half '
                                'precision; use precision fp32')
        half = np.clip(value, -65504, 65504).astype(np.float16)  # a bound, such as of a Clip
    return half
