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
The hybrid single-frame network with metric depth: a CNN's detail, DINO's structure.

The decoder of models.compact, whose coarse levels also join DINO's patch features. Both encoders
stay as they were pretrained: a few hundred frames teach a decoder to read them, and would make
encoders forget.
"""
from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 its usual name

from hybrid_depth_training.models.compact import CompactDepth
from hybrid_depth_training.models.encoders import ENCODERS
from hybrid_depth_training.models.encoders.dino import PATCH
from hybrid_depth_training.models.hybrid import patch_grid

_REDUCED = 64  # channels that each of DINO's four maps is reduced to
_DINO_SCALE = 0.2  # brings its features, of standard deviation 5, to what a fresh layer expects


class HybridMetricDepth(CompactDepth):
    """
    CompactDepth that also reads DINO; inputs and outputs are the same.

    H and W are multiples of 32; DINO is shown the image resampled to the nearest multiples of 14.
    """

    def __init__(self, encoder: str = 'efficientnet_lite0', weights: str = 'imagenet',
                 dino: str = 'dinov2_vits14', dino_weights: str = 'pretrained') -> None:
        dino_encoder = ENCODERS[dino](dino_weights)
        maps = len(dino_encoder.channels)
        super().__init__(encoder, weights, decoder_channels=(160, 112, 64, 32),
                         more_channels=(maps * _REDUCED, _REDUCED, 0, 0))
        self.dino = dino_encoder
        self.register_buffer('dino_mean', torch.tensor(self.dino.mean).view(1, 3, 1, 1) * 255)
        self.register_buffer('dino_std', torch.tensor(self.dino.std).view(1, 3, 1, 1) * 255)
        self.reduce = nn.ModuleList(nn.Conv2d(channels, _REDUCED, 1)
                                    for channels in self.dino.channels)
        self.to_fine = nn.Conv2d(maps * _REDUCED, _REDUCED, 1)
        self.encoder.requires_grad_(False)
        self.dino.requires_grad_(False)

    def train(self, mode: bool = True) -> HybridMetricDepth:
        super().train(mode)
        self.encoder.eval()
        self.dino.eval()
        return self

    def joined(self, image: torch.Tensor, skips: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return the encoder's maps, with DINO's beside those at strides 16 and 8."""
        height, width = patch_grid(*image.shape[1:3])
        x = (image.permute(0, 3, 1, 2).float() - self.dino_mean) / self.dino_std
        x = F.interpolate(x, size=(height * PATCH, width * PATCH), mode='bilinear',
                          align_corners=False)
        maps = [layer(_DINO_SCALE * y) for layer, y in zip(self.reduce, self.dino(x), strict=True)]
        patches = F.relu(torch.cat(maps, dim=1))
        coarse, fine = (
            F.interpolate(y, size=skip.shape[2:], mode='bilinear', align_corners=False)
            for y, skip in ((patches, skips[0]), (self.to_fine(patches), skips[1])))
        return [torch.cat([skips[0], coarse], dim=1), torch.cat([skips[1], fine], dim=1),
                *skips[2:]]
