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
"""Identities that only right losses have."""
import math

import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from hybrid_depth_training import losses  # noqa: E402

NAN, INF = float('nan'), float('inf')


def truth(*values: float) -> torch.Tensor:
    # every value as a block of pixels: the gradients are taken over up to eight of them
    return torch.tensor(values).repeat_interleave(16).repeat(1, 1, 16, 1)


def test_perfect_prediction_has_no_error():
    depth = truth(1.0, 5.0, NAN, 70.0)
    log_depth = torch.nan_to_num(depth.log(), nan=3.0)
    assert float(losses.log_l1(log_depth, depth)) == 0
    assert float(losses.gradient_matching(log_depth, depth, torch.tensor([False]))) == 0


def test_log_l1_is_the_mean_log_ratio_over_pixels_with_truth():
    depth = truth(2.0, NAN, 8.0)
    log_depth = truth(4.0, 1.0, 8.0).log()
    assert float(losses.log_l1(log_depth, depth)) == pytest.approx(math.log(2) / 2)


def test_beyond_range_only_too_near_is_wrong():
    depth = truth(INF, INF)
    too_near_by_two = truth(losses.FAR_M / 2, losses.FAR_M * 9).log()
    assert float(losses.log_l1(too_near_by_two, depth)) == pytest.approx(math.log(2) / 2)


def test_likelihood_is_best_where_b_equals_the_error():
    depth, log_depth = truth(10.0), truth(10.0 * math.exp(0.2)).log()
    values = [float(losses.laplace_nll(log_depth, truth(b).log(), depth))
              for b in (0.1, 0.19, 0.2, 0.21, 0.4)]
    assert min(values) == values[2]
    assert values[2] == pytest.approx(1 + math.log(0.2))


def test_sigma_per_b_covers_68_percent_of_a_laplace_variable():
    samples = torch.distributions.Laplace(0.0, 0.3).sample((200_000,))
    share = float((samples.abs() < 0.3 * losses.SIGMA_PER_B).float().mean())
    assert share == pytest.approx(0.6827, abs=0.005)


def test_gradients_do_not_see_a_wrong_scale_but_a_wrong_step():
    depth = truth(2.0, 2.0, 6.0, 6.0)
    flags = torch.tensor([False])
    assert float(losses.gradient_matching((3 * depth).log(), depth, flags)) == pytest.approx(
        0, abs=1e-5)
    assert float(losses.gradient_matching(truth(2.0, 2.0, 2.0, 2.0).log(), depth, flags)) > 0.01


def test_sparse_truth_has_no_gradients():
    depth = truth(2.0, 6.0)
    wrong = truth(9.0, 1.0).log()
    assert float(losses.gradient_matching(wrong, depth, torch.tensor([True]))) == 0
    assert float(losses.gradient_matching(wrong, depth, torch.tensor([False]))) > 0


def test_no_truth_at_all_is_zero_not_nan():
    depth = truth(NAN, NAN)
    log_depth = truth(1.0, 1.0).clone().requires_grad_()
    loss = losses.laplace_nll(log_depth, log_depth, depth) + losses.log_l1(log_depth, depth) \
        + losses.gradient_matching(log_depth, depth, torch.tensor([False]))
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.isfinite(log_depth.grad).all()


def test_means_are_over_pixels_of_an_image_then_over_images_that_have_truth():
    one = torch.full((1, 4, 4), NAN)
    one[0, 0, 0] = 2.0
    depth = torch.stack([one, torch.full((1, 4, 4), 2.0), torch.full((1, 4, 4), NAN)])
    factors = torch.tensor([2.0, 8.0, 100.0]).view(3, 1, 1, 1)
    log_depth = (2.0 * factors).log().expand(3, 1, 4, 4)
    expected = (math.log(2) + math.log(8)) / 2
    assert float(losses.log_l1(log_depth, depth)) == pytest.approx(expected)
    b = torch.full_like(log_depth, math.log(0.5))
    assert float(losses.laplace_nll(log_depth, b, depth)) == pytest.approx(
        expected / 0.5 + math.log(0.5))


def test_gradients_of_one_edge_by_hand():
    # half the columns are too far by e: of W - s pairs at step s, s cross the edge
    depth = torch.full((1, 1, 16, 16), 5.0)
    log_depth = depth.log().clone()
    log_depth[..., 8:] += 1.0
    flags = torch.tensor([False])
    expected = (1 / 15 + 2 / 14 + 4 / 12 + 8 / 8) / (2 * 4)
    assert float(losses.gradient_matching(log_depth, depth, flags)) == pytest.approx(expected)
    assert float(losses.gradient_matching(log_depth.mT, depth, flags)) == pytest.approx(expected)


def test_gradients_skip_pairs_without_truth_and_the_sky():
    depth = torch.full((1, 1, 16, 16), 5.0)
    log_depth = depth.log().clone()
    log_depth[..., 8:] += 1.0
    for hole in (NAN, INF):
        only_left = depth.clone()
        only_left[..., 8:] = hole
        assert float(losses.gradient_matching(log_depth, only_left,
                                              torch.tensor([False]))) == pytest.approx(0, abs=1e-6)


def test_a_sparse_image_does_not_dilute_the_gradients_of_a_dense_one():
    depth = torch.full((1, 1, 16, 16), 5.0)
    log_depth = depth.log().clone()
    log_depth[..., 8:] += 1.0
    alone = losses.gradient_matching(log_depth, depth, torch.tensor([False]))
    both = losses.gradient_matching(log_depth.repeat(2, 1, 1, 1), depth.repeat(2, 1, 1, 1),
                                    torch.tensor([False, True]))
    assert float(both) == pytest.approx(float(alone))
