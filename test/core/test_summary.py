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
"""Averages over images, in the shape of summary.json."""
import os

import numpy as np
import pytest

from hybrid_depth.metrics import depth_metrics
from hybrid_depth.summary import AccuracyTable, latency_percentiles, machine, MEASURES, versions


def test_figures_are_averaged_over_images_not_pixels():
    truth = np.full((4, 6), 10.0, np.float32)
    sparse = np.full((4, 6), np.nan, np.float32)
    sparse[0, 0] = 10.0
    table = AccuracyTable()
    table.add(truth * 1.1, truth)
    table.add(truth * 1.3, sparse)
    result = table.result()
    assert set(result) == {'metric', 'median_scaled'}
    assert set(result['metric']) == set(MEASURES)
    assert result['metric']['abs_rel'] == pytest.approx(0.2, rel=1e-5)
    assert result['metric']['d1'] == 0.5
    assert result['median_scaled']['abs_rel'] == pytest.approx(0, abs=1e-6)
    assert table.scales == pytest.approx([1 / 1.1, 1 / 1.3])


def test_one_image_is_what_metrics_says():
    rng = np.random.default_rng(0)
    truth = rng.uniform(2, 60, (8, 8)).astype(np.float32)
    pred = truth * rng.uniform(0.7, 1.4, (8, 8)).astype(np.float32)
    table = AccuracyTable()
    table.add(pred, truth)
    expected = depth_metrics(pred, truth)
    assert table.result()['metric'] == {key: expected[key] for key in MEASURES}


def test_without_images_there_is_no_accuracy():
    assert AccuracyTable().result() is None


def test_latency_percentiles():
    assert latency_percentiles(list(range(101))) == {'p50': 50.0, 'p95': 95.0, 'p99': 99.0}
    assert latency_percentiles([]) == {'p50': None, 'p95': None, 'p99': None}


def test_versions_name_what_figures_depend_on():
    assert {'python', 'platform', 'numpy', 'onnxruntime', 'rclpy'} <= set(versions())
    assert versions()['numpy'] == np.__version__


def test_machine_names_the_processor_and_its_cores():
    assert f'{os.cpu_count()} cores' in machine()
    assert '\n' not in machine()
