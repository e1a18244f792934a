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
"""A batch whose depth and motion are known exactly: a painted plane seen by a moving camera."""
from __future__ import annotations

import math

import torch

from hybrid_depth_training.geometry import backproject, inverse_pose, pose_matrix, transform

HEIGHT, WIDTH = 64, 96
K = torch.tensor([[[60.0, 0.0, 47.5], [0.0, 60.0, 31.5], [0.0, 0.0, 1.0]]])
DISTANCE_M = 6.0
NORMAL = torch.tensor([0.0, 0.3, 1.0])  # a wall that leans away at the top


def batch(motions_m: tuple[float, ...] = (-0.3, 0.3), posed: bool = True,
          ) -> dict[str, torch.Tensor]:
    """
    Return one sample as views.collate makes it.

    One source per entry of ``motions_m``: how far it stands to the right of the target.
    """
    rays = backproject(torch.ones(1, 1, HEIGHT, WIDTH), K)
    depth = DISTANCE_M / torch.einsum('c,bchw->bhw', NORMAL, rays)[:, None]
    poses = torch.stack([
        pose_matrix(torch.zeros(1, 3), torch.tensor([[-x, 0.0, 0.0]]))[0] for x in motions_m])
    # the plane leans about the x axis: moving along it changes no distance, so no depth
    sources = torch.stack([_paint(transform(inverse_pose(pose[None]), depth * rays))
                           for pose in poses])
    image = _paint(depth * rays)[None]
    count = len(motions_m)
    return {'image': image, 'image_plain': image, 'K': K, 'depth_m': depth,
            'is_sparse': torch.tensor([False]), 'source_image': sources[None],
            'source_plain': sources[None],
            'source_T_target': poses[None] if posed else torch.eye(4).expand(1, count, 4, 4),
            'source_valid': torch.ones(1, count),
            'source_posed': torch.full((1, count), float(posed))}


def _paint(points: torch.Tensor) -> torch.Tensor:
    """Return the colours (H, W, 3) uint8 of points (1, 3, H, W) by their place."""
    x, y = points[0, 0], points[0, 1]
    channels = [sum(torch.sin(f * (math.cos(a) * x + math.sin(a) * y) + a + phase)
                    for f, a in ((2.0, 0.3), (3.7, 1.4), (5.3, 2.6), (1.1, 0.9)))
                for phase in (0.0, 2.0, 4.0)]
    return (127.5 + 30 * torch.stack(channels, dim=-1)).clamp(0, 255).to(torch.uint8)
