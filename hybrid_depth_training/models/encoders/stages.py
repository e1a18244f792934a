# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
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
