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
from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
import numpy as np
import pytest

from hybrid_depth.errors import BadFrame
from hybrid_depth.metrics import depth_metrics, median_scale

KEYS = {'abs_rel', 'sq_rel', 'rmse', 'rmse_log', 'log10', 'd1', 'd2', 'd3', 'coverage'}


def image(*values: float) -> np.ndarray:
    return np.array([values], np.float32)


def test_values_worked_by_hand() -> None:
    # errors 1, -2, 0 on truths 4, 10, 5; ratios 1.25 (not below), 1.25, 1
    result = depth_metrics(image(5, 8, 5), image(4, 10, 5))
    assert set(result) == KEYS
    assert result['abs_rel'] == pytest.approx((0.25 + 0.2 + 0) / 3)
    assert result['sq_rel'] == pytest.approx((1 / 4 + 4 / 10 + 0) / 3)
    assert result['rmse'] == pytest.approx(np.sqrt((1 + 4 + 0) / 3))
    assert result['rmse_log'] == pytest.approx(np.sqrt(2 * np.log(1.25)**2 / 3))
    assert result['log10'] == pytest.approx(2 * np.log10(1.25) / 3)
    assert (result['d1'], result['d2'], result['d3']) == pytest.approx((1 / 3, 1, 1))
    assert result['coverage'] == 1


@given(truth=hnp.arrays(np.float32, (4, 5), elements=st.floats(0.5, 70, width=32)),
       factor=st.floats(0.9, 1.1))
def test_a_scaled_truth_has_the_errors_of_its_scale(truth: np.ndarray, factor: float) -> None:
    result = depth_metrics((truth * factor).astype(np.float32), truth)
    assert result['abs_rel'] == pytest.approx(abs(factor - 1), abs=1e-6)
    assert result['rmse_log'] == pytest.approx(abs(np.log(factor)), abs=1e-6)
    assert result['d1'] == 1
    assert median_scale((truth * factor).astype(np.float32), truth) == pytest.approx(
        1 / factor, rel=1e-5)


def test_only_truth_in_range_counts() -> None:
    truth = image(10, np.nan, np.inf, 0.0, 81.0, -3.0)
    result = depth_metrics(image(11, 1, 1, 1, 1, 1), truth)
    assert result['abs_rel'] == pytest.approx(0.1)
    assert result['coverage'] == 1


def test_beyond_range_is_scored_as_the_maximum_and_too_near_as_the_minimum() -> None:
    truth = image(40, 10)
    result = depth_metrics(image(np.inf, -np.inf), truth, min_m=1.0, max_m=80.0)
    assert result['abs_rel'] == pytest.approx((1.0 + 0.9) / 2)
    assert result['coverage'] == 1
    assert depth_metrics(image(500, 0.1), truth, min_m=1.0) == pytest.approx(result)


def test_a_nan_prediction_lowers_coverage_and_nothing_else() -> None:
    result = depth_metrics(image(11, np.nan, np.nan, np.nan), image(10, 20, 30, np.nan))
    assert result['abs_rel'] == pytest.approx(0.1)
    assert result['coverage'] == pytest.approx(1 / 3)


def test_without_pixels_the_metrics_are_nan() -> None:
    no_prediction = depth_metrics(image(np.nan), image(10))
    assert no_prediction.pop('coverage') == 0
    assert np.isnan(list(no_prediction.values())).all()
    assert np.isnan(list(depth_metrics(image(1), image(np.nan)).values())).all()
    assert np.isnan(median_scale(image(np.inf, np.nan, -1.0), image(10, 10, 10)))


def test_sums_are_exact_over_many_pixels() -> None:
    truth = np.full((1000, 1000), 10.0, np.float32)
    assert depth_metrics(truth * np.float32(1.1), truth)['abs_rel'] == pytest.approx(0.1, rel=1e-6)


def test_median_scale_leaves_out_what_has_no_depth() -> None:
    pred = image(1, 2, 3, np.inf, np.nan, -np.inf, 0.0)
    truth = image(10, 20, 30, 70, 70, 70, 70)
    assert median_scale(pred, truth) == pytest.approx(10)


def test_different_shapes_are_an_error() -> None:
    with pytest.raises(BadFrame) as caught:
        depth_metrics(image(1, 2), image(1))
    assert caught.value.reason == 'size_mismatch'
