# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A model file of a few hundred bytes whose depth a test can predict."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, TensorProto

from hybrid_depth.contract import METADATA_KEY, ModelSpec

RELATIVE_SIGMA = 0.1


def tiny_depth(image_rgb: np.ndarray, fx: float) -> np.ndarray:
    """Return the depth the tiny model gives for ``image_rgb`` (H, W, 3): (H, W) float32."""
    grey = image_rgb.astype(np.float32).mean(axis=-1)
    return np.float32(fx / 100) * (1 + grey / 255 * 10)


def tiny_spec(**overrides: Any) -> ModelSpec:
    """Return the contract of the tiny model, with ``overrides`` of its fields."""
    fields: dict[str, Any] = {
        'name': 'tiny', 'schema': 1, 'kind': 'single_frame', 'size_multiple': 16,
        'pixels': 96 * 128, 'min_depth_m': 0.1, 'max_depth_m': 100.0,
        'licence': 'Apache-2.0', 'trained_on': ('nothing',),
    }
    return ModelSpec(**{**fields, **overrides})


def write_tiny_model(path: Path | str, **spec_overrides: Any) -> ModelSpec:
    """
    Write a model to ``path`` that meets the contract and return its contract.

    depth = fx / 100 * (1 + mean(R, G, B) / 255 * 10) metres and sigma = 0.1 * depth, per pixel.
    """
    spec = tiny_spec(**spec_overrides)
    save_model(path, tiny_graph(), spec)
    return spec


def save_model(path: Path | str, graph: onnx.GraphProto, spec: ModelSpec | None) -> None:
    """Save ``graph`` with the metadata of ``spec``; None leaves the metadata out."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    if spec is not None:
        helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def tiny_graph(*, depth_name: str = 'depth', factor: float = 1.0, image_type: int | None = None,
               size: tuple[Any, Any] = ('height', 'width'),
               squeeze: bool = False) -> onnx.GraphProto:
    """
    Build the graph, or one that breaks the contract in one way.

    ``factor`` multiplies depth and sigma (NaN, 0 and -1 make bad outputs), ``size`` may be two
    fixed numbers, ``squeeze`` drops the channel axis of the outputs.
    """
    image_type = TensorProto.UINT8 if image_type is None else image_type
    height, width = size
    out_shape = [1, height, width] if squeeze else [1, 1, height, width]
    constants = {
        'gain': np.array(10 / 255 * 0.01 * factor, np.float32),
        'offset': np.array(0.01 * factor, np.float32),
        'relative': np.array(RELATIVE_SIGMA, np.float32),
        'starts': np.array([0, 0, 0]), 'ends': np.array([1, 1, 1]),
        'fx_shape': np.array([1, 1, 1, 1]), 'channel': np.array([1]),
    }
    raw = 'with_channel' if squeeze else depth_name
    node = helper.make_node
    nodes = [
        node('Cast', ['image'], ['image_f'], to=TensorProto.FLOAT),
        node('ReduceMean', ['image_f'], ['grey_hwc'], axes=[3], keepdims=1),
        node('Transpose', ['grey_hwc'], ['grey'], perm=[0, 3, 1, 2]),
        node('Mul', ['grey', 'gain'], ['scaled']),
        node('Add', ['scaled', 'offset'], ['per_focal']),
        node('Slice', ['K', 'starts', 'ends'], ['fx_cut']),
        node('Reshape', ['fx_cut', 'fx_shape'], ['fx']),
        node('Mul', ['per_focal', 'fx'], [raw]),
        *([node('Squeeze', [raw, 'channel'], [depth_name])] if squeeze else []),
        node('Mul', [depth_name, 'relative'], ['sigma']),
    ]
    return helper.make_graph(
        nodes, 'tiny',
        [helper.make_tensor_value_info('image', image_type, [1, height, width, 3]),
         helper.make_tensor_value_info('K', TensorProto.FLOAT, [1, 3, 3])],
        [helper.make_tensor_value_info(depth_name, TensorProto.FLOAT, out_shape),
         helper.make_tensor_value_info('sigma', TensorProto.FLOAT, out_shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()])
