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
One convolution where an exported graph has two and the sum of both.

Exports have few channels that fill no block of the float kernel in a convolution of their own. In
8 bits that costs more than it saves: two more passes over the result, and the sum is of values
that are rounded already, whose range is wider than its own.
"""
from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from hybrid_depth.runtime.lighter import keep_nodes, readers_of

_BLOCK = 4  # channels: the kernel of 8 bits takes twice as long for another number


def join_sums(model: Any, layers: Collection[str]) -> None:
    """
    Join the convolutions of an onnx ModelProto in place whose sum alone is read.

    One of both is one of ``layers`` and keeps its name.
    """
    from onnx import numpy_helper
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    readers = readers_of(graph)
    weights = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
    nodes, gone = [], set[str]()
    for node in graph.node:
        pair = _pair(node, layers, producers, readers)
        if not pair:
            nodes.append(node)
            continue
        parts = [pair[0].input[0]]
        before = producers.get(parts[0])
        if before is not None and before.op_type == 'Concat' and len(readers[parts[0]]) == 1 \
                and before.attribute[0].i == 1:
            gone.add(parts[0])
            parts = list(before.input)
        gone.update(one.output[0] for one in pair)
        made, constants = _one(pair, parts, node.output[0], weights)
        nodes += made
        graph.initializer.extend(numpy_helper.from_array(array, name)
                                 for name, array in constants.items())
    keep_nodes(graph, [node for node in nodes if not gone.intersection(node.output)])


def _pair(node: Any, layers: Collection[str], producers: Mapping[str, Any],
          readers: Mapping[str, list[Any]]) -> list[Any]:
    """Return the two convolutions that a node adds, one of ``layers`` first; else []."""
    if node.op_type != 'Add':
        return []
    pair: list[Any] = [producers[name] for name in node.input if name in producers]
    if [one.op_type for one in pair] != ['Conv', 'Conv'] \
            or any(len(readers[one.output[0]]) > 1 for one in pair):
        return []
    ways = [{one.name: one for one in conv.attribute} for conv in pair]
    pair.sort(key=lambda one: one.name not in layers)
    return pair if ways[0] == ways[1] and pair[0].name in layers else []


def _one(pair: list[Any], parts: list[str], result: str, weights: Mapping[str, np.ndarray],
         ) -> tuple[list[Any], dict[str, np.ndarray]]:
    """Return the nodes of the convolution that makes ``result`` of both, and their constants."""
    from onnx import helper
    first, second = pair
    name = first.name
    kernel = np.concatenate([weights[one.input[1]] for one in pair], 1)
    bias = np.zeros(len(kernel), np.float32)
    for one in pair:
        bias = bias + weights[one.input[2]] if len(one.input) > 2 else bias
    more = -kernel.shape[1] % _BLOCK
    conv = type(first)()
    conv.CopyFrom(first)
    del conv.input[:]
    conv.input.extend(f'{name}_{part}' for part in ('both', 'both_weight', 'both_bias'))
    conv.output[0] = result
    nodes = [
        helper.make_node('Pad', [second.input[0], f'{name}_more'], [f'{name}_padded'],
                         f'{name}_pad'),
        helper.make_node('Concat', [*parts, f'{name}_padded'], [conv.input[0]], f'{name}_both',
                         axis=1), conv]
    return nodes, {f'{name}_both_weight': np.pad(kernel, [(0, 0), (0, more), (0, 0), (0, 0)]),
                   f'{name}_both_bias': bias,
                   f'{name}_more': np.array([0, 0, 0, 0, 0, more, 0, 0])}
