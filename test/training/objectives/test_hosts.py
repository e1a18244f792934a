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
"""The self-supervised hosts: who teaches whom, with which poses, and that depth is learned."""
from __future__ import annotations

from pathlib import Path

import painted_plane
import pytest
import yaml

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from torch import nn  # noqa: E402

from hybrid_depth.errors import ConfigError  # noqa: E402
from hybrid_depth_training import checkpoint  # noqa: E402
from hybrid_depth_training.geometry import pose_matrix  # noqa: E402
from hybrid_depth_training.models.encoders import ENCODERS  # noqa: E402
from hybrid_depth_training.models.monodepth import (  # noqa: E402
    disparity_logit,
    disparity_to_depth,
    DisparityDecoder,
    Monodepth,
)
from hybrid_depth_training.models.pose_net import PoseNet, source_poses  # noqa: E402
from hybrid_depth_training.objectives import make_objective, Objective  # noqa: E402
from hybrid_depth_training.objectives.hosts import trusted_matches  # noqa: E402
from hybrid_depth_training.objectives.self_supervision import reprojection_errors  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
STEPS = 100
PARTS = ('photometric', 'consistency')  # of the multi-frame network's loss


class TinyEncoder(nn.Module):
    """Five strided convolutions with the interface of an encoder."""

    channels = (4, 6, 8, 10, 12)
    strides = (2, 4, 8, 16, 32)
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    provenance = 'random'

    def __init__(self, weights: str) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.ReLU())
            for a, b in zip((3, *self.channels), self.channels, strict=False))

    def forward(self, x: torch.Tensor, first: int = 0, last: int = 5) -> list[torch.Tensor]:
        maps = []
        for stage in self.stages[first:last]:
            x = stage(x)
            maps.append(x)
        return maps


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setitem(ENCODERS, 'tiny', TinyEncoder)
    torch.manual_seed(0)


def host(name: str, **options) -> Objective:
    values = {'encoder': 'tiny', 'pose_encoder': 'tiny', 'start_depth_m': 8.0, **options}
    return make_objective(name, values, 1e-3, 1e-3, STEPS)


def gradient(module: nn.Module) -> float:
    return sum(float(p.grad.abs().sum()) for p in module.parameters() if p.grad is not None)


def test_disparity_is_inverse_depth_between_the_limits():
    ends = disparity_to_depth(torch.tensor([0.0, 1.0]), 0.1, 100.0)
    assert ends.tolist() == pytest.approx([100, 0.1])
    logit = torch.tensor(disparity_logit(15.0, 0.1, 100.0))
    assert float(disparity_to_depth(torch.sigmoid(logit), 0.1, 100.0)) == pytest.approx(15.0)


def test_decoder_gives_four_scales_of_which_the_finest_is_full():
    maps = [torch.rand(1, c, 64 // s, 96 // s)
            for c, s in zip(TinyEncoder.channels, TinyEncoder.strides, strict=True)]
    disparities = DisparityDecoder(TinyEncoder.channels)(maps)
    assert [tuple(d.shape[2:]) for d in disparities] == [(64, 96), (32, 48), (16, 24), (8, 12)]
    assert all(float(d.detach().min()) > 0 and float(d.detach().max()) < 1 for d in disparities)


def test_encoders_without_a_pyramid_are_refused():
    with pytest.raises(ConfigError, match='unknown encoder'):
        Monodepth('nothing', 'random')
    with pytest.raises(ConfigError, match='strides'):
        Monodepth('clip_rn50', 'random')


def test_pose_network_starts_from_what_its_encoder_knows():
    net = PoseNet('tiny')
    image = torch.randint(0, 255, (1, 64, 96, 3), dtype=torch.uint8)
    single = TinyEncoder('random')
    state = dict(net.encoder.state_dict())
    state['stages.0.0.weight'] = 2 * state['stages.0.0.weight'][:, :3]
    single.load_state_dict(state)
    x = (image.permute(0, 3, 1, 2).float() - net.mean) / net.std
    torch.testing.assert_close(net.encoder(torch.cat([x, x], 1))[-1], single(x)[-1])
    pose = net(image, image)
    torch.testing.assert_close(pose[0, :3, :3] @ pose[0, :3, :3].T, torch.eye(3))
    assert float((pose.detach() - torch.eye(4)).abs().max()) < 0.05


def test_pose_network_is_shown_pairs_in_temporal_order():
    def forward(earlier, later):
        # images whose first value is their time: moves by 1 m per unit of time
        dt = later[:, 0, 0, :1].float() - earlier[:, 0, 0, :1].float()
        assert (dt > 0).all()
        return pose_matrix(torch.zeros(1, 3), torch.cat([0 * dt, 0 * dt, -dt], dim=1))
    times = [torch.full((1, 4, 4, 3), t, dtype=torch.uint8) for t in (8, 10, 13)]
    poses = source_poses(forward, times[1], torch.stack([times[0], times[2]], 1), (-2, 3))
    # the camera drives ahead, so points come nearer in the later one and were farther before
    assert poses[0, :, 2, 3].tolist() == [2.0, -3.0]


def test_known_poses_count_where_they_are_known():
    objective = host('monodepth2', poses='known')
    batch = painted_plane.batch()
    batch['source_posed'] = torch.tensor([[1.0, 0.0]])
    poses, counts = objective.poses(batch)
    assert counts.tolist() == [[1.0, 0.0]]
    assert poses is batch['source_T_target']
    with pytest.raises(ConfigError, match='poses'):
        objective.poses(painted_plane.batch(posed=False))
    assert not hasattr(objective, 'pose_net')


def test_learned_poses_need_the_offsets_of_the_samples():
    objective = host('monodepth2', offsets=[-1])
    with pytest.raises(ConfigError, match='offsets'):
        objective.poses(painted_plane.batch())


def test_true_depth_explains_the_view_and_wrong_depth_does_not():
    objective = host('monodepth2', poses='known')
    batch = painted_plane.batch()
    views = objective.views(batch, *objective.poses(batch))
    inner = (..., slice(4, -4), slice(8, -8))
    true, wrong = (float(reprojection_errors(views, batch['depth_m'] * f)[inner].mean())
                   for f in (1.0, 1.5))
    unmoved = float(views.unmoved[inner].mean())
    assert true < 0.1 * unmoved
    assert wrong > 3 * true


def test_velocity_ties_the_length_of_learned_motion():
    objective = host('monodepth2', poses='learned_metric', velocity=0.5)
    batch = painted_plane.batch((-0.3, 0.4))
    learned = torch.eye(4).repeat(1, 2, 1, 1)
    learned[0, 0, 2, 3], learned[0, 1, 1, 3] = 0.5, -0.4  # another direction is not its business
    assert float(objective.velocity_loss(learned, batch)) == pytest.approx(0.5 * (0.2 + 0) / 2)
    assert float(host('monodepth2').velocity_loss(learned, batch)) == 0


@pytest.mark.parametrize('poses', ['network', 'known', 'learned_metric'])
def test_monodepth2_learns_with_any_poses(poses):
    objective = host('monodepth2', poses=poses)
    terms = objective.loss(painted_plane.batch(), 0)
    terms['loss'].backward()
    assert gradient(objective.network.encoder) > 0
    if poses != 'known':
        assert gradient(objective.pose_net) > 0
    groups = objective.parameter_groups()
    assert sum(len(g['params']) for g in groups) == len(list(objective.parameters()))
    figures = objective.validate(painted_plane.batch())
    assert ('abs_rel' in figures) == (poses != 'network')
    assert figures['photometric_unmoved'] > 0


def test_monodepth2_finds_the_distance_of_a_wall_from_known_motion():
    objective = host('monodepth2', poses='known')
    batch = painted_plane.batch()
    before = objective.validate(batch)
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-3)
    for step in range(20):
        optimizer.zero_grad()
        objective.loss(batch, step)['loss'].backward()
        optimizer.step()
    after = objective.validate(batch)
    assert before['abs_rel'] > 0.25  # it starts at 8 m, the wall is at 5 to 7 m
    assert after['abs_rel'] < 0.12
    assert after['photometric'] < 0.5 * before['photometric']


@pytest.mark.parametrize(('logit', 'limit'), [(-40.0, 'max_depth_m'), (40.0, 'min_depth_m')])
def test_a_network_that_is_stuck_at_a_limit_says_so(logit, limit):
    for name in ('monodepth2', 'manydepth'):
        objective = host(name, poses='known')
        network = objective.network if name == 'monodepth2' else objective.network.trunk
        network.decoder.start_at(logit)
        with pytest.raises(ConfigError, match=limit):
            objective.loss(painted_plane.batch(), 0)


def test_validation_figures_are_those_of_a_network_that_knows():
    objective = host('monodepth2', poses='known')
    batch = painted_plane.batch()
    disparity = (1 / (2 * batch['depth_m']) - 0.01) / (10 - 0.01)  # twice as far as it is
    objective.predict = lambda _: disparity
    figures = objective.validate(batch)
    assert figures['scale'] == pytest.approx(0.5, rel=1e-3)
    assert figures['abs_rel'] == pytest.approx(1.0, rel=1e-3)
    assert figures['abs_rel_scaled'] == pytest.approx(0.0, abs=1e-3)
    assert (figures['d1'], figures['d1_scaled']) == (0.0, 1.0)


# ---- ManyDepth

def many(**options) -> Objective:
    return host('manydepth', **{'bins': 8, 'static_share': 0.0, 'no_pose_share': 0.0,
                                'start_range': (2.0, 20.0), **options})


def test_the_multi_frame_network_starts_as_its_teacher():
    objective = many(poses='known').eval()
    batch = painted_plane.batch()
    taught = objective.teacher(batch['image'])[0]
    torch.testing.assert_close(objective.predict(batch), taught)
    objective.train()
    objective.loss(batch, 0)['loss'].backward()
    volume_part = objective.network.reduce[0].weight.grad[:, -8:]
    assert float(volume_part.abs().sum()) > 0  # and can learn to use the volume


def test_only_the_teacher_teaches_poses_and_the_teacher():
    objective = many()
    terms = objective.loss(painted_plane.batch(), 0)
    (terms['photometric'] + terms['consistency']).backward()
    assert gradient(objective.network) > 0
    assert gradient(objective.teacher) == 0
    assert gradient(objective.pose_net) == 0
    objective.zero_grad()
    terms = objective.loss(painted_plane.batch(), 0)
    terms['teacher'].backward()
    assert gradient(objective.network) == 0
    assert gradient(objective.teacher) > 0
    assert gradient(objective.pose_net) > 0


def test_teacher_poses_and_range_stay_once_frozen():
    objective = many(freeze_share=0.5)
    start = float(objective.network.depth_range.near)
    objective.loss(painted_plane.batch(), STEPS // 2 - 1)
    taught = float(objective.network.depth_range.near)
    assert taught != start
    objective.train()
    terms = objective.loss(painted_plane.batch(), STEPS // 2)
    terms['loss'].backward()
    assert 'teacher' not in terms
    assert float(objective.network.depth_range.near) == taught
    assert gradient(objective.teacher) == gradient(objective.pose_net) == 0
    assert gradient(objective.network) > 0
    assert not objective.teacher.training
    assert not objective.pose_net.training
    assert objective.network.training


def test_the_range_is_part_of_the_checkpoint():
    state = many(start_range=(3.0, 30.0)).state_dict()
    again = many()
    again.load_state_dict(state)
    assert float(again.network.depth_range.far) == 30


def test_a_faked_standing_camera_is_shown_its_own_image_and_trusts_nothing():
    objective = many(poses='known', static_share=1.0)
    batch = painted_plane.batch()
    lookup = objective.draw_lookup(batch, *objective.poses(batch))
    assert (lookup.images[:, 0] == batch['image']).all()
    assert lookup.valid.tolist() == [[1.0]]
    terms = objective.loss(batch, 0)
    assert float(terms['trusted']) == 0
    assert float(terms['consistency'].detach()) > 0


def test_a_sample_without_pose_has_no_volume_and_equals_one_without_frames():
    objective = many(poses='known', no_pose_share=1.0).eval()
    batch = painted_plane.batch()
    lookup = objective.draw_lookup(batch, *objective.poses(batch))
    assert lookup.valid.tolist() == [[0.0]]
    assert not lookup.is_plain.any()
    network = objective.network
    nn.init.normal_(network.reduce[0].weight, std=0.1)  # uses the volume, as after training
    disparities, volume = network(
        batch['image'], batch['K'], network.source_features(lookup.images),
        lookup.source_T_target, lookup.valid)
    assert float(volume.cost.abs().max()) == 0
    alone = objective.predict({**batch, 'source_posed': torch.zeros(1, 2),
                               'source_valid': torch.zeros(1, 2)})
    torch.testing.assert_close(disparities[0], alone)
    with_frames = objective.predict(batch)
    assert float((alone - with_frames).detach().abs().max()) > 0


def test_the_shares_are_drawn_as_said():
    objective = many(poses='known', static_share=0.25, no_pose_share=0.25)
    batch = {'image': torch.zeros(4000, 1, 1, 3), 'source_image': torch.ones(4000, 2, 1, 1, 3)}
    lookup = objective.draw_lookup(batch, torch.eye(4).expand(4000, 2, 4, 4),
                                   torch.ones(4000, 2))
    is_static = lookup.images.flatten(1).amax(1) == 0
    assert float(is_static.float().mean()) == pytest.approx(0.25, abs=0.03)
    assert float(1 - lookup.valid.mean()) == pytest.approx(0.25, abs=0.03)
    assert float(lookup.is_plain.float().mean()) == pytest.approx(0.5, abs=0.03)


def test_matching_inside_the_network_finds_the_wall():
    objective = many(poses='known', bins=64, start_range=(3.0, 12.0)).eval()
    batch = painted_plane.batch((0.8, -0.8))
    network = objective.network
    truth = batch['depth_m'][..., 2::4, 2::4]

    def error(poses: torch.Tensor) -> float:
        features = network.source_features(batch['source_image'])
        volume = network(batch['image'], batch['K'], features, poses, torch.ones(1, 2))[1]
        sure = volume.confidence > 0
        assert sure.float().mean() > 0.2
        return float(((volume.best_depth - truth).abs() / truth)[sure].median())
    poses, _ = objective.poses(batch)
    assert error(poses) < 0.1
    assert error(poses.flip(1)) > 0.25


def test_matching_is_trusted_within_a_factor_of_two_of_the_teacher():
    teacher = torch.full((1, 1, 2, 8), 10.0)
    best = torch.tensor([[[[4.9, 5.1, 19.9, 20.1]]]])
    confidence = torch.ones_like(best)
    confidence[..., 2] = 0
    trusted = trusted_matches(best, confidence, teacher)
    assert trusted[0, 0, 0].tolist() == [False, False, True, True, False, False, False, False]


# ---- the hybrid encoder in both hosts

HYBRID = {'clip': 'efficientnet_lite0', 'clip_weights': 'random', 'dino': 'none',
          'text_model': 'tiny', 'text_weights': 'random', 'prompts': 4, 'align_channels': 8,
          'decoder_width': 16, 'out_channels': [8, 8, 8, 8]}


def hybrid(name: str, **options) -> Objective:
    return host(name, **{'encoder': 'hybrid', 'hybrid': HYBRID, 'scales': 1, 'poses': 'known',
                         **options})


def test_the_hybrid_encoder_learns_in_either_host():
    batch = painted_plane.batch()
    for name, options in (('monodepth2', {}), ('manydepth', {'bins': 4, 'scales': 2})):
        objective = hybrid(name, **options)
        objective.loss(batch, 0)['loss'].backward()
        trained = {key.split('.clip.')[0] for key, p in objective.named_parameters()
                   if '.clip.' in key and p.grad is not None and float(p.grad.abs().sum()) > 0}
        assert trained == ({'network'} if name == 'monodepth2' else {'network.trunk', 'teacher'})
        assert objective.validate(batch)['photometric'] > 0


def test_the_hybrid_encoder_starts_at_the_depth_that_is_asked_for():
    objective = hybrid('monodepth2', start_depth_m=5.0)
    nn.init.zeros_(objective.network.decoder.head[-1].weight)
    batch = painted_plane.batch()
    views = objective.views(batch, *objective.poses(batch))
    depth = objective.depth(objective.predict(batch), views)
    assert depth.flatten().tolist() == pytest.approx([5.0] * depth.numel(), rel=1e-3)


def test_what_is_frozen_of_the_hybrid_encoder():
    def trained(objective):
        return {name.split('.')[1] for name, p in objective.named_parameters() if p.requires_grad}
    assert trained(hybrid('monodepth2')) >= {'clip', 'aggregation', 'decoder', 'prompts'}
    assert trained(hybrid('monodepth2', freeze='decoder')).isdisjoint({'clip', 'text'})
    with pytest.raises(ConfigError, match='policy'):
        hybrid('monodepth2', freeze='everything')


def test_pretrained_parts_have_their_own_learning_rate():
    objective = make_objective(
        'monodepth2', {'encoder': 'hybrid', 'hybrid': HYBRID, 'pose_encoder': 'tiny'}, 0.5, 0.25,
        STEPS)
    rates = {id(p): group['lr'] for group in objective.parameter_groups()
             for p in group['params']}
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            is_pretrained = 'clip.' in name or '.text.' in name or 'pose_net.encoder' in name
            assert rates[id(parameter)] == (0.25 if is_pretrained else 0.5), name


def test_the_multi_frame_network_starts_from_a_single_frame_run(tmp_path):
    single = hybrid('monodepth2')
    checkpoint.save(tmp_path, 1, single.state_dict(), {}, {})
    objective = hybrid('manydepth', bins=4, single_from=str(tmp_path))
    for part in (objective.teacher, objective.network.trunk):
        for key, value in single.network.state_dict().items():
            assert torch.equal(part.state_dict()[key], value), key


def test_mixed_precision_leaves_geometry_alone():
    batch = painted_plane.batch()
    objective = many(poses='known').eval()
    with torch.no_grad():
        exact = objective.loss(batch, 0)
        with torch.autocast('cpu', torch.bfloat16):
            mixed = objective.loss(batch, 0)
    assert mixed['loss'].dtype == torch.float32
    for key in ('teacher', 'photometric'):
        assert float(mixed[key]) == pytest.approx(float(exact[key]), rel=0.1), key


@pytest.mark.parametrize('name', ['monodepth2_resnet18', 'monodepth2_hybrid', 'manydepth_resnet18',
                                  'manydepth_hybrid', 'selfsup_small'])
def test_a_step_of_every_configuration(name):
    values = yaml.safe_load((ROOT / 'config' / 'training' / f'{name}.yaml').read_text())
    options = {**values['options'], 'weights': 'random', 'pose_encoder': 'tiny'}
    if options['encoder'] == 'hybrid':
        options['hybrid'] = {**options['hybrid'], **HYBRID}
    else:
        options['encoder'] = 'tiny'
    objective = make_objective(values['objective'], options, values['lr'], values['encoder_lr'],
                               values['steps'])
    before = {key: value.clone() for key, value in objective.network.state_dict().items()}
    optimizer = torch.optim.AdamW(objective.parameter_groups())
    terms = objective.loss(painted_plane.batch(), 0)
    terms['loss'].backward()
    optimizer.step()
    assert all(torch.isfinite(value).all() for value in terms.values())
    assert any(not torch.equal(value, before[key])
               for key, value in objective.network.state_dict().items())


def test_unknown_and_impossible_options_are_refused():
    for options, message in (({'pose': 'known'}, 'unknown options'), ({'poses': 'gps'}, 'poses'),
                             ({'hybrid': {'a': 1}}, 'hybrid'), ({'freeze': 'fine'}, 'freeze'),
                             ({'scales': 5}, 'scales'),
                             ({'min_depth_m': 0.0}, 'min_depth_m'),
                             ({'start_depth_m': 200.0}, 'start_depth_m'),
                             ({'encoder': 'hybrid', 'hybrid': {'scales': 1}}, 'beside')):
        with pytest.raises(ConfigError, match=message):
            host('monodepth2', **options)
    for options, message in (({'offsets': [1]}, 'earlier'), ({'bins': 1}, 'bins'),
                             ({'static_share': 0.8, 'no_pose_share': 0.4}, 'static_share')):
        with pytest.raises(ConfigError, match=message):
            host('manydepth', **options)
