# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What an exported graph needs before robots can read it: an older opset, and less to carry."""
from __future__ import annotations

import numpy as np
import onnx

from hybrid_depth.errors import ContractError

OPSET = 17  # the highest that TensorRT 10.3 and the runtimes before it read without loss
_HALF_FROM = 4096  # values of a weight that is worth storing in half precision
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
        elif node.op_type != 'Resize' or attributes & {'antialias', 'axes',
                                                       'keep_aspect_ratio_policy'}:
            raise ContractError(f'the graph has a {node.op_type} {sorted(attributes)} of opset '
                                f'{opset.version}, which has no equal in opset {OPSET}')
    opset.version = OPSET
    return model
