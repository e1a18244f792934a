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
"""Graphs of one input, for tests of what is rewritten in them."""
from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx import helper, numpy_helper, TensorProto
import onnxruntime

node = helper.make_node


def model_of(nodes: list[onnx.NodeProto], x: list[int | str], outputs: list[str],
             constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Return a graph that reads 'x', of that shape."""
    graph = helper.make_graph(
        nodes, 'graph', [helper.make_tensor_value_info('x', TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)


def answers(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    """Return all outputs for ``x``."""
    found: list[np.ndarray] = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=['CPUExecutionProvider']).run(None, {'x': x})
    return found


def kinds(model: onnx.ModelProto) -> Counter[str]:
    """Return how many operators there are of each kind."""
    return Counter(node.op_type for node in model.graph.node)
