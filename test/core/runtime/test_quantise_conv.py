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
"""One convolution in 8 bits: exact but for rounding, whatever its channels range over."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper, TensorProto
import onnxruntime
import pytest

from hybrid_depth.runtime.quantise_conv import (
    chains,
    Convolution,
    convolution_of,
    quantise_convolutions,
    ranges_of,
    widened,
)
from hybrid_depth.runtime.rounding import gram_of

RNG = np.random.default_rng(0)
CHANNELS, RESULTS = 24, 16


def model_of(kernel: np.ndarray, bias: np.ndarray | None) -> onnx.ModelProto:
    weights = {'w': kernel} | ({} if bias is None else {'b': bias})
    graph = helper.make_graph(
        [helper.make_node('Conv', ['x', *weights], ['y'], name='conv', pads=[1, 1, 1, 1])], 'one',
        [helper.make_tensor_value_info('x', TensorProto.FLOAT, [1, CHANNELS, 12, 20])],
        [helper.make_tensor_value_info('y', TensorProto.FLOAT, [1, RESULTS, 12, 20])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)


def answer(model: onnx.ModelProto, x: np.ndarray, optimised: Path | None = None) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if optimised:
        options.optimized_model_filepath = str(optimised)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options,
                                           providers=['CPUExecutionProvider'])
    found: np.ndarray = session.run(None, {'x': x})[0]
    return found


def quantised(kernel: np.ndarray, bias: np.ndarray | None, x: np.ndarray,
              y: np.ndarray) -> Convolution:
    node = helper.make_node('Conv', ['x', 'w'], ['y'], pads=[1, 1, 1, 1])
    return convolution_of(kernel, bias, ranges_of(x, y), gram_of(node, kernel.shape, x))


def relative(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return the error of each channel, over how much that channel varies."""
    error: np.ndarray = (np.abs(found - expected).mean(axis=(0, 2, 3))
                         / expected.std(axis=(0, 2, 3)))
    return error


@pytest.mark.parametrize('with_bias', [True, False])
def test_each_channel_keeps_its_precision(with_bias: bool, tmp_path: Path) -> None:
    """Channels that range over 1 and over 100: one scale for all would leave the first 1 step."""
    wide = np.where(np.arange(CHANNELS) % 2, 1.0, 100.0).astype(np.float32)[:, None, None]
    x = (RNG.standard_normal((1, CHANNELS, 12, 20)) * wide + wide).astype(np.float32)
    kernel = RNG.standard_normal((RESULTS, CHANNELS, 3, 3)).astype(np.float32) / wide
    kernel *= np.geomspace(0.1, 10, RESULTS, dtype=np.float32)[:, None, None, None]
    bias = RNG.standard_normal(RESULTS).astype(np.float32) if with_bias else None
    model = model_of(kernel, bias)
    expected = answer(model, x)
    quantise_convolutions(model, {'conv': quantised(kernel, bias, x, expected)})
    assert relative(answer(model, x, tmp_path / 'optimised.onnx'), expected).max() < 0.03
    optimised = onnx.load(tmp_path / 'optimised.onnx')
    assert 'QLinearConv' in {node.op_type for node in optimised.graph.node}
    assert 'Conv' not in {node.op_type for node in optimised.graph.node}
    assert 'w' not in {weight.name for weight in optimised.graph.initializer}


def test_channels_that_are_always_0_do_no_harm() -> None:
    x = RNG.standard_normal((1, CHANNELS, 12, 20)).astype(np.float32)
    x[:, :3] = 0
    kernel = RNG.standard_normal((RESULTS, CHANNELS, 3, 3)).astype(np.float32)
    kernel[:, 5], kernel[0] = 0, 0
    bias = np.full(RESULTS, 3, np.float32)
    model = model_of(kernel, bias)
    expected = answer(model, x)
    quantise_convolutions(model, {'conv': quantised(kernel, bias, x, expected)})
    found = answer(model, x)
    np.testing.assert_allclose(found[:, 0], 3, rtol=1e-2)
    assert relative(found[:, 1:], expected[:, 1:]).max() < 0.02


def two(with_residual: bool) -> tuple[onnx.ModelProto, list[np.ndarray]]:
    """Return Conv, ReLU, Conv, and with a residual the sum of what both convolutions make."""
    kernels = [RNG.standard_normal((CHANNELS, CHANNELS, 3, 3)).astype(np.float32) for _ in 'ab']
    same = {'pads': [1, 1, 1, 1]}
    node = helper.make_node
    nodes = [node('Conv', ['x', 'a'], ['ya'], name='first', **same),
             node('Relu', ['ya'], ['r'], name='relu'),
             node('Conv', ['r', 'b'], ['yb'], name='second', **same),
             node('Mul', ['r', 'tens'], ['r10'], name='tens') if with_residual
             else node('Identity', ['yb'], ['y'], name='y')]
    nodes += [node('Add', ['r10', 'yb'], ['y'], name='residual')] if with_residual else []
    graph = helper.make_graph(
        nodes, 'two',
        [helper.make_tensor_value_info('x', TensorProto.FLOAT, [1, CHANNELS, 12, 20])],
        [helper.make_tensor_value_info('y', TensorProto.FLOAT, [1, CHANNELS, 12, 20])],
        [numpy_helper.from_array(value, name) for name, value in (
            ('a', kernels[0]), ('b', kernels[1]), ('tens', np.array(10, np.float32)))])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)],
                             ir_version=8), kernels


@pytest.mark.parametrize('with_residual', [False, True])
def test_a_convolution_reads_the_bytes_of_the_one_before(
        with_residual: bool, tmp_path: Path) -> None:
    model, kernels = two(with_residual)
    x = RNG.standard_normal((1, CHANNELS, 12, 20)).astype(np.float32)
    expected = answer(model, x)
    first = answer(model_of_one(kernels[0]), x)
    between = np.maximum(first, 0)
    second = answer(model_of_one(kernels[1]), between)
    assert chains(model, ['first', 'second']) == {'first': 'second'}
    assert chains(model, ['first']) == {}
    quantise_convolutions(model, {'first': quantised(kernels[0], None, x, first),
                                  'second': quantised(kernels[1], None, between, second)})
    assert relative(answer(model, x, tmp_path / 'optimised.onnx'), expected).max() < 0.03
    kinds = [node.op_type for node in onnx.load(tmp_path / 'optimised.onnx').graph.node]
    assert kinds.count('QLinearConv') == 2
    assert kinds.count('QuantizeLinear') == 1
    assert kinds.count('DequantizeLinear') == 1 + with_residual
    assert 'Relu' not in kinds


def test_a_relu_halves_the_steps() -> None:
    """What is below 0 is cut off, so all 256 steps are for what is above."""
    model, kernels = two(False)
    del model.graph.node[2:]
    model.graph.output[0].name = 'r'
    x = RNG.standard_normal((1, CHANNELS, 12, 20)).astype(np.float32)
    expected = answer(model, x)
    first = quantised(kernels[0], None, x, answer(model_of_one(kernels[0]), x))
    quantise_convolutions(model, {'first': first})
    scale, = (numpy_helper.to_array(one) for one in model.graph.initializer
              if one.name == 'first_int8_scale_out')
    np.testing.assert_allclose(scale, expected.max(axis=(0, 2, 3)) / 255, rtol=1e-5)
    found = answer(model, x)
    assert found.min() == 0
    assert relative(found, expected).max() < 0.03


def model_of_one(kernel: np.ndarray) -> onnx.ModelProto:
    model = model_of(kernel, None)
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField('shape')
    return model


def test_ranges_hold_all_that_was_seen_and_0() -> None:
    a = np.zeros((2, 2, 1, 2), np.float32) + np.array([[[[1, 2]], [[-4, -3]]]], np.float32)
    first, second = ranges_of(a, a), ranges_of(-a, -2 * a)
    np.testing.assert_array_equal(first.low_in, [0, -4])
    np.testing.assert_array_equal(first.high_in, [2, 0])
    both = widened(first, second)
    np.testing.assert_array_equal(both.low_in, [-2, -4])
    np.testing.assert_array_equal(both.high_in, [2, 4])
    np.testing.assert_array_equal(both.low_out, [-4, -4])
    np.testing.assert_array_equal(both.high_out, [2, 8])
