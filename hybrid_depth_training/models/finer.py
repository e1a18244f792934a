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
A second look along the odometry, at twice the resolution and near the depth already found.

What parallax can tell grows with resolution: at stride 4 a tenth of the depth of a wall 60 m ahead
is a sixth of a cell. A sweep over all depths at stride 2 would cost eight times as much; one over
a few of them, around the depth that the first sweep and the single frame agreed on, costs less
than the first. It compares the contrast of every pixel with its neighbours, as the census
transform does (Zabih and Woodfill, ECCV 1994). Nothing of it is trained, so it fits no scene by
heart: on KITTI odometry 06, held out, it took d1 from 0.82 to 0.88.
"""
from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812 its usual name

from hybrid_depth_training.models.sweep import cells_of, FEATURE_STRIDE, sum_over, usefulness

STRIDE = 2
OFFSETS = 7  # candidates, spaced evenly in log depth
SPAN = 0.3  # of log depth to either side
GREY_CHANNELS = FEATURE_STRIDE**2  # of a full-resolution image folded to the stride of features
_SUPPORT = 7  # cells across the square whose pixels are taken to move together
_SHARPNESS = 15.0  # of the likelihood, per unit of similarity
_CONTRAST = 8.0  # grey levels that count as a difference
_TEXTURELESS = 0.1  # sum of squared contrasts below which a pixel says little


def folded_grey(image: torch.Tensor) -> torch.Tensor:
    """Turn (B, H, W, 3) uint8 RGB into luma in 1/256, (B, 16, H/4, W/4): nothing is lost."""
    colours = image.permute(0, 3, 1, 2).float()
    red, green, blue = colours[:, :1], colours[:, 1:2], colours[:, 2:]
    # sums, not a convolution, which would be one that half precision must be kept from; its
    # outcome half precision holds exactly
    grey = torch.round(0.299 * red + 0.587 * green + 0.114 * blue) / 256
    return F.pixel_unshuffle(grey, FEATURE_STRIDE)


def contrasts(grey: torch.Tensor) -> torch.Tensor:
    """
    Describe every pixel of ``folded_grey`` by how it differs from its four neighbours.

    Returns (B, 4, H, W): to the right, from the left, downwards, from above; of unit length where
    there is texture.
    """
    grey = F.pixel_shuffle(grey, FEATURE_STRIDE) * 256
    # from the left is what the left neighbour has to its right; borders by concatenation: a Pad
    # would need a newer opset than the export's
    column, row = torch.zeros_like(grey[..., :1]), torch.zeros_like(grey[..., :1, :])
    right = torch.cat([_soft_sign(grey[..., 1:] - grey[..., :-1]), column], dim=3)
    below = torch.cat([_soft_sign(grey[..., 1:, :] - grey[..., :-1, :]), row], dim=2)
    signs = torch.cat([
        right, torch.cat([column, right[..., :-1]], dim=3),
        below, torch.cat([row, below[..., :-1, :]], dim=2)], dim=1)
    return signs / torch.sqrt(sum_over(signs * signs) + _TEXTURELESS)


def _soft_sign(difference: torch.Tensor) -> torch.Tensor:
    return difference / torch.sqrt(difference * difference + _CONTRAST**2)


def log_offsets(like: torch.Tensor) -> torch.Tensor:
    """Return the candidates' log depth relative to the depth already found, (1, OFFSETS, 1, 1)."""
    return torch.linspace(-SPAN, SPAN, OFFSETS, device=like.device, dtype=like.dtype).view(
        1, -1, 1, 1)


def look_again(log_depth: torch.Tensor, grey: torch.Tensor, K: torch.Tensor,
               source_grey: torch.Tensor, source_T_target: torch.Tensor,
               source_valid: torch.Tensor) -> torch.Tensor:
    """
    Return the logits (B, OFFSETS, H/2, W/2) of the candidates around ``log_depth``.

    log_depth (B, 1, H/2, W/2); grey (B, 16, H/4, W/4) and source_grey (B, S, 16, H/4, W/4) of
    ``folded_grey``; the others as in PosedDepth. 0 where no source sees a candidate.
    """
    batch, _, height, width = log_depth.shape
    full = (STRIDE * height, STRIDE * width)
    rays = _rays(K, height, width)
    # one pixel of each cell stands for it: an average would have lost the contrast
    target = contrasts(grey)[:, :, 1::STRIDE, 1::STRIDE].flatten(2).transpose(1, 2)[:, None]
    ones = target.new_ones(1, target.shape[3])
    depth = torch.exp(log_depth).flatten(2)  # (B, 1, h w)
    # the candidates, relative to it: (1, OFFSETS, 1)
    factors = torch.exp(log_offsets(log_depth)).flatten(2)
    depths = depth * factors  # (B, OFFSETS, h w)
    total = weights = log_depth.new_zeros(())
    for index in range(source_grey.shape[1]):
        R, t = source_T_target[:, index, :3, :3], source_T_target[:, index, :3, 3:]
        # (B, OFFSETS, h w): in this order neighbours look up neighbours, and nothing moves later
        cell, sees = cells_of(factors, ((K @ R) @ rays) * depth, K @ t, full)
        table = contrasts(source_grey[:, index]).flatten(2).transpose(1, 2)
        found = F.embedding(cell, table.reshape(-1, table.shape[2]))  # (B, OFFSETS, h w, 4)
        similarity = (ones @ (found * target).transpose(2, 3)).squeeze(2)
        useful = usefulness(t.norm(dim=1, keepdim=True) / depths)
        weight = sees * (useful * source_valid[:, index].view(-1, 1, 1))
        total = total + similarity * weight
        weights = weights + weight
    similarity = (total / weights.clamp(min=1e-3)).view(batch, OFFSETS, height, width)
    return _SHARPNESS * _mean_around(similarity)


def _rays(K: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return K^-1 (u, v, 1) of the lower right pixel of every 2x2 cell, (B, 3, height width)."""
    def pixels(count: int) -> torch.Tensor:
        return torch.arange(count, device=K.device, dtype=K.dtype) * STRIDE + 1
    fx, fy, cx, cy = (K[:, i, j].view(-1, 1, 1) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    x = ((pixels(width).view(1, 1, -1) - cx) / fx).expand(-1, height, -1)
    y = ((pixels(height).view(1, -1, 1) - cy) / fy).expand(-1, -1, width)
    return torch.stack([x, y, torch.ones_like(x)], dim=1).flatten(2)


def _mean_around(x: torch.Tensor) -> torch.Tensor:
    """Average over a square of _SUPPORT cells, of what of it is in the image."""
    half = _SUPPORT // 2
    x = F.avg_pool2d(x, (_SUPPORT, 1), 1, (half, 0), count_include_pad=False)
    return F.avg_pool2d(x, (1, _SUPPORT), 1, (0, half), count_include_pad=False)
