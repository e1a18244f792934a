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
"""The losses of the coarse stage, against values worked out by hand."""
import math

import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from hybrid_depth_training.losses import language as losses  # noqa: E402

#                  word 0  1    2
S = torch.tensor([[[2.0, 1.5, 0.5],  # patch 0, the nearest
                   [3.0, 1.0, 0.0],
                   [0.0, 4.0, -1.0]]])


def test_rank_loss_by_hand():
    # i < j: (0,1): 1.5 - 1.0; (0,2): 0.5 + 1.0; (1,2): 0.0 + 1.0
    assert float(losses.rank_loss(S)) == pytest.approx(0.5 + 1.5 + 1.0)
    # and i > j: (1,0): 3 - 2; (2,0): 0; (2,1): 4 - 1
    assert float(losses.rank_loss_both_ways(S)) == pytest.approx(3.0 + 1.0 + 3.0)


def test_rank_loss_is_zero_where_the_diagonal_dominates():
    s = torch.rand(3, 7, 7) + 2 * torch.eye(7)
    assert losses.rank_loss(s).tolist() == [0, 0, 0]
    assert losses.rank_loss_both_ways(s).tolist() == [0, 0, 0]


def test_word_0_is_constrained_both_ways_only():
    s = 5 * torch.eye(3)[None]
    s[0, 2, 0] = 9.0
    assert float(losses.rank_loss(s)) == 0
    assert float(losses.rank_loss_both_ways(s)) == pytest.approx(4.0)


@pytest.mark.parametrize('name', losses.LANGUAGE_LOSSES)
def test_turned_ladder_costs_more(name):
    words = torch.arange(7.0)
    s = -(words[:, None] - words[None, :]).abs()[None]
    loss = losses.LANGUAGE_LOSSES[name]
    assert loss(s).shape == (1,)
    assert float(loss(s)) < float(loss(s.flip(1)))
    assert float(loss(s)) < float(loss(s[:, torch.tensor([0, 2, 1, 3, 4, 5, 6])]))


def test_info_nce_by_hand():
    assert float(losses.info_nce(torch.zeros(1, 7, 7))) == pytest.approx(math.log(7))
    s = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    one, none = math.log(1 + math.exp(-1)), math.log(2)
    assert float(losses.info_nce(s)) == pytest.approx((one + none) / 2)


def test_ordinal_loss_prefers_a_near_miss():
    near_miss, far_miss = torch.zeros(1, 7, 7), torch.zeros(1, 7, 7)
    near_miss[0, 0, 1] = far_miss[0, 0, 6] = 5.0
    assert float(losses.ordinal(near_miss)) < float(losses.ordinal(far_miss)) - 0.05
    # to info_nce both are as wrong
    assert float(losses.info_nce(near_miss)) == pytest.approx(float(losses.info_nce(far_miss)))


def test_image_contrastive_by_hand():
    # cos: (0,1) = 0, (0,2) = -1, (1,2) = 0; weights 1/2, 1, 1/2; each pair twice
    patches = torch.tensor([[[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]]])
    assert float(losses.image_contrastive(patches)) == pytest.approx(2 * -1 / 9)
    # all alike: (1 / n^2) sum of weights = (4 * 1/2 + 2 * 1) / 9
    assert float(losses.image_contrastive(torch.ones(1, 3, 4))) == pytest.approx(4 / 9)


def test_similarity_has_the_scale_of_the_normalised_text():
    # 100 / sqrt(7) = 37.8 for a patch that points the way of its word
    text = torch.eye(7) / math.sqrt(7)
    s = losses.similarity(5 * torch.eye(7)[None], text)
    torch.testing.assert_close(s[0], torch.eye(7) * 100 / math.sqrt(7), rtol=1e-5, atol=1e-5)


def test_order_accuracy_counts_pairs_and_halves_ties():
    ranks = torch.tensor([[0.0, 1, 2, 3], [3, 2, 1, 0], [0, 0, 0, 0], [0, 2, 1, 3]])
    assert losses.order_accuracy(ranks).tolist() == pytest.approx([1, 0, 0.5, 5 / 6])


def test_proxy_accuracy_by_hand():
    # of the pairs above (0,1): 1.5 > 1; (0,2): 0.5 > -1; (1,2): 0 > -1: none is right
    assert losses.proxy_accuracy(S).tolist() == [0.0]
    right = S.clone()
    right[0, 1, 1], right[0, 2, 2] = 2.0, 0.5  # (0,1) right, (0,2) a tie, (1,2) right
    assert losses.proxy_accuracy(right).tolist() == pytest.approx([2.5 / 3])


def test_one_scale_for_all_words_satisfies_the_rank_loss_alone():
    farness = torch.arange(7.0)[:, None].expand(7, 7)[None]
    assert losses.rank_loss(farness).tolist() == [0]
    assert losses.proxy_accuracy(farness).tolist() == [1]
    assert float(losses.rank_loss_both_ways(farness)) > 0
    # every patch gets the same words: the order is not to be read from them
    assert losses.order_accuracy(losses.expected_rank(farness)).tolist() == [0.5]


def test_expected_rank_is_the_mean_word():
    s = torch.log(torch.tensor([[[0.5, 0.0, 0.5], [0.0, 0.25, 0.75]]]))
    assert losses.expected_rank(s)[0].tolist() == pytest.approx([1.0, 1.75])
