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
"""Batches: drawn from what may be learned from, with neighbours that fit, the same every time."""
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from batches import assert_same  # noqa: E402

from hybrid_depth.camera import CameraModel  # noqa: E402
from hybrid_depth.errors import ConfigError  # noqa: E402
from hybrid_depth_training import views  # noqa: E402
from hybrid_depth_training.config import (  # noqa: E402
    GroupConfig,
    NeighbourConfig,
    SourceConfig,
)
from hybrid_depth_training.data import DepthSample, Recording  # noqa: E402
from hybrid_depth_training.views import DataMix, neighbours, split, usable_sources  # noqa: E402

CAMERA = CameraModel(96, 64, 70.0, 70.0, 48.0, 32.0)
DEPTH_M = 10.0


def straight_drive(count: int, step_m: float = 1.0, name: str = 'straight') -> Recording:
    """Return a drive along z past a wall that is always 10 m away; its images say their index."""
    poses = [np.eye(4) for _ in range(count)]
    for index, pose in enumerate(poses):
        pose[2, 3] = index * step_m

    def read(index: int) -> DepthSample:
        image = np.full((64, 96, 3), index, np.uint8)
        depth = np.full((64, 96), DEPTH_M, np.float32)
        return DepthSample(f'{name}/{index}', image, CAMERA, depth, False, poses[index])
    return Recording(name, read, poses, range(count))


@pytest.fixture
def drive_of_twenty(monkeypatch):
    """Let every source load the straight drive."""
    monkeypatch.setattr(views, 'load', lambda *_, **__: [straight_drive(20)])


def indices(targets):
    return [index for _, index in targets]


def test_one_recording_holds_out_its_end():
    training, held = split([straight_drive(10)], 0.3)
    assert (indices(training), indices(held)) == (list(range(7)), [7, 8, 9])
    assert split([straight_drive(10)], 0.0)[1] == []
    assert split([straight_drive(10)], 1.0)[0] == []


def test_several_recordings_hold_out_whole_ones():
    recordings = [straight_drive(count, name=str(count)) for count in (3, 4, 5, 6)]
    training, held = split(recordings, 0.25)
    assert {recording.name for recording, _ in training} == {'3', '4', '5'}
    assert {recording.name for recording, _ in held} == {'6'}
    assert len(held) == 6


def test_offsets_are_frames_of_the_recording_or_nothing():
    recording, config = straight_drive(5), NeighbourConfig(offsets=[-1, 2])

    def names(index, last=None):
        return [None if sample is None else sample.name for sample in
                neighbours(recording, index, recording[index], config, None, last)]
    assert names(2) == ['straight/1', 'straight/4']
    assert names(0) == [None, 'straight/2']
    assert names(4) == ['straight/3', None]
    assert names(2, last=3) == ['straight/1', None]


def test_usable_sources_lie_within_the_range_of_baselines_and_angles():
    recording = straight_drive(20)
    config = NeighbourConfig(count=2, baseline=(0.15, 0.45))  # 1.5 m to 4.5 m at 10 m
    assert usable_sources(recording, 10, recording[10], config) == [6, 7, 8, 12, 13, 14]
    turned = recording.world_T_camera[7]
    turn = np.radians(40)
    turned[:3, :3] = [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
    assert usable_sources(recording, 10, recording[10], config) == [6, 8, 12, 13, 14]


def test_frames_without_pose_or_depth_have_no_usable_source():
    recording = straight_drive(6)
    config = NeighbourConfig(count=1, baseline=(0.05, 0.5))
    blank = DepthSample('blank', recording[3].image_rgb, CAMERA, np.full((64, 96), np.nan), False)
    assert usable_sources(recording, 3, blank, config) == []
    recording.world_T_camera[2] = None
    assert 2 not in usable_sources(recording, 3, recording[3], config)
    recording.world_T_camera[3] = None
    assert usable_sources(recording, 3, recording[3], config) == []


def test_the_robot_chooses_past_frames_spread_over_the_range():
    recording = straight_drive(20)
    config = NeighbourConfig(count=2, baseline=(0.1, 0.6))
    chosen = neighbours(recording, 10, recording[10], config, None)
    picked = [int(sample.image_rgb[0, 0, 0]) for sample in chosen]
    assert all(4 <= index <= 9 for index in picked)
    assert picked[0] > picked[1]  # the nearest first
    assert neighbours(recording, 0, recording[0], config, None) == [None, None]


def test_training_draws_the_share_of_absent_and_of_past_sources():
    recording, rng = straight_drive(20), np.random.default_rng(0)
    config = NeighbourConfig(count=2, baseline=(0.1, 0.6), past=0.5, absent=0.3)
    drawn = [neighbours(recording, 10, recording[10], config, rng) for _ in range(600)]
    absent = [all(sample is None for sample in sources) for sources in drawn]
    assert np.mean(absent) == pytest.approx(0.3, abs=0.05)
    future = [any(sample.image_rgb[0, 0, 0] > 10 for sample in sources)
              for sources in drawn if sources[0] is not None]
    assert 0.3 < np.mean(future) < 0.5  # half of them may, and then not all do


@pytest.mark.parametrize('near', [{'offsets': [-1, 1]}, {'count': 2, 'baseline': (0.05, 0.6)}])
def test_held_out_frames_are_never_drawn_nor_shown_as_neighbours(tiny_config, drive_of_twenty,
                                                                 near):
    config = tiny_config(
        sources=[SourceConfig('drive', 'x', 'plane', hold_out=0.4)], batch=8,
        neighbours=NeighbourConfig(**near), augment=views.NO_AUGMENT)
    mix = DataMix(config)
    seen = set()
    for step in range(25):
        batch = mix.batch(step)
        seen |= set(batch['image'][:, 32, 48, 0].tolist())
        valid = batch['source_valid'] > 0
        seen |= set(batch['source_image'][:, :, 32, 48, 0][valid].tolist())
    assert seen == set(range(12))
    ((_, batches),) = mix.validation()
    held = [int(batch['image'][0, 32, 48, 0]) for batch in batches]
    assert held == list(range(12, 20))


def test_a_batch_has_the_promised_shapes(tiny_config, drive_of_twenty):
    config = tiny_config(neighbours=NeighbourConfig(count=3, baseline=(0.05, 0.6)), batch=4,
                         sources=[SourceConfig('drive', 'x', 'plane')])
    batch = DataMix(config).batch(0)
    assert batch.pop('caption') == [''] * len(batch['image'])
    shapes = {key: (tuple(value.shape), value.dtype) for key, value in batch.items()}
    f32, u8 = torch.float32, torch.uint8
    assert shapes == {
        'image': ((4, 64, 96, 3), u8), 'image_plain': ((4, 64, 96, 3), u8), 'K': ((4, 3, 3), f32),
        'depth_m': ((4, 1, 64, 96), f32), 'is_sparse': ((4,), torch.bool),
        'source_image': ((4, 3, 64, 96, 3), u8), 'source_plain': ((4, 3, 64, 96, 3), u8),
        'source_T_target': ((4, 3, 4, 4), f32), 'source_valid': ((4, 3), f32),
        'source_posed': ((4, 3), f32)}
    # on a straight drive the motion is along z, and the target lies ahead of a past source
    posed = batch['source_posed'] > 0
    assert posed.any()
    way = batch['source_T_target'][posed][:, :3, 3]
    assert way[:, :2].abs().max() < 1e-5
    assert (way[:, 2].round() == way[:, 2]).all()
    assert (way[:, 2].abs() >= 1).all()


def test_batches_depend_on_seed_and_step_only(tiny_config, drive_of_twenty):
    config = tiny_config(neighbours=NeighbourConfig(offsets=[-1, 1]))
    first, second = DataMix(config), DataMix(config)
    second.batch(0)
    assert_same(first.batch(5), second.batch(5))
    assert not torch.equal(first.batch(5)['image'], first.batch(6)['image'])
    other = DataMix(tiny_config(neighbours=NeighbourConfig(offsets=[-1, 1]), seed=1))
    assert not torch.equal(first.batch(5)['image'], other.batch(5)['image'])


def test_overfit_sees_the_first_batch_unchanged(tiny_config, drive_of_twenty):
    mix = DataMix(tiny_config(), overfit=True)
    assert_same(mix.batch(0), mix.batch(7))
    assert torch.equal(mix.batch(0)['image'], mix.batch(0)['image_plain'])


def test_groups_are_drawn_by_weight_and_have_their_size(tiny_config, drive_of_twenty):
    config = tiny_config(
        groups={'wide': GroupConfig(32, 96, 3.0), 'square': GroupConfig(64, 64, 1.0)}, batch=1,
        sources=[SourceConfig('drive', 'x', 'wide'), SourceConfig('drive', 'x', 'square')])
    mix = DataMix(config)
    sizes = [tuple(mix.batch(step)['depth_m'].shape[2:]) for step in range(120)]
    assert set(sizes) == {(32, 96), (64, 64)}
    assert np.mean([size == (32, 96) for size in sizes]) == pytest.approx(0.75, abs=0.12)


def test_a_source_without_truth_must_say_that_none_is_needed(tiny_config, monkeypatch):
    blank = replace(straight_drive(6), targets=[])
    monkeypatch.setattr(views, 'load', lambda *_, **__: [blank])
    source = SourceConfig('drive', 'x', 'plane')
    with pytest.raises(ConfigError, match='all_frames'):
        DataMix(tiny_config(sources=[source]))
    mix = DataMix(tiny_config(sources=[replace(source, all_frames=True)]))
    ((_, targets),) = mix.training
    assert indices(targets) == list(range(5))  # a tenth is held out


def test_parts_of_a_step_are_of_one_group_and_differ(tiny_config, drive_of_twenty):
    config = tiny_config(
        groups={'wide': GroupConfig(32, 96), 'square': GroupConfig(64, 64)}, batch=1,
        sources=[SourceConfig('drive', 'x', 'wide'), SourceConfig('drive', 'x', 'square')])
    mix = DataMix(config)
    for step in range(12):
        first, second = mix.batch(step), mix.batch(step, 1)
        assert first['image'].shape == second['image'].shape
        assert not torch.equal(first['image'], second['image'])


def test_unknown_dataset_is_named(tiny_config):
    config = tiny_config(sources=[SourceConfig('nuscenes', 'x', 'plane')])
    with pytest.raises(ConfigError, match='nuscenes'):
        DataMix(config)
