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
"""Graphs that are rewritten to be faster give the same, and hold the forms that are faster."""
from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, TensorProto
import onnxruntime
import pytest

from hybrid_depth_training.deploy.onnx_faster import rewrite

rng = np.random.default_rng(0)


def model(nodes: list[onnx.NodeProto], inputs: dict[str, Any], weights: dict[str, Any],
          rank: int = 4) -> onnx.ModelProto:
    """Return a graph; ``inputs``: name -> shape; its output 'y' has ``rank`` axes."""
    graph = helper.make_graph(
        nodes, 'g', [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                     for name, shape in inputs.items()],
        [helper.make_tensor_value_info('y', TensorProto.FLOAT, [None] * rank)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)


def normal(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def run(graph: onnx.ModelProto, feed: dict[str, np.ndarray]) -> np.ndarray:
    onnx.checker.check_model(graph, full_check=True)
    session = onnxruntime.InferenceSession(graph.SerializeToString(),
                                           providers=['CPUExecutionProvider'])
    return session.run(None, feed)[0]


def rewritten(before: onnx.ModelProto) -> onnx.ModelProto:
    after = onnx.ModelProto()
    after.CopyFrom(before)
    rewrite(after)
    return after


def test_once_is_enough() -> None:
    """What is rewritten holds nothing to rewrite."""
    once = rewritten(model([
        helper.make_node('Concat', ['a', 'r'], ['joined'], 'join', axis=1),
        helper.make_node('Conv', ['joined', 'kernel'], ['c'], 'conv'),
        helper.make_node('Unsqueeze', ['c', 'two'], ['planes'], 'unsqueeze'),
        helper.make_node('Conv', ['planes', 'along'], ['v'], 'along'),
        helper.make_node('Reshape', ['v', 'apart'], ['parts'], 'r1'),
        helper.make_node('Expand', ['parts', 'twice'], ['repeated'], 'e'),
        helper.make_node('Reshape', ['repeated', 'together'], ['y'], 'r2')],
        {'a': [1, 16, 4, 4], 'r': [1, 3, 4, 4]},
        {'kernel': normal(2, 19, 1, 1), 'along': normal(2, 2, 1, 1, 1), 'two': np.array([2]),
         'apart': np.array([1, 2, 1, 1, 4, 1, 4, 1]), 'twice': np.array([1, 1, 1, 2, 1, 2, 1, 2]),
         'together': np.array([1, 2, 2, 8, 8])}, rank=5))
    assert kinds(once).count('Conv') == 3
    assert 'Resize' in kinds(once)
    assert rewritten(once) == once


def kinds(graph: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in graph.graph.node]


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('order', ['abr', 'rab', 'ar'])
def test_a_few_odd_channels_are_convolved_apart(order: str, bias: bool) -> None:
    channels = {'a': 16, 'b': 8, 'r': 3}
    inputs = {name: [1, channels[name], 'h', 'w'] for name in order}
    weights = {'kernel': normal(12, sum(channels[name] for name in order), 3, 3),
               'bias': normal(12)}
    before = model([
        helper.make_node('Concat', list(order), ['joined'], 'join', axis=1),
        helper.make_node('Conv', ['joined', 'kernel', *(['bias'] if bias else [])], ['y'], 'conv',
                         pads=[1, 1, 1, 1], strides=[2, 2])], inputs, weights)
    after = rewritten(before)
    assert kinds(after).count('Conv') == 2
    assert {weight.dims[1] for weight in after.graph.initializer if len(weight.dims) == 4} == \
        {sum(channels[name] for name in order) - 3, 3}
    feed = {name: normal(1, channels[name], 6, 10) for name in order}
    np.testing.assert_allclose(run(after, feed), run(before, feed), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(('channels', 'axis', 'group'), [
    ((16, 8), 1, 1),  # nothing odd
    ((16, 17), 1, 1),  # not few
    ((3, 5), 1, 1),  # nothing that is not
    ((16, 4), 1, 2),
])
def test_what_is_no_faster_is_left(channels: tuple[int, int], axis: int, group: int) -> None:
    total = sum(channels)
    before = model([
        helper.make_node('Concat', ['a', 'b'], ['joined'], 'join', axis=axis),
        helper.make_node('Conv', ['joined', 'kernel'], ['y'], 'conv', group=group)],
        {'a': [1, channels[0], 4, 4], 'b': [1, channels[1], 4, 4]},
        {'kernel': normal(2, total // group, 3, 3)})
    assert kinds(rewritten(before)) == kinds(before)


@pytest.mark.parametrize('taps', [1, 3])
def test_a_convolution_along_one_axis_of_three_has_two(taps: int) -> None:
    before = model([helper.make_node('Conv', ['x', 'kernel', 'bias'], ['y'], 'along',
                                     pads=[taps // 2, 0, 0] * 2)],
                   {'x': [1, 4, 6, 'h', 'w']},
                   {'kernel': normal(5, 4, taps, 1, 1), 'bias': normal(5)}, rank=5)
    after = rewritten(before)
    (conv,) = (node for node in after.graph.node if node.op_type == 'Conv')
    assert next(len(weight.dims) for weight in after.graph.initializer
                if weight.name == conv.input[1]) == 4
    feed = {'x': normal(1, 4, 6, 3, 5)}
    np.testing.assert_allclose(run(after, feed), run(before, feed), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(('taps', 'more'), [
    ((3, 1, 1), {'pads': [0] * 6}), ((3, 1, 1), {'pads': [1, 0, 0] * 2, 'strides': [2, 1, 1]}),
    ((3, 1, 1), {'pads': [1, 0, 0] * 2, 'dilations': [2, 1, 1]}),
    ((3, 3, 1), {'pads': [1, 1, 0] * 2}), ((2, 1, 1), {'pads': [1, 0, 0] * 2})])
def test_other_convolutions_are_left(taps: tuple[int, ...], more: dict[str, Any]) -> None:
    before = model([helper.make_node('Conv', ['x', 'kernel'], ['y'], 'along', **more)],
                   {'x': [1, 4, 6, 5, 5]}, {'kernel': normal(5, 4, *taps)}, rank=5)
    assert kinds(rewritten(before)) == ['Conv']


@pytest.mark.parametrize('batch', [1, 2])
def test_repeating_along_three_axes_in_two_steps(batch: int) -> None:
    before = model([
        helper.make_node('Reshape', ['x', 'apart'], ['parts'], 'r1'),
        helper.make_node('Expand', ['parts', 'twice'], ['repeated'], 'e'),
        helper.make_node('Reshape', ['repeated', 'together'], ['y'], 'r2')],
        {'x': [batch, 3, 2, 4, 5]},
        {'apart': np.array([batch, 3, 2, 1, 4, 1, 5, 1]),
         'twice': np.array([1, 1, 1, 2, 1, 2, 1, 2]), 'together': np.array([batch, 3, 4, 8, 10])},
        rank=5)
    after = rewritten(before)
    assert ('Resize' in kinds(after)) == (batch == 1)
    x = normal(batch, 3, 2, 4, 5)
    expected = x.repeat(2, 2).repeat(2, 3).repeat(2, 4)
    np.testing.assert_array_equal(run(before, {'x': x}), expected)
    np.testing.assert_array_equal(run(after, {'x': x}), expected)


def test_nothing_that_is_not_read_is_left() -> None:
    before = model([
        helper.make_node('Concat', ['a', 'r'], ['joined'], 'join', axis=1),
        helper.make_node('Conv', ['joined', 'kernel'], ['y'], 'conv')],
        {'a': [1, 16, 4, 4], 'r': [1, 3, 4, 4]}, {'kernel': normal(2, 19, 1, 1)})
    after = rewritten(before)
    assert 'Concat' not in kinds(after)
    read = {name for node in after.graph.node for name in node.input}
    assert {weight.name for weight in after.graph.initializer} <= read


@pytest.mark.parametrize('is_first', [True, False])
def test_gelu_is_one_operator(is_first: bool) -> None:
    """The exporter's GELU becomes what ONNX Runtime computes in one pass, with the same values."""
    factors = ['x', 'h'] if is_first else ['h', 'x']
    before = model([
        helper.make_node('Div', ['x', 'root'], ['d'], 'd'),
        helper.make_node('Erf', ['d'], ['e'], 'e'),
        helper.make_node('Add', ['e', 'one'], ['s'], 's'),
        helper.make_node('Mul', ['half', 's'], ['h'], 'h'),
        helper.make_node('Mul', factors, ['y'], 'y')], {'x': [2, 8]},
        {name: np.array(value, np.float32) for name, value in
         (('root', 2**0.5), ('one', 1.0), ('half', 0.5))}, rank=2)
    after = rewritten(before)
    feed = {'x': normal(2, 8)}
    np.testing.assert_allclose(run(after, feed), run(before, feed), rtol=1e-6, atol=1e-7)
    assert 'Gelu' in optimised(after)
    assert 'Gelu' not in optimised(before)


def test_a_product_with_a_half_stays_where_others_read_it() -> None:
    """What is not GELU alone is left as it is."""
    before = model([
        helper.make_node('Erf', ['x'], ['e'], 'e'),
        helper.make_node('Add', ['e', 'one'], ['s'], 's'),
        helper.make_node('Mul', ['half', 's'], ['h'], 'h'),
        helper.make_node('Mul', ['x', 'h'], ['m'], 'm'),
        helper.make_node('Add', ['m', 'h'], ['y'], 'y')], {'x': [2, 8]},
        {'one': np.array(1, np.float32), 'half': np.array(0.5, np.float32)}, rank=2)
    assert rewritten(before) == before


def optimised(graph: onnx.ModelProto) -> list[str]:
    """Return the operators that ONNX Runtime makes of a graph."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = f'{folder}/optimised.onnx'
        onnxruntime.InferenceSession(graph.SerializeToString(), options,
                                     providers=['CPUExecutionProvider'])
        return kinds(onnx.load(options.optimized_model_filepath))
