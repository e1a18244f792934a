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

Done on the graph where it can be, so that it holds for all networks and leaves their code as one
would write it. Outputs change by the rounding of other orders of summation, no more.
"""
from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
import torch

_BLOCK = 16  # channels that a CPU with AVX-512 works on at a time; with AVX2 it is 8


def rewrite(model: onnx.ModelProto) -> None:
    """Rewrite ``model``, of opset 17 and with plain weights, in place."""
    for change in (_split_convolutions, _add_in_convolution, _one_clip, _usual_gelu):
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


def _add_in_convolution(model: onnx.ModelProto) -> None:
    """
    Let a convolution add what it is given: x + conv(x) is one with 1 more on its diagonal.

    ONNX Runtime does so by itself where x comes from a convolution of images and lies in blocks;
    elsewhere sum and ReLU are two more passes over all that comes out.
    """
    graph = model.graph
    producers = {node.output[0]: node for node in graph.node}
    reads = Counter(name for node in graph.node for name in node.input)
    weights = {weight.name: weight for weight in graph.initializer}
    nodes = []
    for node in graph.node:
        nodes.append(node)
        for x, name in (tuple(node.input), tuple(node.input)[::-1]) if node.op_type == 'Add' \
                else ():
            conv = producers.get(name)
            weight = weights.get(conv.input[1]) if conv is not None and conv.op_type == 'Conv' \
                and conv.input[0] == x and reads[name] == reads[conv.input[1]] == 1 else None
            if weight is None or _is_in_blocks(x, producers, weights):
                continue
            kernel = numpy_helper.to_array(weight).copy()
            taps = kernel.shape[2:]
            if kernel.shape[0] != kernel.shape[1] or not all(length % 2 for length in taps) \
                    or _attribute(conv, 'pads', [0] * 2 * len(taps)) \
                    != [length // 2 for length in taps] * 2 \
                    or any(set(_attribute(conv, what, [1])) != {1}
                           for what in ('strides', 'dilations')):
                continue
            every = np.arange(len(kernel))
            kernel[(every, every, *(length // 2 for length in taps))] += 1
            weight.CopyFrom(numpy_helper.from_array(kernel, weight.name))
            conv.output[0] = nodes.pop().output[0]
            producers[conv.output[0]] = conv
            break
    _replace(graph, nodes)


def _is_in_blocks(name: str, producers: dict[str, onnx.NodeProto],
                  weights: dict[str, onnx.TensorProto]) -> bool:
    """Whether ONNX Runtime holds a tensor in blocks of channels: it is of a convolution."""
    node = producers.get(name)
    while node is not None and node.op_type in ('Relu', 'Clip', 'Add'):
        node = producers.get(node.input[0])
    return node is not None and node.op_type == 'Conv' and node.input[1] in weights \
        and len(weights[node.input[1]].dims) == 4


def _one_clip(model: onnx.ModelProto) -> None:
    """Write Min(Max(x, a), b) with numbers a and b as Clip: one pass in place of two."""
    shapes = _shapes(model)
    producers = {node.output[0]: node for node in model.graph.node}
    reads = Counter(name for node in model.graph.node for name in node.input)
    for node in model.graph.node:
        inner = producers.get(node.input[0]) if node.op_type == 'Min' else None
        if inner is not None and inner.op_type == 'Max' and reads[inner.output[0]] == 1 \
                and len(inner.input) == len(node.input) == 2 \
                and shapes.get(inner.input[1]) == [] == shapes.get(node.input[1]):
            node.op_type = 'Clip'
            node.input[:] = [*inner.input, node.input[1]]


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


def _unshuffle(x: Any, downscale_factor: int) -> Any:
    """
    Fold blocks of pixels into channels, as F.pixel_unshuffle does, with the operator for it.

    The exporter moves six axes, and so single numbers, which takes ten times as long.
    """
    from onnxscript import opset18 as op
    folded = op.SpaceToDepth(x, blocksize=downscale_factor)
    channels = int(x.shape[1])
    if channels == 1:
        return folded
    # ONNX counts places in the block, then channels; torch the other way
    apart = op.Constant(value_ints=[0, downscale_factor**2, channels, -1])
    moved = op.Transpose(op.Reshape(folded, apart), perm=[0, 2, 1, 3])
    return op.Reshape(moved, op.Shape(folded))


# for torch.onnx.export(custom_translation_table=...)
ONNX_TRANSLATIONS = {torch.ops.aten.pixel_unshuffle.default: _unshuffle}


def _shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Return the shape of every tensor, 0 for a length that is not fixed."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    return {weight.name: list(weight.dims) for weight in graph.initializer} | {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
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
