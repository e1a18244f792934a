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
The graph of a recipe that nobody has trained: how long runtimes take depends on shapes alone.

Weights are random, so what it says of an image means nothing.

    python -m hybrid_depth_training.deploy.blank config/training/hybrid_base.yaml out/blank.onnx
"""
from __future__ import annotations

import argparse
from pathlib import Path
import sys

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 its usual name

from hybrid_depth.contract import ModelSpec, SCHEMA
from hybrid_depth.errors import ConfigError, HybridDepthError
from hybrid_depth_training.config import read_config
from hybrid_depth_training.deploy.export import write_onnx
from hybrid_depth_training.deploy.exported import ExportedDepth
from hybrid_depth_training.gpu.feed import deployed
from hybrid_depth_training.models.compact import MAX_DEPTH_M, MIN_DEPTH_M
from hybrid_depth_training.models.encoders.vit import explicit_attention
from hybrid_depth_training.models.hybrid import HybridDepth

_MULTIPLE = 32  # of the image's sides


def write_blank(recipe: Path, out: Path) -> Path:
    """
    Write the single-frame network of ``recipe`` with random weights to the ONNX file ``out``.

    Raises ConfigError where the recipe's network needs more than an image and its K.
    """
    config = read_config(recipe)
    network = deployed(recipe)
    if isinstance(network, HybridDepth):
        network = _FromDisparity(network)
    elif not isinstance(network, ExportedDepth):
        raise ConfigError(f'the network of {recipe} takes more than an image and its K; train it, '
                          'and export the run')
    explicit_attention(network)
    street = max(config.groups.values(), key=lambda group: group.width)
    size = (street.height, street.width)
    spec = ModelSpec(
        name=config.name, schema=SCHEMA, kind='single_frame', size_multiple=_MULTIPLE,
        pixels=street.height * street.width, min_depth_m=MIN_DEPTH_M, max_depth_m=MAX_DEPTH_M,
        licence=config.licence, trained_on=())
    example = {name: torch.zeros(shape, dtype=getattr(torch, dtype))
               for name, (dtype, shape) in spec.inputs(size).items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f'{out.stem}.part.onnx')
    write_onnx(network.eval(), spec, example, part)
    return part.replace(out)


class _FromDisparity(nn.Module):
    """What a network says that learns disparity alone, under the names of the contract."""

    outputs = ('depth', 'sigma')

    def __init__(self, network: HybridDepth) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor, K: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        disparity = F.interpolate(self.network(image)[0], size=image.shape[1:3], mode='bilinear',
                                  align_corners=False)
        depth = K[:, :1, :1, None] / disparity
        return depth, torch.ones_like(depth)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status (2 = the user's input was at fault)."""
    parser = argparse.ArgumentParser(description='Write the ONNX graph of a recipe, untrained.')
    parser.add_argument('recipe', type=Path, help='training YAML')
    parser.add_argument('out', type=Path, help='ONNX file to write')
    options = parser.parse_args(arguments)
    try:
        print(write_blank(options.recipe, options.out))
    except HybridDepthError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
