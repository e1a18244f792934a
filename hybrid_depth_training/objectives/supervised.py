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
"""Objectives that learn from truth: the single frame, and its refinement by matching."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
import math
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 its usual name

from hybrid_depth.errors import ConfigError
from hybrid_depth_training import checkpoint, losses
from hybrid_depth_training.models.clip_prior.network import ClipPriorConfig, ClipPriorDepth
from hybrid_depth_training.models.compact import CompactDepth, SingleFrame
from hybrid_depth_training.models.posed import Posed, PosedDepth
from hybrid_depth_training.models.small import HybridMetricDepth
from hybrid_depth_training.objectives import Batch, Objective, read_options

TRUSTED_LOG_ERROR = 0.1  # matching that is nearer to the truth than this was right
ONE_SURFACE = 0.25  # largest range of log depth within a 4x4 cell that shows a single surface


NETWORKS = ('compact', 'hybrid', 'clip_prior')


@dataclass(frozen=True)
class SingleOptions:
    """Which single-frame network."""

    network: str = 'compact'  # one of NETWORKS
    encoder: str = 'efficientnet_lite0'  # row of ENCODERS
    weights: str = 'imagenet'  # initial weights of the encoder: a name, random, or a file
    dino: str = 'dinov2_vits14'  # the second encoder of 'hybrid'
    dino_weights: str = 'pretrained'
    clip_prior: dict[str, Any] = field(default_factory=dict)  # ClipPriorConfig of 'clip_prior'

    def build(self) -> nn.Module:
        """Build the network. Raises ConfigError on an unknown name."""
        if self.network not in NETWORKS:
            raise ConfigError(f'unknown network {self.network!r}; known: {", ".join(NETWORKS)}')
        if self.network == 'compact':
            return CompactDepth(self.encoder, self.weights)
        if self.network == 'clip_prior':  # told nothing of the scene: its neutral sentence
            return ClipPriorDepth(read_options(ClipPriorConfig, {
                **self.clip_prior, 'backbone_weights': self.weights}))
        return HybridMetricDepth(self.encoder, self.weights, self.dino, self.dino_weights)


@dataclass(frozen=True)
class SupervisedOptions(SingleOptions):
    """Settings of the objective ``supervised``."""

    l1_weight: float = 1.0  # of the L1 error of log depth, beside the likelihood
    gradient_weight: float = 0.5  # of the gradient matching


class Supervised(Objective):
    """A single-frame network learns depth and its uncertainty from truth."""

    Options = SupervisedOptions

    @staticmethod
    def blank(options: Mapping[str, Any]) -> dict[str, Any]:
        return {**options, 'weights': 'random', 'dino_weights': 'random'}

    def __init__(self, options: Mapping[str, Any], lr: float, encoder_lr: float,
                 steps: int) -> None:
        super().__init__(options, lr, encoder_lr, steps)
        self.network = self.settings.build()

    def loss(self, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        log_depth, log_b = self.network(batch['image'], batch['K'])
        nll = losses.laplace_nll(log_depth, log_b, batch['depth_m'])
        terms = shape_terms(log_depth, batch)
        return {'loss': nll + self.settings.l1_weight * terms['l1']
                + self.settings.gradient_weight * terms['gradient'], 'nll': nll, **terms}

    def validate(self, batch: Batch) -> dict[str, float]:
        return depth_figures(*self.network(batch['image'], batch['K']), batch['depth_m'])

    def parameter_groups(self) -> list[dict[str, Any]]:
        encoder = [p for p in self.network.encoder.parameters() if p.requires_grad]
        known = {id(parameter) for parameter in encoder}
        rest = [p for p in self.network.parameters()
                if p.requires_grad and id(p) not in known]
        groups = [{'params': encoder, 'lr': self.encoder_lr}, {'params': rest, 'lr': self.lr}]
        return [group for group in groups if group['params']]


@dataclass(frozen=True)
class PosedOptions(SingleOptions):
    """Settings of the objective ``posed``; those of the network are as in ``single_from``."""

    single_from: str = ''  # run of ``supervised`` whose network is refined, and stays as it is
    refinement_from: str = ''  # run of ``posed`` whose refinement is gone on with
    hold_matching: bool = False  # only what says how sure the result is learns
    scalar_lr: float = 0.01  # of the two scalars, which a network's learning rate hardly moves
    l1_weight: float = 2.0
    gradient_weight: float = 0.5
    match_weight: float = 0.5  # of the cross entropy over the candidate depths
    trust_weight: float = 0.2  # of learning where matching is right
    doubt: float = 1.0  # strength of the errors put into the single frame's depth
    pose_noise_deg: float = 0.04  # standard deviation of the odometry's error in rotation
    pose_noise: float = 0.01  # and in translation, as a share of the way


class PosedSupervised(Objective):
    """
    The refinement learns to match along the camera motion and to join it with a single frame.

    The single-frame network stays as it is. On scenes it was trained on it is far better than on
    any other, and a refinement trained on that would rely on it; so errors of the kind and size
    seen on held-out scenes are put into its depth first.
    """

    Options = PosedOptions

    @staticmethod
    def blank(options: Mapping[str, Any]) -> dict[str, Any]:
        return {**options, 'single_from': '', 'refinement_from': ''}

    def __init__(self, options: Mapping[str, Any], lr: float, encoder_lr: float,
                 steps: int) -> None:
        super().__init__(options, lr, encoder_lr, steps)
        # the weights come from a run or, at export, from this one's own checkpoint
        single = replace(self.settings, weights='random', dino_weights='random').build()
        if self.settings.single_from:
            fill(single, network_weights(Path(self.settings.single_from)),
                 f'single_from: {self.settings.single_from}')
            for part in single.modules():
                if hasattr(part, 'provenance'):
                    part.provenance = f'run {Path(self.settings.single_from).name}'
        single.requires_grad_(False)
        self.network = PosedDepth(single)
        if self.settings.refinement_from:
            weights = network_weights(Path(self.settings.refinement_from))
            own = {f'single.{key}': value for key, value in single.state_dict().items()}
            fill(self.network, {key: value for key, value in weights.items()
                                if not key.startswith('single.')} | own,
                 f'refinement_from: {self.settings.refinement_from}')
        if self.settings.hold_matching:
            self.network.requires_grad_(False)
            self.network.fusion.requires_grad_(True)
            self.network.refine.requires_grad_(True)

    def parameter_groups(self) -> list[dict[str, Any]]:
        scalars = [self.network.temperature, self.network.opinion]
        known = {id(parameter) for parameter in scalars}
        rest = [p for p in self.network.parameters() if p.requires_grad and id(p) not in known]
        groups = [{'params': rest, 'lr': self.lr}]
        if not self.settings.hold_matching:
            groups.append({'params': scalars, 'lr': self.settings.scalar_lr, 'weight_decay': 0.0})
        return groups

    def train(self, mode: bool = True) -> PosedSupervised:
        super().train(mode)
        self.network.single.eval()
        return self

    def loss(self, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        settings = self.settings
        with torch.no_grad():
            single = self.network.single.single_frame(batch['image'], batch['K'])
            # the gradient through the target's features alone moves the same weights
            sources = self.network.source_features(batch['source_image'])
        generator = torch.Generator().manual_seed(step)
        single = doubted(single, settings.doubt, generator)
        motion = shaken(batch['source_T_target'], settings.pose_noise_deg, settings.pose_noise,
                        generator)
        posed = self.network.refined(
            single, batch['image'], batch['K'], sources, motion,
            batch['source_valid'] * batch['source_posed'])
        # Sigma learns from the errors that are left at the end. Depth learns from those before the
        # second look: after it, what is left says little of what the first did wrong.
        nll = losses.laplace_nll(posed.log_depth.detach(), posed.log_b, batch['depth_m'])
        terms = shape_terms(posed.first_log_depth, batch)
        match, trust = self._match_terms(posed, batch)
        terms = {'nll': nll, **terms, 'match': match, 'trust': trust}
        return {'loss': nll + settings.l1_weight * terms['l1']
                + settings.gradient_weight * terms['gradient'] + settings.match_weight * match
                + settings.trust_weight * trust, **terms}

    def _match_terms(self, posed: Posed, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross entropy over the planes, and of the trust in what was matched."""
        log_truth = at_stride_4(batch['depth_m'])
        planes = self.network.log_planes
        has_source = (batch['source_valid'] * batch['source_posed']).amax(1).view(-1, 1, 1, 1) > 0
        mask = torch.isfinite(log_truth) & has_source & (log_truth > planes.min()) \
            & (log_truth < planes.max())
        log_truth = torch.where(mask, log_truth, torch.zeros_like(log_truth))
        step = planes[0, 1, 0, 0] - planes[0, 0, 0, 0]
        wanted = torch.softmax(-((planes - log_truth) / step) ** 2, dim=1)
        entropy = -(wanted * torch.log_softmax(posed.match_logits, dim=1)).sum(1, keepdim=True)
        count = mask.sum().clamp(min=1)
        right = ((posed.matched_log_depth.detach() - log_truth).abs()
                 < TRUSTED_LOG_ERROR).to(entropy.dtype)
        trust = F.binary_cross_entropy_with_logits(posed.match_trust, right, reduction='none')
        return (entropy * mask).sum() / count, (trust * mask).sum() / count

    def validate(self, batch: Batch) -> dict[str, float]:
        single = self.network.opinion_of_single(batch['image'], batch['K'])
        sources = self.network.source_features(batch['source_image'])
        valid = batch['source_valid'] * batch['source_posed']
        figures = {}
        generator = torch.Generator().manual_seed(0)
        for name, opinion in (('', single),
                              ('doubted_', doubted(single, self.settings.doubt, generator))):
            posed = self.network.refined(opinion, batch['image'], batch['K'], sources,
                                         batch['source_T_target'], valid)
            alone = F.interpolate(opinion.log_depth, scale_factor=2.0, mode='bilinear')
            found = depth_figures(posed.log_depth, posed.log_b, batch['depth_m'])
            found['single_abs_rel'] = depth_figures(alone, torch.zeros_like(alone),
                                                    batch['depth_m'])['abs_rel']
            figures.update({name + key: value for key, value in found.items()})
        log_truth = at_stride_4(batch['depth_m'])
        sure = torch.isfinite(log_truth) & (posed.match_trust > 0)
        error = (torch.exp(posed.matched_log_depth - log_truth) - 1).abs()
        figures['sure'] = float(sure.sum() / torch.isfinite(log_truth).sum().clamp(min=1))
        figures['sure_abs_rel'] = float(error[sure].mean()) if sure.any() else 0.0
        return figures


def shape_terms(log_depth: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
    """Return the L1 error of log depth and that of its gradients, against the batch's truth."""
    truth = batch['depth_m']
    return {'l1': losses.log_l1(log_depth, truth),
            'gradient': losses.gradient_matching(log_depth, truth, batch['is_sparse'])}


def depth_figures(log_depth: torch.Tensor, log_b: torch.Tensor,
                  depth_m: torch.Tensor) -> dict[str, float]:
    """Return AbsRel and d1 within 80 m, scale (truth / prediction) and share in one sigma."""
    has_truth = torch.isfinite(depth_m) & (depth_m < 80)
    truth, depth = depth_m[has_truth], log_depth.exp()[has_truth]
    b = log_b.exp()[has_truth]
    error = (depth - truth).abs()
    ratio = torch.maximum(depth / truth, truth / depth)
    return {'abs_rel': float((error / truth).mean()), 'd1': float((ratio < 1.25).float().mean()),
            'scale': float((truth / depth).median()),
            'within_1_sigma': float((error < losses.SIGMA_PER_B * b * depth).float().mean())}


def doubted(single: SingleFrame, strength: float, generator: torch.Generator) -> SingleFrame:
    """
    Put smooth errors into a single frame's log depth: of scale, of slope, of regions.

    ``strength`` 1 gives a standard deviation of 0.09 to 0.6, drawn for each image: 0.3 is what
    was measured on scenes held out whole. The uncertainty grows as well, by a factor of 1 to 3
    drawn apart: on scenes it has seen, a network knows how sure it may be.
    """
    log_depth = single.log_depth
    batch, _, height, width = log_depth.shape
    error = torch.zeros_like(log_depth)
    for cells, deviation in (((1, 1), 0.20), ((2, 3), 0.16), ((4, 9), 0.14), ((12, 30), 0.12)):
        noise = torch.randn(batch, 1, *cells, generator=generator).to(log_depth)
        error = error + deviation * F.interpolate(noise, (height, width), mode='bilinear',
                                                  align_corners=False)
    shares = torch.rand(2, batch, 1, 1, 1, generator=generator).to(log_depth)
    return single._replace(log_depth=log_depth + strength * (0.3 + 1.7 * shares[0]) * error,
                           log_b=single.log_b + strength * math.log(3) * shares[1])


def shaken(source_T_target: torch.Tensor, deviation_deg: float, deviation: float,
           generator: torch.Generator) -> torch.Tensor:
    """Put odometry's errors into motions (B, S, 4, 4): small rotations, and a share of the way."""
    batch, count = source_T_target.shape[:2]
    w = torch.randn(batch, count, 3, generator=generator) * math.radians(deviation_deg)
    skew = torch.zeros(batch, count, 3, 3)
    skew[..., 0, 1], skew[..., 0, 2], skew[..., 1, 2] = -w[..., 2], w[..., 1], -w[..., 0]
    rotation = torch.matrix_exp(skew - skew.transpose(-1, -2)).to(source_T_target)
    way = source_T_target[..., :3, 3].norm(dim=-1, keepdim=True)
    slip = deviation * way * torch.randn(batch, count, 3, generator=generator).to(way)
    result = source_T_target.clone()
    result[..., :3, :3] = rotation @ source_T_target[..., :3, :3]
    result[..., :3, 3] = source_T_target[..., :3, 3] + slip
    return result


def at_stride_4(depth_m: torch.Tensor) -> torch.Tensor:
    """
    Log depth of every 4x4 cell, (B, 1, H/4, W/4); NaN without truth.

    The middle of the range of depths in the cell where they are one surface, the nearest where
    they are several: a mean would lie on none of them, and the nearest of a slope is not its
    middle.
    """
    has_range = torch.isfinite(depth_m)
    log_depth = torch.where(has_range, depth_m, torch.ones_like(depth_m)).log()
    nothing = torch.full_like(log_depth, -math.inf)
    far = F.max_pool2d(torch.where(has_range, log_depth, nothing), 4)
    near = -F.max_pool2d(torch.where(has_range, -log_depth, nothing), 4)
    middle = torch.where(far - near < ONE_SURFACE, (far + near) / 2, near)
    return torch.where(torch.isfinite(middle), middle, torch.full_like(middle, math.nan))


def fill(network: nn.Module, weights: dict[str, torch.Tensor], where: str) -> None:
    """Load all weights of ``network``. Raises ConfigError naming ``where`` they do not fit."""
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigError(f'{where} holds another kind of network: {str(error)[:300]}') from error


def network_weights(run: Path) -> dict[str, torch.Tensor]:
    """Return the network of the newest checkpoint of ``run``. Raises ConfigError."""
    folder = checkpoint.newest(run)
    if folder is None:
        raise ConfigError(f'{run} holds no sound checkpoint; train it first')
    _, weights, _ = checkpoint.load(folder)
    return {key.removeprefix('network.'): value for key, value in weights.items()
            if key.startswith('network.')}
