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
"""Export a module of one tensor to ONNX and compare what ONNX Runtime makes of it with torch."""
from __future__ import annotations

from collections.abc import Callable, Sequence

import onnxruntime
import torch
from torch import nn

from hybrid_depth_training.deploy.export import OPSET


def onnx_parity(network: nn.Module, sizes: Sequence[tuple[int, int]],
                make_input: Callable[[int, int], torch.Tensor], axes: tuple[int, int],
                step: int = 0) -> tuple[float, set[str]]:
    """
    Return the largest difference, relative to each output's largest value, and the operators used.

    Exported at the first size; with ``step``, height and width (dimensions ``axes`` of the input)
    stay symbolic in the file, as multiples of it.
    """
    first = make_input(*sizes[0])
    shapes = None
    if step:
        blocks = [torch.export.Dim(name, min=1, max=64) for name in ('h', 'w')]
        shapes = ({axis: step * block for axis, block in zip(axes, blocks, strict=True)},)
    program = torch.onnx.export(network, (first,), dynamo=True, opset_version=OPSET,
                                verbose=False, input_names=['image'], dynamic_shapes=shapes)
    model = program.model_proto
    session = onnxruntime.InferenceSession(model.SerializeToString())
    worst = 0.0
    for size in sizes:
        image = make_input(*size)
        with torch.no_grad():
            expected = network(image)
        expected = [expected] if isinstance(expected, torch.Tensor) else expected
        found = session.run(None, {'image': image.numpy()})
        for one, other in zip(expected, found, strict=True):
            assert one.shape == other.shape
            difference = (one - torch.from_numpy(other)).abs().max() / one.abs().max()
            worst = max(worst, float(difference))
    return worst, {node.op_type for node in model.graph.node}
