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
"""The cost volume finds planes, and knows where it cannot."""
import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from hybrid_depth_training.geometry import pose_matrix  # noqa: E402
from hybrid_depth_training.models.cost_volume import (  # noqa: E402
    cost_volume,
    CostVolume,
    depth_bins,
    DepthRange,
)

HEIGHT, WIDTH, FOCAL = 16, 48, 24.0
K = torch.tensor([[[FOCAL, 0.0, 23.5], [0.0, FOCAL, 7.5], [0.0, 0.0, 1.0]]])
BINS = depth_bins(torch.tensor(1.0), torch.tensor(8.0), 15)  # 1.0, 1.5, ... 8.0
DEPTH = 4.0
SHIFT = 3  # pixels that a wall at DEPTH moves by
LEFT_M = SHIFT * DEPTH / FOCAL


def features(seed: int = 0) -> torch.Tensor:
    """Return white noise: no two neighbours match."""
    return torch.rand(1, 8, HEIGHT, WIDTH + SHIFT, generator=torch.Generator().manual_seed(seed))


def wall(*sources: torch.Tensor, poses: list[torch.Tensor], valid: list[float],
         ) -> CostVolume:
    return cost_volume(features()[..., SHIFT:], torch.stack(sources, dim=1), K,
                       torch.stack(poses, dim=1), torch.tensor([valid]), BINS)


def moved(x: float) -> torch.Tensor:
    return pose_matrix(torch.zeros(1, 3), torch.tensor([[x, 0.0, 0.0]]))


def source() -> torch.Tensor:
    """Return what a camera LEFT_M to the left sees of the same wall."""
    return features()[..., :-SHIFT]


def test_the_least_cost_is_at_the_depth_of_the_wall():
    # the target's pixel u is noise column u + SHIFT, which the source has at u + SHIFT
    volume = wall(source(), poses=[moved(LEFT_M)], valid=[1.0])
    sure = volume.confidence > 0
    assert sure.float().mean() > 0.3
    assert (volume.best_depth[sure] == DEPTH).all()
    best = volume.cost[:, int((BINS == DEPTH).nonzero())]
    assert float(best[sure[:, 0]].max()) < 1e-4


def test_the_inverse_pose_does_not_find_it():
    volume = wall(source(), poses=[moved(-LEFT_M)], valid=[1.0])
    sure = volume.confidence > 0
    assert (volume.best_depth[sure] == DEPTH).float().mean() < 0.3


def test_pixels_near_the_border_or_seen_by_no_source_have_no_evidence():
    volume = wall(source(), poses=[moved(LEFT_M)], valid=[1.0])
    border = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    border[2:-2, 2:-2] = False
    assert float(volume.confidence[0, 0][border].max()) == 0
    # the nearest bin, 1 m, shifts by 12 px to the right: the last columns leave the source
    assert float(volume.confidence[..., -14:].max()) == 0
    assert float(volume.confidence[0, 0, 3:-3, 3:-15].min()) == 1
    assert float(volume.cost[(volume.confidence == 0).expand_as(volume.cost)].abs().max()) == 0


def test_a_source_that_is_not_there_changes_nothing():
    alone = wall(source(), poses=[moved(LEFT_M)], valid=[1.0])
    beside = wall(features(1)[..., SHIFT:], source(), poses=[moved(0.2), moved(LEFT_M)],
                  valid=[0.0, 1.0])
    for one, two in zip(alone, beside, strict=True):
        torch.testing.assert_close(one, two)
    none = wall(source(), poses=[moved(LEFT_M)], valid=[0.0])
    assert float(none.cost.abs().max()) == float(none.confidence.max()) == 0


def test_two_sources_are_averaged_where_both_see_the_point():
    other = features(1)[..., SHIFT:]
    pose = moved(LEFT_M)
    one, two = (wall(s, poses=[pose], valid=[1.0]) for s in (source(), other))
    both = wall(source(), other, poses=[pose, pose], valid=[1.0, 1.0])
    torch.testing.assert_close(both.cost, (one.cost + two.cost) / 2)


def test_bins_are_even_in_depth_or_in_inverse_depth():
    near, far = torch.tensor(0.5), torch.tensor(10.0)
    linear, inverse = depth_bins(near, far, 20), depth_bins(near, far, 20, is_inverse=True)
    for bins in (linear, inverse):
        assert [float(bins[0]), float(bins[-1])] == pytest.approx([0.5, 10])
    torch.testing.assert_close(linear.diff(), torch.full((19,), 0.5))
    torch.testing.assert_close((1 / inverse).diff(), torch.full((19,), -0.1))


def test_the_range_follows_what_the_teacher_sees_and_is_saved():
    depth_range = DepthRange(near=0.1, far=10.0)
    depth = torch.tensor([[2.0, 40.0], [4.0, 60.0]]).view(2, 1, 1, 2)  # mean least 3, mean most 50
    depth_range.update(depth)
    assert float(depth_range.near) == pytest.approx(0.99 * 0.1 + 0.01 * 0.9 * 3)
    assert float(depth_range.far) == pytest.approx(0.99 * 10 + 0.01 * 1.1 * 50)
    for _ in range(1000):
        depth_range.update(depth)
    assert float(depth_range.near) == pytest.approx(2.7, rel=1e-3)
    assert float(depth_range.far) == pytest.approx(55, rel=1e-3)
    again = DepthRange()
    again.load_state_dict(depth_range.state_dict())
    torch.testing.assert_close(again.bins(96), depth_range.bins(96))
