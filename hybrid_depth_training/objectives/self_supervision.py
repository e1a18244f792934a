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
What the hosts have in common: where poses come from, view synthesis, figures on held-out views.

Depth is learned by explaining each image from its neighbours in time (Zhou et al., CVPR 2017). The
motion between them is what a pose network says, and depth is then up to scale; or what odometry
measured, and depth is metric; or the former, its length tied to the latter.
"""
from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F  # noqa: N812 its usual name

from hybrid_depth.errors import ConfigError
from hybrid_depth_training.geometry import warp
from hybrid_depth_training.losses.photometric import (
    automasked_loss,
    only_valid,
    photometric_error,
    smoothness,
    to_float,
)
from hybrid_depth_training.models.monodepth import disparity_to_depth
from hybrid_depth_training.models.pose_net import PoseNet, source_poses
from hybrid_depth_training.objectives import Batch, Objective

POSES = ('network', 'known', 'learned_metric')
HYBRID = 'hybrid'
_OWN = {'scales', 'min_depth_m', 'max_depth_m'}  # settings of HybridConfig that are the host's
_PRETRAINED = ('.encoder.', '.clip.', '.dino.', '.text.')  # parts that ``encoder_lr`` is for
_EVALUATED_M = (1e-3, 80.0)
_DEAD = 1e-6  # disparity this near to 0 or to 1 at every pixel


@dataclass(frozen=True)
class HostOptions:
    """Settings that both hosts have."""

    encoder: str = 'resnet18'
    """Row of ENCODERS with maps at strides 2 to 32, or 'hybrid'"""
    weights: str = 'imagenet'
    """Weights of that encoder; 'hybrid' names its own"""
    hybrid: dict[str, Any] = field(default_factory=dict)
    """Settings of HybridConfig, for the encoder 'hybrid' only; scales and the limits of depth are
    those below"""
    freeze: str = ''
    """What of 'hybrid' is trained, see HybridDepth.freeze; '' = what the paper does here"""
    poses: str = 'network'
    """network: learned, up to scale; known: from odometry; learned_metric: learned, with a loss
    that ties the length of each motion to that of odometry"""
    pose_encoder: str = 'resnet18'
    """Row of ENCODERS under the pose network"""
    pose_weights: str = 'imagenet'
    """Weights of that encoder"""
    offsets: Sequence[int] = (-1, 1)
    """Distances in time of the source frames, as in neighbours.offsets: the pose network is shown
    frames in temporal order"""
    scales: int = 4
    """Disparities that are trained, each half as large as the one before; the paper of 'hybrid'
    trains one"""
    min_depth_m: float = 0.1
    """Depth of disparity 1"""
    max_depth_m: float = 100.0
    """Depth of disparity 0"""
    start_depth_m: float = 0.0
    """Depth that an untrained decoder says; 0 = as it comes, at disparity one half. With metric
    poses a start far too near has no gradient: nothing moved that far is seen"""
    smoothness: float = 1e-3
    """Weight of the smoothness of disparity"""
    velocity: float = 0.05
    """Weight of the length of learned motion, for learned_metric only"""

    def __post_init__(self) -> None:
        if self.poses not in POSES:
            raise ConfigError(f'poses is {self.poses!r}; expected one of {", ".join(POSES)}')
        if (self.hybrid or self.freeze) and self.encoder != HYBRID:
            raise ConfigError('hybrid or freeze is given but the encoder is '
                              f"{self.encoder!r}; expected the encoder 'hybrid', or neither")
        twice = sorted(_OWN & set(self.hybrid))
        if twice:
            raise ConfigError(f'hybrid holds {twice}; expected them beside it, not in it')
        if not 0 < self.min_depth_m < self.max_depth_m:
            raise ConfigError(f'min_depth_m is {self.min_depth_m} and max_depth_m '
                              f'{self.max_depth_m}; expected 0 < min < max')
        if self.start_depth_m and not self.min_depth_m < self.start_depth_m < self.max_depth_m:
            raise ConfigError(f'start_depth_m is {self.start_depth_m}; expected 0, or a depth '
                              f'between {self.min_depth_m} and {self.max_depth_m}')
        if not 1 <= self.scales <= 4:
            raise ConfigError(f'scales is {self.scales}; expected 1 to 4')


class Views(NamedTuple):
    """One batch as the photometric losses see it: colours as they were recorded."""

    target: torch.Tensor  # (B, 3, H, W) in 0..1
    sources: torch.Tensor  # (B, S, 3, H, W)
    K: torch.Tensor  # (B, 3, 3)
    source_T_target: torch.Tensor  # (B, S, 4, 4)
    counts: torch.Tensor  # (B, S) 1.0 = this source is used
    unmoved: torch.Tensor  # (B, S, H, W) errors of the sources as they are; +Inf where not used


class Host(Objective):
    """A depth network that learns from motion; subclasses say which and with what loss."""

    Options = HostOptions

    def __init__(self, options: dict[str, Any], lr: float, encoder_lr: float,
                 steps: int) -> None:
        super().__init__(options, lr, encoder_lr, steps)
        if self.settings.poses != 'known':
            self.pose_net = PoseNet(self.settings.pose_encoder, self.settings.pose_weights)

    @abstractmethod
    def predict(self, batch: Batch) -> torch.Tensor:
        """Return the disparity (B, 1, H, W) that is evaluated."""

    def poses(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Return ``source_T_target`` (B, S, 4, 4) and which sources count (B, S).

        Raises ConfigError where the data has not what the settings need.
        """
        valid, posed = batch['source_valid'], batch['source_valid'] * batch['source_posed']
        if self.settings.poses != 'network' and valid.any() and not posed.any():
            raise ConfigError(f'poses is {self.settings.poses!r} but no frame of this batch has '
                              "one; expected recordings with poses, or poses: 'network'")
        if self.settings.poses == 'known':
            return batch['source_T_target'], posed
        offsets = tuple(self.settings.offsets)
        if valid.shape[1] != len(offsets):
            raise ConfigError(f'samples have {valid.shape[1]} source frames but the offsets are '
                              f'{list(offsets)}; expected the same offsets under neighbours')
        return source_poses(self.pose_net, batch['image'], batch['source_image'], offsets), valid

    def views(self, batch: Batch, source_T_target: torch.Tensor,
              counts: torch.Tensor) -> Views:
        """Prepare what does not depend on depth."""
        target = to_float(batch['image_plain'])
        sources = torch.stack([to_float(s) for s in batch['source_plain'].unbind(1)], dim=1)
        unmoved = torch.cat([photometric_error(target, s) for s in sources.unbind(1)], dim=1)
        return Views(target, sources, batch['K'], source_T_target, counts,
                     only_valid(unmoved, counts))

    def depth(self, disparity: torch.Tensor, views: Views) -> torch.Tensor:
        """Return it, (B, 1, H, W), at the size of the views: all scales are judged there."""
        full = F.interpolate(disparity.float(), views.target.shape[2:], mode='bilinear',
                             align_corners=False)
        return disparity_to_depth(full, self.settings.min_depth_m, self.settings.max_depth_m)

    def require_alive(self, disparity: torch.Tensor) -> None:
        """
        Raise ConfigError where a network says the nearest or the farthest depth everywhere.

        It has no gradient there and cannot come back; the weights have to start again.
        """
        nearest, farthest = float(disparity.detach().max()), float(disparity.detach().min())
        if nearest < _DEAD or farthest > 1 - _DEAD:
            limit = 'max_depth_m' if nearest < _DEAD else 'min_depth_m'
            raise ConfigError(f'the network says {limit} for every pixel and cannot learn from '
                              'there; start again with a lower lr (published: 1e-4), a longer '
                              'warm-up, a larger batch, or another start_depth_m')

    def photometric_loss(self, disparities: list[torch.Tensor], views: Views) -> torch.Tensor:
        """
        Mean over scales of the automasked minimum reprojection and the smoothness.

        Eq. (1) of Monodepth2, smoothness of scale s weighted by 2^-s.
        """
        total = views.target.new_zeros(())
        for scale, disparity in enumerate(disparities):
            errors = reprojection_errors(views, self.depth(disparity, views))
            total = total + automasked_loss(errors, views.unmoved) \
                + self.smoothness_loss(disparity, scale, views)
        return total / len(disparities)

    def smoothness_loss(self, disparity: torch.Tensor, scale: int, views: Views) -> torch.Tensor:
        """Return the weighted smoothness of one scale, on the image shrunk to its size."""
        image = F.interpolate(views.target, disparity.shape[2:], mode='area')
        return self.settings.smoothness / 2**scale * smoothness(disparity.float(), image)

    def velocity_loss(self, source_T_target: torch.Tensor, batch: Batch) -> torch.Tensor:
        """
        Mean difference of the lengths of learned and measured motion, metres, weighted.

        The velocity supervision of PackNet-SfM (Guizilini et al., CVPR 2020), eq. (8), for the
        'learned_metric' poses; 0 for others.
        """
        if self.settings.poses != 'learned_metric':
            return source_T_target.new_zeros(())
        posed = batch['source_valid'] * batch['source_posed']
        learned, measured = (T[..., :3, 3].norm(dim=-1)
                             for T in (source_T_target, batch['source_T_target']))
        difference = ((learned - measured).abs() * posed).sum() / posed.sum().clamp(min=1)
        return self.settings.velocity * difference

    @torch.no_grad()
    def validate(self, batch: Batch) -> dict[str, float]:
        """
        Return photometric errors and, against the truth, those of depth.

        ``photometric`` is the mean least error of the moved sources, ``photometric_unmoved`` that
        without moving them. ``_scaled`` figures are after median scaling, by ``scale``; those
        without it are given where poses are metric. NaN without sources or without truth.
        """
        views = self.views(batch, *self.poses(batch))
        depth = self.depth(self.predict(batch), views)
        figures = {'photometric': _mean_least(reprojection_errors(views, depth)),
                   'photometric_unmoved': _mean_least(views.unmoved)}
        truth = batch['depth_m']
        has_truth = torch.isfinite(truth) & (truth < _EVALUATED_M[1])
        truth, depth = truth[has_truth], depth[has_truth]
        scale = truth.median() / depth.median() if len(truth) else truth.new_tensor(float('nan'))
        figures['scale'] = float(scale)
        figures.update(_depth_errors(depth * scale, truth, '_scaled'))
        if self.settings.poses != 'network':
            figures.update(_depth_errors(depth, truth, ''))
        return figures

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the encoders with ``encoder_lr`` and the rest with ``lr``."""
        parts: tuple[list[torch.Tensor], list[torch.Tensor]] = [], []
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                parts[any(part in f'.{name}' for part in _PRETRAINED)].append(parameter)
        return [{'params': parts[True], 'lr': self.encoder_lr},
                {'params': parts[False], 'lr': self.lr}]


def reprojection_errors(views: Views, depth: torch.Tensor) -> torch.Tensor:
    """Return the errors (B, S, H, W) of the sources moved to the target by ``depth`` and pose."""
    errors = []
    for source, pose in zip(views.sources.unbind(1), views.source_T_target.unbind(1),
                            strict=True):
        moved, _ = warp(source, depth, views.K, pose)
        errors.append(photometric_error(views.target, moved))
    return only_valid(torch.cat(errors, dim=1), views.counts)


def _mean_least(errors: torch.Tensor) -> float:
    least = errors.amin(dim=1)
    return float(least[torch.isfinite(least)].mean())


def _depth_errors(depth: torch.Tensor, truth: torch.Tensor, suffix: str) -> dict[str, float]:
    depth = depth.clamp(*_EVALUATED_M)
    ratio = torch.maximum(depth / truth, truth / depth)
    return {f'abs_rel{suffix}': float(((depth - truth).abs() / truth).mean()),
            f'd1{suffix}': float((ratio < 1.25).float().mean())}
