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
"""Model files of a few kilobytes whose depth a test can predict: one per kind of model."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, TensorProto

from hybrid_depth.contract import METADATA_KEY, ModelSpec, SCHEMA
from hybrid_depth.scene_prompts import PromptTable, TABLE, write_table

RELATIVE_SIGMA = 0.1
MATCH_WEIGHT = 0.75  # of the posed model wherever a source is valid
# of the model that takes words: prompt -> factor on depth; the first is the neutral one
TINY_PROMPTS = {'a scene': 1.0, 'a kitchen': 0.5, 'a street': 2.0}
POSED = {'kind': 'posed', 'sources': 2, 'feature_channels': 2, 'feature_stride': 4}


def tiny_depth(image_rgb: np.ndarray, fx: float) -> np.ndarray:
    """Return the depth the tiny model gives for ``image_rgb`` (H, W, 3): (H, W) float32."""
    grey = image_rgb.astype(np.float32).mean(axis=-1)
    return np.float32(fx / 100) * (1 + grey / 255 * 10)


def tiny_spec(**overrides: Any) -> ModelSpec:
    """Return the contract of the tiny model, with ``overrides`` of its fields."""
    fields: dict[str, Any] = {
        'name': 'tiny', 'schema': SCHEMA, 'kind': 'single_frame', 'size_multiple': 16,
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


def tiny_matched_depth(sources: list[tuple[np.ndarray, float]]) -> np.ndarray:
    """
    Return what the posed tiny model's matching gives at feature resolution, (h, w) float32.

    ``sources``: grey level 0..1 (h, w) of each valid source and the z of its source_T_target.
    """
    return np.mean([1 + 10 * grey + abs(z) for grey, z in sources], axis=0, dtype=np.float32)


def tiny_posed_depth(single: np.ndarray, matched: np.ndarray) -> np.ndarray:
    """Fuse (H, W) single-frame and (h, w) matched depth as the posed tiny model does."""
    stride = POSED['feature_stride']
    return np.float32(1 - MATCH_WEIGHT) * single \
        + np.float32(MATCH_WEIGHT) * matched.repeat(stride, 0).repeat(stride, 1)


def write_tiny_posed_model(path: Path | str, **spec_overrides: Any) -> ModelSpec:
    """
    Write a recurrent model to ``path`` that meets the contract and return its contract.

    ``features`` are the grey level 0..1 and 1 minus it, averaged over 4x4 pixels. The single-frame
    branch is the tiny model; matching gives ``tiny_matched_depth``, and depth is
    ``tiny_posed_depth`` of both. Without a valid source all is as in the tiny model.
    """
    spec = tiny_spec(**{**POSED, **spec_overrides})
    save_model(path, tiny_posed_graph(), spec)
    return spec


def write_tiny_clip_prior_model(path: Path | str, **spec_overrides: Any) -> ModelSpec:
    """
    Write a model that takes words to ``path``, its prompts beside it, and return its contract.

    Depth is that of the tiny model times the first number of ``text``: see TINY_PROMPTS.
    """
    spec = tiny_spec(**{'kind': 'clip_prior', 'text_dim': 2, **spec_overrides})
    save_model(path, tiny_clip_prior_graph(), spec)
    features = np.array([[factor, 0] for factor in TINY_PROMPTS.values()], np.float32)
    write_table(Path(path).parent / TABLE, PromptTable(
        'a scene', 'tiny', 'random', 0, tuple(TINY_PROMPTS), features))
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


def tiny_clip_prior_graph() -> onnx.GraphProto:
    """Build the graph that takes words."""
    single = tiny_graph(depth_name='without_words')
    constants = {'first': np.array([0]), 'word_shape': np.array([1, 1, 1, 1])}
    nodes = [
        *(n for n in single.node if n.output != ['sigma']),
        helper.make_node('Gather', ['text', 'first'], ['factor_2d'], axis=1),
        helper.make_node('Reshape', ['factor_2d', 'word_shape'], ['factor']),
        helper.make_node('Mul', ['without_words', 'factor'], ['depth']),
        helper.make_node('Mul', ['depth', 'relative'], ['sigma']),
    ]
    shape = [1, 1, 'height', 'width']
    return helper.make_graph(
        nodes, 'tiny_clip_prior',
        [*single.input, helper.make_tensor_value_info('text', TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
         for name in ('depth', 'sigma')],
        [*single.initializer,
         *(numpy_helper.from_array(value, name) for name, value in constants.items())])


def tiny_posed_graph() -> onnx.GraphProto:
    """Build the recurrent graph."""
    single = tiny_graph(depth_name='single_full')
    node, float32 = helper.make_node, TensorProto.FLOAT
    constants = {
        'to_one': np.array(1 / 255, np.float32), 'one': np.array(1, np.float32),
        'ten': np.array(10, np.float32), 'weight': np.array(MATCH_WEIGHT, np.float32),
        'zero_index': np.array(0), 'z_starts': np.array([2, 3]), 'z_ends': np.array([3, 4]),
        'z_axes': np.array([2, 3]), 'valid_shape': np.array([1, 2, 1, 1]),
        'source_axis': np.array([1]), 'scales': np.array([1, 1, 4, 4], np.float32),
        'no_roi': np.array([], np.float32),
    }
    pool = {'kernel_shape': [4, 4], 'strides': [4, 4]}
    nodes = [
        *(n for n in single.node if n.output != ['sigma']),
        node('Mul', ['grey', 'to_one'], ['grey_one']),
        node('AveragePool', ['grey_one'], ['grey_small'], **pool),
        node('Sub', ['one', 'grey_small'], ['dark_small']),
        node('Concat', ['grey_small', 'dark_small'], ['features'], axis=1),
        node('AveragePool', ['single_full'], ['single_depth'], **pool),
        node('Gather', ['source_features', 'zero_index'], ['source_grey'], axis=2),
        node('Slice', ['source_T_target', 'z_starts', 'z_ends', 'z_axes'], ['z_signed']),
        node('Abs', ['z_signed'], ['z']),
        node('Mul', ['source_grey', 'ten'], ['source_ten']),
        node('Add', ['source_ten', 'one'], ['source_plus']),
        node('Add', ['source_plus', 'z'], ['per_source']),
        node('Reshape', ['source_valid', 'valid_shape'], ['valid']),
        node('Mul', ['per_source', 'valid'], ['weighted']),
        node('ReduceSum', ['weighted', 'source_axis'], ['sum'], keepdims=1),
        node('ReduceSum', ['valid', 'source_axis'], ['count'], keepdims=1),
        node('Max', ['count', 'one'], ['divisor']),
        node('Min', ['count', 'one'], ['any']),
        node('Sub', ['one', 'any'], ['none']),
        node('Div', ['sum', 'divisor'], ['mean']),
        node('Mul', ['single_depth', 'none'], ['fallback']),
        node('Add', ['mean', 'fallback'], ['matched_depth']),
        node('Mul', ['any', 'weight'], ['w']),
        node('Shape', ['single_depth'], ['small_shape']),
        node('Expand', ['w', 'small_shape'], ['match_weight']),
        node('Resize', ['matched_depth', 'no_roi', 'scales'], ['matched_full'], mode='nearest',
             coordinate_transformation_mode='asymmetric', nearest_mode='floor'),
        node('Sub', ['one', 'w'], ['rest']),
        node('Mul', ['single_full', 'rest'], ['from_single']),
        node('Mul', ['matched_full', 'w'], ['from_matched']),
        node('Add', ['from_single', 'from_matched'], ['depth']),
        node('Mul', ['depth', 'relative'], ['sigma']),
    ]
    feature_size = ['feature_height', 'feature_width']
    small = [1, 1, *feature_size]
    inputs = {'source_features': [1, 2, 2, *feature_size], 'source_T_target': [1, 2, 4, 4],
              'source_valid': [1, 2]}
    outputs = {'depth': [1, 1, 'height', 'width'], 'sigma': [1, 1, 'height', 'width'],
               'features': [1, 2, *feature_size], 'single_depth': small,
               'matched_depth': small, 'match_weight': small}
    infos = [[helper.make_tensor_value_info(name, float32, shape)
              for name, shape in shapes.items()] for shapes in (inputs, outputs)]
    return helper.make_graph(
        nodes, 'tiny_posed', [*single.input, *infos[0]], infos[1],
        [*single.initializer,
         *(numpy_helper.from_array(value, name) for name, value in constants.items())])
