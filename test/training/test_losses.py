# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
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
