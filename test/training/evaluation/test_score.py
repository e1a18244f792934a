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
"""Scoring an exported model on a data set: mirrored too, told the scene, nothing and lies."""
from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_data
from tiny_model import tiny_depth, write_tiny_clip_prior_model

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from hybrid_depth.camera import CameraModel  # noqa: E402
from hybrid_depth.errors import BadFrame, ConfigError, DriveError  # noqa: E402
from hybrid_depth.metrics import depth_metrics  # noqa: E402
from hybrid_depth.scene_prompts import read_table, TABLE, with_prompts, write_table  # noqa: E402
from hybrid_depth_training.__main__ import main  # noqa: E402
from hybrid_depth_training.data import DepthSample, load  # noqa: E402
from hybrid_depth_training.evaluation.score import joined, predict, score  # noqa: E402
from hybrid_depth_training.protocols import find_protocol  # noqa: E402
from hybrid_depth_training.protocols.crops import garg_benchmark  # noqa: E402


def test_sides_are_those_of_one_and_the_middle_is_the_mean():
    # width 201: a place is 0.5 % of it
    result = joined(np.full((2, 201), 2.0), np.full((2, 201), 4.0))
    assert (result[:, :11] == 4).all()  # to 5 % the mirrored one alone
    assert (result[:, -11:] == 2).all()
    np.testing.assert_allclose(result[:, 20:-20], 3.0)  # from 10 % both
    np.testing.assert_allclose(result[0, 15], 3.5)  # halfway
    np.testing.assert_allclose(result[0, -16], 2.5)


def test_mirror_image_is_shown_with_its_own_camera_and_turned_back():
    shown = []

    def run(frame, extras):
        shown.append(frame)
        u = np.arange(frame.camera.width)[None].repeat(frame.camera.height, 0)
        # what is seen, and an error that grows to the right of the picture
        return SimpleNamespace(depth_m=frame.image_rgb[..., 0] + 0.1 * u)
    camera = CameraModel(60, 40, 50.0, 50.0, 27.0, 19.5)
    image = np.random.default_rng(0).integers(1, 200, (40, 60, 3), dtype=np.uint8)
    sample = DepthSample('a', image, camera, np.ones((40, 60), np.float32), False)
    pipeline = SimpleNamespace(run=run)
    alone = predict(pipeline, sample, 1, flip=False)
    assert len(shown) == 1
    both = predict(pipeline, sample, 1, flip=True)
    np.testing.assert_array_equal(shown[2].image_rgb, image[:, ::-1])
    assert shown[2].camera.cx == 59 - 27
    middle = slice(6, -6)
    np.testing.assert_allclose((both - image[..., 0])[:, middle], 0.1 * 59 / 2)  # is evened out
    assert np.std((alone - image[..., 0])[:, middle]) > 1


@pytest.fixture
def rooms(tmp_path: Path) -> Path:
    """Return the folder of two scenes of 640x480 with a model beside it."""
    write_tiny_clip_prior_model(tmp_path / 'model.onnx')
    table = read_table(tmp_path / TABLE)
    write_table(tmp_path / TABLE, with_prompts(table, ['a motorway'],
                                               np.array([[4.0, 0]], np.float32)))
    for scene, level in (('kitchen_0001', 60), ('street_0001', 120)):
        image = np.full((480, 640, 3), level, np.uint8)
        tiny_data.write_png(tmp_path / 'nyu' / scene / 'rgb_00001.png', image)
        depth = np.full((480, 640), 5000 + 10 * level, np.uint16)
        depth[:, :100] = 0
        tiny_data.write_png(tmp_path / 'nyu' / scene / 'sync_depth_00001.png', depth)
    (tmp_path / 'captions.yaml').write_text("'kitchen*': a kitchen\n'*': a street\n")
    return tmp_path


NETWORK_FX = 518.8579 * 128 / 640
FACTORS = {'scene': (0.5, 2.0), 'neutral': (1.0, 1.0), 'never learned: a motorway': (4.0, 4.0),
           'wrong: of another scene': (2.0, 0.5)}


def test_every_way_of_prompting_is_measured_by_the_protocol(rooms, capsys):
    arguments = ['score', str(rooms / 'model.onnx'), '--dataset', 'nyu', '--path',
                 str(rooms / 'nyu'), '--captions', str(rooms / 'captions.yaml'), '--protocol',
                 'nyu', '--json', str(rooms / 'out' / 'rows.json')]
    assert main(arguments) == 0
    rows = json.loads(capsys.readouterr().out)
    assert json.loads((rooms / 'out' / 'rows.json').read_text()) == rows
    assert [row['prompt'] for row in rows] == list(FACTORS)
    for row, factors in zip(rows, FACTORS.values(), strict=True):
        expected = []
        for level, factor in zip((60, 120), factors, strict=True):
            image = np.full((480, 640, 3), level, np.uint8)
            depth = np.clip(factor * tiny_depth(image, NETWORK_FX), 1e-3, 10.0)
            truth = np.full((480, 640), np.nan)
            truth[45:471, 100:601] = 5 + 0.01 * level
            expected.append(depth_metrics(depth, truth, max_m=10.0))
        for key in ('abs_rel', 'rmse', 'log10', 'd1', 'd2', 'd3'):
            assert row[key] == pytest.approx(np.mean([e[key] for e in expected]), rel=1e-4)
        assert (row['name'], row['frames'], row['protocol'], row['flip']) == ('tiny', 2, 'nyu',
                                                                              True)
    assert rows[0]['abs_rel'] != rows[1]['abs_rel']


def test_one_prompt_for_all_and_some_of_the_frames(rooms):
    model, data = str(rooms / 'model.onnx'), str(rooms / 'nyu')
    (row,) = score(model, 'nyu', data, 'nyu', prompt='a street', flip=False, limit=1)
    assert (row['prompt'], row['frames'], row['flip']) == ('a street', 1, False)
    with pytest.raises(ConfigError, match=r'a cave.*embed'):
        score(model, 'nyu', data, 'nyu', prompt='a cave')
    with pytest.raises(ConfigError, match='unknown dataset'):
        score(model, 'nyu2', data, 'nyu')


def test_model_without_words_has_one_row(rooms, tiny_model):
    (row,) = score(str(tiny_model), 'nyu', str(rooms / 'nyu'), 'nyu', flip=False)
    assert row['prompt'] == '-'
    with pytest.raises(ConfigError, match='takes no words'):
        score(str(tiny_model), 'nyu', str(rooms / 'nyu'), 'nyu', prompt='a kitchen')


def test_crop_of_the_networks_that_see_352_rows():
    rows, columns = garg_benchmark(375, 1242)
    assert (rows.start, rows.stop, columns.start, columns.stop) == (166, 372, 56, 1185)
    rows, columns = garg_benchmark(370, 1226)
    assert (rows.start, rows.stop, columns.start, columns.stop) == (161, 367, 48, 1177)
    assert find_protocol('kitti', 'garg_352').crop == 'garg_352'
    with pytest.raises(BadFrame, match='352 x 1216'):
        garg_benchmark(320, 1242)


# ----------------------------------------------- the layouts that the data sets really have


def test_nyu_as_bts_newcrfs_and_pixelformer_have_it(rooms):
    """Folders sync and official_splits/test; lists with and without slashes, three columns."""
    root = rooms / 'nyu_depth_v2'
    image = np.full((480, 640, 3), 90, np.uint8)
    for name in ('sync/bedroom_0130', 'sync/kitchen_0028b', 'official_splits/test/bathroom'):
        tiny_data.write_png(root / name / 'rgb_00045.jpg', image)
        tiny_data.write_png(root / name / 'sync_depth_00045.png',
                            np.full((480, 640), 2000, np.uint16))
    dense = rooms / 'nyudepthv2_train_files_with_gt_dense.txt'
    dense.write_text('bedroom_0130/rgb_00045.jpg bedroom_0130/sync_depth_00045.png '
                     'bedroom_0130/dense/sync_depth_dense_00045.png\n')
    bts = rooms / 'nyudepthv2_train_files_with_gt.txt'
    bts.write_text('/kitchen_0028b/rgb_00045.jpg /kitchen_0028b/sync_depth_00045.png 518.8579\n')
    for split_file, name in ((dense, 'bedroom_0130'), (bts, 'kitchen_0028b')):
        (recording,) = load('nyu', str(root / 'sync'), split_file=str(split_file),
                            published_mask=True)
        assert recording.name == f'{name}/rgb_00045'
        rows, columns = np.nonzero(np.isfinite(recording[0].depth_m))
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (45, 471, 43, 607)
    (test,) = load('nyu', str(root / 'official_splits' / 'test'))
    assert test[0].name == 'bathroom/rgb_00045'
    assert np.isfinite(test[0].depth_m).sum() == (480 - 16) * (640 - 16)


def test_annotated_truth_of_kitti_lies_apart_from_the_images(tmp_path):
    """Lists of BTS and NeWCRFs; data_depth_annotated as downloaded, or by date."""
    tiny_data.write_kitti_raw(tmp_path / 'raw')
    drive = '2011_09_26_drive_0001_sync'
    inside = tmp_path / 'raw' / '2011_09_26' / drive / 'proj_depth'
    lines = [f'2011_09_26/{drive}/image_02/data/{index:010d}.png '
             f'{drive}/proj_depth/groundtruth/image_02/{index:010d}.png 721.5377'
             for index in (1, 2)]
    lines.append(f'2011_09_26/{drive}/image_02/data/0000000003.png None 721.5377')
    split = tmp_path / 'eigen_test_files_with_gt.txt'
    split.write_text('\n'.join(lines))
    for place in ('train', 'val', '', '2011_09_26'):
        there = tmp_path / 'data_depth_annotated' / place / drive / 'proj_depth'
        there.parent.mkdir(parents=True)
        inside.rename(there)
        (recording,) = load('kitti_raw', str(tmp_path / 'raw'), split_file=str(split),
                            truth='annotated',
                            truth_path=str(tmp_path / 'data_depth_annotated'))
        assert list(recording.targets) == [1, 2]
        assert np.isfinite(recording[1].depth_m).any()
        there.rename(inside)


@pytest.mark.parametrize('line', [
    'SUNRGBD/kv1/NYUdata/NYU0001', 'kv1/NYUdata/NYU0001',
    '/n/fs/sun3d/data/SUNRGBD/kv1/NYUdata/NYU0001/',
    '/n/fs/sun3d/data/SUNRGBD/kv1/NYUdata//NYU0001',
    'SUNRGBD/kv1/NYUdata/NYU0001/image/0.jpg SUNRGBD/kv1/NYUdata/NYU0001/depth_bfx/0.png 518.9'])
def test_lists_of_sun_rgbd_in_every_form(tmp_path, line):
    tiny_data.WRITERS['sunrgbd'](tmp_path)
    (tmp_path / 'list.txt').write_text(f'{line}\n')
    (only,) = load('sunrgbd', str(tmp_path), split_file=str(tmp_path / 'list.txt'))
    assert only.name == 'kv1/NYUdata/NYU0001'


def test_sun_rgbd_says_what_is_missing_and_nothing_where_the_label_says_nothing(tmp_path):
    tiny_data.WRITERS['sunrgbd'](tmp_path)
    (tmp_path / 'kv1/NYUdata/NYU0001/scene.txt').write_text('idk\n')
    assert load('sunrgbd', str(tmp_path))[0][0].caption == ''
    (tmp_path / 'list.txt').write_text('SUNRGBD/kv2/kinect2data/000002\n')
    with pytest.raises(DriveError, match=r'kinect2data.*expected path to be the folder'):
        load('sunrgbd', str(tmp_path), split_file=str(tmp_path / 'list.txt'))


def test_depth_of_sun_rgbd_is_that_of_its_toolbox():
    from hybrid_depth_training.data.sunrgbd import decode_depth
    raw = np.array([[0, 8, 16000, 64000, 64001]], np.uint16)
    # bitor(bitshift(raw, -3), bitshift(raw, 13)) / 1000
    np.testing.assert_allclose(decode_depth(raw)[0, 1:], [0.001, 2.0, 8.0, 8.0 + 8.192])
    assert np.isnan(decode_depth(raw)[0, 0])
