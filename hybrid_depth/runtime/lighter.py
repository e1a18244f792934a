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
Rewrites that leave every value as it is and a CPU less to do, for files that CPUs alone load.

Each operator costs a CPU a wake-up of its other threads and one more pass over memory.
"""
from __future__ import annotations

from typing import Any

import numpy as np


def lighten(model: Any) -> int:
    """Rewrite an onnx ModelProto in place, attention fused before; return how many places."""
    return sum(rewrite(model.graph) for rewrite in (_fold_scales, _split_products,
                                                    _keep_norms_apart, _weigh_sums))


def _fold_scales(graph: Any) -> int:
    """Multiply weights and bias of a product by the vector that its result is multiplied by."""
    from onnx import numpy_helper
    weights = {weight.name: weight for weight in graph.initializer}
    folded = set[str]()
    for node, product, add, (weight, bias) in _with_bias(graph, 'Mul'):
        scales = [name for name in node.input if name in weights]
        if len(scales) != 1 or list(weights[scales[0]].dims) != list(weights[bias].dims):
            continue
        scale = numpy_helper.to_array(weights[scales[0]])
        for holder, place, name in ((product, 1, weight),
                                    (add, list(add.input).index(bias), bias)):
            holder.input[place] = f'{node.name}_{name}'  # others may read the old one
            graph.initializer.append(numpy_helper.from_array(
                numpy_helper.to_array(weights[name]) * scale, holder.input[place]))
        add.output[0] = node.output[0]
        folded.add(node.name)
    keep_nodes(graph, [node for node in graph.node if node.name not in folded])
    return len(folded)


def _split_products(graph: Any) -> int:
    """Make one product for each equal part that the result of a product is split into."""
    from onnx import helper, numpy_helper
    weights = {weight.name: weight for weight in graph.initializer}
    instead: dict[str, list[Any]] = {}
    gone = set[str]()
    for node, product, add, names in _with_bias(graph, 'Split'):
        weight, bias = (numpy_helper.to_array(weights[name]) for name in names)
        axis = next((one.i for one in node.attribute if one.name == 'axis'), 0)
        if len(node.input) > 1 or axis != 2 or bias.ndim != 1 or len(bias) % len(node.output):
            continue
        parts = []
        for result, *values in zip(node.output, np.split(weight, len(node.output), 1),
                                   np.split(bias, len(node.output)), strict=True):
            inputs = [f'{result}_weight', f'{result}_bias']
            graph.initializer.extend(
                numpy_helper.from_array(np.ascontiguousarray(value), name)
                for value, name in zip(values, inputs, strict=True))
            parts += [helper.make_node('MatMul', [product.input[0], inputs[0]],
                                       [f'{result}_product'], f'{result}_product'),
                      helper.make_node('Add', [f'{result}_product', inputs[1]], [result],
                                       f'{result}_sum')]
        instead[node.name] = parts
        gone.update((product.name, add.name))
    keep_nodes(graph, [one for node in graph.node if node.name not in gone
                       for one in instead.get(node.name, [node])])
    return len(instead)


def _keep_norms_apart(graph: Any) -> int:
    """
    Write a sum that only a LayerNormalization reads as Sum.

    ONNX Runtime 1.31 would make one operator of both, which takes four times as long.
    """
    readers = readers_of(graph)
    sums = [node for node in graph.node if node.op_type == 'Add'
            and [one and one.op_type for one in readers.get(node.output[0], [])]
            == ['LayerNormalization']]
    for node in sums:
        node.op_type = 'Sum'
    return len(sums)


def _weigh_sums(graph: Any) -> int:
    """
    Weigh in the product that sums over an axis, not in a pass before it.

    1 (c x) = c x for a product with ones and a constant c of that axis. OpenVINO 2026.4 takes such
    a constant for a scale of bytes, and loses the axis.
    """
    from onnx import numpy_helper
    arrays = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer
              if 2 <= len(weight.dims) <= 4}
    producers = {name: node for node in graph.node for name in node.output}
    readers = readers_of(graph)
    weighed = set[str]()
    for node in graph.node:
        ones = arrays.get(node.input[0]) if node.op_type == 'MatMul' else None
        flat = producers.get(node.input[1]) if ones is not None else None
        mul = producers.get(flat.input[0]) if flat is not None else None
        if ones is None or flat is None or mul is None or (flat.op_type, mul.op_type) != (
                'Reshape', 'Mul') or ones.shape[:-1] != (1, 1) or (ones != 1).any() \
                or any(len(readers[one.output[0]]) > 1 for one in (flat, mul)):
            continue
        for x, name in (tuple(mul.input), tuple(mul.input)[::-1]):
            if name in arrays and arrays[name].shape == (1, ones.shape[2], 1, 1):
                node.input[0], flat.input[0] = f'{node.name}_weights', x
                graph.initializer.append(numpy_helper.from_array(
                    arrays[name].reshape(1, 1, -1), node.input[0]))
                weighed.add(mul.name)
                break
    keep_nodes(graph, [node for node in graph.node if node.name not in weighed])
    return len(weighed)


def _with_bias(graph: Any, kind: str) -> list[tuple[Any, Any, Any, tuple[str, str]]]:
    """Return the nodes of a ``kind`` that alone read a product with bias; both, their weights."""
    weights = {weight.name for weight in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    readers = readers_of(graph)

    def before(node: Any, kind: str) -> Any:
        sources = [name for name in node.input if name not in weights]
        found = producers.get(sources[0]) if len(sources) == 1 else None
        return found if found is not None and found.op_type == kind \
            and len(readers[sources[0]]) == 1 else None
    found = []
    for node in graph.node:
        add: Any = before(node, 'Add') if node.op_type == kind else None
        product = before(add, 'MatMul') if add is not None else None
        if product is not None and product.input[1] in weights:
            bias = next(name for name in add.input if name in weights)
            found.append((node, product, add, (product.input[1], bias)))
    return found


def readers_of(graph: Any) -> dict[str, list[Any]]:
    """Return the nodes that read each value; an output of the graph counts as read by None."""
    readers: dict[str, list[Any]] = {value.name: [None] for value in graph.output}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def keep_nodes(graph: Any, nodes: list[Any]) -> None:
    """Leave ``nodes`` in a graph, in their order, and of constants those that they read."""
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [weight for weight in graph.initializer if weight.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
