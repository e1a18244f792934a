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
Rewriting a graph in other types: what ``precision`` decides is carried out here.

The converter that comes with ONNX Runtime keeps listed nodes in float32 as well, but rounds each
tensor between two of them to half precision: of no use where a chain has to stay exact.
"""
from __future__ import annotations

from collections.abc import Container

import numpy as np
import onnx
from onnx import helper, numpy_helper, TensorProto

from hybrid_depth.errors import ContractError

_MOVERS = frozenset({'Transpose', 'Reshape', 'Slice', 'Squeeze', 'Unsqueeze', 'Gather', 'Identity',
                     'Flatten', 'Split', 'Concat'})
# their output is of an input's type whatever that is, or not a float at all
_ANY_FLOAT = frozenset({'Cast', 'Shape', 'Size', 'IsNaN', 'IsInf'})
_FLOAT_ALWAYS = {'Resize': (1, 2)}  # inputs that are no data: region and scales


def name_nodes(graph: onnx.GraphProto) -> None:
    seen: set[str] = set()
    for index, node in enumerate(graph.node):
        if any(attribute.HasField('g') or attribute.graphs for attribute in node.attribute):
            raise ContractError(f'the graph has a {node.op_type}, whose branches cannot be typed; '
                                'export the model without control flow')
        if not node.name or node.name in seen:
            node.name = f'{node.op_type}_{index}_of_graph'
        seen.add(node.name)


def unpack_weights(graph: onnx.GraphProto) -> None:
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


def cast_first(graph: onnx.GraphProto) -> None:
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


def inferred(model: onnx.ModelProto) -> onnx.GraphProto:
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception as error:  # its exceptions share no narrower base class
        raise ContractError(f'the types of the graph cannot be inferred: {error}; export the '
                            'model again') from error


def float_tensors(model: onnx.ModelProto) -> frozenset[str]:
    """Return the names of all float32 tensors. Raises ContractError where a type is not known."""
    graph = inferred(model)
    types = {value.name: value.type.tensor_type.elem_type
             for value in (*graph.input, *graph.output, *graph.value_info)}
    types |= {weight.name: weight.data_type for weight in graph.initializer}
    for node in graph.node:
        for name in filter(None, node.output):
            if not types.get(name):
                raise ContractError(f'the type of {name!r}, from {node.op_type} {node.name!r}, '
                                    'cannot be inferred; export the model again')
    return frozenset(name for name, kind in types.items() if kind == TensorProto.FLOAT)


def retype(graph: onnx.GraphProto, floats: frozenset[str], islands: Container[str],
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
