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
What a graph must and must not hold so that every runtime can take it: checked without running it.

Each rule stands for a failure of a real compiler or runtime; the reason is said with the finding.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto

from hybrid_depth.contract import ModelSpec
from hybrid_depth.errors import ContractError
from hybrid_depth.runtime.ort import save_folded

HIGHEST_OPSET = 18
# operators that are known to run on the CPU and to compile for a GPU, by what they do in a network
ALLOWED: dict[str, tuple[str, ...]] = {
    'layers': (
        'Conv', 'ConvTranspose', 'Gemm', 'MatMul', 'BatchNormalization', 'InstanceNormalization',
        'LayerNormalization', 'AveragePool', 'GlobalAveragePool', 'MaxPool', 'Resize'),
    'activations': (
        'Clip', 'Elu', 'Erf', 'Exp', 'HardSigmoid', 'LeakyRelu', 'Log', 'Relu', 'Sigmoid',
        'Softmax', 'Softplus', 'Tanh'),
    'arithmetic': (
        'Abs', 'Add', 'Ceil', 'Cos', 'Div', 'Floor', 'Max', 'Min', 'Mod', 'Mul', 'Neg', 'Pow',
        'Reciprocal', 'Round', 'Sign', 'Sin', 'Sqrt', 'Sub', 'CumSum'),
    'reductions': (
        'ArgMax', 'ArgMin', 'ReduceL2', 'ReduceMax', 'ReduceMean', 'ReduceMin', 'ReduceSum',
        'TopK'),
    'conditions': (
        'And', 'Equal', 'Greater', 'GreaterOrEqual', 'Less', 'LessOrEqual', 'Not', 'Or', 'Where'),
    'shapes': (
        'Cast', 'Concat', 'Constant', 'ConstantOfShape', 'DepthToSpace', 'Expand', 'Flatten',
        'Identity', 'Pad', 'Range', 'Reshape', 'Shape', 'Slice', 'SpaceToDepth', 'Split',
        'Squeeze', 'Tile', 'Transpose', 'Unsqueeze'),
    'look-ups': ('Gather', 'GatherElements', 'GatherND', 'GridSample'),
}
REFUSED: dict[str, str] = {
    'Attention': 'a compiler for GPUs crashes on it, and fused attention is wrong in several '
                 'versions of TensorRT; export attention as MatMul, Softmax and MatMul',
    'NonZero': 'how much comes out depends on the data; use Where with a mask',
    'Unique': 'how much comes out depends on the data',
    'Compress': 'how much comes out depends on the data; use Where with a mask',
    'NonMaxSuppression': 'how much comes out depends on the data',
    'If': 'branches cannot be typed or captured as one piece; compute both and use Where',
    'Loop': 'loops cannot be typed or captured as one piece; unroll it',
    'Scan': 'loops cannot be typed or captured as one piece; unroll it',
    'ScatterND': 'TensorRT runs it in an order of its own where indices repeat; use a look-up',
    'ScatterElements': 'TensorRT runs it in an order of its own where indices repeat; use a '
                       'look-up',
    'GridSample5D': 'TensorRT samples images only',
    'Einsum': 'it is left in single precision by some compilers; use MatMul',
}
_KNOWN = frozenset(op for ops in ALLOWED.values() for op in ops)
# quantised graphs are for CPUs alone: no compiler for a GPU sees them
_QUANTISED = frozenset({'QuantizeLinear', 'DequantizeLinear', 'DynamicQuantizeLinear',
                        'MatMulInteger', 'ConvInteger'})
_READS_BYTES = frozenset({'Cast', 'Shape', 'DequantizeLinear'})
_MOST_SHOWN = 3  # tensors named in one finding


@dataclass(frozen=True)
class Lint:
    """What was found in one graph."""

    findings: tuple[str, ...]  # each with its remedy; () = nothing amiss
    operators: dict[str, int]  # how often each occurs, most frequent first
    opset: int

    def text(self) -> str:
        """Return the findings in lines, or that there is none."""
        return '\n'.join(self.findings) or (
            f'{sum(self.operators.values())} operators of {len(self.operators)} kinds, opset '
            f'{self.opset}: none is amiss')


def lint(path: Path, spec: ModelSpec, size: tuple[int, int]) -> Lint:
    """
    Check the graph at ``path`` by its operators and, at network ``size`` (H, W), by its shapes.

    Raises ContractError where the file cannot be read.
    """
    model = read(path)
    counts = Counter(node.op_type for node in model.graph.node)
    opset = next((entry.version for entry in model.opset_import if entry.domain == ''), 0)
    findings = [*_opsets(model), *_operators(counts), *_details(model.graph)]
    if not findings:  # a graph that breaks those rules may not even be folded
        findings = list(_shapes(path, spec, size))
    return Lint(tuple(findings), dict(counts.most_common()), opset)


def check(path: Path, spec: ModelSpec, size: tuple[int, int]) -> Lint:
    """Return ``lint``. Raises ContractError where anything is amiss."""
    result = lint(path, spec, size)
    if result.findings:
        raise ContractError(f'{path} is not fit for every runtime: {"; ".join(result.findings)}')
    return result


def read(path: Path) -> onnx.ModelProto:
    """Read an ONNX file. Raises ContractError."""
    try:
        return onnx.load(str(path))
    except Exception as error:  # of protobuf or of the file system
        raise ContractError(f'{path} cannot be read as ONNX: {error}; copy the file or export the '
                            'model again') from error


def _opsets(model: onnx.ModelProto) -> Iterator[str]:
    for entry in model.opset_import:
        if entry.domain not in ('', 'ai.onnx'):
            used = sorted({n.op_type for n in model.graph.node if n.domain == entry.domain})
            if used:
                yield f'operators of the domain {entry.domain!r} ({", ".join(used)}) are known ' \
                      'to one runtime only; export with standard operators'
        elif entry.version > HIGHEST_OPSET:
            yield f'opset {entry.version} is not read by TensorRT 10.3; export with opset ' \
                  f'{HIGHEST_OPSET} or lower'


def _operators(counts: Counter[str]) -> Iterator[str]:
    for op, count in counts.items():
        if op in REFUSED:
            yield f'{op} ({count} times): {REFUSED[op]}'
        elif op not in _KNOWN | _QUANTISED:
            yield f'{op} ({count} times) is not on the list of operators that are known to ' \
                  'compile; try it with the compiler gate, then add it to graph_lint.ALLOWED'


def _details(graph: onnx.GraphProto) -> Iterator[str]:
    bytes_of = {value.name for value in graph.input
                if value.type.tensor_type.elem_type == TensorProto.UINT8}
    for node in graph.node:
        if node.op_type == 'Resize':
            flags = {attribute.name: attribute.i for attribute in node.attribute}
            if flags.get('antialias'):
                yield f'Resize {node.name!r} has antialias, which TensorRT does not support; ' \
                      'shrink by average pooling'
        if node.op_type not in _READS_BYTES and bytes_of.intersection(node.input):
            yield f'{node.op_type} {node.name!r} reads an image of bytes, which TensorRT allows ' \
                  'to Cast alone; make Cast the first operator'


def _shapes(path: Path, spec: ModelSpec, size: tuple[int, int]) -> Iterator[str]:
    """Find tensors whose shape is not known once the size of the image is."""
    graph = onnx.shape_inference.infer_shapes(save_folded(path, spec, size)).graph
    shapes = {value.name: value.type.tensor_type.shape
              for value in (*graph.value_info, *graph.output)
              if value.type.tensor_type.HasField('shape')}
    unknown = [f'{name} of {node.op_type}' for node in graph.node for name in node.output
               if name and not (name in shapes and all(dim.HasField('dim_value')
                                                       for dim in shapes[name].dim))]
    if unknown:
        yield f'the shapes of {len(unknown)} tensors depend on data ' \
              f'({", ".join(unknown[:_MOST_SHOWN])}{", ..." * (len(unknown) > _MOST_SHOWN)}); ' \
              'compute them from the size of the image'
