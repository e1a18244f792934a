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
"""How the camera moved between two images, as a network guesses it: up to scale."""
from __future__ import annotations

import torch
from torch import nn

from hybrid_depth_training.geometry import full_precision, inverse_pose, pose_matrix
from hybrid_depth_training.models.encoders import ENCODERS

_OUTPUT_SCALE = 0.01  # small motions at the start, as in Zhou et al. (CVPR 2017)
_CHANNELS = 256


class PoseNet(nn.Module):
    """
    The pose network of Monodepth2 (Godard et al., ICCV 2019): an encoder on two stacked images.

    forward(earlier, later):
        two images (B, H, W, 3) uint8 RGB of one camera, in the order in which they were taken
    returns ``later_T_earlier`` (B, 4, 4), rigid, translation in the unit that training gave it.

    ``encoder`` is a row of ENCODERS. Its first convolution is widened to six channels with its
    weights repeated and halved, so that two equal images give what one gave before.
    """

    def __init__(self, encoder: str = 'resnet18', weights: str = 'imagenet') -> None:
        super().__init__()
        self.encoder = ENCODERS[encoder](weights)
        self.register_buffer('mean', torch.tensor(self.encoder.mean).view(1, 3, 1, 1) * 255)
        self.register_buffer('std', torch.tensor(self.encoder.std).view(1, 3, 1, 1) * 255)
        _widen_first_convolution(self.encoder)
        self.head = nn.Sequential(
            nn.Conv2d(self.encoder.channels[-1], _CHANNELS, 1), nn.ReLU(),
            nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1), nn.ReLU(),
            nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1), nn.ReLU(),
            nn.Conv2d(_CHANNELS, 6, 1))

    def forward(self, earlier: torch.Tensor, later: torch.Tensor) -> torch.Tensor:
        pair = [(image.permute(0, 3, 1, 2).float() - self.mean) / self.std
                for image in (earlier, later)]
        features = self.encoder(torch.cat(pair, dim=1))[-1]
        motion = _OUTPUT_SCALE * self.head(features).mean(dim=(2, 3)).float()  # (B, 6)
        with full_precision(motion):
            return pose_matrix(motion[:, :3], motion[:, 3:])


def source_poses(pose_net: PoseNet, target: torch.Tensor, sources: torch.Tensor,
                 offsets: tuple[int, ...]) -> torch.Tensor:
    """
    Return ``source_T_target`` (B, S, 4, 4), the network being shown every pair in temporal order.

    ``target`` (B, H, W, 3), ``sources`` (B, S, H, W, 3) uint8; ``offsets`` say, per source, how
    many frames after the target it was taken (negative: before). Where a source comes first the
    network says target_T_source, and the pose is its inverse.
    """
    poses = []
    for index, offset in enumerate(offsets):
        source = sources[:, index]
        if offset < 0:
            poses.append(inverse_pose(pose_net(source, target)))
        else:
            poses.append(pose_net(target, source))
    return torch.stack(poses, dim=1)


def _widen_first_convolution(encoder: nn.Module) -> None:
    first = next(module for module in encoder.modules() if isinstance(module, nn.Conv2d))
    first.weight = nn.Parameter(first.weight.detach().repeat(1, 2, 1, 1) / 2)
    first.in_channels = 6
