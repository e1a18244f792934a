# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The ruler itself: priors against their formulas, measures against known errors."""
import json

import numpy as np
from planes import plane_depth
import pytest

from hybrid_depth.camera import CameraModel
from hybrid_depth.drives import open_drive
from hybrid_depth.errors import DriveError
from hybrid_depth_training.data import DepthSample
from hybrid_depth_training.evaluate import evaluate, measure
from hybrid_depth_training.priors import flat_ground, PositionPrior

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
    exact = measure('exact', lambda f: (f.depth_m, 0.1 * f.depth_m), drive, frames)
    assert exact['abs_rel'] == 0
    assert exact['within_1_sigma'] == 1
    twice = measure('twice', lambda f: (2 * f.depth_m, 0.1 * f.depth_m), drive, frames)
    assert twice['abs_rel'] == pytest.approx(1.0)
    assert twice['median_scaled']['abs_rel'] == pytest.approx(0, abs=1e-6)
    assert twice['scale_median'] == pytest.approx(0.5)
    assert twice['within_1_sigma'] == 0
    assert twice['frames'] == 6


def test_evaluate_writes_the_same_figures_everywhere(tiny_drive, tiny_model, tmp_path, capsys):
    rows = evaluate(str(tiny_drive), [str(tiny_model)], None, 1.65, tmp_path / 'a.json',
                    tmp_path / 'a.md')
    assert json.loads((tmp_path / 'a.json').read_text()) == rows
    text = (tmp_path / 'a.md').read_text()
    printed = capsys.readouterr().out
    for row in rows:
        assert f'| {row["name"]} | {row["abs_rel"]:.3f} |' in text
        assert f'AbsRel {row["abs_rel"]:.3f}' in printed


def test_drive_without_truth_is_refused(tmp_path):
    import cv2
    (tmp_path / 'images').mkdir()
    cv2.imwrite(str(tmp_path / 'images' / 'a.png'), np.zeros((32, 32, 3), np.uint8))
    np.savetxt(tmp_path / 'K.txt', np.diag([30.0, 30.0, 1.0]))
    with pytest.raises(DriveError, match='ground-truth'):
        evaluate(str(tmp_path), [])


def test_shipped_model_beats_the_priors_on_the_real_drive():
    """The figures in the committed table, which `evaluate` wrote on the real drive."""
    from pathlib import Path
    table = Path(__file__).resolve().parents[2] / 'docs' / 'accuracy.md'
    rows = {}
    for line in table.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip('|').split('|')]
        if len(cells) > 10 and cells[1][:1].isdigit():
            rows[cells[0]] = float(cells[1])
    priors = [value for name, value in rows.items() if not name.startswith('compact')]
    assert len(priors) >= 2
    assert rows['compact'] < min(priors)
