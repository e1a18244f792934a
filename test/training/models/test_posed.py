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
"""Matching along a known motion: the geometry of the sweep, and what is made of it."""
from contextlib import contextmanager
import math

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

from hybrid_depth.camera import CameraModel  # noqa: E402
from hybrid_depth_training.models import posed  # noqa: E402
from hybrid_depth_training.models.compact import CompactDepth, double  # noqa: E402
from hybrid_depth_training.models.finer import folded_grey, GREY_CHANNELS  # noqa: E402
from hybrid_depth_training.models.posed import PosedDepth, spread  # noqa: E402
from hybrid_depth_training.models.sweep import (  # noqa: E402
    folded,
    rays_at_stride,
    sweep,
    unfolded,
)

HEIGHT, WIDTH = 16, 24  # cells of 4 pixels
FOCAL = 64.0
K = torch.tensor([[[FOCAL, 0.0, 47.5], [0.0, FOCAL, 31.5], [0.0, 0.0, 1.0]]])
PLANES_M = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0]).view(1, 5, 1, 1)
TRUE = 2  # index of the plane that is there, at 4 m
CHANNELS = 64
GROUPS = 4
ONE = torch.tensor(1.0)


def motion(x=0.0, y=0.0, z=0.0, yaw=0.0, roll=0.0) -> torch.Tensor:
    """Return source_T_target (4, 4) that turns, then shifts points by (x, y, z) metres."""
    R = [[[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]],
         [[math.cos(roll), -math.sin(roll), 0], [math.sin(roll), math.cos(roll), 0], [0, 0, 1]]]
    matrix = torch.eye(4)
    matrix[:3, :3] = torch.tensor(R[0]) @ torch.tensor(R[1])
    matrix[:3, 3] = torch.tensor([x, y, z])
    return matrix


def painted(source_T_target: torch.Tensor, K: torch.Tensor = K, depth_m: float = 4.0,
            seed: int = 0) -> torch.Tensor:
    """Return features (1, C, h, w) of a painted wall at ``depth_m`` before the target camera."""
    v, u = torch.meshgrid(4 * torch.arange(HEIGHT) + 1.5, 4 * torch.arange(WIDTH) + 1.5,
                          indexing='ij')
    rays = torch.stack([(u - K[0, 0, 2]) / K[0, 0, 0], (v - K[0, 1, 2]) / K[0, 1, 1],
                        torch.ones_like(u)])
    target_T_source = torch.linalg.inv(source_T_target)
    rays = torch.einsum('ij,jhw->ihw', target_T_source[:3, :3], rays)
    centre = target_T_source[:3, 3]
    x, y = (centre[i] + rays[i] * (depth_m - centre[2]) / rays[2] for i in (0, 1))
    generator = torch.Generator().manual_seed(seed)
    frequency = 2 * torch.randn(2, CHANNELS, 1, 1, generator=generator)
    phase = 2 * math.pi * torch.rand(CHANNELS, 1, 1, generator=generator)
    colours = torch.sin(frequency[0] * x + frequency[1] * y + phase)[None]
    groups = colours.view(1, GROUPS, -1, HEIGHT, WIDTH)
    return F.normalize(groups, dim=2).view(1, CHANNELS, HEIGHT, WIDTH)


def volume_of(volume: torch.Tensor) -> torch.Tensor:
    """Return the volume over PLANES_M as (B, D, G + 1, h, w)."""
    volume = F.pixel_shuffle(volume, 2)
    return volume.view(-1, PLANES_M.shape[1], *volume.shape[1:])


def compare(target, sources, motions, valid=None, K=K, temperature=ONE):
    """Return similarity (B, D, h, w), share in view (B, D, h, w) and its mean (B, 1, h, w)."""
    valid = torch.ones(len(target), len(motions)) if valid is None else torch.tensor([valid])
    volume, in_view = sweep(target, K, torch.stack(sources, dim=1),
                            torch.stack(motions)[None].expand(len(target), -1, -1, -1), valid,
                            PLANES_M, temperature)
    volume = volume_of(volume)
    return volume[:, :, :-1].mean(2), volume[:, :, -1], in_view


def random_features(seed: int) -> torch.Tensor:
    x = torch.randn(1, GROUPS, CHANNELS // GROUPS, HEIGHT, WIDTH,
                    generator=torch.Generator().manual_seed(seed))
    return F.normalize(x, dim=2).view(1, CHANNELS, HEIGHT, WIDTH)


def shifted(x: torch.Tensor, cells: int) -> torch.Tensor:
    """Return what a camera sees in which everything is ``cells`` further to the left."""
    return torch.roll(x, -cells, dims=3)


def test_a_shift_by_whole_cells_is_found_at_its_plane_alone():
    # 2 cells = 8 pixels at 4 m and focal length 64: half a metre to the right
    target = random_features(0)
    similar, _, _ = compare(target, [shifted(target, 2)], [motion(x=-0.5)])
    inner = similar[0, :, :, 2:-2]
    assert (inner.argmax(0) == TRUE).all()
    # the nearest cell of a grid twice as fine: 9 / 16 of it are of the right one
    assert inner[TRUE].min() > 0.4
    assert inner[[0, 1, 3, 4]].mean((1, 2)).max() < 0.3  # of a plane that is a cell beside it
    # the motion the other way finds nothing
    wrong, _, _ = compare(target, [shifted(target, 2)], [motion(x=0.5)])
    assert wrong[0, :, :, 4:-4].abs().mean() < 0.15


@pytest.mark.parametrize(('move', 'share'), [
    ({'x': -0.7}, 0.98), ({'y': 0.6}, 0.98), ({'z': 1.2}, 0.8), ({'z': -1.2}, 0.8),
    ({'x': 0.6, 'yaw': 0.15}, 0.98), ({'y': -0.6, 'yaw': -0.1, 'roll': 0.2}, 0.98)])
def test_a_wall_is_found_at_its_depth_whatever_the_motion(move, share):
    source_T_target = motion(**move)
    target = painted(torch.eye(4))
    similar, seen, _ = compare(target, [painted(source_T_target)], [source_T_target])
    visible = seen[0, TRUE] == 1
    assert visible.float().mean() > 0.4
    assert (similar[0].argmax(0) == TRUE)[visible].float().mean() > share
    assert similar[0, TRUE][visible].mean() > 0.85
    # the inverse motion is wrong, and does not match
    wrong, wrong_seen, _ = compare(target, [painted(source_T_target)],
                                   [torch.linalg.inv(source_T_target)])
    both = visible & (wrong_seen[0, TRUE] == 1)
    assert wrong[0, TRUE][both].mean() < similar[0, TRUE][both].mean() - 0.3


def test_straight_ahead_the_direction_of_travel_tells_no_depth():
    ahead = motion(z=1.2)
    similar, _, _ = compare(painted(torch.eye(4)), [painted(ahead)], [ahead])
    middle = similar[0, :, HEIGHT // 2, WIDTH // 2]  # next to the principal point
    corner = similar[0, :, 1, 1]
    assert middle.max() - middle.min() < 0.2 < 0.5 < corner.max() - corner.min()


def test_half_the_focal_length_is_half_the_shift():
    target = random_features(1)
    half = torch.tensor([[[FOCAL / 2, 0.0, 47.5], [0.0, FOCAL / 2, 31.5], [0.0, 0.0, 1.0]]])
    similar, _, _ = compare(target, [shifted(target, 2)], [motion(x=-0.5)], K=half)
    assert (similar[0, :, :, 2:-2].argmax(0) == TRUE - 1).all()


def test_share_of_sources_in_view_is_exact():
    target = random_features(2)
    _, share, mean = compare(target, [target, target], [motion(x=-0.5), motion(x=0.5)])
    expected = torch.ones(5, HEIGHT, WIDTH)
    for plane, cells in enumerate((8, 4, 2, 1)):  # at 1, 2, 4, 8 m
        expected[plane, :, :cells] -= 0.5
        expected[plane, :, -cells:] -= 0.5
    assert torch.equal(share[0, :4], expected[:4])
    assert torch.allclose(mean[0, 0], share[0].mean(0), atol=1e-6)
    # 3 m ahead: what is at 1 and 2 m is behind the source
    corner = torch.diag(torch.tensor([FOCAL, FOCAL, 1.0]))[None]  # the principal point at (0, 0)
    _, share, _ = compare(target, [target], [motion(z=-3.0)], K=corner)
    assert (share[0, :2] == 0).all()
    assert (share[0, 2:].amax((1, 2)) == 1).all()


def test_places_between_cells_are_rounded_without_bias():
    columns, rows = (torch.arange(count).float() for count in (WIDTH, HEIGHT))
    ones = torch.ones(1, GROUPS, HEIGHT, WIDTH)
    for across in (True, False):
        place = columns.expand(HEIGHT, -1) if across else rows[:, None].expand(-1, WIDTH)
        errors = []
        for eighth in range(8):
            cells = (eighth + 0.5) / 8
            metres = -4 * cells * 4.0 / FOCAL
            move = motion(x=metres) if across else motion(y=metres)
            found, _, _ = compare(ones, [ones * place], [move])
            errors.append((found[0, TRUE] - (place - cells))[3:-3, 3:-3])
        assert torch.stack(errors).abs().max() < 0.26
        assert torch.stack(errors).mean(0).abs().max() < 0.01


def test_similarity_is_averaged_over_the_sources_that_see_the_point():
    target = random_features(3)
    moves = [motion(x=-0.5), motion(x=0.5)]
    both, _, _ = compare(target, [shifted(target, 2), shifted(target, -2)], moves)
    left, _, _ = compare(target, [shifted(target, 2)], moves[:1])
    right, _, _ = compare(target, [shifted(target, -2)], moves[1:])
    torch.testing.assert_close(both[0, TRUE, :, :2], right[0, TRUE, :, :2])
    torch.testing.assert_close(both[0, TRUE, :, -2:], left[0, TRUE, :, -2:])
    torch.testing.assert_close(both[0, TRUE, :, 2:-2],
                               (left + right)[0, TRUE, :, 2:-2] / 2)


def test_source_that_is_not_valid_counts_for_nothing():
    target, garbage = random_features(4), 1e3 * random_features(5)
    moves = [motion(x=-0.5), motion(y=0.3, yaw=0.1)]
    alone = compare(target, [shifted(target, 2)], moves[:1])
    for order in ((0, 1), (1, 0)):
        sources = [[shifted(target, 2), garbage][i] for i in order]
        found = compare(target, sources, [moves[i] for i in order],
                        valid=[float(i == 0) for i in order])
        for one, other in zip(found, alone, strict=True):
            torch.testing.assert_close(one, other)
    nothing = compare(target, [garbage, garbage], moves, valid=[0.0, 0.0])
    assert all((part == 0).all() for part in nothing)


def test_order_of_the_sources_is_of_no_matter():
    target, sources = random_features(6), [random_features(7), random_features(8)]
    moves = [motion(x=-0.4, z=0.3), motion(y=0.2, yaw=0.1)]
    for one, other in zip(compare(target, sources, moves),
                          compare(target, sources[::-1], moves[::-1]), strict=True):
        torch.testing.assert_close(one, other)


def test_samples_of_a_batch_do_not_meet():
    targets, sources = ([random_features(seed) for seed in seeds] for seeds in ((9, 10), (11, 12)))
    Ks = [K, K * torch.tensor([0.7, 0.8, 1.0]).view(1, 3, 1)]
    moves = [motion(x=-0.5), motion(z=0.4, yaw=0.05)]
    together, in_view = sweep(torch.cat(targets), torch.cat(Ks), torch.stack(sources),
                              torch.stack(moves)[:, None], torch.ones(2, 1), PLANES_M, ONE)
    for index in range(2):
        alone, alone_in_view = sweep(targets[index], Ks[index], sources[index][None],
                                     moves[index][None, None], torch.ones(1, 1), PLANES_M, ONE)
        torch.testing.assert_close(volume_of(together)[index:index + 1], volume_of(alone))
        torch.testing.assert_close(in_view[index:index + 1], alone_in_view)


def test_planes_do_not_meet():
    """However many are looked up at a time: 40 planes are 8 times 5, in their order."""
    target, source = random_features(15), random_features(16)[:, None]
    move = motion(x=-0.4, z=0.3, yaw=0.05)[None, None]
    planes = torch.logspace(0, 1.5, 40).view(1, 40, 1, 1)
    together, in_view = sweep(target, K, source, move, torch.ones(1, 1), planes, ONE)
    parts = [sweep(target, K, source, move, torch.ones(1, 1), part, ONE)
             for part in planes.split(5, dim=1)]
    torch.testing.assert_close(together, torch.cat([volume for volume, _ in parts]))
    torch.testing.assert_close(in_view, torch.stack([mean for _, mean in parts]).mean(0))


def test_temperature_multiplies_similarities_and_nothing_else():
    target = random_features(13)
    similar, share, _ = compare(target, [shifted(target, 2)], [motion(x=-0.5)])
    hotter, same, _ = compare(target, [shifted(target, 2)], [motion(x=-0.5)],
                              temperature=torch.tensor(5.0))
    torch.testing.assert_close(hotter, 5 * similar)
    assert torch.equal(same, share)


def test_every_group_of_channels_is_compared_by_itself():
    target = random_features(14)
    source = shifted(target, 2).clone()
    source[:, 16:32] *= -1  # the second of four groups
    volume, _ = sweep(target, K, source[:, None], motion(x=-0.5)[None, None], torch.ones(1, 1),
                      PLANES_M, ONE)
    signs = volume_of(volume)[0, TRUE, :GROUPS, :, 2:-2].mean((1, 2)).sign()
    assert signs.tolist() == [1, -1, 1, 1]


def test_unfolding_undoes_folding():
    x = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    assert torch.equal(unfolded(folded(x), 4, 6), x)


def test_folding_orders_cells_by_place_in_their_block_then_by_block():
    x = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    found = folded(x)
    assert found.shape == (2, 3, 24)
    for down in (0, 1):
        for right in (0, 1):
            place = (2 * down + right) * 6
            assert torch.equal(found[..., place:place + 6],
                               x[..., down::2, right::2].reshape(2, 3, 6))
    assert torch.equal(F.pixel_shuffle(found.view(2, 12, 2, 3), 2), x)


def test_rays_are_the_means_over_their_cells():
    camera = CameraModel(96, 64, 70.0, 72.0, 50.0, 30.0)
    rays = rays_at_stride(torch.from_numpy(camera.K.astype(np.float32))[None], 16, 24)
    by_hand = camera.rays().reshape(16, 4, 24, 4, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(rays[0, :2].permute(1, 2, 0).numpy(), by_hand, atol=1e-6)
    assert (rays[0, 2] == 1).all()


def test_mean_is_around_the_best_plane_only():
    planes = torch.arange(10.0).view(1, 10, 1, 1) / 2
    p = torch.zeros(1, 10, 1, 1)
    for plane, share in {1: 0.1, 2: 0.3, 3: 0.2, 4: 0.1, 5: 0.1, 8: 0.2}.items():
        p[0, plane] = share
    mean, mass, _ = posed.peak(p.clamp(min=1e-12).log(), planes)
    # within two planes of plane 2: 1, 2, 3 and 4
    assert float(mass) == pytest.approx(0.7)
    assert float(mean) == pytest.approx((0.1 * 1 + 0.3 * 2 + 0.2 * 3 + 0.1 * 4) / 0.7 / 2)


def test_entropy_is_0_for_certainty_and_1_for_ignorance():
    certain = torch.log_softmax(torch.tensor([90.0, 0.0, 0.0, 0.0]), 0).view(1, 4, 1, 1)
    ignorant = torch.full((1, 4, 1, 1), math.log(0.25))
    halves = torch.tensor([0.5, 0.5, 1e-30, 1e-30]).log().view(1, 4, 1, 1)
    planes = torch.arange(4.0).view(1, 4, 1, 1)
    entropies = [float(posed.peak(p, planes).entropy) for p in (certain, ignorant, halves)]
    assert entropies == pytest.approx([0, 1, 0.5], abs=1e-6)
    # logits need not be normalised
    assert float(posed.peak(halves + 7, planes).entropy) == pytest.approx(0.5, abs=1e-6)


def test_slopes_are_differences_to_the_left_and_upper_neighbour():
    log_depth = torch.tensor([[1.0, 2.0], [4.0, 8.0]]).view(1, 1, 2, 2)
    across, down = posed.slopes(log_depth)[0]
    assert across.tolist() == [[0, 10], [0, 40]]
    assert down.tolist() == [[0, 0], [30, 60]]


def test_volume_filter_treats_all_planes_alike():
    torch.manual_seed(0)
    volume_filter = posed.VolumeFilter(GROUPS + 1, 8).eval()
    context = torch.randn(1, 8, 16, 16)
    volume = torch.zeros(64, 4 * (GROUPS + 1), 8, 8)
    volume[28:32] = torch.randn(4, 4 * (GROUPS + 1), 8, 8)
    with torch.no_grad():
        here = volume_filter(volume, context)
        there = volume_filter(torch.roll(volume, 4, dims=0), context)
    assert here.shape == (1, 64, 1, 16 * 16)
    torch.testing.assert_close(here[:, 20:40], there[:, 24:44], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(here[:, 20:40], there[:, 20:40], atol=1e-3)


def test_volume_filter_keeps_places():
    """What is seen in one block of cells tells most about the cells of that block."""
    torch.manual_seed(0)
    volume_filter = posed.VolumeFilter(GROUPS + 1, 8).eval()
    for layer in (volume_filter.down1, volume_filter.up1):  # leave out what looks far around
        nn.init.zeros_(layer.weight)
    context, volume = torch.randn(1, 8, 24, 40), torch.randn(16, 4 * (GROUPS + 1), 12, 20)
    changed = volume.clone()
    changed[..., 3, 14] += 1
    with torch.no_grad():
        difference = (volume_filter(changed, context) - volume_filter(volume, context)).abs()
    rows, columns = unfolded(difference, 24, 40).amax((0, 1)).nonzero().T
    # two convolutions of 3x3 blocks
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 11, 24, 33)


# ------------------------------------------------------------------------------- the network


def awake(network: PosedDepth) -> PosedDepth:
    """Give weights to the layers that start at zero, so that all of them have a say."""
    for layer in (network.single.head, network.fusion.out, network.refine[-1]):
        nn.init.normal_(layer.weight, std=0.05)
    return network


@pytest.fixture(scope='module')
def network() -> PosedDepth:
    torch.manual_seed(0)
    return awake(PosedDepth(CompactDepth(weights='random'))).eval()


def picture(seed: int, batch: int = 1) -> torch.Tensor:
    return torch.randint(0, 256, (batch, 64, 96, 3), dtype=torch.uint8,
                         generator=torch.Generator().manual_seed(seed))


def test_without_sources_the_result_is_that_of_the_single_frame(network):
    image = picture(0)
    garbage = 1e4 * torch.randn(1, 2, network.channels, 16, 24)
    moves = torch.stack([motion(x=0.4), motion(z=-0.6)])[None]
    with torch.no_grad():
        found = network(image, K, garbage, moves, torch.zeros(1, 2))
        single = network.single.single_frame(image, K)
        log_depth, _ = network.single(image, K)
    assert torch.equal(found.log_depth, log_depth)
    assert single.log_b.std() > 0
    log_b = (single.log_b + math.log(network.single_sigma_scale)).clamp(max=0)
    assert torch.equal(found.log_b, double(log_b))
    assert (found.match_logits == 0).all()


def test_sources_change_the_result_of_their_own_sample_only(network):
    images, moves = picture(1, 2), torch.stack([motion(x=0.4)] * 2)[:, None]
    K2 = K.expand(2, -1, -1)
    valid = torch.tensor([[0.0], [1.0]])
    with torch.no_grad():
        sources = network.source_features(picture(2, 2)[:, None])
        found = network(images, K2, sources, moves, valid)
        log_depth, _ = network.single(images, K2)
    torch.testing.assert_close(found.log_depth[0], log_depth[0])
    assert (found.log_depth[1] - log_depth[1]).abs().mean() > 1e-3


def test_shapes_are_those_of_the_contract(network):
    with torch.no_grad():
        sources = network.source_features(torch.stack([picture(3), picture(4)], dim=1))
        found = network(picture(5), K, sources, torch.stack([motion(x=0.1)] * 2)[None],
                        torch.ones(1, 2))
    assert sources.shape == (1, 2, network.channels, 16, 24)
    assert found.log_depth.shape == found.log_b.shape == (1, 1, 64, 96)
    assert found.features.shape == (1, network.channels, 16, 24)
    assert found.match_logits.shape == (1, posed.PLANES, 16, 24)
    assert found.matched_log_depth.shape == found.match_trust.shape == (1, 1, 16, 24)
    assert found.matched_log_depth.min() >= math.log(posed.NEAR_M) - 1e-5
    assert found.matched_log_depth.max() <= math.log(posed.FAR_M) + 1e-5


def test_features_are_of_unit_length_per_group_and_those_of_a_source_are_the_same(network):
    image = picture(6)
    with torch.no_grad():
        features = network(image, K, torch.zeros(1, 1, network.channels, 16, 24),
                           torch.eye(4).view(1, 1, 4, 4), torch.zeros(1, 1)).features
        as_source = network.source_features(image[:, None])[:, 0]
    torch.testing.assert_close(features, as_source)
    matched = features[:, :-GREY_CHANNELS]
    length = matched.reshape(1, GROUPS, -1, 16, 24).norm(dim=2)
    assert 0.9 < length.min() <= length.max() <= 1
    assert torch.equal(features[:, -GREY_CHANNELS:], folded_grey(image))


def test_gradients_reach_every_parameter_that_learns():
    torch.manual_seed(1)
    network = awake(PosedDepth(CompactDepth(weights='random')))
    network.single.requires_grad_(False)
    image = picture(7)
    sources = network.source_features(picture(8)[:, None]).detach()
    found = network(image, K, sources, motion(x=0.4)[None, None], torch.ones(1, 1))
    (found.log_depth.sum() + found.log_b.sum() + (found.match_logits ** 2).sum()
     + found.match_trust.sum()).backward()
    without = [name for name, p in network.named_parameters() if p.requires_grad
               and (p.grad is None or not p.grad.abs().sum() > 0)]
    assert without == []
    assert all(p.grad is None for p in network.single.parameters())


def test_spread_carries_offsets_to_where_there_is_no_weight():
    offset, weight = torch.zeros(1, 1, 32, 64), torch.zeros(1, 1, 32, 64)
    offset[..., :32], weight[..., :32] = 0.5, 1.0
    offset[..., 32:], weight[..., 32:] = -7.0, 0.0  # worthless: must not be seen
    found = spread(offset, weight)
    torch.testing.assert_close(found[..., :24], torch.full((1, 1, 32, 24), 0.5), rtol=0, atol=0.02)
    assert (found > 0.4).all()
    assert (found <= 0.5).all()
    assert spread(offset, torch.zeros_like(weight)).abs().max() == 0


def test_spread_prefers_what_is_near():
    offset = torch.linspace(-1, 1, 64).expand(1, 1, 32, 64).contiguous()
    weight = torch.ones_like(offset)
    weight[..., 10, 8] = 0
    assert abs(float(spread(offset, weight)[0, 0, 10, 8] - offset[0, 0, 10, 8])) < 0.1


def test_single_frame_that_is_off_by_a_factor_ends_at_what_was_matched(network):
    """The scale of the single frame does not count where there is matching."""
    image = picture(9)
    fresh = PosedDepth(network.single).eval()  # corrections of zero: the joint opinion is left
    with torch.no_grad():
        sources = fresh.source_features(picture(10)[:, None])
        inputs = (image, K, sources, motion(x=0.4)[None, None], torch.ones(1, 1))
        single = fresh.single.single_frame(image, K)
        flat = single._replace(log_depth=torch.full_like(single.log_depth, 1.0))
        means = []
        for factor in (0.6, 1.0, 1.6):
            off = flat._replace(log_depth=flat.log_depth + math.log(factor))
            with sharp(fresh, log_depth=1.7):
                means.append(float(fresh.refined(off, *inputs).log_depth.mean()))
    assert all(abs(mean - 1.7) < 0.06 for mean in means)  # half a plane


@contextmanager
def sharp(network: PosedDepth, log_depth: float):
    """Let matching be sure of one depth everywhere."""
    planes = network.log_planes
    step = planes[0, 1, 0, 0] - planes[0, 0, 0, 0]

    def volume(x, context):
        logits = -8 * ((planes - log_depth) / step) ** 2
        return logits.expand(context.shape[0], -1, 1, 4 * x.shape[2] * x.shape[3])
    kept, network.volume.forward = network.volume.forward, volume
    try:
        yield
    finally:
        network.volume.forward = kept
