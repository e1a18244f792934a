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
"""Two folders in, figures out: files, names, splits, reports and the command."""
from __future__ import annotations

import csv
import json
from pathlib import Path, PurePosixPath
import re

import cv2
import numpy as np
import pytest

from hybrid_depth.__main__ import main as core_main
from hybrid_depth.errors import ConfigError, DriveError
from hybrid_depth_training.protocols.evaluate import evaluate_folders
from hybrid_depth_training.protocols.folders import (
    depth_files,
    frame_name,
    read_depth,
    sigma_files,
)
from hybrid_depth_training.protocols.report import markdown
from hybrid_depth_training.protocols.splits import read_split

DRIVE = '2011_09_26_drive_0002_sync'
SHAPE = (48, 64)


def truth_of(index):
    return np.linspace(4.0 + index, 40.0, SHAPE[0] * SHAPE[1]).reshape(SHAPE).astype(np.float32)


@pytest.fixture
def folders(tmp_path):
    """Three frames: the prediction is 1.1, 1.2 and 1.3 times the truth; sigma is 0.15 of it."""
    pred, gt = tmp_path / 'mine', tmp_path / 'gt'
    for folder in (pred / 'depth', pred / 'sigma', gt):
        folder.mkdir(parents=True)
    for index in range(3):
        truth = truth_of(index)
        cv2.imwrite(str(gt / f'f{index}.png'), np.round(truth * 256).astype(np.uint16))
        depth = np.round(truth * 256) / np.float32(256) * np.float32(1.1 + 0.1 * index)
        np.save(pred / 'depth' / f'f{index}.npy', depth.astype(np.float32))
        np.save(pred / 'sigma' / f'f{index}.npy', (0.15 * truth).astype(np.float32))
    return pred, gt


def test_figures_of_a_scaled_truth(folders):
    pred, gt = folders
    result = evaluate_folders(pred, gt, 'kitti', scaling=False)
    assert result['abs_rel'] == pytest.approx(0.2, abs=1e-6)
    assert result['d1'] == pytest.approx(2 / 3)
    assert result['scale_median'] == pytest.approx(1 / 1.2, rel=1e-6)
    assert result['within_1_sigma'] == pytest.approx(1 / 3)
    assert result['images'] == 3
    assert result['crop'] == 'garg'
    scaled = evaluate_folders(pred, gt, 'kitti')
    assert scaled['abs_rel'] == pytest.approx(0, abs=1e-6)
    assert scaled['scale_std'] == pytest.approx(result['scale_std'])


def test_the_command_prints_json_and_nothing_else(folders, tmp_path, capsys):
    pytest.importorskip('torch', reason='the training extra is not installed')
    from hybrid_depth_training.__main__ import main
    pred, gt = folders
    out = tmp_path / 'out'
    assert main(['evaluate', '--pred', str(pred), '--gt', str(gt), '--protocol', 'kitti',
                 '--no-scaling', '--csv', str(out / 'a.csv'), '--markdown', str(out / 'a.md'),
                 '--montage', str(out / 'a.png'), '--json', str(out / 'a.json')]) == 0
    result = json.loads(capsys.readouterr().out)
    assert json.loads((out / 'a.json').read_text()) == result
    assert result['scaling'] == 'none'
    with (out / 'a.csv').open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row['name'] for row in rows] == ['f0', 'f1', 'f2']
    assert np.mean([float(row['abs_rel']) for row in rows]) == pytest.approx(result['abs_rel'])
    assert float(rows[2]['scale']) == pytest.approx(1 / 1.3, rel=1e-5)
    text = (out / 'a.md').read_text()
    assert '| **mine** | 3 images | 0.200 |' in text
    assert '| PixelFormer |' in text
    assert 'Published, not measured here' in text
    assert cv2.imread(str(out / 'a.png')).shape[1] == 2200


@pytest.mark.parametrize(('arguments', 'words'), [
    ([], 'give a drive, or --pred'),
    (['--pred', '{pred}'], '--pred and --gt go together'),
    (['{pred}', '--pred', '{pred}', '--gt', '{gt}'], 'drive is for evaluating on a drive'),
    (['{pred}', '--crop', 'none'], 'crop is for two folders'),
    (['--pred', '{pred}', '--gt', '{gt}', '--crop', 'centre'], "no crop 'centre'"),
    (['--pred', '{pred}', '--gt', '{gt}', '--gt_scale', '0'], 'units per metre'),
    (['--pred', '{pred}', '--gt', '{gt}', '--images', '{gt}'], 'name its file with --montage'),
    (['--pred', '{pred}', '--gt', 'nowhere'], 'no folder nowhere')])
def test_options_that_do_not_fit_are_refused(folders, capsys, arguments, words):
    pytest.importorskip('torch', reason='the training extra is not installed')
    from hybrid_depth_training.__main__ import main
    pred, gt = folders
    assert main(['evaluate', *(a.format(pred=pred, gt=gt) for a in arguments)]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ''


def test_missing_and_extra_files_are_named(folders):
    pred, gt = folders
    (pred / 'depth' / 'f1.npy').rename(pred / 'depth' / 'other.npy')
    with pytest.raises(DriveError, match=r'no file for f1 and has files .* lacks: other'):
        evaluate_folders(pred, gt, 'kitti')
    (pred / 'depth' / 'other.npy').rename(pred / 'depth' / 'f1.npy')
    (pred / 'sigma' / 'f2.npy').unlink()
    with pytest.raises(DriveError, match=r'sigma of --pred .* has no file for f2'):
        evaluate_folders(pred, gt, 'kitti')


def test_empty_folders_and_unscorable_frames_are_named(folders, tmp_path):
    pred, gt = folders
    (tmp_path / 'empty').mkdir()
    with pytest.raises(DriveError, match='empty holds no depth files'):
        evaluate_folders(pred, tmp_path / 'empty', 'kitti')
    cv2.imwrite(str(gt / 'f1.png'), np.zeros(SHAPE, np.uint16))
    with pytest.raises(DriveError, match=r'f1\.npy against .*f1\.png: no pixel of the truth'):
        evaluate_folders(pred, gt, 'kitti')
    np.save(pred / 'sigma' / 'f0.npy', np.ones((2, 2), np.float32))
    with pytest.raises(DriveError, match=r'f0\.npy .*sigma is \(2, 2\), its depth \(48, 64\)'):
        evaluate_folders(pred, gt, 'kitti')


def test_split_selects_frames(folders, tmp_path):
    pred, gt = folders
    (tmp_path / 'some.txt').write_text('# the second\nf1.png\n')
    (pred / 'depth' / 'f2.npy').unlink()
    result = evaluate_folders(pred, gt, 'kitti', scaling=False, split=tmp_path / 'some.txt')
    assert result['images'] == 1
    assert result['abs_rel'] == pytest.approx(0.2, abs=1e-6)
    (tmp_path / 'some.txt').write_text('f1\nf2\n')
    with pytest.raises(DriveError, match=r'--pred .* has no file for f2'):
        evaluate_folders(pred, gt, 'kitti', split=tmp_path / 'some.txt')


def test_lists_in_both_published_forms_name_the_same_frames(tmp_path):
    monodepth2, bts = tmp_path / 'a.txt', tmp_path / 'b.txt'
    monodepth2.write_text(f'2011_09_26/{DRIVE} 0000000069 l\n2011_09_26/{DRIVE} 54 r\n\n')
    bts.write_text(
        f'2011_09_26/{DRIVE}/image_02/data/0000000069.png '
        f'{DRIVE}/proj_depth/groundtruth/image_02/0000000069.png 721.5377\n'
        f'2011_09_26/{DRIVE}/image_03/data/0000000054.png None 721.5377\n')
    assert read_split(monodepth2) == [f'{DRIVE}/image_02/0000000069',
                                      f'{DRIVE}/image_03/0000000054']
    assert read_split(bts) == [f'{DRIVE}/image_02/0000000069']


@pytest.mark.parametrize(('text', 'words'), [
    ('\n# nothing\n', 'lists no frames'), ('a\nb\na.png\n', ':3 is frame a again, as line 1'),
    (f'{DRIVE} 12 x\n', "names camera 'x'")])
def test_faulty_lists_are_refused(tmp_path, text, words):
    (tmp_path / 'split.txt').write_text(text)
    with pytest.raises(DriveError, match=words):
        read_split(tmp_path / 'split.txt')
    with pytest.raises(DriveError, match='no split file'):
        read_split(tmp_path / 'absent.txt')


@pytest.mark.parametrize(('path', 'name'), [
    (f'train/{DRIVE}/proj_depth/groundtruth/image_02/0000000069.png',
     f'{DRIVE}/image_02/0000000069'),
    (f'2011_09_26/{DRIVE}/image_03/data/0000000069.jpg', f'{DRIVE}/image_03/0000000069'),
    (f'{DRIVE}/depth/0000000069.npy', f'{DRIVE}/image_02/0000000069'),
    ('depth/0000000069.npy', '0000000069'), ('0000000069.png', '0000000069'),
    ('bathroom/rgb_00045.jpg', 'bathroom/rgb_00045')])
def test_frame_names(path, name):
    assert frame_name(PurePosixPath(path)) == name


def test_trees_of_truth_and_prediction_fit_together_through_the_eigen_list(tmp_path):
    gt = tmp_path / 'annotated' / 'val' / DRIVE / 'proj_depth' / 'groundtruth' / 'image_02'
    pred = tmp_path / 'pred' / DRIVE / 'depth'
    for folder, frames in ((gt, (5, 69, 70)), (pred, (69, 81))):
        folder.mkdir(parents=True)
        for frame in frames:
            cv2.imwrite(str(folder / f'{frame:010d}.png'),
                        np.full(SHAPE, 256 * (10 if folder == gt else 11), np.uint16))
    (tmp_path / 'eigen.txt').write_text(f'2011_09_26/{DRIVE} 0000000069 l\n')
    result = evaluate_folders(tmp_path / 'pred', tmp_path / 'annotated', 'kitti', scaling=False,
                              split=tmp_path / 'eigen.txt')
    assert result['images'] == 1
    assert result['abs_rel'] == pytest.approx(0.1)


def test_file_formats_give_the_same_metres(tmp_path):
    depth = truth_of(0)
    depth[0, 0] = np.nan
    units = np.nan_to_num(np.round(depth * 256)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / 'a.png'), units)
    cv2.imwrite(str(tmp_path / 'mm.png'), np.nan_to_num(np.round(depth * 1000)).astype(np.uint16))
    np.save(tmp_path / 'a.npy', depth)
    np.savez(tmp_path / 'a.npz', depth=depth.astype(np.float64))
    np.save(tmp_path / 'units.npy', units)
    np.testing.assert_array_equal(read_depth(tmp_path / 'a.npy', 256), depth)
    np.testing.assert_array_equal(read_depth(tmp_path / 'a.npz', 256), depth)
    for name, unit, scale in (('a.png', 256, None), ('mm.png', 1000, None), ('a.png', 1000, 256)):
        got = read_depth(tmp_path / name, unit, scale)
        np.testing.assert_allclose(got, depth, atol=0.002)
        assert np.isnan(got[0, 0])
    np.testing.assert_allclose(read_depth(tmp_path / 'units.npy', 1, 256)[1:], depth[1:],
                               atol=0.002)


def test_files_that_hold_no_depth_are_refused(tmp_path):
    cv2.imwrite(str(tmp_path / 'colours.png'), np.zeros((4, 4, 3), np.uint8))
    (tmp_path / 'broken.png').write_bytes(b'no picture')
    (tmp_path / 'broken.npy').write_bytes(b'no array')
    np.savez(tmp_path / 'other.npz', disparity=np.ones((2, 2)))
    np.save(tmp_path / 'batch.npy', np.ones((1, 4, 4), np.float32))
    np.save(tmp_path / 'whole.npy', np.ones((4, 4), np.uint16))
    for name, words in (('colours.png', 'one channel of uint16'), ('broken.png', 'cannot be read'),
                        ('broken.npy', 'cannot be read'), ('other.npz', 'keys disparity'),
                        ('batch.npy', r'shape \(1, 4, 4\)'), ('whole.npy', 'floating-point')):
        with pytest.raises(DriveError, match=words):
            read_depth(tmp_path / name, 256)


def test_two_files_of_one_frame_are_refused(tmp_path):
    np.save(tmp_path / 'a.npy', np.ones((2, 2), np.float32))
    np.savez(tmp_path / 'a.npz', depth=np.ones((2, 2), np.float32))
    with pytest.raises(DriveError, match=r'a\.npy and .*a\.npz are both frame a'):
        depth_files(tmp_path)


def test_what_infer_writes_can_be_scored(tiny_drive, tiny_model, tmp_path):
    out = tmp_path / 'out'
    assert core_main(['infer', str(tiny_drive), '--model', str(tiny_model), '--out',
                      str(out)]) == 0
    assert set(depth_files(out)) == set(sigma_files(out)) == {f'{i:04d}' for i in range(6)}
    result = evaluate_folders(out, tiny_drive / 'depth', 'kitti', montage_path=tmp_path / 'a.png',
                              images=tiny_drive / 'images')
    assert result['images'] == 6
    assert np.isfinite(result['abs_rel'])
    assert 0 <= result['within_1_sigma'] <= 1


def test_images_of_another_size_are_refused(folders, tmp_path):
    pred, gt = folders
    (tmp_path / 'images').mkdir()
    for index in range(3):
        cv2.imwrite(str(tmp_path / 'images' / f'f{index}.jpg'), np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(DriveError, match='9x9, its truth 64x48'):
        evaluate_folders(pred, gt, 'kitti', montage_path=tmp_path / 'a.png',
                         images=tmp_path / 'images')


def test_picture_without_a_known_format_is_refused(folders, tmp_path):
    with pytest.raises(ConfigError, match=r'a\.depth cannot be written'):
        evaluate_folders(*folders, 'kitti', montage_path=tmp_path / 'a.depth')


def test_published_rows_stand_only_beside_figures_of_the_same_kind(folders):
    pred, gt = folders
    scaled = markdown(evaluate_folders(pred, gt, 'kitti'))
    assert '| Monodepth2 R18 | 640x192, 1 frame | 0.115 | 0.903 | 4.863 |' in scaled
    assert 'PixelFormer' not in scaled.split('## Published')[1]
    other_crop = markdown(evaluate_folders(pred, gt, 'kitti', crop='none'))
    assert 'Monodepth2 R18' not in other_crop
    assert 'do not compare' in other_crop.split('## Published')[1]


def test_sparse_predictions_are_warned_about(folders, caplog):
    pred, gt = folders
    depth = np.load(pred / 'depth' / 'f0.npy')
    depth[:, ::2] = np.nan
    np.save(pred / 'depth' / 'f0.npy', depth)
    result = evaluate_folders(pred, gt, 'kitti')
    assert result['coverage'] == pytest.approx((0.5 + 1 + 1) / 3, abs=0.02)
    assert 'has no prediction' in caplog.text


def test_the_evaluation_document_names_all_options_and_none_that_is_not():
    pytest.importorskip('torch', reason='the training extra is not installed')
    from hybrid_depth_training.__main__ import _evaluate_parser, FOLDER_OPTIONS
    from hybrid_depth_training.protocols import PROTOCOLS
    text = (Path(__file__).resolve().parents[3] / 'docs' / 'evaluation.md').read_text()
    named = set(re.findall(r'--([a-z_-]+[a-z])', text))
    has = set(re.findall(r'--([a-z_-]+[a-z])', _evaluate_parser().format_help()))
    assert named - has <= {'out', 'model'}  # of infer and kitti_truth
    assert {name.replace('no_scaling', 'no-scaling') for name in FOLDER_OPTIONS} <= named
    for name in PROTOCOLS:
        assert f'| `{name}` |' in text
