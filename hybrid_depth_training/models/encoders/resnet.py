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
"""ResNet-18, the encoder that Monodepth2 and ManyDepth were published with."""
from __future__ import annotations

import torch
from torch import nn

from hybrid_depth_training.models.encoders.stages import run_stages
from hybrid_depth_training.torchvision_guard import guarded_import
from hybrid_depth_training.weights import HubFile, load_weights, State

_HUB = HubFile('timm/resnet18.tv_in1k', 'model.safetensors')  # torchvision's, of ImageNet


class ResNet18(nn.Module):
    """
    ResNet-18 (He et al., CVPR 2016) through timm.

    Weights: 'imagenet' (over the network), 'random', or a file in timm's or torchvision's naming.
    BatchNorm is trained, and images are normalised, as in Monodepth2 (Godard et al., ICCV 2019).
    """

    channels = (64, 64, 128, 256, 512)
    strides = (2, 4, 8, 16, 32)
    mean = (0.45, 0.45, 0.45)
    std = (0.225, 0.225, 0.225)

    def __init__(self, weights: str) -> None:
        super().__init__()
        timm = guarded_import('timm')
        network = timm.create_model('resnet18', pretrained=False, num_classes=0)
        self.provenance = load_weights(
            network, weights, {'imagenet': _HUB, 'pretrained': _HUB}, _without_classifier)
        self.stages = nn.ModuleList([
            nn.Sequential(network.conv1, network.bn1, network.act1),
            nn.Sequential(network.maxpool, network.layer1),
            network.layer2, network.layer3, network.layer4])

    def forward(self, x: torch.Tensor, first: int = 0, last: int = 5) -> list[torch.Tensor]:
        return run_stages(self.stages[first:last], x)


def _without_classifier(state: State) -> State:
    return {key: value for key, value in state.items() if not key.startswith('fc.')}
