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
"""Protocols: figures worked by hand, crop bounds, and the published evaluation written plainly."""
from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from hybrid_depth.errors import BadFrame, ConfigError
from hybrid_depth_training.protocols import find_protocol, PROTOCOLS
from hybrid_depth_training.protocols.crops import eigen_kitti, eigen_nyu, garg, whole
from hybrid_depth_training.protocols.peers import PEERS, peers_of
from hybrid_depth_training.protocols.scores import align, average, LEVELS, MEASURES, score

KITTI_WHOLE = find_protocol('kitti', 'none')


def plain_evaluation(truth, pred, rows, columns, nearest, farthest, median_scaling):
    """
    Compute the published protocol pixel by pixel, with nothing of the project's own code.

    Monodepth2's order: mask by range and crop, scale by the ratio of medians, clamp, compare.
    """
    pairs = []
    for v in range(rows[0], rows[1]):
        for u in range(columns[0], columns[1]):
            if nearest < truth[v][u] < farthest:
                pairs.append((truth[v][u], pred[v][u]))
    truths, preds = sorted(t for t, _ in pairs), sorted(p for _, p in pairs)

    def middle(values):
        half = len(values) // 2
        return values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2
    ratio = middle(truths) / middle(preds) if median_scaling else 1.0
    sums = dict.fromkeys(MEASURES, 0.0)
    for t, p in pairs:
        p = min(max(p * ratio, nearest), farthest)
        sums['abs_rel'] += abs(t - p) / t
        sums['sq_rel'] += (t - p) ** 2 / t
        sums['rmse'] += (t - p) ** 2
        sums['rmse_log'] += (math.log(t) - math.log(p)) ** 2
        sums['log10'] += abs(math.log10(t) - math.log10(p))
        for power, key in enumerate(('d1', 'd2', 'd3'), start=1):
            sums[key] += max(t / p, p / t) < 1.25 ** power
    result = {key: value / len(pairs) for key, value in sums.items()}
    result['rmse'], result['rmse_log'] = math.sqrt(result['rmse']), math.sqrt(result['rmse_log'])
    return result


@pytest.mark.parametrize('name', ['groundtruth_image_02', 'groundtruth_image_03',
                                  'velodyne_raw_image_02'])
@pytest.mark.parametrize('median_scaling', [True, False])
def test_figures_are_those_of_the_published_protocol(shared_data, name, median_scaling):
    """Improved and raw ground truth of a real frame, Garg crop, a made-up prediction."""
    raw = cv2.imread(str(shared_data / 'kitti_depth_annotated' / 'drive0001_frame5'
                         / f'{name}.png'), cv2.IMREAD_UNCHANGED)
    assert raw.shape == (375, 1242)
    truth = raw.astype(np.float32) / 256
    truth[raw == 0] = np.nan
    height, width = raw.shape
    v, u = np.mgrid[:height, :width]
    pred = (np.clip(1190 / np.maximum(v - 165, 1), 1, 200) * (1 + 0.2 * np.sin(u / 40))).astype(
        np.float32)
    expected = plain_evaluation(
        raw.astype(float) / 256, pred.astype(float),
        (int(0.40810811 * height), int(0.99189189 * height)),
        (int(0.03594771 * width), int(0.96405229 * width)), 1e-3, 80.0, median_scaling)
    got = score(align(pred, truth, PROTOCOLS['kitti'], median_scaling)).figures
    assert got['coverage'] == 1
    for key in MEASURES:
        assert got[key] == pytest.approx(expected[key], abs=1e-6), key


def test_a_smaller_prediction_is_resized_in_inverse_depth(shared_data):
    raw = cv2.imread(str(shared_data / 'kitti_depth_annotated' / 'drive0001_frame5'
                         / 'groundtruth_image_02.png'), cv2.IMREAD_UNCHANGED)
    truth = np.where(raw > 0, raw / 256, np.nan).astype(np.float32)
    v, u = np.mgrid[:192, :640]
    disparity = (0.01 + 0.002 * np.maximum(v - 85, 0) * (1.2 + np.cos(u / 25))).astype(np.float32)
    full = cv2.resize(disparity, (1242, 375))
    expected = plain_evaluation(raw.astype(float) / 256, (1 / full).astype(float), (153, 371),
                                (44, 1197), 1e-3, 80.0, True)
    got = score(align(1 / disparity, truth, PROTOCOLS['kitti'], True)).figures
    for key in MEASURES:
        assert got[key] == pytest.approx(expected[key], abs=1e-4), key


def test_every_figure_of_a_small_array_by_hand():
    # ratios prediction / truth: 1, 2, 1/2, 1.25 (not below), 1.5, and one without truth
    truth = np.array([[4.0, 10.0, 8.0], [16.0, 20.0, np.nan]], np.float32)
    pred = np.array([[4.0, 20.0, 4.0], [20.0, 30.0, 7.0]], np.float32)
    got = score(align(pred, truth, KITTI_WHOLE, False))
    assert got.pixels == 5
    assert got.scale == pytest.approx(10 / 20)  # medians of 4 8 10 16 20 and of 4 4 20 20 30
    expected = {
        'abs_rel': (0 + 1 + 0.5 + 0.25 + 0.5) / 5,
        'sq_rel': (0 + 100 / 10 + 16 / 8 + 16 / 16 + 100 / 20) / 5,
        'rmse': math.sqrt((0 + 100 + 16 + 16 + 100) / 5),
        'rmse_log': math.sqrt((2 * math.log(2)**2 + math.log(1.25)**2 + math.log(1.5)**2) / 5),
        'log10': (2 * math.log10(2) + math.log10(1.25) + math.log10(1.5)) / 5,
        'd1': 1 / 5, 'd2': 3 / 5, 'd3': 3 / 5, 'coverage': 1.0}
    assert got.figures == pytest.approx(expected, rel=1e-6)


def test_truth_on_the_bounds_does_not_count_and_the_prediction_is_clamped_after_scaling():
    truth = np.array([[80.0, 0.0, 40.0, 60.0, 50.0]])
    pred = np.array([[1.0, 1.0, 20.0, np.inf, 25.0]])
    aligned = align(pred, truth, KITTI_WHOLE, True)
    assert aligned.scale == pytest.approx(50 / 25)  # +Inf is the farthest, not left out
    np.testing.assert_array_equal(np.isnan(aligned.truth_m), [[True, True, False, False, False]])
    np.testing.assert_allclose(aligned.depth_m[0, 2:], [40, 80, 50])


def test_benchmark_counts_all_truth_and_clamps_the_prediction():
    truth = np.array([[84.0, 0.0, 40.0]])
    result = score(align(np.array([[200.0, 5.0, 40.0]]), truth, PROTOCOLS['kitti_benchmark'],
                         False))
    assert result.pixels == 2
    assert result.figures['abs_rel'] == pytest.approx((4 / 84) / 2)


def test_no_prediction_lowers_coverage_and_nothing_else():
    truth = np.array([[10.0, 20.0, 30.0, 40.0]])
    result = score(align(np.array([[11.0, np.nan, 33.0, np.nan]]), truth, KITTI_WHOLE, False))
    assert result.figures['coverage'] == 0.5
    assert result.figures['abs_rel'] == pytest.approx(0.1)
    assert result.scale == pytest.approx(20 / 22)


@pytest.mark.parametrize(('crop', 'height', 'width', 'bounds'), [
    (garg, 375, 1242, (153, 371, 44, 1197)),
    (garg, 370, 1226, (151, 366, 44, 1181)),  # 366.9999993 is cut to 366
    (eigen_kitti, 375, 1242, (124, 342, 44, 1197)),
    (eigen_nyu, 480, 640, (45, 471, 41, 601)),
    (whole, 480, 640, (0, 480, 0, 640))])
def test_crop_bounds(crop, height, width, bounds):
    rows, columns = crop(height, width)
    assert (rows.start, rows.stop, columns.start, columns.stop) == bounds


def test_what_lies_outside_the_crop_does_not_count():
    truth = np.full((480, 640), 3.0, np.float32)
    pred = np.full((480, 640), 9.0, np.float32)
    pred[45:471, 41:601] = 3.0
    inside = score(align(pred, truth, PROTOCOLS['nyu'], False))
    assert inside.pixels == 426 * 560
    assert inside.figures['abs_rel'] == 0
    assert score(align(pred, truth, find_protocol('nyu', 'none'), False)).figures['abs_rel'] > 0.4


def test_indoor_ranges():
    truth = np.array([[7.9, 8.1, 9.9, 10.1]])
    counts = {name: score(align(np.ones((1, 4)), truth, find_protocol(name, 'none'), False)).pixels
              for name in ('sun', 'nyu', 'kitti')}
    assert counts == {'sun': 1, 'nyu': 3, 'kitti': 4}


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match='kitti, kitti_benchmark, nyu, sun'):
        find_protocol('make3d')
    with pytest.raises(ConfigError, match="no crop 'garg'; choose one of eigen, none"):
        find_protocol('nyu', 'garg')
    with pytest.raises(BadFrame, match='480 x 640'):
        eigen_nyu(427, 561)


@pytest.mark.parametrize(('truth', 'pred', 'words'), [
    ([[np.nan, 0.0, 90.0]], [[1.0, 1.0, 1.0]], 'no pixel of the truth'),
    ([[5.0, 5.0, np.nan]], [[np.nan, np.nan, 1.0]], 'no prediction'),
    ([[5.0, 5.0, 5.0]], [[0.0, 0.0, 1.0]], 'median of the prediction is 0 m'),
    ([[5.0, 5.0, 5.0]], [[np.inf, np.inf, 1.0]], 'median of the prediction is inf m')])
def test_what_cannot_be_scored_says_why(truth, pred, words):
    with pytest.raises(BadFrame, match=words):
        align(np.array(pred), np.array(truth), KITTI_WHOLE, True)


def test_averages_are_over_images_not_pixels_and_scales_are_summed_up():
    scores = [score(align(np.full((1, n), 10.0 * f), np.full((1, n), 10.0), KITTI_WHOLE, False))
              for n, f in ((1, 1.0), (99, 0.5), (50, 1 / 3))]
    result = average(scores)
    assert result['abs_rel'] == pytest.approx((0 + 1 / 2 + 2 / 3) / 3)
    assert result['scale_median'] == pytest.approx(2.0)
    assert result['scale_std'] == pytest.approx(np.std([0.5, 1.0, 1.5]))
    assert result['within_1_sigma'] is None
    assert result['calibration_error'] is None


def test_median_scaling_takes_out_any_scale_and_sigma_moves_along():
    rng = np.random.default_rng(0)
    truth = rng.uniform(5, 50, (20, 30))
    pred = truth * rng.uniform(0.9, 1.1, truth.shape)
    one, three = (align(f * pred, truth, KITTI_WHOLE, True, f * 0.1 * pred) for f in (1.0, 3.0))
    np.testing.assert_allclose(one.depth_m, three.depth_m)
    np.testing.assert_allclose(one.sigma_m, three.sigma_m)
    assert one.scale == pytest.approx(3 * three.scale)


def test_right_sigma_is_calibrated_and_a_wrong_one_is_not():
    rng = np.random.default_rng(0)
    truth = np.full((300, 400), 20.0)
    pred = truth + rng.normal(0, 2.0, truth.shape)
    results = {}
    for factor in (1.0, 0.5, 3.0):
        sigma = np.full_like(truth, 2.0 * factor)
        results[factor] = average([score(align(pred, truth, KITTI_WHOLE, False, sigma))])
    assert results[1.0]['within_1_sigma'] == pytest.approx(0.6827, abs=0.005)
    assert results[1.0]['calibration_error'] < 0.005
    assert results[0.5]['within_1_sigma'] == pytest.approx(0.3829, abs=0.005)
    # every sigma three times too wide: P(|z| < 3 z_p) - p for each level p
    wide = np.mean([math.erf(3 * _z(level) / math.sqrt(2)) - level for level in LEVELS])
    assert results[3.0]['calibration_error'] == pytest.approx(wide, abs=0.005)


def _z(level):
    low, high = 0.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if math.erf(middle / math.sqrt(2)) < level else (low, middle)
    return low


def test_published_rows_are_of_known_protocols_and_say_where_from():
    assert {peer.protocol for peer in PEERS} <= set(PROTOCOLS)
    for peer in PEERS:
        assert set(peer.figures) <= set(MEASURES)
        assert 'read in' in peer.source or 'second hand' in peer.source
        assert 0 < peer.figures['abs_rel'] < 0.2
        assert peer.figures.get('d1', 0.9) < peer.figures.get('d2', 1) < 1.001
    hybrid = [p for p in peers_of('kitti', True) if p.method.startswith('Hybrid-depth')]
    assert hybrid[0].figures == {'abs_rel': 0.093, 'rmse': 4.113}
    assert hybrid[0].source.startswith('second hand')
    assert all(peer.method != 'PixelFormer' for peer in peers_of('nyu', True))
