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
    valid = source_valid[:, :, None, None]  # (B, S, 1, 1)
    cells, weights = [], []
    total = share = features.new_zeros(())
    for index in range(source_features.shape[1]):
        R, t = source_T_target[:, index, :3, :3], source_T_target[:, index, :3, 3:]
        cell, sees = cells_of(depths, (K_fine @ R) @ rays, K_fine @ t, fine)
        useful = usefulness(t.norm(dim=1, keepdim=True) / depths)  # (B, D, 1)
        cells.append(cell)
        weights.append(sees * (useful * valid[:, index]))
        total = total + weights[-1]
        share = share + sees * (valid[:, index] / valid.sum(1).clamp(min=1))
    one_by_total = 1 / total.clamp(min=_NEVER)
    parts = [features.new_zeros(())] * -(-planes // _CHUNK)
    for index, (cell, weight) in enumerate(zip(cells, weights, strict=True)):
        table = F.interpolate(source_features[:, index], scale_factor=float(_OVERSAMPLE),
                              mode='bilinear', align_corners=False)
        table = table.flatten(2).transpose(1, 2).reshape(-1, channels)
        weight = (weight * one_by_total)[:, :, None]
        for number in range(len(parts)):  # what is looked up then stays in the cache
            chunk = slice(number * _CHUNK, (number + 1) * _CHUNK)
            found = F.embedding(cell[:, chunk], table) * target  # (B, chunk, h w, C)
            similarity = by_group @ found.transpose(2, 3)  # (B, chunk, G, h w)
            parts[number] = parts[number] + similarity * weight[:, chunk]
    half = (height // 2, width // 2)
    volume = torch.cat([torch.cat(parts, dim=1).view(batch * planes, 4 * GROUPS, *half),
                        share.view(batch * planes, 4, *half)], dim=1)
    return volume, unfolded(mean_over(share), height, width)


def cells_of(factors: torch.Tensor, moved: torch.Tensor, shift: torch.Tensor,
             size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Return where points are seen, for all of ``factors`` at once.

    The points are f * moved + shift in homogeneous cells; factors (1, D, 1), moved (B, 3, N),
    shift (B, 3, 1). Returns the row of the nearest cell in a table of all of them, B times
    ``size`` (H, W), int32, and 1.0 where it is in view, else 0.0; both (B, D, N).
    """
    height, width = size
    # a small product is one pass over what comes out, where f * m + s is two
    with_one = torch.cat([factors, torch.ones_like(factors)], dim=2)
    x, y, z = (with_one @ torch.stack([moved[:, i], shift[:, i].expand_as(moved[:, i])], dim=1)
               for i in range(3))
    front = z > 0.05
    z = z.clamp(min=0.05)
    u, v = torch.round(x / z), torch.round(y / z)
    column, row = u.clamp(0, width - 1), v.clamp(0, height - 1)
    cell = (row * width + column).int()
    if len(cell) > 1:
        cell = cell + torch.arange(len(cell), device=cell.device, dtype=cell.dtype).view(
            -1, 1, 1) * (height * width)
    return cell, (front & (u == column) & (v == row)).to(x.dtype)


def sum_over(x: torch.Tensor) -> torch.Tensor:
    """
    Sum (B, D, ...) over D, (B, 1, ...), as a product.

    ONNX Runtime takes seven times as long for a sum over an axis that is not the last.
    """
    ones = torch.ones(1, 1, x.shape[1], device=x.device, dtype=x.dtype)
    return (ones @ x.flatten(2)).view(x.shape[0], 1, *x.shape[2:])


def mean_over(x: torch.Tensor) -> torch.Tensor:
    """Return the mean of (B, D, ...) over D, (B, 1, ...)."""
    return sum_over(x) / x.shape[1]


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


def unfolded(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Undo ``folded``: (B, C, ..., h w) to (B, C, h, w)."""
    batch, channels = x.shape[:2]
    return F.pixel_shuffle(x.reshape(batch, 4 * channels, height // 2, width // 2), 2)


def rays_at_stride(K: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return K^-1 (u, v, 1) of the cells' centres at stride 4, (B, 3, height, width)."""
    def centres(count: int) -> torch.Tensor:
        return (torch.arange(count, device=K.device, dtype=K.dtype) + 0.5) * FEATURE_STRIDE - 0.5
    fx, fy, cx, cy = (K[:, i, j].view(-1, 1, 1) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    x = ((centres(width).view(1, 1, -1) - cx) / fx).expand(-1, height, -1)
    y = ((centres(height).view(1, -1, 1) - cy) / fy).expand(-1, -1, width)
    return torch.stack([x, y, torch.ones_like(x)], dim=1)
