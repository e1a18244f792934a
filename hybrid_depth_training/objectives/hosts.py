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
Self-supervised pipelines that any encoder plugs into: Monodepth2 and ManyDepth.

Either with the ResNet they were published with, as the baseline, or with the hybrid CLIP and DINO
encoder; see self_supervision.py for what they share and where poses come from.
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F  # noqa: N812 its usual name

from hybrid_depth.errors import ConfigError
from hybrid_depth_training.geometry import full_precision
from hybrid_depth_training.losses.photometric import automask, masked_mean
from hybrid_depth_training.models.hybrid import HybridConfig, HybridDepth
from hybrid_depth_training.models.manydepth import Manydepth
from hybrid_depth_training.models.monodepth import disparity_logit, Monodepth
from hybrid_depth_training.objectives import Batch, read_options
from hybrid_depth_training.objectives.self_supervision import (
    Host,
    HostOptions,
    HYBRID,
    reprojection_errors,
    Views,
)
from hybrid_depth_training.objectives.supervised import network_weights


class Monodepth2(Host):
    """
    Godard et al., "Digging Into Self-Supervised Monocular Depth Estimation" (ICCV 2019).

    One image gives disparity; its neighbours in time judge it.
    """

    Options = HostOptions

    def __init__(self, options: dict[str, Any], lr: float, encoder_lr: float,
                 steps: int) -> None:
        super().__init__(options, lr, encoder_lr, steps)
        self.network = single_frame_network(self.settings, freeze='fine')

    def loss(self, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """Return 'loss' and its parts; see Host.photometric_loss and Host.velocity_loss."""
        poses, counts = self.poses(batch)
        disparities = self.network(batch['image'])
        self.require_alive(disparities[0])
        with full_precision(poses):
            views = self.views(batch, poses, counts)
            photometric = self.photometric_loss(disparities, views)
            velocity = self.velocity_loss(poses, batch)
            depth = self.depth(disparities[0].detach(), views).median()
        return {'loss': photometric + velocity, 'photometric': photometric, 'velocity': velocity,
                'depth': depth, 'sources': counts.sum(dim=1).mean()}

    def predict(self, batch: Batch) -> torch.Tensor:
        return self.network(batch['image'])[0]


@dataclass(frozen=True)
class ManydepthOptions(HostOptions):
    """Settings of ManyDepth."""

    single_from: str = ''
    """Run of ``monodepth2`` with the same encoder: teacher and multi-frame network start from its
    network (with init_from of the same run, the pose network starts from its pose network)"""
    bins: int = 96
    """Depths at which earlier frames are matched"""
    is_inverse: bool = False
    """Space them evenly in inverse depth instead of in depth"""
    start_range: tuple[float, float] = (0.1, 10.0)
    """Nearest and farthest of them before the teacher has taught the range"""
    static_share: float = 0.25
    """Share of samples that are shown their own image as the earlier frame: a standing camera"""
    no_pose_share: float = 0.25
    """Share of samples without an earlier frame"""
    freeze_share: float = 0.75
    """Share of the steps after which teacher, poses and range stay as they are"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not any(offset < 0 for offset in self.offsets):
            raise ConfigError(f'offsets are {list(self.offsets)}; expected a negative one: an '
                              'earlier frame to match with')
        if min(self.static_share, self.no_pose_share) < 0 \
                or self.static_share + self.no_pose_share > 1:
            raise ConfigError(f'static_share is {self.static_share} and no_pose_share '
                              f'{self.no_pose_share}; expected shares with a sum of at most 1')
        if self.bins < 2:
            raise ConfigError(f'bins is {self.bins}; expected at least 2')


class Lookup(NamedTuple):
    """What the multi-frame network is shown of earlier frames."""

    images: torch.Tensor  # (B, L, H, W, 3) uint8
    source_T_target: torch.Tensor  # (B, L, 4, 4)
    valid: torch.Tensor  # (B, L)
    is_plain: torch.Tensor  # (B,) bool: neither a faked standing camera nor robbed of its poses


class ManydepthHost(Host):
    """
    Watson et al., "The Temporal Opportunist" (CVPR 2021).

    A single-frame teacher learns as in Monodepth2, and with it the poses and the range of depth.
    The multi-frame network learns from reprojection where matching agrees with the teacher, and
    from the teacher where it does not: on moving things, without texture, without motion. Both
    start from the same weights.
    """

    Options = ManydepthOptions

    def __init__(self, options: dict[str, Any], lr: float, encoder_lr: float,
                 steps: int) -> None:
        super().__init__(options, lr, encoder_lr, steps)
        self.teacher = single_frame_network(self.settings, freeze='manydepth')
        trunk = single_frame_network(self.settings, freeze='manydepth')
        if self.settings.single_from:
            self.teacher.load_state_dict(network_weights(Path(self.settings.single_from)))
        trunk.load_state_dict(self.teacher.state_dict())
        self.network = Manydepth(trunk, self.settings.bins, self.settings.is_inverse,
                                 tuple(self.settings.start_range))
        self.lookup = [i for i, offset in enumerate(self.settings.offsets) if offset < 0]

    def loss(self, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """Return 'loss' = that of the multi-frame network + the teacher's until it is frozen."""
        is_frozen = step >= self.settings.freeze_share * self.steps
        if is_frozen:
            self._freeze_teacher()
        with torch.set_grad_enabled(not is_frozen):
            poses, counts = self.poses(batch)
            teacher = self.teacher(batch['image'])
        with full_precision(poses):
            views = self.views(batch, poses, counts)
            terms = {'sources': counts.sum(dim=1).mean()}
            total = poses.new_zeros(())
            if not is_frozen:
                terms['teacher'] = self.teacher_loss(teacher, views)
                terms['velocity'] = self.velocity_loss(poses, batch)
                total = terms['teacher'] + terms['velocity']
                self.network.depth_range.update(self.depth(teacher[0].detach(), views))
        lookup = self.draw_lookup(batch, poses.detach(), counts)
        disparities, volume = self.network(
            batch['image'], batch['K'], self.network.source_features(lookup.images),
            lookup.source_T_target, lookup.valid)
        for disparity in (teacher[0], disparities[0]):
            self.require_alive(disparity)
        with full_precision(poses):
            views = views._replace(source_T_target=poses.detach())
            seen_by_teacher = [self.depth(d.detach(), views) for d in teacher]
            trusted = trusted_matches(volume.best_depth, volume.confidence, seen_by_teacher[0])
            trusted = trusted & lookup.is_plain.view(-1, 1, 1, 1)
            terms['photometric'], terms['consistency'] = self.student_loss(
                disparities, seen_by_teacher, trusted, views)
        terms['depth'] = seen_by_teacher[0].median()
        terms['trusted'] = trusted.float().mean()
        terms['farthest'] = self.network.depth_range.far.clone()
        return {'loss': total + terms['photometric'] + terms['consistency'], **terms}

    def teacher_loss(self, disparities: list[torch.Tensor], views: Views) -> torch.Tensor:
        """
        Mean over scales of reprojection where the automask lets it count, and smoothness.

        As ManyDepth does it, which unlike Monodepth2 averages over the unmasked pixels only.
        """
        total = views.target.new_zeros(())
        for scale, disparity in enumerate(disparities):
            errors = reprojection_errors(views, self.depth(disparity, views))
            total = total + self.smoothness_loss(disparity, scale, views) + masked_mean(
                errors.amin(dim=1, keepdim=True), automask(errors, views.unmoved))
        return total / len(disparities)

    def student_loss(self, disparities: list[torch.Tensor], seen_by_teacher: list[torch.Tensor],
                     trusted: torch.Tensor, views: Views) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Return reprojection where matching is ``trusted``, with smoothness, and consistency.

        Eqs. (5) and (6) of ManyDepth. Consistency is |D - D_teacher| over the mean of D_teacher:
        the unit of depth is whatever poses are in, metres or not, and must not weigh.
        """
        photometric = consistency = views.target.new_zeros(())
        for scale, (disparity, teacher_depth) in enumerate(
                zip(disparities, seen_by_teacher, strict=True)):
            depth = self.depth(disparity, views)
            least = reprojection_errors(views, depth).amin(dim=1, keepdim=True)
            photometric = photometric + self.smoothness_loss(disparity, scale, views) \
                + masked_mean(least, trusted & torch.isfinite(least))
            unit = teacher_depth.mean(dim=(2, 3), keepdim=True)
            consistency = consistency + (
                (depth - teacher_depth).abs() / unit * ~trusted).mean()
        return photometric / len(disparities), consistency / len(disparities)

    def draw_lookup(self, batch: Batch, poses: torch.Tensor, counts: torch.Tensor) -> Lookup:
        """Choose the earlier frames; some samples get a standing camera, some none at all."""
        draw = torch.rand(len(poses), device=poses.device)
        is_static = draw < self.settings.static_share
        has_no_pose = ~is_static & (
            draw < self.settings.static_share + self.settings.no_pose_share)
        images = torch.where(is_static.view(-1, 1, 1, 1, 1), batch['image'][:, None],
                             batch['source_image'][:, self.lookup])
        valid = counts[:, self.lookup] * ~has_no_pose[:, None]
        return Lookup(images, poses[:, self.lookup], valid, ~is_static & ~has_no_pose)

    def predict(self, batch: Batch) -> torch.Tensor:
        poses, counts = self.poses(batch)
        features = self.network.source_features(batch['source_image'][:, self.lookup])
        disparities, _ = self.network(batch['image'], batch['K'], features,
                                      poses[:, self.lookup], counts[:, self.lookup])
        return disparities[0]

    def _freeze_teacher(self) -> None:
        self.teacher.eval().requires_grad_(False)
        if self.settings.poses != 'known':
            self.pose_net.eval().requires_grad_(False)


def trusted_matches(best_depth: torch.Tensor, confidence: torch.Tensor,
                    teacher_depth: torch.Tensor) -> torch.Tensor:
    """
    Say where matching and teacher agree to a factor of two: (B, 1, H, W) bool.

    The mask M of ManyDepth, eq. (4), where the volume has ``confidence``. ``best_depth`` and
    ``confidence`` (B, 1, h, w) at feature resolution, ``teacher_depth`` (B, 1, H, W).
    """
    size = teacher_depth.shape[2:]
    matched, confidence = (F.interpolate(m, size, mode='nearest')
                           for m in (best_depth, confidence))
    return (torch.maximum(matched / teacher_depth, teacher_depth / matched) < 2) & (confidence > 0)


def single_frame_network(settings: HostOptions, freeze: str) -> Monodepth | HybridDepth:
    """
    Make the network from one image to disparities that ``settings`` describe.

    ``freeze`` is what of a hybrid one is trained unless the settings say otherwise.
    """
    network: Monodepth | HybridDepth
    if settings.encoder == HYBRID:
        network = HybridDepth(read_options(HybridConfig, {
            **settings.hybrid, 'scales': settings.scales, 'min_depth_m': settings.min_depth_m,
            'max_depth_m': settings.max_depth_m}))
        network.freeze(settings.freeze or freeze)
    else:
        network = Monodepth(settings.encoder, settings.weights, settings.scales)
    if settings.start_depth_m:
        network.decoder.start_at(disparity_logit(settings.start_depth_m, settings.min_depth_m,
                                                 settings.max_depth_m))
    return network
