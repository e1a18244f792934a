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
Convolutions in 8 bits with a range for every channel, of what goes in and of what comes out.

The kernel knows one scale for all that goes in and one for all that comes out. In the decoders the
widest channel is many times as wide as the usual one, so that would leave the others few of the
256 steps. Here each channel is divided by a number of its own, and the weights make up for it: of
what goes in the weights that it meets (as SmoothQuant does for products, Xiao et al. 2023), of
what comes out those that make it, whose scale is their own anyway.
"""
from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hybrid_depth.runtime.lighter import keep_nodes, readers_of
from hybrid_depth.runtime.rounding import HIGHEST, rounded

_NARROWEST = 1e-3  # of the widest channel: what is narrower counts as that
_SHARE = 0.5  # of differences between channels that weights take over from what goes in


@dataclass(frozen=True)
class Ranges:
    """What a convolution has seen: lowest and highest of each channel, in and out."""

    low_in: np.ndarray
    high_in: np.ndarray
    low_out: np.ndarray
    high_out: np.ndarray


@dataclass(frozen=True)
class Scale:
    """Of bytes: the real value is ``scale`` times their difference to ``zero``."""

    scale: np.ndarray  # of each channel
    zero: np.ndarray  # of each channel, float


@dataclass(frozen=True)
class Convolution:
    """A convolution in 8 bits."""

    seen: Ranges
    into: Scale
    integers: np.ndarray  # its kernel, (outputs, inputs, ...)
    step: np.ndarray  # of each output, for inputs as bytes: between two of the integers


def widened(a: Ranges, b: Ranges) -> Ranges:
    """Return the ranges that hold both."""
    return Ranges(np.minimum(a.low_in, b.low_in), np.maximum(a.high_in, b.high_in),
                  np.minimum(a.low_out, b.low_out), np.maximum(a.high_out, b.high_out))


def ranges_of(x: np.ndarray, y: np.ndarray) -> Ranges:
    """Return the ranges of what went into a convolution and what came out, (N, C, ...)."""
    def each(values: np.ndarray, function: Any) -> np.ndarray:
        found: np.ndarray = function(values, axis=(0, *range(2, values.ndim)))
        return found
    # 0 is in every range: it is what convolutions pad with
    return Ranges(np.minimum(each(x, np.min), 0), np.maximum(each(x, np.max), 0),
                  np.minimum(each(y, np.min), 0), np.maximum(each(y, np.max), 0))


def chains(model: Any, layers: Collection[str]) -> dict[str, str]:
    """Return which of the convolutions ``layers`` reads what another one makes, by that one."""
    readers = readers_of(model.graph)
    found = {}
    for node in model.graph.node:
        if node.name in layers and node.op_type == 'Conv':
            after = [one.name for one in readers.get(_result(node, readers), ())
                     if one and one.op_type == 'Conv' and one.name in layers]
            if after:
                found[node.name] = after[0]
    return found


def quantise_convolutions(model: Any, convolutions: Mapping[str, Convolution]) -> None:
    """
    Make the Conv nodes of an onnx ModelProto that ``convolutions`` names compute in 8 bits (QDQ).

    A ReLU after one is no more than the lowest value of its range. Where another one reads what
    comes out, it reads the bytes.
    """
    from onnx import numpy_helper
    graph = model.graph
    readers = readers_of(graph)
    weights = {weight.name: weight for weight in graph.initializer}
    after = chains(model, convolutions)
    sources = {reader: f'{name}_int8_out' for name, reader in after.items()}
    results = {node.name: _result(node, readers) for node in graph.node
               if node.name in convolutions}
    nodes = []
    for node in graph.node:
        name = node.name
        if name not in convolutions:
            if node.op_type != 'Relu' or node.output[0] not in results.values():
                nodes.append(node)
            continue
        one = convolutions[name]
        bias = numpy_helper.to_array(weights[node.input[2]]) if len(node.input) > 2 \
            else np.zeros(len(one.integers), np.float32)
        out = convolutions[after[name]].into if name in after else \
            _scale_out(one.seen, results[name] != node.output[0])
        graph.initializer.extend(numpy_helper.from_array(array, f'{name}_int8_{part}')
                                 for part, array in _constants(one, bias, out).items())
        nodes += _nodes(node, results[name], sources.get(name))
    read = {name for node in nodes for name in node.input} | {one.name for one in graph.output}
    keep_nodes(graph, [node for node in nodes if read.intersection(node.output)])


def _result(conv: Any, readers: Mapping[str, list[Any]]) -> str:
    """Return what a convolution gives: after its ReLU, where it has one."""
    result: str = conv.output[0]
    after = readers.get(result, [])
    if len(after) == 1 and after[0] and after[0].op_type == 'Relu':
        result = after[0].output[0]
    return result


def _scale_in(kernel: np.ndarray, seen: Ranges) -> Scale:
    """Return how to write what goes into a convolution: one zero for all channels."""
    widest = _not_narrow(np.maximum(-seen.low_in, seen.high_in))
    heaviest = _not_narrow(np.abs(kernel).max(axis=(0, *range(2, kernel.ndim))))
    divisor = widest ** _SHARE / heaviest ** (1 - _SHARE)
    low, high = (seen.low_in / divisor).min(), (seen.high_in / divisor).max()
    step = max(high - low, 1e-12) / 255
    return Scale(step * divisor, np.full(len(divisor), np.clip(np.round(-low / step), 0, 255)))


def _scale_out(seen: Ranges, has_relu: bool) -> Scale:
    low = np.zeros_like(seen.low_out) if has_relu else seen.low_out
    scale = _not_narrow(seen.high_out - low) / 255
    return Scale(scale, np.clip(np.round(-low / scale), 0, 255))


def convolution_of(kernel: np.ndarray, bias: np.ndarray | None, seen: Ranges,
                   gram: np.ndarray) -> Convolution:
    """Return a convolution in 8 bits; ``gram`` as for ``rounded``, of patches of what goes in."""
    into = _scale_in(kernel, seen)
    count, *shape = kernel.shape
    each_in = into.scale.reshape(-1, *[1] * (len(shape) - 1))
    matrix = (kernel * each_in).reshape(count, -1).T
    of_rows = np.broadcast_to(each_in, shape).reshape(-1)
    # where weights are next to nothing, a step is as wide as sums in 32 bits need it
    widest = np.maximum(-seen.low_out, seen.high_out) + (0 if bias is None else np.abs(bias))
    step = np.maximum(np.abs(matrix).max(axis=0) / HIGHEST, widest / 2 ** 28 + 1e-30)
    integers = rounded(matrix / step, gram / np.outer(of_rows, of_rows))
    return Convolution(seen, into, integers.T.reshape(kernel.shape), step)


def _constants(one: Convolution, bias: np.ndarray, out: Scale) -> dict[str, np.ndarray]:
    """Return the constants of a convolution in 8 bits, by their names."""
    scale_in = float(np.exp(np.log(one.into.scale).mean()))  # of the kernel; any would do
    # what comes out is divided by its own scale, so that the one of the kernel is 1
    sum_scale = one.step / out.scale
    bias = bias / out.scale + out.zero  # the zero of the kernel is 0
    count = len(bias)
    return {'scale_in': one.into.scale.astype(np.float32),
            'zero_in': one.into.zero.astype(np.uint8),
            'scale_kernel_in': np.float32(scale_in),
            'zero_kernel_in': one.into.zero[0].astype(np.uint8),
            'weight': one.integers, 'scale_weight': (sum_scale / scale_in).astype(np.float32),
            'zero_weight': np.zeros(count, np.int8),
            'bias': np.round(bias / sum_scale).astype(np.int32),
            'scale_bias': sum_scale.astype(np.float32), 'zero_bias': np.zeros(count, np.int32),
            'scale_kernel_out': np.float32(1), 'zero_kernel_out': np.array(0, np.uint8),
            'scale_out': out.scale.astype(np.float32), 'zero_out': out.zero.astype(np.uint8)}


def _not_narrow(widths: np.ndarray) -> np.ndarray:
    wider: np.ndarray = np.maximum(widths, max(_NARROWEST * float(widths.max()), 1e-12))
    return wider


def _nodes(conv: Any, result: str, source: str | None) -> list[Any]:
    """
    Return what stands in place of a convolution; ONNX Runtime makes one QLinearConv of it.

    ``source`` names the bytes that it reads, where they are there.
    """
    from onnx import helper, NodeProto
    name = f'{conv.name}_int8'

    def linear(kind: str, values: str, scale: str, zero: str, made: str, axis: int) -> Any:
        return helper.make_node(f'{kind}Linear', [values, f'{name}_{scale}', f'{name}_{zero}'],
                                [made], f'{made}_{kind}', axis=axis)
    middle = NodeProto()
    middle.CopyFrom(conv)
    del middle.input[:]
    middle.input.extend(f'{name}_{part}_real' for part in ('in', 'weight', 'bias'))
    middle.output[0] = f'{name}_real'
    first = [] if source else [
        linear('Quantize', conv.input[0], 'scale_in', 'zero_in', f'{name}_in', 1)]
    return first + [
        linear('Dequantize', source or f'{name}_in', 'scale_kernel_in', 'zero_kernel_in',
               f'{name}_in_real', 1),
        linear('Dequantize', f'{name}_weight', 'scale_weight', 'zero_weight',
               f'{name}_weight_real', 0),
        linear('Dequantize', f'{name}_bias', 'scale_bias', 'zero_bias', f'{name}_bias_real', 0),
        middle,
        linear('Quantize', f'{name}_real', 'scale_kernel_out', 'zero_kernel_out', f'{name}_out',
               1),
        linear('Dequantize', f'{name}_out', 'scale_out', 'zero_out', result, 1)]
