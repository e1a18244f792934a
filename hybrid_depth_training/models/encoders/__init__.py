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
Image encoders as rows of one table, with one interface.

``Encoder(weights)`` takes normalised images (B, 3, H, W), H and W multiples of its last stride,
and returns one feature map per entry of ``strides``. It publishes ``channels``, ``strides``,
``mean`` and ``std`` (of RGB on 0..1) and, once made, ``provenance``: its initial weights.
Convolutional ones can run a part: ``forward(x, first, last)`` runs stages first to last - 1 on x,
the map before stage ``first``, so that a host may change a map half-way.

Adding one: a class in a module here and a row in ENCODERS.
"""
from __future__ import annotations

from torch import nn

from hybrid_depth_training.models.encoders.clip import ClipRN50, ClipViTB16
from hybrid_depth_training.models.encoders.dino import DinoV2B, DinoV2S
from hybrid_depth_training.models.encoders.efficientnet import EfficientNetLite0
from hybrid_depth_training.models.encoders.resnet import ResNet18

ENCODERS: dict[str, type[nn.Module]] = {
    'efficientnet_lite0': EfficientNetLite0,
    'resnet18': ResNet18,
    'clip_rn50': ClipRN50,
    'clip_vit_b16': ClipViTB16,
    'dinov2_vits14': DinoV2S,
    'dinov2_vitb14': DinoV2B,
}
