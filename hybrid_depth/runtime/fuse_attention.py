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
Attention as the one operator of ONNX Runtime that never writes all scores to memory.

``com.microsoft.MultiHeadAttention`` on a CPU works on blocks of rows (as in FlashAttention, Dao
et al. 2022). It is no standard operator, so this is for files that CPUs alone load.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

_DOMAIN = 'com.microsoft'
_MOVES = ('Slice', 'Squeeze', 'Transpose')  # between queries, keys and values joined, and apart


class _Attention(NamedTuple):
    softmax: str  # name of the node
    joined: str  # (B, N, 3 x heads x D): queries, keys, values
    heads: int
    scale: float  # of the scores
    result: str  # (B, N, heads x D), which ``last`` makes
    last: str


def fuse_attention(model: Any) -> int:
    """
    Fuse every self-attention of an onnx ModelProto in place; return how many there were.

    Known is the form that exporting timm's vision transformers gives: one product for queries,
    keys and values, Reshape to (1, N, 3, heads, D), one Slice for each. Others stay as they are.
    """
    from onnx import helper, numpy_helper
    graph = model.graph
    constants = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer
                 if np.prod(weight.dims) <= 8}
    producers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found = [_attention(node, constants, producers, readers) for node in graph.node
             if node.op_type == 'Softmax']
    fused = {one.last: one for one in found if one}
    if not fused:
        return 0
    split: dict[str, Any] = {'num_outputs': 3} if _opset(model) >= 18 else {}
    nodes = []
    for node in graph.node:
        one = fused.get(node.name)
        if one is None:
            nodes.append(node)
            continue
        parts = [f'{one.softmax}_{what}' for what in ('queries', 'keys', 'values')]
        nodes += [helper.make_node('Split', [one.joined], parts, f'{one.softmax}_split', axis=2,
                                   **split),
                  helper.make_node('MultiHeadAttention', parts, [one.result],
                                   f'{one.softmax}_attention', domain=_DOMAIN,
                                   num_heads=one.heads, scale=one.scale)]
    _keep_used(graph, nodes)
    model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    return len(fused)


def _attention(softmax: Any, constants: Mapping[str, np.ndarray], producers: Mapping[str, Any],
               readers: Mapping[str, list[Any]]) -> _Attention | None:
    """Return the attention that a Softmax is part of, None where it is none or another form."""
    scores = producers.get(softmax.input[0])
    after = [softmax]
    for kind in ('MatMul', 'Transpose', 'Reshape'):
        following = readers.get(after[-1].output[0], [])
        if len(following) != 1 or following[0].op_type != kind:
            return None
        after.append(following[0])
    if scores is None or scores.op_type != 'MatMul':
        return None
    scale, sources = 1.0, []
    for index, name in enumerate((*scores.input, after[1].input[1])):
        node, factor, piece = _back(name, constants, producers)
        if node is None or node.op_type != 'Reshape' or piece != index:
            return None
        scale *= factor
        sources.append(node)
    shape = constants.get(sources[0].input[1])
    if any(node is not sources[0] for node in sources) or shape is None or len(shape) != 5 \
            or shape[2] != 3:
        return None
    return _Attention(softmax.name, sources[0].input[0], int(shape[3]), scale,
                      after[-1].output[0], after[-1].name)


def _back(name: str, constants: Mapping[str, np.ndarray],
          producers: Mapping[str, Any]) -> tuple[Any, float, int]:
    """Return where a factor of a product comes from, what it is multiplied by, which slice."""
    scale, piece = 1.0, -1
    while (node := producers.get(name)) is not None:
        scalars = [one for one in node.input if one in constants and constants[one].size == 1]
        if node.op_type == 'Mul' and len(scalars) == 1:
            scale *= float(constants[scalars[0]].item())
            name = next(one for one in node.input if one != scalars[0])
        elif node.op_type in _MOVES:
            if node.op_type == 'Slice' and len(scalars) > 1:
                piece = int(constants[node.input[1]].item())
            name = node.input[0]
        else:
            break
    return node, scale, piece


def _opset(model: Any) -> int:
    return int(next(entry.version for entry in model.opset_import if not entry.domain))


def _keep_used(graph: Any, nodes: list[Any]) -> None:
    """Give ``graph`` those of ``nodes``, in their order, that its outputs need."""
    used = {value.name for value in graph.output}
    kept = []
    for node in reversed(nodes):
        if used.intersection(node.output):
            used.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
