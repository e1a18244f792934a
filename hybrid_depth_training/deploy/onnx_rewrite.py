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
"""What an exported graph needs before robots can read it: an older opset, and less to carry."""
from __future__ import annotations

import numpy as np
import onnx

from hybrid_depth.errors import ContractError

OPSET = 17  # the highest that TensorRT 10.3 and the runtimes before it read without loss
_HALF_FROM = 4096  # values of a weight that is worth storing in half precision
# what may stand between the image and its Cast: they do the same to floats
_MOVES = frozenset({'Transpose', 'Reshape', 'Slice', 'Squeeze', 'Unsqueeze', 'Gather', 'Identity',
                    'Flatten'})
# attributes that opset 18 added, with the values that mean what opset 17 does
_NEW_DEFAULTS = (('antialias', 0), ('keep_aspect_ratio_policy', b'stretch'),
                 ('noop_with_empty_axes', 0))


def store_in_half(model: onnx.ModelProto) -> None:
    """
    Store weights that half precision holds exactly in half precision, with a Cast behind them.

    Runtimes undo it when they load the file, which is a third smaller for it where an encoder was
    published in half precision. Nothing is rounded.
    """
    casts = []
    for weight in model.graph.initializer:
        values = onnx.numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < _HALF_FROM:
            continue
        with np.errstate(over='ignore'):
            half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            continue
        name = weight.name
        weight.CopyFrom(onnx.numpy_helper.from_array(half, f'{name}_half'))
        casts.append(onnx.helper.make_node('Cast', [f'{name}_half'], [name],
                                           to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def cast_image_first(model: onnx.ModelProto) -> None:
    """
    Make a Cast the only reader of the image of bytes, which is all that TensorRT allows.

    The exporter writes ``image.permute(...).float()`` as it stands: a Transpose of bytes first.
    """
    graph = model.graph
    images = {value.name for value in graph.input
              if value.type.tensor_type.elem_type == onnx.TensorProto.UINT8}
    of_bytes = set(images)  # the image, and what moves its bytes about
    renamed = {name: f'{name}_float' for name in images}
    nodes = [onnx.helper.make_node('Cast', [name], [renamed[name]], name=f'cast_{name}',
                                   to=onnx.TensorProto.FLOAT) for name in sorted(images)]
    for node in graph.node:
        if node.op_type == 'Cast' and node.input[0] in of_bytes:
            if node.attribute[0].i != onnx.TensorProto.FLOAT:
                raise ContractError(f'the graph casts its image to something else than float32 '
                                    f'({node.name!r}); cast it to float32')
            renamed[node.output[0]] = renamed.get(node.input[0], node.input[0])
            continue
        if of_bytes.intersection(node.input) and node.op_type != 'Shape':
            if node.op_type not in _MOVES:
                raise ContractError(f'the graph computes with bytes ({node.op_type} '
                                    f'{node.name!r}); cast the image to float32 first')
            of_bytes.update(node.output)
        inputs = [renamed.get(name, name) for name in node.input]
        del node.input[:]
        node.input.extend(inputs)
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def as_opset_17(model: onnx.ModelProto) -> onnx.ModelProto:
    """
    Rewrite a model of opset 18, which is what the exporter writes, in terms of opset 17.

    ONNX's own converter cannot. Of the operators that opset 18 changed, those that occur take the
    axes of a reduction as an input instead of an attribute, or have new attributes that are not
    used. Raises ContractError for any other.
    """
    (opset,) = (entry for entry in model.opset_import if entry.domain == '')
    if opset.version == OPSET:
        return model
    if opset.version != 18:
        raise ContractError(f'the graph is of opset {opset.version}; expected 18 or {OPSET}')
    constants = {value.name: onnx.numpy_helper.to_array(value)
                 for value in model.graph.initializer}
    for node in model.graph.node:
        if onnx.defs.get_schema(node.op_type, 18).since_version < 18:
            continue
        for attribute in list(node.attribute):
            if (attribute.name, onnx.helper.get_attribute_value(attribute)) in _NEW_DEFAULTS:
                node.attribute.remove(attribute)
        attributes = {attribute.name for attribute in node.attribute}
        if node.op_type.startswith('Reduce') and 'noop_with_empty_axes' not in attributes \
                and len(node.input) == 2 \
                and node.input[1] in constants:
            axes = constants[node.input[1]].tolist()
            del node.input[1]
            node.attribute.append(onnx.helper.make_attribute('axes', axes))
        elif node.op_type == 'Pad' and len(node.input) < 4:
            continue  # the fourth, axes, is what is new
        elif node.op_type != 'Resize' or attributes & {'antialias', 'axes',
                                                       'keep_aspect_ratio_policy'}:
            raise ContractError(f'the graph has a {node.op_type} {sorted(attributes)} of opset '
                                f'{opset.version}, which has no equal in opset {OPSET}')
    opset.version = OPSET
    return model
