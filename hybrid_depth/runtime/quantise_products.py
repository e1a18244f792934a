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
Multiplications by a weight matrix in 8 bits, with the range of each frame.

ONNX Runtime makes one operator of the nodes that stand here, DynamicQuantizeMatMul; where several
read the same values, those are quantised once.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from hybrid_depth.runtime.lighter import keep_nodes
from hybrid_depth.runtime.rounding import HIGHEST, rounded


class Product(NamedTuple):
    """A weight matrix (inputs, outputs) in 8 bits."""

    integers: np.ndarray
    scale: np.ndarray  # of each output


def product_of(matrix: np.ndarray, gram: np.ndarray) -> Product:
    """Return a weight matrix in 8 bits; ``gram`` as for ``rounded``."""
    scale = np.maximum(np.abs(matrix).max(axis=0) / HIGHEST, 1e-30).astype(np.float32)
    return Product(rounded(matrix / scale, gram), scale)


def quantise_products(model: Any, products: Mapping[str, Product]) -> None:
    """Make the MatMul nodes of an onnx ModelProto that ``products`` names compute in 8 bits."""
    from onnx import helper, numpy_helper, TensorProto
    graph = model.graph
    quantised = set[str]()
    nodes = []
    for node in graph.node:
        if node.name not in products:
            nodes.append(node)
            continue
        source, name = node.input[0], f'{node.name}_int8'
        integers, scale = products[node.name]
        graph.initializer.extend(
            numpy_helper.from_array(array, f'{name}_{part}') for part, array in (
                ('weight', integers), ('scale', scale), ('zero', np.zeros(len(scale), np.int8))))
        parts = [f'{source}_{part}' for part in ('bytes', 'scale', 'zero')]
        if source not in quantised:
            quantised.add(source)
            nodes.append(helper.make_node('DynamicQuantizeLinear', [source], parts,
                                          f'{source}_quantise'))
        nodes += [
            helper.make_node('MatMulInteger',
                             [parts[0], f'{name}_weight', parts[2], f'{name}_zero'],
                             [f'{name}_sum'], name),
            helper.make_node('Cast', [f'{name}_sum'], [f'{name}_real'], f'{name}_cast',
                             to=TensorProto.FLOAT),
            helper.make_node('Mul', [parts[1], f'{name}_scale'], [f'{name}_scales'],
                             f'{name}_scales'),
            helper.make_node('Mul', [f'{name}_real', f'{name}_scales'], [node.output[0]],
                             f'{name}_result')]
    keep_nodes(graph, nodes)
