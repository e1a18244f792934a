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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_WEIGHT = 63  # 7 bits: CPUs without VNNI add products of 8 bits in 16, where those overflow
_NARROWEST = 1e-3  # of the widest channel: what is narrower counts as that
_SHARE = 0.5  # of differences between channels that weights take over from what goes in


@dataclass(frozen=True)
class Ranges:
    """What a convolution has seen: lowest and highest of each channel, in and out."""

    low_in: np.ndarray
    high_in: np.ndarray
    low_out: np.ndarray
    high_out: np.ndarray


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


def quantise_convolutions(model: Any, layers: Sequence[str], ranges: Mapping[str, Ranges]) -> None:
    """Make the convolutions called ``layers`` of an onnx ModelProto compute in 8 bits (QDQ)."""
    from onnx import numpy_helper
    graph = model.graph
    weights = {weight.name: weight for weight in graph.initializer}
    wanted = set(layers)
    nodes = []
    for node in graph.node:
        if node.name not in wanted:
            nodes.append(node)
            continue
        kernel = numpy_helper.to_array(weights[node.input[1]])
        bias = numpy_helper.to_array(weights[node.input[2]]) if len(node.input) > 2 \
            else np.zeros(len(kernel), np.float32)
        arrays = _integers(kernel, bias, ranges[node.name])
        graph.initializer.extend(numpy_helper.from_array(array, f'{node.name}_int8_{name}')
                                 for name, array in arrays.items())
        nodes += _nodes(node)
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [weight for weight in graph.initializer if weight.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _integers(kernel: np.ndarray, bias: np.ndarray, seen: Ranges) -> dict[str, np.ndarray]:
    """Return the constants of one convolution in 8 bits, by their names."""
    each_in = (1, -1, *[1] * (kernel.ndim - 2))
    each_out = (-1, *[1] * (kernel.ndim - 1))
    widest = _not_narrow(np.maximum(-seen.low_in, seen.high_in))
    heaviest = _not_narrow(np.abs(kernel).max(axis=(0, *range(2, kernel.ndim))))
    divisor = widest ** _SHARE / heaviest ** (1 - _SHARE)
    low, high = (seen.low_in / divisor).min(), (seen.high_in / divisor).max()
    scale_in = max(high - low, 1e-12) / 255
    zero_in = np.uint8(np.clip(np.round(-low / scale_in), 0, 255))
    # what comes out is divided by its own scale, so that the one of the kernel is 1
    scale_out = _not_narrow(seen.high_out - seen.low_out) / 255
    zero_out = np.clip(np.round(-seen.low_out / scale_out), 0, 255)
    kernel = kernel * divisor.reshape(each_in) / scale_out.reshape(each_out)
    bias = bias / scale_out + zero_out  # the zero of the kernel is 0
    heaviest_out = np.abs(kernel).reshape(len(kernel), -1).max(axis=1) / _WEIGHT
    # where weights are next to nothing, a step is as wide as the bias in 32 bits needs it
    scale_weight = np.maximum(heaviest_out, np.abs(bias) / scale_in / 2 ** 30 + 1e-30)
    sum_scale = scale_weight * scale_in
    return {'scale_in': (scale_in * divisor).astype(np.float32),
            'zero_in': np.full(len(divisor), zero_in, np.uint8),
            'scale_kernel_in': np.float32(scale_in), 'zero_kernel_in': np.array(zero_in),
            'weight': np.round(kernel / scale_weight.reshape(each_out)).astype(np.int8),
            'scale_weight': scale_weight.astype(np.float32),
            'zero_weight': np.zeros(len(kernel), np.int8),
            'bias': np.round(bias / sum_scale).astype(np.int32),
            'scale_bias': sum_scale.astype(np.float32),
            'zero_bias': np.zeros(len(kernel), np.int32),
            'scale_kernel_out': np.float32(1), 'zero_kernel_out': np.array(0, np.uint8),
            'scale_out': scale_out.astype(np.float32), 'zero_out': zero_out.astype(np.uint8)}


def _not_narrow(widths: np.ndarray) -> np.ndarray:
    wider: np.ndarray = np.maximum(widths, max(_NARROWEST * float(widths.max()), 1e-12))
    return wider


def _nodes(conv: Any) -> list[Any]:
    """Return what stands in place of a convolution; ONNX Runtime makes one QLinearConv of it."""
    from onnx import helper, NodeProto
    name = f'{conv.name}_int8'

    def linear(kind: str, source: str, scale: str, zero: str, result: str, axis: int) -> Any:
        return helper.make_node(f'{kind}Linear', [source, f'{name}_{scale}', f'{name}_{zero}'],
                                [result], f'{result}_{kind}', axis=axis)
    middle = NodeProto()
    middle.CopyFrom(conv)
    del middle.input[:]
    middle.input.extend(f'{name}_{part}_real' for part in ('in', 'weight', 'bias'))
    middle.output[0] = f'{name}_real'
    return [
        linear('Quantize', conv.input[0], 'scale_in', 'zero_in', f'{name}_in', 1),
        linear('Dequantize', f'{name}_in', 'scale_kernel_in', 'zero_kernel_in', f'{name}_in_real',
               1),
        linear('Dequantize', f'{name}_weight', 'scale_weight', 'zero_weight',
               f'{name}_weight_real', 0),
        linear('Dequantize', f'{name}_bias', 'scale_bias', 'zero_bias', f'{name}_bias_real', 0),
        middle,
        linear('Quantize', f'{name}_real', 'scale_kernel_out', 'zero_kernel_out', f'{name}_out',
               1),
        linear('Dequantize', f'{name}_out', 'scale_out', 'zero_out', conv.output[0], 1)]
