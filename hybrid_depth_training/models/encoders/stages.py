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
"""What convolutional encoders share: running some of their stages, and still statistics."""
from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn


def run_stages(stages: Iterable[Callable[[torch.Tensor], torch.Tensor]],
               x: torch.Tensor) -> list[torch.Tensor]:
    """Run the stages one after another and return what each gave."""
    maps = []
    for stage in stages:
        x = stage(x)
        maps.append(x)
    return maps


def hold_statistics(network: nn.Module) -> None:
    """
    Let every BatchNorm use the statistics it has instead of the batch's, and keep them.

    For pretrained encoders: the batches here are small and of mixed domains. Scale and shift are
    still trained. To be called at the end of ``train()``.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
