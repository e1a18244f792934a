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
Run a graph as a GPU does that rounds every half-precision tensor to half precision.

ONNX Runtime has no kernels for half precision on most CPUs: it computes chains of such nodes in
single precision and rounds at their ends only, which flatters the graph.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper, TensorProto
import onnxruntime

_SPLITTER = 2.0**13 + 1  # of 24 significant bits, 11 are left (Dekker, 1971)


Run = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


def run_rounded(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray],
                threads: int = 1) -> dict[str, np.ndarray]:
    """Return the outputs; each result is rounded to 11 significant bits where it is float16."""
    return open_rounded(model, threads)(inputs)


def open_rounded(model: onnx.ModelProto, threads: int = 1) -> Run:
    """Return what ``run_rounded`` does with ``model``, to be called many times."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    halves = {value.name for value in inferred.value_info
              if value.type.tensor_type.elem_type == TensorProto.FLOAT16}
    nodes = []
    for node in model.graph.node:
        made = onnx.NodeProto()
        made.CopyFrom(node)
        for attribute in made.attribute:
            if made.op_type == 'Cast' and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
            if attribute.type == onnx.AttributeProto.TENSOR:
                attribute.t.CopyFrom(_in_single(attribute.t))
        rounding = []
        for index, name in enumerate(node.output):
            if name in halves:
                raw, big, low = (f'{name}__{part}' for part in ('raw', 'big', 'low'))
                made.output[index] = raw
                rounding += [helper.make_node('Mul', [raw, 'splitter'], [big]),
                             helper.make_node('Sub', [big, raw], [low]),
                             helper.make_node('Sub', [big, low], [name])]
        nodes += [made, *rounding]
    weights = [_in_single(weight) for weight in model.graph.initializer]
    weights.append(numpy_helper.from_array(np.float32(_SPLITTER), 'splitter'))
    graph = helper.make_graph(nodes, 'rounded', model.graph.input, model.graph.output, weights)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        helper.make_model(graph, opset_imports=model.opset_import,
                          ir_version=model.ir_version).SerializeToString(),
        options, providers=['CPUExecutionProvider'])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, dict(inputs)), strict=True))


def _in_single(tensor: onnx.TensorProto) -> onnx.TensorProto:
    if tensor.data_type != TensorProto.FLOAT16:
        return tensor
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
