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
"""The coarse stage: it takes the right cells, learns what it should, and orders real patches."""
import math

import numpy as np
import pytest
from tiny_data import write_tusimple

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from hybrid_depth.errors import ConfigError  # noqa: E402
from hybrid_depth_training.data import load  # noqa: E402
from hybrid_depth_training.objectives.coarse import (  # noqa: E402
    Coarse,
    draw_ladders,
    Ladders,
    patch_features,
)
from hybrid_depth_training.objectives.ordering import lane_map  # noqa: E402

TINY = {'clip': 'efficientnet_lite0', 'clip_weights': 'imagenet', 'dino': 'none', 'prompts': 8,
        'text_model': 'tiny', 'align_channels': 16, 'decoder_width': 8,
        'out_channels': (8, 8, 8, 8)}


def make(**options) -> Coarse:
    torch.manual_seed(0)
    hybrid = {**TINY, **options.pop('hybrid', {})}
    return Coarse({'text': 'orthogonal', 'hybrid': hybrid, **options}, 1e-3, 1e-4, 10)


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Return two images whose brightness and depth fall and rise together, up the image."""
    depth = torch.linspace(40, 2, 64)[:, None].expand(64, 96)
    image = (255 - 6 * depth).clamp(0, 255).to(torch.uint8)
    return {'image': torch.stack([image[..., None].expand(64, 96, 3),
                                  image.flip(0)[..., None].expand(64, 96, 3)]),
            'depth_m': torch.stack([depth, depth.flip(0)])[:, None].clone(),
            'K': torch.tensor([[80.0, 0, 48], [0, 80, 20], [0, 0, 1]]).expand(2, 3, 3)}


def test_cell_under_the_point():
    # a map whose features are the cell's own row and column
    v, u = torch.meshgrid(torch.arange(4.0), torch.arange(6.0), indexing='ij')
    x = torch.stack([torch.stack([v, u]), torch.stack([v, u]) + 100])
    # cells of 10 pixels: pixel 9 is the last of cell 0, pixel 10 the first of cell 1
    points = torch.tensor([[0, 0], [9, 9], [10, 9], [9, 10], [59, 39], [25, 35], [30, 0]])
    ladders = Ladders(points[None].repeat(2, 1, 1).float(), torch.tensor([0, 1]))
    expected = torch.tensor([[0, 0], [0, 0], [0, 1], [1, 0], [3, 5], [3, 2], [0, 3.0]])
    found = patch_features(x, ladders, (40, 60))
    torch.testing.assert_close(found, torch.stack([expected, expected + 100]))


def test_square_around_the_point_is_averaged():
    v, u = torch.meshgrid(torch.arange(4.0), torch.arange(6.0), indexing='ij')
    x = torch.stack([v, u])[None].repeat(2, 1, 1, 1)
    x[1] += 100
    points = torch.tensor([[29.5, 19.5]]).repeat(7, 1)
    points[1] += torch.tensor([10.0, 5.0])
    ladders = Ladders(points[None].repeat(2, 1, 1), torch.tensor([1, 0]))
    found = patch_features(x, ladders, (40, 60), roi_px=20.0)
    # the map is linear, so the mean is the value at the centre: cell centres are at +0.5
    assert found[1, 0].tolist() == pytest.approx([1.5, 2.5], abs=1e-4)
    assert found[1, 1].tolist() == pytest.approx([2.0, 3.5], abs=1e-4)
    assert found[0, 0].tolist() == pytest.approx([101.5, 102.5], abs=1e-4)


def test_ladders_are_the_same_for_the_same_step(batch):
    settings = make().settings
    first, again, other = (draw_ladders(batch, settings, 4, seed) for seed in (3, 3, 4))
    assert first.image.tolist() == [0] * 4 + [1] * 4
    torch.testing.assert_close(first.points, again.points)
    assert not torch.equal(first.points, other.points)
    # near to far is up in the first image and down in the second
    rows = first.points[..., 1]
    assert (rows[:4].diff(dim=1) < 0).all()
    assert (rows[4:].diff(dim=1) > 0).all()


def test_ground_needs_no_depth_and_lanes_come_as_they_are(batch):
    batch['depth_m'][:] = float('nan')
    ground = make(ladders='ground', camera_height_m=1.5).settings
    ladders = draw_ladders(batch, ground, 3, 0)
    assert len(ladders.points) == 6
    assert (ladders.points[..., 1].diff(dim=1) < 0).all()
    assert (ladders.points[..., 1] > 20).all()  # below the horizon
    lane = np.stack([np.arange(20) + 30, np.arange(20) * 2 + 20], axis=1)
    batch['depth_m'][1, 0] = torch.from_numpy(lane_map([lane], 64, 96))
    lanes = draw_ladders(batch, make(ladders='lanes').settings, 3, 0)
    assert lanes.image.tolist() == [1]
    assert lanes.points[0, 0].tolist() == [48, 56]
    literal = draw_ladders(batch, make(ladders='lanes', order='literal').settings, 3, 0)
    torch.testing.assert_close(literal.points, lanes.points.flip(1))


def test_lanes_of_tusimple_become_ladders(tmp_path):
    options = write_tusimple(tmp_path)
    (bare, *_), (marked, *_) = (load('tusimple', str(tmp_path), mark_lanes=mark, **options)
                                for mark in (False, True))
    assert np.isnan(bare[0].depth_m).all()
    sample = marked[0]
    height = len(sample.image_rgb)
    rows = np.arange(20, height, 4)
    view = {'image': torch.from_numpy(sample.image_rgb)[None],
            'depth_m': torch.from_numpy(sample.depth_m)[None, None],
            'K': torch.from_numpy(sample.camera.K)[None]}
    ladders = draw_ladders(view, make(ladders='lanes').settings, 1, 0)
    # two lanes are seen; the first from row 28 on
    expected = [seen[np.arange(7) * ((len(seen) - 1) // 6)][::-1] for seen in (rows[2:], rows)]
    assert ladders.points[..., 1].tolist() == [rung.tolist() for rung in expected]
    assert ladders.points[0, :, 0].tolist() == [48 - (row - 20) // 2 for row in expected[0]]


@pytest.mark.parametrize('changes', [
    {}, {'language_loss': 'info_nce', 'roi_px': 20.0}, {'hybrid': {'alignment': 'decimated'}}])
def test_some_steps_lower_the_loss_and_raise_the_order(batch, changes):
    objective = make(**changes)
    with torch.no_grad():
        before = objective.eval().validate(batch)
    optimizer = torch.optim.AdamW(objective.parameter_groups(), lr=1e-3)
    losses = []
    for _ in range(10):
        terms = objective.train().loss(batch, 0)
        optimizer.zero_grad()
        terms['loss'].backward()
        optimizer.step()
        losses.append(float(terms['loss'].detach()))
    assert losses[-1] < 0.6 * losses[0]
    with torch.no_grad():
        after = objective.eval().validate(batch)
    assert after['proxy_accuracy'] > max(0.65, before['proxy_accuracy'] + 0.1)
    assert after['order_accuracy'] > max(0.65, before['order_accuracy'] + 0.1)
    assert after['order_by_row'] == pytest.approx(0.5)  # the second image is upside down


def test_loss_is_what_its_parts_say(batch):
    objective = make(language_weight=2.0, contrastive_weight=3.0)
    terms = objective.loss(batch, 0)
    torch.testing.assert_close(terms['loss'],
                               2 * terms['language'] + 3 * terms['contrastive'])
    assert float(terms['ladders']) == 12
    # twice the same image: as many ladders for each, so the sum over ladders per image is kept
    double = {key: torch.cat([value[:1]] * 2) for key, value in batch.items()}
    single = {key: value[:1] for key, value in batch.items()}
    torch.testing.assert_close(objective.loss(double, 0)['language'],
                               objective.loss(single, 0)['language'], rtol=0.3, atol=1.0)


def test_without_ladders_nothing_is_learned(batch):
    batch['depth_m'][:] = 5.0
    objective = make()
    terms = objective.loss(batch, 0)
    terms['loss'].backward()
    assert float(terms['loss'].detach()) == 0
    assert all(p.grad is None or not p.grad.any() for p in objective.parameters())
    assert math.isnan(objective.validate(batch)['order_accuracy'])


def test_what_learns_and_what_stays():
    objective = make(hybrid={'dino': 'dinov2_vits14', 'dino_weights': 'random'})
    learned = {name.split('.')[1] for name, p in objective.named_parameters() if p.requires_grad}
    assert learned == {'clip', 'aggregation', 'to_text'}
    groups = objective.parameter_groups()
    assert [group['lr'] for group in groups] == [1e-4, 1e-3]
    in_groups = sum(len(group['params']) for group in groups)
    assert in_groups == sum(p.requires_grad for p in objective.parameters())


def test_fine_stage_takes_up_what_the_coarse_one_learned():
    from hybrid_depth_training.objectives.hosts import Monodepth2
    fine = Monodepth2({'encoder': 'hybrid', 'hybrid': {**TINY, 'text_weights': 'random'},
                       'poses': 'known', 'scales': 1}, 1e-3, 1e-4, 10).state_dict()
    learned = {name: p for name, p in make().named_parameters() if p.requires_grad}
    assert learned
    assert {name: p.shape for name, p in learned.items()} == {
        name: fine[name].shape for name in learned}
    # and nothing that it did not learn, such as where the decoder starts
    assert not [name for name in make().state_dict() if '.decoder.' in name or 'prompts' in name]


def test_words_have_the_frobenius_norm_one():
    for text in ('orthogonal', 'clip'):
        words = make(text=text, hybrid={'text_weights': 'random'}).text
        assert words.shape == (7, 64)
        torch.testing.assert_close(words.norm(dim=1), torch.full((7,), 1 / math.sqrt(7)))
    assert torch.equal(make().text, make().text)


@pytest.mark.parametrize(('options', 'message'), [
    ({'ladders': 'stairs'}, 'stairs'),
    ({'language_loss': 'mse'}, 'mse'),
    ({'ladders': 'ground'}, 'camera_height_m'),
    ({'camera_height_m': 1.5}, 'camera_height_m'),
    ({'hybrid': {'language': False}}, 'language'),
    ({'hybrid': {'clip': 'none', 'dino': 'none'}}, 'at least one'),
    ({'margin': 0.1}, 'margin'),
])
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        make(**options)
