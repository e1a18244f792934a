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
Attention within windows of 7x7 pixels, in torch and as the ONNX operators that it becomes.

A graph for images of any size would have torch's exporter reason about how many windows a height
that is not known yet has; it takes minutes and settles on one window. So for export the attention
is one operator to torch, and the operators it stands for are written here.
"""
from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 its usual name

WINDOW = 7
HEAD = 32  # channels of an attention head


class WindowCrossAttention(nn.Module):
    """
    Attention from queries to a map within windows of 7x7 pixels, with relative positions.

    forward(query, source): both (B, h, w, C); returns the same shape. At the right and lower edge
    windows are filled up with zeros, which count as places, as in the publication.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = channels // HEAD
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)
        self.position = nn.Parameter(torch.empty((2 * WINDOW - 1) ** 2, self.heads))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.register_buffer('offset', _offsets(), persistent=False)

    def forward(self, query: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        position = self.position[self.offset.view(-1)].view(WINDOW**2, WINDOW**2, self.heads)
        # the key and the value of a place that is all zeros are the biases
        x = attend(self.query(query), self.key(source), self.value(source),
                   position.permute(2, 0, 1), self.query.bias, self.key.bias, self.value.bias)
        return self.out(x)


def _offsets() -> torch.Tensor:
    """Return (49, 49): which relative position each pair of places of a window has."""
    with torch.device('cpu'):
        y, x = torch.meshgrid(torch.arange(WINDOW), torch.arange(WINDOW), indexing='ij')
        y, x = y.flatten(), x.flatten()
        return ((y[:, None] - y[None] + WINDOW - 1) * (2 * WINDOW - 1)
                + x[:, None] - x[None] + WINDOW - 1)


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, position: torch.Tensor,
           query_fill: torch.Tensor, key_fill: torch.Tensor, value_fill: torch.Tensor,
           edges: torch.Tensor | None = None) -> torch.Tensor:
    """
    Return softmax(q k^T / sqrt(32) + position) v of every window and head, (B, h, w, C).

    ``query``, ``key``, ``value`` (B, h, w, C); ``position`` (heads, 49, 49); the ``fill``s (C,)
    fill up the windows at the right and lower edges. ``edges`` (2, 49, 49) is added as well: the
    first to the windows of the last row, the second to those of the last column.
    """
    arguments = (query, key, value, position, query_fill, key_fill, value_fill, edges)
    return _as_one(*arguments) if torch.compiler.is_exporting() else _attend(*arguments)


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, position: torch.Tensor,
            query_fill: torch.Tensor, key_fill: torch.Tensor, value_fill: torch.Tensor,
            edges: torch.Tensor | None) -> torch.Tensor:
    height, width = query.shape[1:3]
    q, k, v = (to_windows(x, fill) for x, fill in (
        (query, query_fill), (key, key_fill), (value, value_fill)))
    scores = q @ k.transpose(-1, -2) / math.sqrt(HEAD) + position
    if edges is not None:
        rows, columns = -(-height // WINDOW), -(-width // WINDOW)
        more = scores.new_zeros(rows, columns, WINDOW**2, WINDOW**2)
        more[-1] += edges[0]
        more[:, -1] += edges[1]
        scores = scores + more.flatten(0, 1).repeat(len(query), 1, 1)[:, None]
    return from_windows(torch.softmax(scores, dim=-1) @ v, height, width)


def to_windows(x: torch.Tensor, fill: torch.Tensor) -> torch.Tensor:
    """Cut (B, h, w, C) into windows (B * n, C / 32, 49, 32), filled up with ``fill`` (C,)."""
    batch, height, width, channels = x.shape
    rows, columns = -(-height // WINDOW), -(-width // WINDOW)
    x = F.pad(x - fill, (0, 0, 0, columns * WINDOW - width, 0, rows * WINDOW - height)) + fill
    x = x.view(batch, rows, WINDOW, columns, WINDOW, channels // HEAD, HEAD)
    return x.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, channels // HEAD, WINDOW**2, HEAD)


def from_windows(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Put the windows of ``to_windows`` together again: (B, height, width, C)."""
    rows, columns = -(-height // WINDOW), -(-width // WINDOW)
    heads = x.shape[1]
    x = x.view(-1, rows, columns, heads, WINDOW, WINDOW, HEAD).permute(0, 1, 4, 2, 5, 3, 6)
    x = x.reshape(-1, rows * WINDOW, columns * WINDOW, heads * HEAD)
    return x[:, :height, :width]


@torch.library.custom_op('hybrid_depth::attend_in_windows', mutates_args=())
def _as_one(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, position: torch.Tensor,
            query_fill: torch.Tensor, key_fill: torch.Tensor, value_fill: torch.Tensor,
            edges: torch.Tensor | None) -> torch.Tensor:
    return _attend(query, key, value, position, query_fill, key_fill, value_fill,
                   edges).contiguous()


@_as_one.register_fake
def _(query: torch.Tensor, *_: torch.Tensor | None) -> torch.Tensor:
    return torch.empty_like(query, memory_format=torch.contiguous_format)


def _as_onnx(query: Any, key: Any, value: Any, position: Any, query_fill: Any, key_fill: Any,
             value_fill: Any, edges: Any = None) -> Any:
    """Write ``attend`` for batch 1 in ONNX operators; shapes are computed there."""
    from onnxscript import opset18 as op
    heads = int(position.shape[0])

    def ints(*values: int) -> Any:
        return op.Constant(value_ints=list(values))
    lengths = [op.Shape(query, start=axis, end=axis + 1) for axis in (1, 2)]
    counts = [op.Div(op.Add(length, ints(WINDOW - 1)), ints(WINDOW)) for length in lengths]
    whole = [op.Mul(count, ints(WINDOW)) for count in counts]
    more = [op.Sub(full, length) for full, length in zip(whole, lengths, strict=True)]
    pads = op.Concat(ints(0, 0, 0, 0, 0), *more, ints(0), axis=0)
    rows, columns = counts
    parts = op.Concat(rows, ints(WINDOW), columns, ints(WINDOW, heads, HEAD), axis=0)

    def windows(x: Any, fill: Any) -> Any:
        x = op.Add(op.Pad(op.Sub(x, fill), pads), fill)
        x = op.Transpose(op.Reshape(x, parts), perm=[0, 2, 4, 1, 3, 5])
        return op.Reshape(x, ints(-1, heads, WINDOW**2, HEAD))
    q, k, v = (windows(x, fill) for x, fill in (
        (query, query_fill), (key, key_fill), (value, value_fill)))
    scores = op.MatMul(q, op.Transpose(k, perm=[0, 1, 3, 2]))
    scores = op.Mul(scores, op.Constant(value_float=1 / math.sqrt(HEAD)))
    scores = op.Add(scores, position)
    if edges is not None:
        # 1 in the last row of windows, 0 elsewhere, and so for columns; they broadcast
        shapes = (ints(-1, 1, 1, 1, 1), ints(1, -1, 1, 1, 1))
        for axis, (count, shape) in enumerate(zip(counts, shapes, strict=True)):
            place = op.CumSum(op.Expand(ints(1), count), ints(0))  # 1 to count
            is_last = op.Cast(op.Equal(place, count), to=1)
            edge = op.Slice(edges, ints(axis), ints(axis + 1), ints(0))  # (1, 49, 49)
            more = op.Mul(op.Reshape(is_last, shape), edge)
            parted = op.Reshape(scores, op.Concat(
                rows, columns, ints(heads, WINDOW**2, WINDOW**2), axis=0))
            scores = op.Reshape(op.Add(parted, more), ints(-1, heads, WINDOW**2, WINDOW**2))
    x = op.MatMul(op.Softmax(scores, axis=-1), v)
    x = op.Reshape(x, op.Concat(rows, columns, ints(heads, WINDOW, WINDOW, HEAD), axis=0))
    x = op.Reshape(op.Transpose(x, perm=[0, 3, 1, 4, 2, 5]),
                   op.Concat(ints(1), *whole, ints(heads * HEAD), axis=0))
    return op.Slice(x, ints(0, 0), op.Concat(*lengths, axis=0), ints(1, 2))


# for torch.onnx.export(custom_translation_table=...)
ONNX_TRANSLATIONS = {torch.ops.hybrid_depth.attend_in_windows.default: _as_onnx}
