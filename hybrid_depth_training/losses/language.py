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
The contrastive language guidance of Hybrid-depth's coarse stage (Zhang et al., ICCV 2025).

A ladder is n patches ordered from near to far; word i of the text, from "very close" to "very
distant", belongs to patch i. ``s`` (L, n, n) holds the similarity of patch i (rows) with word j
(columns) for L ladders. The paper's text was read as an abstract only: the formulas are those of
its published implementation, written afresh.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F  # noqa: N812 its usual name

from hybrid_depth_training.models.text import LOGIT_SCALE

_SPREAD = 0.5  # of the ordinal targets, ranks


def similarity(patches: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """
    Return s_ij = 100 v_i . T_j with v_i = patch_i / (|patch_i| + 1e-6): (L, n, m).

    ``patches`` (L, n, C); ``text`` (m, C), already normalised: rows of length 1, divided by the
    Frobenius norm of the whole, so each has length 1 / sqrt(m).
    """
    # in float32: a sum of a thousand squares leaves the range of half precision
    patches = patches.float()
    return LOGIT_SCALE * (patches / (patches.norm(dim=-1, keepdim=True) + 1e-6)) @ text.float().T


def rank_loss(s: torch.Tensor) -> torch.Tensor:
    """
    Return sum_{i<j} max(0, s_ij - s_jj) of each ladder, (L,): as published.

    On word j no nearer patch may score higher than patch j. Word 0 is under no constraint, and the
    loss vanishes as soon as all words score farther patches higher: then words order patches, but
    do not tell which patch is "close".
    """
    return _beaten(s).triu(diagonal=1).sum(dim=(1, 2))


def rank_loss_both_ways(s: torch.Tensor) -> torch.Tensor:
    """Return sum_{i != j} max(0, s_ij - s_jj), (L,): each word is to prefer its own patch."""
    return _beaten(s).sum(dim=(1, 2))


def _beaten(s: torch.Tensor) -> torch.Tensor:
    """Return max(0, s_ij - s_jj), (L, n, n), 0 on the diagonal."""
    return (s - s.diagonal(dim1=1, dim2=2)[:, None, :]).clamp(min=0)


def info_nce(s: torch.Tensor) -> torch.Tensor:
    """
    Return the mean cross-entropy of word by patch and of patch by word, each ladder, (L,).

    The loss of CLIP (Radford et al., ICML 2021, figure 3) within a ladder. Other than the rank
    loss it constrains every word.
    """
    return _cross_entropy(s, torch.eye(s.shape[1], device=s.device))


def ordinal(s: torch.Tensor) -> torch.Tensor:
    """
    Return the cross-entropy with targets that fall off with the distance of ranks, (L,).

    Targets softmax_j(-|i - j| / 0.5) in place of one-hot ones: soft ordinal labels (Diaz and
    Marathe, CVPR 2019); to take "close" for "very close" costs less than "distant".
    """
    return _cross_entropy(s, torch.softmax(-_rank_distance(s.shape[1], s.device) / _SPREAD, dim=1))


def _cross_entropy(s: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    by_patch = -(targets * F.log_softmax(s, dim=2)).sum(dim=2)
    by_word = -(targets.T * F.log_softmax(s, dim=1)).sum(dim=1)
    return (by_patch + by_word).mean(dim=1) / 2


LANGUAGE_LOSSES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    'rank': rank_loss,
    'rank_both_ways': rank_loss_both_ways,
    'info_nce': info_nce,
    'ordinal': ordinal,
}


def image_contrastive(patches: torch.Tensor) -> torch.Tensor:
    """
    Return (1 / n^2) sum_ij w_ij cos(v_i, v_j), w_ij = |i - j| / (n - 1), of each ladder, (L,).

    It pushes patches apart the more, the farther apart their ranks are. ``patches`` (L, n, C).
    """
    unit = F.normalize(patches.float(), dim=-1)
    count = patches.shape[1]
    weights = _rank_distance(count, patches.device) / (count - 1)
    return (weights * (unit @ unit.mT)).sum(dim=(1, 2)) / count**2


def expected_rank(s: torch.Tensor) -> torch.Tensor:
    """Return sum_j j softmax_j(s_ij), (L, n): the rank that the words give each patch."""
    ranks = torch.arange(s.shape[2], device=s.device, dtype=s.dtype)
    return torch.softmax(s, dim=2) @ ranks


def proxy_accuracy(s: torch.Tensor) -> torch.Tensor:
    """
    Return the share of pairs i < j with s_ij < s_jj, (L,); a tie counts half, chance is 0.5.

    What ``rank_loss`` asks for: of two patches the farther one fits the farther one's word better.
    """
    n = s.shape[1]
    i, j = torch.triu_indices(n, n, offset=1, device=s.device)
    return ((torch.sign(s[:, j, j] - s[:, i, j]) + 1) / 2).mean(dim=1)


def order_accuracy(ranks: torch.Tensor) -> torch.Tensor:
    """
    Return the share of pairs in the right order, (L,); a tie counts half, so chance is 0.5.

    ``ranks`` (L, n): anything that should rise from the nearest to the farthest patch.
    """
    n = ranks.shape[1]
    i, j = torch.triu_indices(n, n, offset=1, device=ranks.device)
    return ((torch.sign(ranks[:, j] - ranks[:, i]) + 1) / 2).mean(dim=1)


def _rank_distance(count: int, device: torch.device) -> torch.Tensor:
    """Return |i - j|, (count, count)."""
    ranks = torch.arange(count, device=device, dtype=torch.float32)
    return (ranks[:, None] - ranks[None, :]).abs()
