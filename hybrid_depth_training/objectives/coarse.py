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
The coarse stage of Hybrid-depth: patches learn their order of depth from words.

Zhang et al. (ICCV 2025). Of seven patches from near to far, patch i is to agree with word i of
"very close" ... "very distant" better than nearer patches do. DINO and the text stay as they are;
CLIP's image tower (or what stands in its place) and the aggregation learn. The fine stage starts
from the result: ``init_from``.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812 its usual name

from hybrid_depth.errors import ConfigError
from hybrid_depth_training.losses.language import (
    expected_rank,
    image_contrastive,
    LANGUAGE_LOSSES,
    order_accuracy,
    proxy_accuracy,
    similarity,
)
from hybrid_depth_training.models.hybrid import HybridConfig, HybridDepth
from hybrid_depth_training.models.text import (
    depth_phrases,
    normalise_text,
    text_features,
    TEXT_MODELS,
)
from hybrid_depth_training.objectives import Batch, Objective, read_options
from hybrid_depth_training.objectives.ordering import (
    AXES,
    depth_ladders,
    ground_depth,
    lane_ladders,
    ORDERS,
    RUNGS,
)

_ROI_BINS = 7
_VALIDATION_LADDERS = 24


@dataclass(frozen=True)
class CoarseOptions:
    """Settings of the objective ``coarse``."""

    hybrid: dict[str, Any] = field(default_factory=dict)
    """Settings of HybridConfig; those of the fine stage that follows"""
    text: str = 'clip'
    """What stands for the words: clip, the text tower's features; or orthogonal, seven fixed
    orthogonal directions that know nothing of language, where there are no weights of CLIP"""
    ladders: str = 'depth'
    """Row of LADDERS: where the order of patches comes from"""
    along: str = 'anywhere'
    """Ladders of depth: anywhere in the image, or along its columns"""
    per_image: int = 6
    """Ladders of depth or ground of each image"""
    min_log_gap: float = 0.08
    """Least difference of ln(depth) between the points of such a ladder"""
    order: str = 'near_first'
    """Order of lane points; literal is that of the annotation, far first"""
    camera_height_m: float = 0.0
    """Of ground ladders"""
    down_camera: tuple[float, float, float] = (0.0, 1.0, 0.0)
    """Direction of gravity in the optical frame, of ground ladders"""
    language_loss: str = 'rank_both_ways'
    """Row of LANGUAGE_LOSSES; rank is literal"""
    language_weight: float = 1.0
    """Of the language loss"""
    contrastive_weight: float = 1.0
    """Of the contrastive loss between the patches"""
    roi_px: float = 0.0
    """Side of the square around a point that is averaged; 0 takes the cell under the point"""

    def __post_init__(self) -> None:
        for key, known in (('text', TEXTS), ('ladders', LADDERS), ('along', AXES),
                           ('order', ORDERS), ('language_loss', LANGUAGE_LOSSES)):
            if getattr(self, key) not in known:
                raise ConfigError(f'{key} is {getattr(self, key)!r}; expected one of '
                                  f'{", ".join(known)}')
        if (self.ladders == 'ground') != (self.camera_height_m > 0):
            raise ConfigError(f'ladders is {self.ladders!r} and camera_height_m '
                              f'{self.camera_height_m}; expected a height for ground only')
        if self.per_image < 1 or self.min_log_gap < 0 or self.roi_px < 0:
            raise ConfigError(f'per_image is {self.per_image}, min_log_gap {self.min_log_gap} and '
                              f'roi_px {self.roi_px}; expected 1 or more, and 0 or more')


class Ladders(NamedTuple):
    """Ladders of a batch."""

    points: torch.Tensor  # (L, 7, 2) float32 pixels [u, v], from near to far
    image: torch.Tensor  # (L,) int64: which image of the batch each belongs to


class PatchEncoder(HybridDepth):
    """
    HybridDepth up to the space of text: what the coarse stage trains.

    forward(image): (B, H, W, 3) uint8 RGB; returns the maps of HybridDepth.in_text_space.

    Without the decoder and the learned words, so that a fine stage that starts from its weights
    starts these as it would by itself.
    """

    def __init__(self, config: HybridConfig) -> None:
        super().__init__(config, is_text_baked=True)  # no text tower either: text is fixed
        self.decoder = self.baked_text = None

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return self.in_text_space(self.encode(image))


class Coarse(Objective):
    """
    Contrastive language guidance by ordering patches.

    L = sum over ladders of the language loss / images with ladders + mean over ladders of the
    contrastive loss, both averaged over the levels that are compared with text.
    """

    Options = CoarseOptions

    def __init__(self, options: Mapping[str, Any], lr: float, encoder_lr: float,
                 steps: int) -> None:
        super().__init__(options, lr, encoder_lr, steps)
        config = read_options(HybridConfig, self.settings.hybrid)
        if not config.language:
            raise ConfigError('language is false; the coarse stage is about nothing else')
        self.network = PatchEncoder(config)
        if not self.network.freeze('coarse'):
            raise ConfigError('nothing is left to train: without CLIP and with text features as '
                              'long as those of DINO there is no layer between; give another '
                              'text_model')
        self.register_buffer('text', normalise_text(TEXTS[self.settings.text](config)))

    def loss(self, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        """Return 'loss' and its parts, and how many 'ladders' there were."""
        ladders = draw_ladders(batch, self.settings, self.settings.per_image, seed=step)
        maps = self.network(batch['image'])
        if not len(ladders.points):
            nothing = sum(x.sum() for x in maps) * 0  # a loss whose gradient is zero, not absent
            return {'loss': nothing, 'language': nothing.detach(),
                    'contrastive': nothing.detach(), 'ladders': nothing.detach()}
        patches = self._patches(maps, ladders, batch)
        per_ladder = LANGUAGE_LOSSES[self.settings.language_loss]
        language = torch.stack([per_ladder(similarity(v, self.text)).sum() for v in patches])
        language = language.mean() / len(ladders.image.unique())
        contrastive = torch.stack([image_contrastive(v).mean() for v in patches]).mean()
        return {'loss': self.settings.language_weight * language
                + self.settings.contrastive_weight * contrastive,
                'language': language, 'contrastive': contrastive,
                'ladders': language.new_tensor(float(len(ladders.points)))}

    def validate(self, batch: Batch) -> dict[str, float]:
        """
        Return how well the words order the patches of held-out views.

        ``order_accuracy``: share of pairs whose expected words are in the right order.
        ``proxy_accuracy``: share of pairs of which the farther patch fits its word better than the
        nearer one does: the task that is trained, which is easier. Chance is 0.5 for both.
        ``order_by_row``: the first for the rule that lower in the image is nearer, which looks at
        no image. NaN where a view has no ladder.
        """
        ladders = draw_ladders(batch, self.settings, _VALIDATION_LADDERS, seed=0)
        if not len(ladders.points):
            return dict.fromkeys(('order_accuracy', 'proxy_accuracy', 'order_by_row'),
                                 float('nan'))
        patches = self._patches(self.network(batch['image']), ladders, batch)
        s = torch.stack([similarity(v, self.text) for v in patches])  # (levels, L, 7, 7)
        ranks = expected_rank(s.flatten(0, 1)).unflatten(0, s.shape[:2]).mean(0)
        return {'order_accuracy': float(order_accuracy(ranks).mean()),
                'proxy_accuracy': float(proxy_accuracy(s.flatten(0, 1)).mean()),
                'order_by_row': float(order_accuracy(-ladders.points[..., 1]).mean())}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return CLIP's image tower with ``encoder_lr`` and the rest with ``lr``."""
        learned = [(name, p) for name, p in self.network.named_parameters() if p.requires_grad]
        return [{'params': [p for name, p in learned if name.startswith('clip.')],
                 'lr': self.encoder_lr},
                {'params': [p for name, p in learned if not name.startswith('clip.')],
                 'lr': self.lr}]

    def _patches(self, maps: Sequence[torch.Tensor], ladders: Ladders,
                 batch: Batch) -> list[torch.Tensor]:
        size = batch['image'].shape[1:3]
        return [patch_features(x, ladders, size, self.settings.roi_px) for x in maps]


def draw_ladders(batch: Batch, settings: CoarseOptions, count: int, seed: int) -> Ladders:
    """Return up to ``count`` ladders of each image of a batch, the same for the same ``seed``."""
    rng = np.random.default_rng(seed)
    draw = LADDERS[settings.ladders]
    found = [draw(depth_m, K, settings, count, rng) for depth_m, K in zip(
        batch['depth_m'][:, 0].cpu().numpy(), batch['K'].cpu().numpy(), strict=True)]
    device = batch['image'].device
    image = np.repeat(np.arange(len(found)), [len(ladders) for ladders in found])
    return Ladders(torch.from_numpy(np.concatenate(found)).to(device),
                   torch.from_numpy(image).to(device))


def _from_depth(depth_m: np.ndarray, K: np.ndarray, settings: CoarseOptions, count: int,
                rng: np.random.Generator) -> np.ndarray:
    return depth_ladders(depth_m, count, rng, settings.along, settings.min_log_gap)


def _from_lanes(depth_m: np.ndarray, K: np.ndarray, settings: CoarseOptions, count: int,
                rng: np.random.Generator) -> np.ndarray:
    return lane_ladders(depth_m, settings.order)  # as many as there are lanes


def _from_ground(depth_m: np.ndarray, K: np.ndarray, settings: CoarseOptions, count: int,
                 rng: np.random.Generator) -> np.ndarray:
    ground = ground_depth(K, *depth_m.shape, settings.camera_height_m, settings.down_camera)
    return depth_ladders(ground, count, rng, 'columns', settings.min_log_gap)


# name -> function of (depth_m (H, W), K (3, 3), options, count, rng) to ladders (L, 7, 2)
LADDERS: dict[str, Callable[..., np.ndarray]] = {
    'depth': _from_depth,  # LiDAR, RGB-D or stereo
    'lanes': _from_lanes,  # what lane_map wrote in place of depth
    'ground': _from_ground,  # flat ground below the horizon; no depth is needed
}


def _clip_text(config: HybridConfig) -> torch.Tensor:
    return text_features(depth_phrases(), config.text_model, config.text_weights)


def _orthogonal_text(config: HybridConfig) -> torch.Tensor:
    # always the same: a later stage or run must meet the same directions
    generator = torch.Generator().manual_seed(0)
    square = torch.randn(TEXT_MODELS[config.text_model].channels, RUNGS, generator=generator)
    return torch.linalg.qr(square).Q.T.contiguous()


# name -> function of HybridConfig to the features (7, D) of the words, not normalised
TEXTS: dict[str, Callable[[HybridConfig], torch.Tensor]] = {
    'clip': _clip_text,
    'orthogonal': _orthogonal_text,
}


def patch_features(x: torch.Tensor, ladders: Ladders, size: tuple[int, int],
                   roi_px: float = 0.0) -> torch.Tensor:
    """
    Return the features of the points of ladders: (L, 7, C).

    ``x`` (B, C, h, w) is a map of images of ``size`` (H, W). The cell under the point is taken;
    or, with ``roi_px``, the mean of 7x7 bilinear samples of a square of that side around it: that
    is RoIAlign (He et al., ICCV 2017) with one sample for each bin, averaged.
    """
    scale = torch.tensor([x.shape[3] / size[1], x.shape[2] / size[0]], device=x.device)
    cells = (ladders.points + 0.5) * scale  # cell (i, j) covers i..i + 1, j..j + 1
    if not roi_px:
        last = torch.tensor([x.shape[3] - 1, x.shape[2] - 1], device=x.device)
        u, v = torch.minimum(cells.floor().long().clamp(min=0), last).unbind(-1)
        return x[ladders.image[:, None], :, v, u]
    bins = ((torch.arange(_ROI_BINS, device=x.device) + 0.5) / _ROI_BINS - 0.5) * roi_px
    around = torch.cartesian_prod(bins, bins) * scale  # (49, 2)
    grid = 2 * (cells[:, :, None] + around) / torch.tensor(
        [x.shape[3], x.shape[2]], device=x.device) - 1  # (L, 7, 49, 2)
    features = x.new_zeros(len(grid), RUNGS, x.shape[1])
    for index in ladders.image.unique():
        own = ladders.image == index
        sampled = F.grid_sample(x[index][None], grid[own].to(x.dtype).flatten(0, 1)[None],
                                padding_mode='border', align_corners=False)
        # (1, C, l * 7, 49) -> (l, 7, C)
        features[own] = sampled[0].mean(-1).T.unflatten(0, (-1, RUNGS))
    return features
