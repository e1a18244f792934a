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
How well one view explains another: the self-supervised losses of Monodepth2.

Godard et al., "Digging Into Self-Supervised Monocular Depth Estimation" (ICCV 2019). Images are
(B, 3, H, W) float in 0..1, error maps (B, S, H, W), one channel per source view.
"""
from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812 its usual name

SSIM_SHARE = 0.85
_C1, _C2 = 0.01**2, 0.03**2
TIE_BREAK = 1e-5  # standard deviation of the noise on identity errors


def to_float(image: torch.Tensor) -> torch.Tensor:
    """Turn (B, H, W, 3) uint8 into (B, 3, H, W) float32 in 0..1."""
    return image.permute(0, 3, 1, 2).float() / 255


def ssim_distance(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """
    Return (1 - SSIM) / 2 per pixel and channel, in 0..1; 0 for equal images.

    Wang et al. (2004), eq. (13), over windows of 3x3 pixels of equal weight, edges reflected.
    """
    x, y = (F.pad(image, (1, 1, 1, 1), mode='reflect') for image in (first, second))
    mean_x, mean_y = F.avg_pool2d(x, 3, 1), F.avg_pool2d(y, 3, 1)
    var_x = F.avg_pool2d(x * x, 3, 1) - mean_x**2
    var_y = F.avg_pool2d(y * y, 3, 1) - mean_y**2
    covariance = F.avg_pool2d(x * y, 3, 1) - mean_x * mean_y
    ssim = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2) / (
        (mean_x**2 + mean_y**2 + _C1) * (var_x + var_y + _C2))
    return ((1 - ssim) / 2).clamp(0, 1)


def photometric_error(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """
    Return pe = 0.85 (1 - SSIM) / 2 + 0.15 L1 per pixel, (B, 1, H, W), the mean over channels.

    Eq. (2) of Monodepth2.
    """
    l1 = (first - second).abs()
    return (SSIM_SHARE * ssim_distance(first, second) + (1 - SSIM_SHARE) * l1).mean(1, True)


def only_valid(errors: torch.Tensor, source_valid: torch.Tensor) -> torch.Tensor:
    """Set the ``errors`` (B, S, H, W) of sources that are not ``source_valid`` (B, S) to +Inf."""
    is_valid = (source_valid > 0)[:, :, None, None]
    return torch.where(is_valid, errors, torch.full_like(errors, float('inf')))


def automasked_loss(reprojection: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
    """
    Mean over pixels of the least error of all, moved and unmoved sources alike.

    Eqs. (4) and (5) of Monodepth2 in one: a pixel that an unmoved source explains best (a standing
    camera, something that moves along) has no gradient. ``reprojection`` and ``identity`` are
    (B, S, H, W), +Inf where a source does not count (``only_valid``). Images without any source
    count for nothing. Noise breaks the tie of a static scene, where both errors are equal.
    """
    unmoved = identity.detach() + TIE_BREAK * torch.randn_like(identity)
    least = torch.cat([reprojection, unmoved], dim=1).amin(dim=1, keepdim=True)
    return masked_mean(least, torch.isfinite(least))


def automask(reprojection: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
    """
    Say where a moved source explains a pixel better than any unmoved one: (B, 1, H, W) bool.

    The mask mu of eq. (5) of Monodepth2. Arguments as of ``automasked_loss``.
    """
    unmoved = identity + TIE_BREAK * torch.randn_like(identity)
    least = reprojection.amin(dim=1, keepdim=True)
    return (least < unmoved.amin(dim=1, keepdim=True)) & torch.isfinite(least)


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of ``values`` where ``mask`` (bool, same shape) is set; 0 where it is set nowhere."""
    kept = torch.where(mask, values, torch.zeros_like(values))
    return kept.sum() / mask.sum().clamp(min=1)


def smoothness(disparity: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """
    Mean of |dx d*| e^-|dx I| + |dy d*| e^-|dy I|, d* = d / mean(d): eq. (3) of Monodepth2.

    ``disparity`` (B, 1, H, W), any unit (its scale cancels); ``image`` (B, 3, H, W) of that size.
    """
    d = disparity / (disparity.mean(dim=(2, 3), keepdim=True) + 1e-7)
    total = disparity.new_zeros(())
    for dim in (2, 3):
        edge = image.diff(dim=dim).abs().mean(dim=1, keepdim=True)
        total = total + (d.diff(dim=dim).abs() * torch.exp(-edge)).mean()
    return total
