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
A world whose depth is known to the last bit: images, cameras, motion, and the model's file.

The model gives ``depth_of`` the image's own pixels and K, times more than one where a source moved
farther than the robot ever does. Every image shows its own number, so a depth image tells which
image it was made of, with which intrinsics, and whether a false motion had a part in it.
"""
from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth.contract import METADATA_KEY, ModelSpec, SCHEMA

FRAME = 'camera_optical_frame'
PIXELS = 96 * 128
STRIDE = 4  # of the feature maps
SOURCES = 2
_REACH_M = 1.0  # the robot goes to and fro so far from its start
MOTION_LIMIT_M = 2.0 * _REACH_M + 0.1  # no two poses of the robot are farther apart
_SPEED_RADPS = 0.8
_GREY, _INK = 110, 150  # of the ground and of the bits of the number
_BITS, _ROWS = 16, 16
POISON = (255, 0, 255)  # colour of the first pixel at which the soak's runtime runs out of memory


def camera(width: int = 128, height: int = 96, focal: float = 100.0) -> CameraModel:
    """Return a camera whose images the network takes as they are: nothing is resampled."""
    if width % 16 or height % 16 or width * height != PIXELS:
        raise ValueError(f'{width}x{height}: expected multiples of 16, {PIXELS} pixels in all')
    return CameraModel(width, height, focal, focal, width / 2 - 0.5, height / 2 - 0.5)


CAMERAS = {
    'front': camera(),
    'tele': camera(focal=150.0),  # as large as 'front': only the intrinsics tell them apart
    'wide': camera(192, 64),
}


def image_of(number: int, model: CameraModel) -> np.ndarray:
    """Return image ``number``, (H, W, 3) uint8: grey ground, the number's bits along the top."""
    image = np.full((model.height, model.width, 3), _GREY, np.uint8)
    bit_width = model.width // _BITS
    for bit in range(_BITS):
        if number >> bit & 1:
            image[:_ROWS, bit * bit_width:(bit + 1) * bit_width] = _INK
    return image


def depth_of(image_rgb: np.ndarray, fx: float) -> np.ndarray:
    """Return the true depth of an image, (H, W) float32 metres."""
    grey = image_rgb.astype(np.float32).mean(axis=-1)
    return np.float32(fx / 100) * (1 + grey / 255 * 10)


def position_m(seconds: float) -> float:
    """Return how far along its optical axis the camera is."""
    return _REACH_M * math.sin(_SPEED_RADPS * seconds)


def speed_mps(seconds: float) -> float:
    """Return the derivative of ``position_m``."""
    return _REACH_M * _SPEED_RADPS * math.cos(_SPEED_RADPS * seconds)


def model_spec(name: str = 'soak') -> ModelSpec:
    """Return the contract of the soak's model."""
    return ModelSpec(name, SCHEMA, 'posed', 16, PIXELS, 0.1, 100.0, 'Apache-2.0', ('nothing',),
                     SOURCES, 1, STRIDE)


def write_model(path: Path, *, factor: float = 1.0) -> None:
    """Write the model; ``factor`` other than 1 makes another model of the same contract."""
    import onnx
    from onnx import helper, numpy_helper, TensorProto
    node, float32 = helper.make_node, TensorProto.FLOAT
    constants = {
        'gain': np.array(10 / 255 * 0.01 * factor, np.float32),
        'offset': np.array(0.01 * factor, np.float32), 'relative': np.array(0.1, np.float32),
        'limit': np.array(MOTION_LIMIT_M, np.float32), 'one': np.array(1, np.float32),
        'first': np.array([0, 0, 0]), 'second': np.array([1, 1, 1]),
        'scalar': np.array([1, 1, 1, 1]),
        'shift_from': np.array([0, 3]), 'shift_to': np.array([3, 4]),
        'shift_axes': np.array([2, 3]), 'reduced': np.array([2, 3]),
    }
    pool: dict[str, Any] = {'kernel_shape': [STRIDE, STRIDE], 'strides': [STRIDE, STRIDE]}
    nodes = [
        node('Cast', ['image'], ['pixels'], to=float32),
        node('ReduceMean', ['pixels'], ['grey_last'], axes=[3], keepdims=1),
        node('Transpose', ['grey_last'], ['grey'], perm=[0, 3, 1, 2]),
        node('Mul', ['grey', 'gain'], ['scaled']),
        node('Add', ['scaled', 'offset'], ['per_focal']),
        node('Slice', ['K', 'first', 'second'], ['fx_cut']),
        node('Reshape', ['fx_cut', 'scalar'], ['fx']),
        node('Mul', ['per_focal', 'fx'], ['single_full']),
        # how far beyond what the robot can do the farthest valid source has moved
        node('Slice', ['source_T_target', 'shift_from', 'shift_to', 'shift_axes'], ['shift']),
        node('Mul', ['shift', 'shift'], ['squares']),
        node('ReduceSum', ['squares', 'reduced'], ['square'], keepdims=0),
        node('Sqrt', ['square'], ['way']),
        node('Sub', ['way', 'limit'], ['beyond']),
        node('Relu', ['beyond'], ['excess']),
        node('Mul', ['excess', 'source_valid'], ['excess_valid']),
        node('ReduceMax', ['excess_valid'], ['worst'], axes=[1], keepdims=1),
        node('Reshape', ['worst', 'scalar'], ['worst_all']),
        node('Add', ['worst_all', 'one'], ['distortion']),
        node('Mul', ['single_full', 'distortion'], ['depth']),
        node('Mul', ['depth', 'relative'], ['sigma']),
        node('AveragePool', ['single_full'], ['single_depth'], **pool),
        node('AveragePool', ['depth'], ['matched_depth'], **pool),
        node('AveragePool', ['grey'], ['features'], **pool),
        node('ReduceMax', ['source_valid'], ['any_flat'], axes=[1], keepdims=1),
        node('Reshape', ['any_flat', 'scalar'], ['any']),
        node('Shape', ['single_depth'], ['small_shape']),
        node('Expand', ['any', 'small_shape'], ['match_weight']),
    ]
    full: list[Any] = [1, 1, 'height', 'width']
    small: list[Any] = [1, 1, 'feature_height', 'feature_width']
    inputs = {'K': [1, 3, 3], 'source_features': [1, SOURCES, *small[1:]],
              'source_T_target': [1, SOURCES, 4, 4], 'source_valid': [1, SOURCES]}
    outputs = {'depth': full, 'sigma': full, 'features': small, 'single_depth': small,
               'matched_depth': small, 'match_weight': small}
    graph = helper.make_graph(
        nodes, 'soak',
        [helper.make_tensor_value_info('image', TensorProto.UINT8, [1, 'height', 'width', 3]),
         *(helper.make_tensor_value_info(name, float32, shape) for name, shape in inputs.items())],
        [helper.make_tensor_value_info(name, float32, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    helper.set_model_props(model, {METADATA_KEY: model_spec().to_json()})
    onnx.save(model, str(path))
