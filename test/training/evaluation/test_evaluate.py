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
"""The ruler itself: priors against their formulas, measures against known errors."""
import json

import numpy as np
from planes import plane_depth
import pytest

from hybrid_depth.camera import CameraModel
from hybrid_depth.drives import Drive, DriveFrame, open_drive
from hybrid_depth.errors import DriveError
from hybrid_depth_training.data import DepthSample
from hybrid_depth_training.evaluation.evaluate import evaluate, held_out, measure
from hybrid_depth_training.evaluation.focal import focal_ratios, zoomed
from hybrid_depth_training.evaluation.predictors import Entry, stateless
from hybrid_depth_training.evaluation.priors import flat_ground, PositionPrior
from hybrid_depth_training.evaluation.splits import Splits

CAMERA = CameraModel(310, 94, 180.0, 180.0, 155.0, 40.0)


def test_flat_ground_is_the_plane_below_the_camera():
    depth = flat_ground(CAMERA, 1.5)
    plane = plane_depth(CAMERA, (0.0, 1.0, 0.0), 1.5)
    near = plane < 79
    np.testing.assert_allclose(depth[near], plane[near], rtol=1e-5)
    assert (depth[:40] == 80).all()


def test_position_prior_learns_the_direction_not_the_pixel():
    truth = flat_ground(CAMERA, 1.5)
    blank = np.zeros((94, 310, 3), np.uint8)
    prior = PositionPrior([DepthSample('a', blank, CAMERA, truth, False)])
    other = CAMERA.resized(155, 47)
    expected = flat_ground(other, 1.5)
    road = expected < 15
    error = np.abs(prior.depth(other)[road] - expected[road]) / expected[road]
    assert np.median(error) < 0.1
    assert np.isfinite(prior.depth(CAMERA)).all()


def test_truth_as_prediction_has_no_error_and_twice_the_truth_scale_a_half(tiny_drive):
    drive = open_drive(tiny_drive)
    frames = list(range(len(drive)))
    (exact,) = measure(['exact'], lambda f: [(f.depth_m, 0.1 * f.depth_m)], drive, frames)
    assert exact['abs_rel'] == 0
    assert exact['coverage_1sigma'] == 1
    (twice,) = measure(['twice'], lambda f: [(2 * f.depth_m, 0.1 * f.depth_m)], drive, frames)
    assert twice['abs_rel'] == pytest.approx(1.0)
    assert twice['median_scaled']['abs_rel'] == pytest.approx(0, abs=1e-6)
    assert twice['scale_median'] == pytest.approx(0.5)
    assert twice['scale_std'] == pytest.approx(0, abs=1e-6)
    assert twice['coverage_1sigma'] == 0
    assert twice['frames'] == 6


def drive_of(truths, predictions):
    """Return a drive of 1 x n images with these depths, and what predicts them."""
    camera = CameraModel(len(truths[0]), 1, 10.0, 10.0, 0.0, 0.0)
    blank = np.zeros((1, len(truths[0]), 3), np.uint8)
    frames = [DriveFrame(str(i), i, blank, camera, None, np.float32([truth]))
              for i, truth in enumerate(truths)]
    drive = Drive('rows', camera, tuple(range(len(truths))), frames.__getitem__, None)
    return drive, lambda frame: [(np.float32([predictions[int(frame.name)]]), None)]


def test_bins_and_groups_worked_by_hand():
    truths = [[5, 10, 15, 30, np.nan, 90], [8, 20, 20, 60, 60, 60]]
    predictions = [[6, 10, 15, 33, 7, 7], [8, 10, np.nan, 60, 60, 90]]
    drive, predict = drive_of(truths, predictions)
    splits = {0: Splits(np.uint8([0, 1, 2, 0]), np.array([True, False, False, False])),
              1: Splits(np.uint8([0, 0, 1, 0, 0, 2]), None)}
    (row,) = measure(['by hand'], predict, drive, [0, 1], splits)
    near, middle, far, farthest = row['bins']
    assert [b['range_m'] for b in row['bins']] == [[0, 10], [10, 20], [20, 40], [40, 80]]
    # 5, 10 and 8 are nearest: errors 1/5, 0, 0
    assert near['abs_rel'] == pytest.approx(0.2 / 3)
    assert near['rmse'] == pytest.approx(np.sqrt(1 / 3))
    assert near['d1'] == 1
    assert near['share'] == pytest.approx(3 / 10)
    # 15, 20 and 20: errors 0, 1/2, no prediction
    assert middle['abs_rel'] == pytest.approx(0.25)
    assert (middle['d1'], middle['coverage']) == (0.5, pytest.approx(2 / 3))
    assert far['abs_rel'] == pytest.approx(0.1)
    # 60 three times, once predicted beyond range, which counts as 80
    assert farthest['rmse'] == pytest.approx(np.sqrt(400 / 3))
    assert row['by_motion']['moving'] == {
        'abs_rel': 0, 'rmse': 0, 'd1': 1, 'coverage': 0.5, 'share': pytest.approx(2 / 10)}
    assert row['by_motion']['static']['share'] == pytest.approx(6 / 10)
    assert row['by_epipole']['near']['abs_rel'] == pytest.approx(0.2)
    assert row['by_epipole']['far']['share'] == pytest.approx(3 / 10)
    assert row['coverage'] == pytest.approx((1 + 5 / 6) / 2)
    # truth / prediction of the frames: 5/6, 1, 1, 10/11 and 1, 2, 1, 1, 2/3
    assert row['scale_median'] == pytest.approx((21 / 22 + 1) / 2)
    assert row['scale_std'] == pytest.approx(1 / 44)
    assert row['temporal_flicker'] == pytest.approx(np.log(22 / 21), rel=1e-5)
    json.dumps(row, allow_nan=False)


def test_a_sequence_sees_the_frames_between_and_before():
    drive, _ = drive_of([[5.0]] * 20, [[5.0]] * 20)
    seen = []

    def predict(frame):
        seen.append(int(frame.name))
        return [(frame.depth_m, None)]
    assert measure(['all'], predict, drive, [12, 14, 16], None, True)[0]['frames'] == 3
    assert seen == list(range(2, 17))
    seen.clear()
    measure(['some'], predict, drive, [12, 14, 16])
    assert seen == [12, 14, 16]


def test_held_out_is_what_training_never_saw():
    pytest.importorskip('torch', reason='the training extra is not installed')
    from hybrid_depth_training.data import Recording
    from hybrid_depth_training.views import split
    targets = list(range(0, 373, 2))
    recording = Recording('r', None, [None] * 373, targets)
    assert held_out(targets, 0.1) == [index for _, index in split([recording], 0.1)[1]]
    assert held_out(targets, 1.0) == targets


def test_evaluate_writes_the_same_figures_everywhere(tiny_drive, tiny_model, tmp_path, capsys):
    rows = evaluate(str(tiny_drive), [str(tiny_model)], None, 1.65, tmp_path / 'a.json',
                    tmp_path / 'a.md')
    assert json.loads((tmp_path / 'a.json').read_text()) == rows
    text = (tmp_path / 'a.md').read_text()
    printed = capsys.readouterr().out
    assert [row['name'] for row in rows] == ['flat ground (1.65 m)', 'tiny']
    for row in rows:
        assert f'| {row["name"]} | {row["abs_rel"]:.3f} |' in text
        assert f'AbsRel {row["abs_rel"]:.3f}' in printed
        assert row['machine'] in text
    assert '2026' not in text  # the same figures give the same file on another day


def test_another_lens_is_another_K_for_the_same_metres(tiny_drive):
    """The tiny model multiplies by fx: resizing scales its depth, cropping does not."""
    drive = open_drive(tiny_drive)

    def by_focal_length(frame):
        return np.full(frame.image_rgb.shape[:2], frame.camera.fx / 10, np.float32), None
    rows = focal_ratios(Entry(('fx',), lambda: stateless(by_focal_length)), drive, [1, 3, 5])
    assert len(rows) >= 6
    assert min(row['crop'] for row in rows) == 0.6
    assert max(row['resize'] for row in rows) == 1.6
    for row in rows:
        assert row['scale_ratio'] == pytest.approx(row['resize'], rel=0.01)


def test_a_zoomed_frame_shows_the_same_rays(tiny_drive):
    frame = open_drive(tiny_drive).frame(0)
    for crop, resize in ((0.6, 1.0), (1.0, 1.6), (0.8, 1.3)):
        other = zoomed(frame, crop, resize)
        assert other.image_rgb.shape[:2] == (other.camera.height, other.camera.width)
        corner = other.camera.rays()[0, 0]
        column, row = frame.camera.project(np.array([[*corner, 1.0]]))[0]
        expected = (1 - crop) / 2 * frame.camera.width, (1 - crop) / 2 * frame.camera.height
        assert (column, row) == pytest.approx(expected, abs=1.0)


def test_drive_without_truth_is_refused(tmp_path):
    import cv2
    (tmp_path / 'images').mkdir()
    cv2.imwrite(str(tmp_path / 'images' / 'a.png'), np.zeros((32, 32, 3), np.uint8))
    np.savetxt(tmp_path / 'K.txt', np.diag([30.0, 30.0, 1.0]))
    with pytest.raises(DriveError, match='ground-truth'):
        evaluate(str(tmp_path), [])
