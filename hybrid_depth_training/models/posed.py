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
Odometry inside the depth: a single-frame network refined by matching along the known motion.

Features of past frames are compared with those of the target at every candidate depth, placed by
the metric camera motion (plane sweep; Collins, CVPR 1996; as a learned cost volume: Yao et al.,
MVSNet, ECCV 2018). On a scene that was never seen a single frame is off by tens of percent while
what matches stays metric. So the single frame is first brought to the depth that was matched
around each place, and only then joined with the matching, as an independent opinion,
p(z) ~ p_match(z) * p_single(z): it gives the shape where there is no parallax, not the scale. A
second, finer look mends it where it can; see models.finer. A small network says how sure the
result is. Without sources it is that of the single frame, exactly.
"""
from __future__ import annotations

from itertools import pairwise
import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 its usual name

from hybrid_depth_training.models.compact import double, LOG_SIGMA_RANGE, SingleFrame
from hybrid_depth_training.models.finer import (
    folded_grey,
    GREY_CHANNELS,
    log_offsets,
    look_again,
)
from hybrid_depth_training.models.peak import peak, unfolded_peak
from hybrid_depth_training.models.sweep import folded, GROUPS, sweep, unfolded

PLANES = 48
NEAR_M, FAR_M = 0.5, 90.0  # of the candidate depths, spaced evenly in log depth
_LITTLE_WEIGHT = 0.1  # of a neighbourhood, as much as that of all around it counts
_NO_WEIGHT = 0.01  # of the whole image
_AGREE = 0.3  # of log depth: three planes


class Posed(NamedTuple):
    """Everything a posed network says; maps are (B, 1, h, w) at stride 4 unless said."""

    log_depth: torch.Tensor  # (B, 1, H, W)
    first_log_depth: torch.Tensor  # (B, 1, H, W), before the second look, which does not learn
    log_b: torch.Tensor  # (B, 1, H, W)
    features: torch.Tensor  # (B, C, h, w), a later frame's source
    match_logits: torch.Tensor  # (B, PLANES, h, w): over the planes, by matching alone
    matched_log_depth: torch.Tensor
    match_trust: torch.Tensor  # logit of the probability that matching alone is within 10 %


class PosedDepth(nn.Module):
    """
    A single-frame network with pose-conditioned refinement.

    ``single`` gives SingleFrame and ``shallow(image)``; see models.compact. ``matched_channels``
    is the width of what the first sweep compares; the features that a later frame is given hold
    the folded grey image as well, ``channels`` in all. The refinement sees local image features
    and the single frame's depth, not its inner maps: those know the training scenes by heart, and
    a refinement that reads them learns to trust a single frame more than it deserves elsewhere.
    """

    def __init__(self, single: nn.Module, matched_channels: int = 16) -> None:
        super().__init__()
        self.single = single
        self.channels = matched_channels + GREY_CHANNELS
        # Factor on the single frame's sigma that makes it true on scenes never seen; measured by
        # calibration, until then the middle of what the refinement is trained with.
        self.single_sigma_scale = 1.7
        self.size_multiple = single.size_multiple
        at_half, at_quarter = single.shallow_channels
        self.match_half = nn.Conv2d(at_half, 32, 3, stride=2, padding=1)
        self.match_quarter = nn.Conv2d(at_quarter, 32, 3, padding=1)
        self.match_mid = nn.Conv2d(32, 32, 3, padding=1)
        self.match_out = nn.Conv2d(32, matched_channels, 3, padding=1)
        self.temperature = nn.Parameter(torch.tensor(2.0))
        # Log of the trust in the single frame once its scale is that of the matching: it starts
        # as being twice as sure as it was before.
        self.opinion = nn.Parameter(torch.tensor(0.6))
        self.volume = VolumeFilter(GROUPS + 1, at_quarter)
        self.fusion = Fusion(at_quarter)
        self.refine = nn.Sequential(
            nn.Conv2d(at_half + 7, 24, 3, padding=1), nn.ReLU(),
            nn.Conv2d(24, 1, 3, padding=1))
        nn.init.zeros_(self.refine[-1].weight)
        nn.init.zeros_(self.refine[-1].bias)
        planes = torch.linspace(math.log(NEAR_M), math.log(FAR_M), PLANES)
        self.register_buffer('log_planes', planes.view(1, PLANES, 1, 1), persistent=False)

    def features(self, image: torch.Tensor, shallow: list[torch.Tensor]) -> torch.Tensor:
        """Join unit vectors per group, for the sweep, and the grey image; (B, C, h, w)."""
        x = F.relu(self.match_half(shallow[0]) + self.match_quarter(shallow[1]))
        x = F.relu(x + self.match_mid(x))
        x = self.match_out(x)
        batch, channels, height, width = x.shape
        x = x.view(batch, GROUPS, channels // GROUPS, height, width)
        # safe in half precision: a few channels only, and an epsilon that it can hold
        x = x / torch.sqrt((x * x).sum(2, keepdim=True) + 1e-4)
        return torch.cat([x.view(batch, channels, height, width), folded_grey(image)], dim=1)

    def source_features(self, images: torch.Tensor) -> torch.Tensor:
        """Return matching features of images (B, S, H, W, 3) uint8: (B, S, C, h, w)."""
        batch, count = images.shape[:2]
        images = images.flatten(0, 1)
        features = self.features(images, self.single.shallow(images))
        return features.view(batch, count, *features.shape[1:])

    def forward(self, image: torch.Tensor, K: torch.Tensor, source_features: torch.Tensor,
                source_T_target: torch.Tensor, source_valid: torch.Tensor) -> Posed:
        """
        Depth of ``image`` with the help of S sources.

        image (B, H, W, 3) uint8 RGB; K (B, 3, 3) pixels; source_features (B, S, C, h, w);
        source_T_target (B, S, 4, 4) metres, optical frames; source_valid (B, S), 0 or 1.
        """
        return self.refined(self.opinion_of_single(image, K), image, K, source_features,
                            source_T_target, source_valid)

    def opinion_of_single(self, image: torch.Tensor, K: torch.Tensor) -> SingleFrame:
        """Return what the single frame says, as sure as it may be: see ``single_sigma_scale``."""
        single: SingleFrame = self.single.single_frame(image, K)
        return single._replace(log_b=single.log_b + math.log(self.single_sigma_scale))

    def refined(self, single: SingleFrame, image: torch.Tensor, K: torch.Tensor,
                source_features: torch.Tensor, source_T_target: torch.Tensor,
                source_valid: torch.Tensor) -> Posed:
        """Refine what the single frame says; the arguments are those of ``forward``."""
        at_half, at_quarter = single.shallow
        features = self.features(image, single.shallow)
        matched_channels = self.channels - GREY_CHANNELS
        volume, in_view = sweep(features[:, :matched_channels], K,
                                source_features[:, :, :matched_channels], source_T_target,
                                source_valid, self.log_planes.exp(), self.temperature.exp())
        any_valid = source_valid.amax(1).view(-1, 1, 1, 1)
        logits = self.volume(volume, at_quarter) * any_valid  # (B, PLANES, 1, h w), folded
        log_depth, log_b = F.avg_pool2d(single.log_depth, 2), F.avg_pool2d(single.log_b, 2)
        height, width = log_depth.shape[2:]
        matched = unfolded_peak(logits, self.log_planes, height, width)
        scaled = log_depth + spread(
            (matched.log_depth - log_depth).clamp(-2, 2), matched.mass**4)
        at, slope = (folded(x)[:, :, None] for x in (scaled, -torch.exp(self.opinion - log_b)))
        prior = ((self.log_planes - at).abs() * slope).clamp(min=-12)
        joint = unfolded_peak(logits + prior, self.log_planes, height, width)
        inside = scaled.clamp(math.log(NEAR_M), math.log(FAR_M))
        # beyond the planes the single frame alone can tell, unless matching is sure of one
        agree = (1 - (joint.log_depth - inside).abs() / _AGREE).clamp(min=0)
        matching = joint.log_depth - inside - (1 - agree) * (scaled - inside)
        evidence = torch.cat([
            matching, joint.mass, (matched.log_depth - scaled).clamp(-2, 2) * matched.mass,
            matched.mass, matched.entropy, log_b, in_view, slopes(log_depth)], dim=1)
        # What is learned from here on says how sure the result is, and moves it no more: free
        # corrections, and choices between the two opinions, were right on the scenes of training
        # alone. On a sequence never seen they made d1 0.79 where the joint opinion had 0.81.
        said = self.fusion(at_quarter, evidence)
        change = double(torch.cat([scaled - log_depth + matching, said[:, :1]], dim=1))
        change = change * any_valid
        log_depth = single.log_depth + change[:, :1]
        log_b = (single.log_b + change[:, 1:]).clamp(*LOG_SIGMA_RANGE)
        offsets = log_offsets(log_depth)
        again = look_again(log_depth.detach(), features[:, matched_channels:], K,
                           source_features[:, :, matched_channels:], source_T_target,
                           source_valid)
        finer = peak(again - offsets.abs() * torch.exp(-log_b.detach()), offsets, window=1)
        mended = self.refine(torch.cat([
            at_half, change, slopes(single.log_depth), 10 * finer.log_depth, finer.mass,
            finer.entropy], dim=1))
        return Posed(double(log_depth + finer.log_depth * any_valid), double(log_depth),
                     double((log_b + mended * any_valid).clamp(*LOG_SIGMA_RANGE)),
                     features, unfolded(logits, height, width), matched.log_depth, said[:, 1:])


def spread(offset: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """
    Carry ``offset`` (B, 1, h, w) from where ``weight`` is large to where it is small.

    Weighted means of ever larger neighbourhoods, from 4x4 to the whole image, each standing in
    where the smaller one has no weight (normalised convolution; Knutsson and Westin, CVPR 1993).
    0 where there is next to no weight anywhere. h and w are multiples of 8.
    """
    levels = [(F.avg_pool2d(offset * weight, 4), F.avg_pool2d(weight, 4))]
    levels.append((F.avg_pool2d(levels[0][0], 2), F.avg_pool2d(levels[0][1], 2)))
    total, weights = (x.mean(dim=(2, 3), keepdim=True) for x in levels[1])
    found = total / (weights + _NO_WEIGHT)
    for total, weights in reversed(levels):
        found = (total + _LITTLE_WEIGHT * found) / (weights + _LITTLE_WEIGHT)
        found = double(found)
    return double(found)


def slopes(log_depth: torch.Tensor) -> torch.Tensor:
    """Return the differences to the left and upper neighbour, (B, 2, h, w): edges, no scale."""
    across = log_depth[..., 1:] - log_depth[..., :-1]
    down = log_depth[..., 1:, :] - log_depth[..., :-1, :]
    # zeros at the border by concatenation: a Pad would need a newer opset than the export's
    across = torch.cat([torch.zeros_like(log_depth[..., :1]), across], dim=3)
    down = torch.cat([torch.zeros_like(log_depth[..., :1, :]), down], dim=2)
    return 10 * torch.cat([across, down], dim=1)


class VolumeFilter(nn.Module):
    """
    Three-dimensional filter over (planes, h, w): what neighbours match supports a pixel.

    The same weights serve every plane, so that what was learned at one depth holds at all. It
    works on blocks of 2x2 cells, folded into channels: the same view at half the cost.
    """

    def __init__(self, inputs: int, context: int, width: int = 16) -> None:
        super().__init__()
        self.context = nn.Conv2d(context, width, 3, stride=2, padding=1)
        self.first = nn.Conv2d(4 * inputs, width, 3, padding=1)
        self.along1 = nn.Conv3d(width, width, (3, 1, 1), padding=(1, 0, 0))
        self.down1 = nn.Conv3d(width, 24, 3, stride=2, padding=1)
        self.mid1 = nn.Conv3d(24, 24, 3, padding=1)
        self.down2 = nn.Conv3d(24, 32, 3, stride=2, padding=1)
        self.mid2 = nn.Conv3d(32, 32, 3, padding=1)
        self.up2 = nn.Conv3d(32, 24, 1)
        self.join1 = nn.Conv3d(24, 24, 3, padding=1)
        self.up1 = nn.Conv3d(24, width, 1)
        self.last = nn.Conv2d(width, width, 3, padding=1)
        self.out = nn.Conv3d(width, 4, (3, 1, 1), padding=(1, 0, 0))

    def forward(self, volume: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """
        Filter ``volume`` (B D, 4 (G + 1), h/2, w/2), seen with ``context`` (B, C, h, w).

        Returns logits (B, D, 1, h w), folded as the volume is: to move all of them to their places
        would take longer than to move what is read from them.
        """
        batch, (height, width) = context.shape[0], volume.shape[2:]
        planes = volume.shape[0] // batch
        x = self.first(volume).view(batch, planes, -1, height, width).transpose(1, 2)
        x = F.relu(x + self.context(context)[:, :, None])
        flat = x.flatten(3)  # (B, C, D, h w / 4)
        x = F.relu(flat + _along(self.along1, flat)).unflatten(3, (height, width))
        low = F.relu(self.down1(x))
        low = F.relu(low + self.mid1(low))
        lower = F.relu(self.down2(low))
        lower = F.relu(lower + self.mid2(lower))
        low = F.relu(_plus_larger(low, _along(self.up2, lower.flatten(3))))
        low = F.relu(low + self.join1(low))
        x = F.relu(_plus_larger(x, _along(self.up1, low.flatten(3))))
        x = x.transpose(1, 2).flatten(0, 1)  # (B D, C, h/2, w/2)
        x = F.relu(x + self.last(x))
        x = x.view(batch, planes, -1, height * width).transpose(1, 2)
        # (B, 4, D, h w / 4)
        return _along(self.out, x).transpose(1, 2).reshape(batch, planes, 1, -1)


def _along(layer: nn.Conv3d, x: torch.Tensor) -> torch.Tensor:
    """
    Convolve (B, C, D, N) along D with a layer of kernel (k, 1, 1).

    As a convolution of two axes: ONNX Runtime takes less than half the time for it.
    """
    return F.conv2d(x, layer.weight[..., 0], layer.bias, padding=layer.padding[:2])


def _plus_larger(x: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    """Add ``low`` (B, C, D, h w) to ``x`` (B, C, 2 D, 2 h, 2 w), repeated by 2 along all three."""
    batch, channels, planes, height, width = x.shape
    low = low.reshape(batch * channels, planes // 2, height // 2, width // 2)
    larger = F.interpolate(low, scale_factor=2.0, mode='nearest')
    larger = larger.view(batch, channels, planes // 2, 1, height, width)
    # planes are repeated by broadcasting: copies would take as long as the sum
    return (x.unflatten(2, (-1, 2)) + larger).flatten(2, 3)


class Fusion(nn.Module):
    """Says how sure the result is, and whether matching is right."""

    _EVIDENCE = 9

    def __init__(self, context_channels: int) -> None:
        super().__init__()
        widths = (32, 48, 64, 64)
        self.context = nn.Conv2d(context_channels, 24, 1)
        self.first = nn.Conv2d(24 + self._EVIDENCE, widths[0], 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1)
                                  for a, b in pairwise(widths))
        self.same = nn.ModuleList(nn.Conv2d(b, b, 3, padding=1) for b in widths[1:])
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1)
                                for a, b in pairwise(widths))
        self.join = nn.ModuleList(nn.Conv2d(a, a, 3, padding=1) for a in widths[:-1])
        self.out = nn.Conv2d(widths[0], 2, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        self.out.bias.data = torch.zeros(2)

    def forward(self, context: torch.Tensor, evidence: torch.Tensor) -> torch.Tensor:
        """
        Return (B, 2, h, w): correction of log b, and logit of the trust in matching.

        ``evidence`` (B, 9, h, w) as PosedDepth makes it; h and w multiples of 8.
        """
        x = F.relu(self.first(torch.cat([F.relu(self.context(context)), evidence], dim=1)))
        skips = []
        for down, same in zip(self.down, self.same, strict=True):
            skips.append(x)
            x = F.relu(down(x))
            x = F.relu(x + same(x))
        for up, join, skip in zip(reversed(self.up), reversed(self.join), reversed(skips),
                                  strict=True):
            x = F.relu(skip + double(up(x)))
            x = F.relu(x + join(x))
        return self.out(x)
