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
"""Which layers may compute in 8 bits, and the groups that they are tried in."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

_PRODUCT_GROUPS = 4  # at most
# multiplications in float that one value in or out costs in 8 bits, by times of ONNX Runtime:
# convolutions take them in another order of axes
_BORDER = {'MatMul': 10, 'Conv': 70}
_LEAST_CHANNELS = 16  # into a convolution: kernels work on blocks of channels


def candidates(model: Any) -> list[str]:
    """
    Return the names of the layers that may be quantised, in the order of the graph.

    Dense convolutions of many channels of images (of volumes, ONNX Runtime has no faster one in 8
    bits), and multiplications by a weight matrix; not the first convolution, and not the last ones
    on the way to an output.
    """
    weights = {weight.name: tuple(weight.dims) for weight in model.graph.initializer}
    layers = [node for node in model.graph.node if node.op_type in ('Conv', 'MatMul')
              and len(weights.get(node.input[1], ())) >= 2]
    last = _last_layers(model.graph, {node.name for node in layers})
    found = []
    for node in layers[1:]:
        shape = weights[node.input[1]]
        is_dense = node.op_type == 'MatMul' or (
            len(shape) == 4 and shape[1] >= _LEAST_CHANNELS
            and all(one.i == 1 for one in node.attribute if one.name == 'group'))
        if is_dense and node.name not in last:
            found.append(node.name)
    return found


def gain_of(node: Any, shape: tuple[int, ...], x: np.ndarray, y: np.ndarray) -> int:
    """
    Return the multiplications in float that a layer saves the time of by 8 bits.

    Its weights are of ``shape``, it makes ``y`` of ``x``.
    """
    results = shape[0] if node.op_type == 'Conv' else shape[-1]
    work = y.size * int(np.prod(shape)) // results
    return work - _BORDER[node.op_type] * (x.size + y.size)


def groups_of(layers: Sequence[str], kinds: Mapping[str, str],
              after: Mapping[str, str]) -> list[list[str]]:
    """
    Split ``layers`` into groups of one kind.

    Products cost depth little and gain the most: few groups of neighbours. Of convolutions each is
    another case, but where one reads what the other makes (``after``) they go together.
    """
    products = [name for name in layers if kinds[name] == 'MatMul']
    count = min(_PRODUCT_GROUPS, len(products))
    bounds = np.linspace(0, len(products), count + 1).astype(int)
    groups = [products[a:b] for a, b in pairwise(bounds) if a < b]
    of: dict[str, list[str]] = {}
    for name in layers:
        if kinds[name] == 'Conv':
            group = of.get(name, [])
            if not group:
                groups.append(group)
            group.append(name)
            if name in after:
                of[after[name]] = group
    return groups


def _last_layers(graph: Any, layers: set[str]) -> set[str]:
    """Return the first of ``layers`` that one meets on each way back from the outputs."""
    producers = {name: node for node in graph.node for name in node.output}
    ways, seen, found = [value.name for value in graph.output], set[str](), set[str]()
    while ways:
        name = ways.pop()
        node = producers.get(name)
        if node is None or name in seen or node.op_type == 'Shape':
            continue
        seen.add(name)
        if node.name in layers:
            found.add(node.name)
        else:
            ways += node.input
    return found
