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
Encoders with the interface and the layers of the real ones, but fewer blocks.

The time of an export grows with the number of layers, whatever their width.
"""
from torch import nn

from hybrid_depth_training.models.encoders import ENCODERS
from hybrid_depth_training.models.encoders.dino import DinoV2S
from hybrid_depth_training.models.encoders.efficientnet import EfficientNetLite0


class ShortLite0(EfficientNetLite0):
    """The first block of each of the seven stages alone. Random weights only."""

    _last_blocks = (0, 1, 2, 4, 6)

    def __init__(self, weights: str) -> None:
        super().__init__(weights)
        self.blocks = nn.ModuleList(self.blocks[index] for index in (0, 1, 3, 5, 8, 11, 15))


class ShortDino(DinoV2S):
    """Four transformer blocks instead of twelve. Random weights only."""

    def __init__(self, weights: str) -> None:
        super().__init__(weights, depth=4)


def take_short(patch) -> None:
    """Put them in the table of encoders, until the MonkeyPatch ``patch`` is undone."""
    patch.setitem(ENCODERS, 'efficientnet_lite0', ShortLite0)
    patch.setitem(ENCODERS, 'dinov2_vits14', ShortDino)
