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
import torch

from hybrid_depth_training.deploy.onnx_faster import ONNX_TRANSLATIONS, rewrite

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
        helper.make_node('Conv', ['planes', 'along'], ['v'], 'along', pads=[1, 0, 0] * 2),
        helper.make_node('Add', ['planes', 'v'], ['sum'], 'add'),
        helper.make_node('Max', ['sum', 'zero'], ['m'], 'max'),
        helper.make_node('Min', ['m', 'one'], ['y'], 'min')],
        {'a': [1, 16, 4, 4], 'r': [1, 3, 4, 4]},
        {'kernel': normal(2, 19, 1, 1), 'along': normal(2, 2, 3, 1, 1), 'two': np.array([2]),
         'zero': np.array(0, np.float32), 'one': np.array(1, np.float32)}, rank=5))
    assert kinds(once).count('Conv') == 3
    assert 'Clip' in kinds(once)
    assert kinds(once).count('Add') == 1
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


@pytest.mark.parametrize('taps', [(3, 3, 3), (3, 1), (1, 1)])
@pytest.mark.parametrize('is_first', [True, False])
def test_a_convolution_adds_what_it_is_given(taps: tuple[int, ...], is_first: bool) -> None:
    before = model([
        helper.make_node('Conv', ['x', 'kernel', 'bias'], ['c'], 'conv',
                         pads=[length // 2 for length in taps] * 2),
        helper.make_node('Add', ['x', 'c'] if is_first else ['c', 'x'], ['sum'], 'add'),
        helper.make_node('Relu', ['sum'], ['y'], 'relu')],
        {'x': [1, 4, 6, *['w'] * (len(taps) - 1)]},
        {'kernel': normal(4, 4, *taps), 'bias': normal(4)}, rank=2 + len(taps))
    after = rewritten(before)
    assert kinds(after) == ['Conv', 'Relu']
    feed = {'x': normal(1, 4, 6, *[5] * (len(taps) - 1))}
    np.testing.assert_allclose(run(after, feed), run(before, feed), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(('taps', 'more'), [
    ((3, 3), {'pads': [1, 1, 1, 1], 'dilations': [1, 1], 'strides': [1, 1], 'group': 2}),
    ((3, 3), {'pads': [0, 0, 2, 2]}), ((2, 1), {'pads': [0, 0, 1, 0]})])
def test_other_sums_are_left(taps: tuple[int, ...], more: dict[str, Any]) -> None:
    before = model([helper.make_node('Conv', ['x', 'kernel'], ['c'], 'conv', **more),
                    helper.make_node('Add', ['x', 'c'], ['y'], 'add')],
                   {'x': [1, 4, 6, 5]},
                   {'kernel': normal(4, 4 // more.get('group', 1), *taps)})
    assert kinds(rewritten(before)) == ['Conv', 'Add']


@pytest.mark.parametrize('again', ['c', 'kernel'])
def test_a_sum_is_left_where_others_read_the_parts(again: str) -> None:
    nodes = [helper.make_node('Conv', ['x', 'kernel'], ['c'], 'conv'),
             helper.make_node('Add', ['x', 'c'], ['s'], 'add')]
    nodes += [helper.make_node('Mul', ['s', 'c'], ['y'], 'mul')] if again == 'c' else [
        helper.make_node('Conv', ['s', 'kernel'], ['y'], 'other')]
    before = model(nodes, {'x': [1, 4, 6, 5]}, {'kernel': normal(4, 4, 1, 1)})
    assert 'Add' in kinds(rewritten(before))


def test_what_lies_in_blocks_is_added_by_the_runtime() -> None:
    before = model([
        helper.make_node('Conv', ['x', 'kernel'], ['c'], 'first'),
        helper.make_node('Relu', ['c'], ['r'], 'relu'),
        helper.make_node('Conv', ['r', 'other'], ['d'], 'second'),
        helper.make_node('Add', ['r', 'd'], ['y'], 'add')], {'x': [1, 4, 6, 5]},
        {'kernel': normal(4, 4, 1, 1), 'other': normal(4, 4, 1, 1)})
    assert rewritten(before) == before


@pytest.mark.parametrize('bound', ['number', 'array'])
def test_two_bounds_are_one_operator(bound: str) -> None:
    before = model([
        helper.make_node('Max', ['x', 'zero'], ['m'], 'max'),
        helper.make_node('Min', ['m', 'bound'], ['y'], 'min')], {'x': [2, 8]},
        {'zero': np.array(0, np.float32),
         'bound': np.array(0.5 if bound == 'number' else [0.5] * 8, np.float32)}, rank=2)
    after = rewritten(before)
    assert kinds(after) == (['Clip'] if bound == 'number' else ['Max', 'Min'])
    feed = {'x': normal(2, 8)}
    np.testing.assert_array_equal(run(after, feed), run(before, feed))


@pytest.mark.parametrize('channels', [1, 3])
def test_blocks_are_folded_by_one_operator(channels: int) -> None:
    class Fold(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.pixel_unshuffle(x, 2)
    x = torch.from_numpy(normal(1, channels, 4, 6))
    program = torch.onnx.export(Fold(), (x,), dynamo=True, verbose=False, opset_version=18,
                                custom_translation_table=ONNX_TRANSLATIONS)
    assert 'SpaceToDepth' in kinds(program.model_proto)
    name = program.model_proto.graph.input[0].name
    np.testing.assert_array_equal(run(program.model_proto, {name: x.numpy()}), Fold()(x).numpy())


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
