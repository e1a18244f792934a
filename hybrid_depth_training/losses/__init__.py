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
Losses on log depth: a likelihood that learns its own uncertainty, and agreement of gradients.

All take ``log_depth`` and ``log_b`` (B, 1, H, W) and truth ``depth_m`` (B, 1, H, W) with NaN where
there is none and +Inf where nothing is within range.
"""
from __future__ import annotations

import math

import torch

FAR_M = 120.0  # where nothing is within range, any prediction beyond this is right
SIGMA_PER_B = -math.log(1 - 0.6827)  # |error| of a Laplace variable stays below b times this in
# 68.27 % of cases, so sigma_m = depth_m * SIGMA_PER_B * b is "one sigma" in the usual sense


def log_error(log_depth: torch.Tensor, depth_m: torch.Tensor) -> torch.Tensor:
    """Return the error of log depth; 0 without truth; one-sided where nothing is in range."""
    is_far = torch.isposinf(depth_m)
    has_range = torch.isfinite(depth_m)
    truth = torch.where(has_range, depth_m, torch.ones_like(depth_m)).log()
    error = torch.where(has_range, log_depth - truth, torch.zeros_like(log_depth))
    return torch.where(is_far, (log_depth - math.log(FAR_M)).clamp(max=0), error)


def laplace_nll(log_depth: torch.Tensor, log_b: torch.Tensor,
                depth_m: torch.Tensor) -> torch.Tensor:
    """
    Mean of |e| / b + ln b over pixels with truth, per image, then over images.

    The heteroscedastic likelihood of Kendall and Gal (NeurIPS 2017), eq. (5), with a Laplace
    density and e the error of log depth.
    """
    e = log_error(log_depth, depth_m).abs()
    return _mean((e * torch.exp(-log_b) + log_b), ~torch.isnan(depth_m))


def log_l1(log_depth: torch.Tensor, depth_m: torch.Tensor) -> torch.Tensor:
    """Mean of |e|, e the error of log depth."""
    return _mean(log_error(log_depth, depth_m).abs(), ~torch.isnan(depth_m))


def silog(log_depth: torch.Tensor, depth_m: torch.Tensor, variance_focus: float = 0.85,
          ) -> torch.Tensor:
    """
    Scale-invariant logarithmic error, 10 sqrt(mean(e^2) - 0.85 mean(e)^2).

    Over all pixels with truth of the batch (Eigen et al., NeurIPS 2014, in the scaling of Lee et
    al., BTS, 2019, which PixelFormer uses). 0 without any truth, and without a gradient there.
    """
    has_range = torch.isfinite(depth_m)
    count = has_range.sum().clamp(min=1)
    e = torch.where(has_range, log_error(log_depth, depth_m), torch.zeros_like(log_depth))
    mean, square = e.sum() / count, (e * e).sum() / count
    return 10 * torch.sqrt((square - variance_focus * mean**2).clamp(min=1e-12))


def gradient_matching(log_depth: torch.Tensor, depth_m: torch.Tensor,
                      is_sparse: torch.Tensor, scales: int = 4) -> torch.Tensor:
    """
    Mean absolute gradient of the log-depth error between neighbours that both have truth.

    Li and Snavely (CVPR 2018), eq. (5), at steps of 1, 2, 4, ... pixels. Images whose truth is
    ``is_sparse`` (B,) are left out: they have no neighbours.
    """
    has_range = torch.isfinite(depth_m) & ~is_sparse.view(-1, 1, 1, 1)
    error = log_error(log_depth, depth_m)
    total = log_depth.new_zeros(())
    for step in (2**scale for scale in range(scales)):
        for dim in (2, 3):
            size = error.shape[dim] - step
            first, second = (t.narrow(dim, 0, size) for t in (error, has_range))
            other, other_has = (t.narrow(dim, step, size) for t in (error, has_range))
            both = second & other_has
            total = total + ((other - first).abs() * both).sum() / both.sum().clamp(min=1)
    return total / (2 * scales)


def _mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the mask of each image, then over the images that have any truth."""
    counts = mask.sum(dim=(1, 2, 3))
    sums = torch.where(mask, values, torch.zeros_like(values)).sum(dim=(1, 2, 3))
    per_image = sums / counts.clamp(min=1)
    return per_image.sum() / (counts > 0).sum().clamp(min=1)
