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
"""The self-supervised losses against values computed by hand."""
import math

import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from hybrid_depth_training.losses import photometric  # noqa: E402

INF = float('inf')


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def flat(value: float) -> torch.Tensor:
    return torch.full((1, 3, 8, 10), value)


def test_equal_images_have_no_error():
    image = torch.rand(2, 3, 8, 10)
    assert float(photometric.ssim_distance(image, image).abs().max()) < 1e-6
    assert float(photometric.photometric_error(image, image).abs().max()) < 1e-6


def test_error_of_two_flat_images():
    # no variance: SSIM is (2 a b + C1) / (a^2 + b^2 + C1)
    a, b = 0.2, 0.6
    ssim = (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
    error = photometric.photometric_error(flat(a), flat(b))
    assert error.shape == (1, 1, 8, 10)
    assert error.flatten().tolist() == pytest.approx(
        [0.85 * (1 - ssim) / 2 + 0.15 * (b - a)] * 80, rel=1e-4)


def test_error_is_symmetric_and_bounded():
    first, second = torch.rand(2, 3, 8, 10), torch.rand(2, 3, 8, 10)
    one = photometric.photometric_error(first, second)
    torch.testing.assert_close(one, photometric.photometric_error(second, first))
    assert float(one.min()) >= 0
    assert float(one.max()) <= 1


def test_opposite_texture_is_the_worst_structure():
    checker = ((torch.arange(8)[:, None] + torch.arange(10)) % 2).float().expand(1, 3, 8, 10)
    assert float(photometric.ssim_distance(checker, 1 - checker).min()) > 0.9


def errors(*sources: tuple[float, ...]) -> torch.Tensor:
    """Return an error map of one row: one tuple per source, one value per pixel."""
    return torch.tensor(sources).view(1, len(sources), 1, -1)


def test_the_best_source_counts_at_each_pixel():
    loss = photometric.automasked_loss(errors((0.1, 0.5), (0.3, 0.2)), errors((9.0, 9.0)))
    assert float(loss) == pytest.approx((0.1 + 0.2) / 2)


def test_pixels_that_an_unmoved_source_explains_have_no_gradient():
    moved = errors((0.1, 0.5)).requires_grad_()
    loss = photometric.automasked_loss(moved, errors((0.4, 0.2)))
    assert float(loss.detach()) == pytest.approx((0.1 + 0.2) / 2, abs=1e-4)
    loss.backward()
    assert moved.grad.flatten().tolist() == pytest.approx([0.5, 0.0])
    assert photometric.automask(moved, errors((0.4, 0.2))).flatten().tolist() == [True, False]


def test_sources_that_are_not_there_count_for_nothing():
    reprojection = photometric.only_valid(errors((0.1, 0.1), (0.3, 0.4)), torch.tensor([[0., 1.]]))
    identity = photometric.only_valid(errors((0.0, 0.0), (0.9, 0.9)), torch.tensor([[0., 1.]]))
    assert float(photometric.automasked_loss(reprojection, identity)) == pytest.approx(0.35)
    nothing = photometric.only_valid(errors((0.1,)), torch.tensor([[0.0]])).requires_grad_()
    loss = photometric.automasked_loss(nothing, nothing.detach())
    loss.backward()
    assert float(loss.detach()) == 0
    assert float(nothing.grad.abs().max()) == 0
    assert not photometric.automask(nothing, nothing).any()


def test_ties_of_a_standing_camera_are_broken_both_ways():
    equal = torch.full((1, 1, 100, 100), 0.25)
    share = float(photometric.automask(equal, equal).float().mean())
    assert 0.4 < share < 0.6


def test_smoothness_is_zero_when_flat_and_blind_to_scale():
    image = torch.rand(1, 3, 6, 8)
    assert float(photometric.smoothness(torch.full((1, 1, 6, 8), 0.3), image)) == 0
    disparity = torch.rand(1, 1, 6, 8) + 0.1
    one = float(photometric.smoothness(disparity, image))
    assert one > 0
    assert float(photometric.smoothness(7 * disparity, image)) == pytest.approx(one, rel=1e-4)


def test_smoothness_of_a_ramp_and_of_an_edge():
    ramp = torch.arange(1.0, 9.0).expand(1, 1, 6, 8)  # mean 4.5, slope 1 in x, 0 in y
    assert float(photometric.smoothness(ramp, torch.zeros(1, 3, 6, 8))) == pytest.approx(
        1 / 4.5, rel=1e-4)
    steep = torch.arange(8.0).expand(1, 3, 6, 8)  # |dx I| = 1 everywhere
    assert float(photometric.smoothness(ramp, steep)) == pytest.approx(
        math.exp(-1) / 4.5, rel=1e-4)


def test_masked_mean_does_not_see_infinity_outside_its_mask():
    values = torch.tensor([1.0, INF, 3.0])
    assert float(photometric.masked_mean(values, torch.tensor([True, False, True]))) == 2
    assert float(photometric.masked_mean(values, torch.zeros(3, dtype=torch.bool))) == 0
