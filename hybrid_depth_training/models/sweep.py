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
"""Plane sweep: features of a frame against those of earlier ones, at every candidate depth."""
from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812 its usual name

FEATURE_STRIDE = 4
GROUPS = 4  # of feature channels, each compared on its own
_NEVER = 1e-3  # the least that a source counts
_CHUNK = 8  # planes that are looked up at a time
_OVERSAMPLE = 2  # source features are looked up on a grid so much finer: rounding to the nearest
# cell then costs an eighth of a matching pixel on average and is ten times faster than
# interpolating, which no CPU runtime does well


def sweep(features: torch.Tensor, K: torch.Tensor, source_features: torch.Tensor,
          source_T_target: torch.Tensor, source_valid: torch.Tensor,
          planes_m: torch.Tensor,
          temperature: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Compare the target with its sources at every candidate depth.

    features (B, C, h, w); K (B, 3, 3) pixels at stride 1; the others as in PosedDepth; planes_m
    (1, D, 1, 1). Returns the volume (B D, 4 (G + 1), h/2, w/2), cells folded by 2x2 as
    pixel_unshuffle does: the similarity per group of channels, averaged over the sources that see
    the point, weighted by ``usefulness`` and times ``temperature``, and the share of sources that
    do; and the mean of that share over the planes, (B, 1, h, w).
    """
    batch, channels, height, width = features.shape
    fine = (height * _OVERSAMPLE, width * _OVERSAMPLE)
    cells = fine[0] * fine[1]
    planes = planes_m.shape[1]
    depths = planes_m.view(1, -1, 1)
    # The h w cells are kept in the order (row in block, column in block, block), so that the
    # volume comes out folded without moving it again. They are the last axis wherever they can
    # be: a CPU runtime is several times slower at rows of a few numbers.
    rays = folded(rays_at_stride(K, height, width))  # (B, 3, h w)
    K_fine = _to_fine_grid(K) @ K
    # (G, C): a product with it sums over the channels of each group
    by_group = torch.eye(GROUPS, device=features.device, dtype=features.dtype) \
        .repeat_interleave(channels // GROUPS, dim=1)
    target = folded(features * temperature).transpose(1, 2)[:, None]  # (B, 1, h w, C)
    seen = weights = nothing = features.new_zeros(())
    parts = [nothing] * -(-planes // _CHUNK)
    for index in range(source_features.shape[1]):
        R, t = source_T_target[:, index, :3, :3], source_T_target[:, index, :3, 3:]
        valid = source_valid[:, index].view(-1, 1, 1)
        table = F.interpolate(source_features[:, index] * valid[..., None],
                              scale_factor=float(_OVERSAMPLE), mode='bilinear',
                              align_corners=False)
        table = table.flatten(2).transpose(1, 2)  # (B, fine, C)
        # one more row, of zeros, for what is out of view
        table = torch.cat([table, torch.zeros_like(table[:, :1])], dim=1)
        table = table.reshape(-1, channels)
        # K (R ray z + t) for all planes z: one small product, then a sum
        moved, shift = (K_fine @ R) @ rays, K_fine @ t  # (B, 3, h w), (B, 3, 1)
        x, y, z = (moved[:, i, None] * depths + shift[:, i, None] for i in range(3))
        front = z > 0.05
        z = z.clamp(min=0.05)
        u, v = torch.round(x / z), torch.round(y / z)
        inside = front & (u >= 0) & (u <= fine[1] - 1) & (v >= 0) & (v <= fine[0] - 1)
        sees = inside.to(features.dtype)
        # arithmetic in place of a Where, which takes ONNX Runtime three times as long
        cell = ((v * fine[1] + (u - cells)) * sees + cells).long()  # (B, D, h w)
        if batch > 1:
            cell = cell + torch.arange(batch, device=cell.device).view(-1, 1, 1) * (cells + 1)
        useful = usefulness(t.norm(dim=1, keepdim=True) / depths)  # (B, D, 1)
        for number in range(len(parts)):  # what is looked up then stays in the cache
            chunk = slice(number * _CHUNK, (number + 1) * _CHUNK)
            found = F.embedding(cell[:, chunk], table) * target  # (B, chunk, h w, C)
            similarity = by_group @ found.transpose(2, 3)  # (B, chunk, G, h w)
            parts[number] = parts[number] + similarity * useful[:, chunk, :, None]
        seen = seen + sees * valid
        weights = weights + sees * (useful * valid)
    mean = torch.cat(parts, dim=1) * (1 / weights.clamp(min=_NEVER))[:, :, None]
    share = seen / source_valid.sum(1).clamp(min=1).view(-1, 1, 1)
    half = (height // 2, width // 2)
    volume = torch.cat([mean.view(batch * planes, 4 * GROUPS, *half),
                        share.view(batch * planes, 4, *half)], dim=1)
    return volume, F.pixel_shuffle(share.mean(1).view(batch, 4, *half), 2)


def _to_fine_grid(like: torch.Tensor) -> torch.Tensor:
    """Return what takes pixels at stride 1 to cells of the fine grid, (3, 3)."""
    scale = _OVERSAMPLE / FEATURE_STRIDE
    centre = 0.5 * scale - 0.5  # (u + 0.5) * scale - 0.5
    return torch.tensor([[scale, 0, centre], [0, scale, centre], [0, 0, 1]],
                        device=like.device, dtype=like.dtype)


def usefulness(baseline: torch.Tensor) -> torch.Tensor:
    """
    Weigh a source by its ``baseline`` over the depth of a plane.

    Up to a third or so, parallax grows; beyond, the views look too different. So the near is
    matched against the nearer of the sources and the far against the farther.
    """
    too_large = (baseline / 0.3) * (baseline / 0.3)  # a power would cost more than all the rest
    return baseline / (baseline + 0.02) / (1 + too_large * too_large) + _NEVER


def folded(x: torch.Tensor) -> torch.Tensor:
    """Order the cells of (B, C, h, w) by place in their 2x2 block, then block: (B, C, h w)."""
    batch, channels = x.shape[:2]
    return F.pixel_unshuffle(x, 2).reshape(batch, channels, -1)


def rays_at_stride(K: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return K^-1 (u, v, 1) of the cells' centres at stride 4, (B, 3, height, width)."""
    def centres(count: int) -> torch.Tensor:
        return (torch.arange(count, device=K.device, dtype=K.dtype) + 0.5) * FEATURE_STRIDE - 0.5
    fx, fy, cx, cy = (K[:, i, j].view(-1, 1, 1) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    x = ((centres(width).view(1, 1, -1) - cx) / fx).expand(-1, height, -1)
    y = ((centres(height).view(1, -1, 1) - cy) / fy).expand(-1, -1, width)
    return torch.stack([x, y, torch.ones_like(x)], dim=1)
