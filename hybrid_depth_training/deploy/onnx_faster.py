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
Equal graphs that runtimes execute in less time: what each form costs is said where it is replaced.

Done on the graph and not in the networks, so that it holds for all of them and leaves their code
as one would write it. Outputs change by the rounding of other orders of summation, no more.
"""
from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

_BLOCK = 16  # channels that a CPU with AVX-512 works on at a time; with AVX2 it is 8


def rewrite(model: onnx.ModelProto) -> None:
    """Rewrite ``model``, of opset 17 and with plain weights, in place."""
    for change in (_split_convolutions, _flatten_convolutions, _repeat_faster, _usual_gelu):
        change(model)
        _drop_unused(model.graph)


def _split_convolutions(model: onnx.ModelProto) -> None:
    """
    Convolve the last few of joined channels apart: conv(a, b) = conv(a) + conv(b).

    A convolution of 51 channels, 48 of features and 3 of rays, is none of the kind that ONNX
    Runtime has blocked kernels for: it takes twice as long as the two.
    """
    graph = model.graph
    channels = {name: shape[1] for name, shape in _shapes(model).items() if len(shape) > 1}
    joins = {node.output[0]: node for node in graph.node if node.op_type == 'Concat'}
    weights = {weight.name: weight for weight in graph.initializer}
    nodes = []
    for node in graph.node:
        nodes.append(node)
        if node.op_type != 'Conv' or node.input[0] not in joins or node.input[1] not in weights \
                or _attribute(joins[node.input[0]], 'axis') != 1 \
                or _attribute(node, 'group', 1) != 1:
            continue
        parts = list(joins[node.input[0]].input)
        counts = [channels.get(part, 0) for part in parts]
        few = {index for index, count in enumerate(counts) if count % 8}
        if 0 in counts or not 0 < sum(counts[index] for index in few) < _BLOCK \
                or len(few) == len(parts):
            continue
        kernel = numpy_helper.to_array(weights[node.input[1]])
        pieces = np.split(kernel, np.cumsum(counts)[:-1], axis=1)
        nodes.pop()
        for what, chosen in (('few', sorted(few)),
                             ('many', [i for i in range(len(parts)) if i not in few])):
            name = f'{node.name}_{what}'
            half = onnx.NodeProto()
            half.CopyFrom(node)
            half.name, half.output[0] = name, f'{name}_result'
            half.input[0], half.input[1] = parts[chosen[0]], f'{name}_weight'
            if what == 'few':
                del half.input[2:]  # the bias is added once
            if len(chosen) > 1:
                half.input[0] = f'{name}_joined'
                nodes.append(helper.make_node('Concat', [parts[index] for index in chosen],
                                              [half.input[0]], f'{name}_join', axis=1))
            graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(
                np.concatenate([pieces[index] for index in chosen], axis=1)), half.input[1]))
            nodes.append(half)
        nodes.append(helper.make_node('Add', [f'{node.name}_many_result',
                                              f'{node.name}_few_result'],
                                      node.output, f'{node.name}_sum'))
    _replace(graph, nodes)


def _flatten_convolutions(model: onnx.ModelProto) -> None:
    """
    Make a convolution along the first of three axes, (k, 1, 1), one of two axes, (k, 1).

    ONNX Runtime has blocked kernels for two axes only: the same work in less than half the time.
    """
    graph = model.graph
    weights = {weight.name: weight for weight in graph.initializer}
    nodes = []
    for node in graph.node:
        weight = weights.get(node.input[1]) if node.op_type == 'Conv' else None
        pads = _attribute(node, 'pads', [0] * 6)
        if weight is None or len(weight.dims) != 5 or list(weight.dims[3:]) != [1, 1] \
                or pads != [weight.dims[2] // 2, 0, 0] * 2 or weight.dims[2] % 2 == 0 \
                or any(_attribute(node, name, 1) not in (1, [1, 1, 1])
                       for name in ('group', 'strides', 'dilations')):
            nodes.append(node)
            continue
        name, source = node.name, node.input[0]
        for what, value in (
                ('weight', numpy_helper.to_array(weight)[..., 0]),
                ('flat', np.array([0, 0, 0, -1])),
                ('outer', np.array([1, weight.dims[0]]))):
            graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value),
                                                             f'{name}_{what}'))
        nodes += [
            helper.make_node('Reshape', [source, f'{name}_flat'], [f'{name}_in'], f'{name}_fold'),
            helper.make_node('Conv', [f'{name}_in', f'{name}_weight', *node.input[2:]],
                             [f'{name}_out'], name, kernel_shape=[weight.dims[2], 1],
                             pads=[weight.dims[2] // 2, 0, weight.dims[2] // 2, 0]),
            helper.make_node('Shape', [source], [f'{name}_inner'], f'{name}_shape', start=2),
            helper.make_node('Concat', [f'{name}_outer', f'{name}_inner'], [f'{name}_size'],
                             f'{name}_sizes', axis=0),
            helper.make_node('Reshape', [f'{name}_out', f'{name}_size'], node.output,
                             f'{name}_unfold')]
    _replace(graph, nodes)


def _repeat_faster(model: onnx.ModelProto) -> None:
    """
    Double (1, C, D, H, W) along its last three axes in two steps.

    As one Expand of eight axes the inner copies are of two numbers each. Resizing the last two
    axes has a kernel of its own, and what is left to copy are whole maps.
    """
    graph = model.graph
    shapes = _shapes(model)
    producers = {node.output[0]: node for node in graph.node}
    readers: dict[str, set[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    constants = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer
                 if len(weight.dims) == 1}
    nodes = []
    for node in graph.node:
        times = constants.get(node.input[1]) if node.op_type == 'Expand' else None
        inner = producers.get(node.input[0]) if times is not None else None
        if times is None or times.tolist() != [1, 1, 1, 2, 1, 2, 1, 2] or inner is None \
                or inner.op_type != 'Reshape' or shapes.get(inner.input[0], [0])[0] != 1 \
                or len(shapes[inner.input[0]]) != 5 or readers[node.output[0]] != {'Reshape'}:
            nodes.append(node)
            continue
        name = node.name
        for what, value in (('scales', np.array([1, 1, 2, 2], np.float32)),
                            ('first', np.array([0])), ('middle', np.array([2])),
                            ('times', np.array([1, 1, 2, 1, 1]))):
            graph.initializer.append(numpy_helper.from_array(value, f'{name}_{what}'))
        nodes += [
            helper.make_node('Squeeze', [inner.input[0], f'{name}_first'], [f'{name}_maps'],
                             f'{name}_squeeze'),
            helper.make_node('Resize', [f'{name}_maps', '', f'{name}_scales'],
                             [f'{name}_larger'], f'{name}_resize', mode='nearest',
                             nearest_mode='floor', coordinate_transformation_mode='asymmetric'),
            helper.make_node('Unsqueeze', [f'{name}_larger', f'{name}_middle'],
                             [f'{name}_planes'], f'{name}_unsqueeze'),
            # (C, D, 2, 2H, 2W) in place of (1, C, D, 2, H, 2, W, 2): what reads it is a Reshape
            helper.make_node('Expand', [f'{name}_planes', f'{name}_times'], node.output, name)]
    _replace(graph, nodes)


def _usual_gelu(model: onnx.ModelProto) -> None:
    """
    Write GELU as (x (1 + erf)) 0.5, not as the exporter's x ((1 + erf) 0.5).

    It is the form that ONNX Runtime knows and computes in one pass instead of five.
    """
    producers = {node.output[0]: node for node in model.graph.node}
    reads = Counter(name for node in model.graph.node for name in node.input)
    halves = {weight.name for weight in model.graph.initializer
              if not weight.dims and numpy_helper.to_array(weight) == 0.5}
    for node in model.graph.node:
        if node.op_type != 'Mul':
            continue
        for x, name in (tuple(node.input), tuple(node.input)[::-1]):
            halved = producers.get(name)
            if halved is None or halved.op_type != 'Mul' or reads[name] != 1:
                continue
            half = [factor for factor in halved.input if factor in halves]
            sums = [factor for factor in halved.input if _adds_erf(producers, factor)]
            if half and sums:
                halved.input[:] = [x, sums[0]]
                node.input[:] = [name, half[0]]
                break


def _adds_erf(producers: dict[str, onnx.NodeProto], name: str) -> bool:
    node = producers.get(name)
    return node is not None and node.op_type == 'Add' and any(
        value in producers and producers[value].op_type == 'Erf' for value in node.input)


def _shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Return the shape of every tensor, 0 for a length that is not fixed."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    return {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for value in (*graph.input, *graph.output, *graph.value_info)}


def _attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    return next((helper.get_attribute_value(attribute) for attribute in node.attribute
                 if attribute.name == name), default)


def _replace(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    del graph.node[:]
    graph.node.extend(nodes)


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and weights that nothing reads any more."""
    used = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if not used.isdisjoint(node.output):
            used.update(node.input)
            kept.append(node)
    _replace(graph, kept[::-1])
    needed = [weight for weight in graph.initializer if weight.name in used]
    del graph.initializer[:]
    graph.initializer.extend(needed)
