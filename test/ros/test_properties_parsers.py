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
"""Whatever comes from outside gives a result or an error of this project; and the fuzzer's own."""
from __future__ import annotations

import contextlib
import json
from pathlib import Path
import random

from hypothesis import given, HealthCheck, settings
from hypothesis import strategies as st
import pytest

from hybrid_depth.errors import BadFrame, HybridDepthError
from hybrid_depth_ros.soak import fuzz
from hybrid_depth_ros.soak.fuzz_targets import make_targets

TARGETS = ('image', 'compressed', 'camera_info', 'odometry', 'serialised', 'config', 'parameters',
           'model_spec', 'model_file', 'golden', 'card', 'drive')


@pytest.fixture(scope='module')
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, fuzz.Target]:
    return make_targets(tmp_path_factory.mktemp('targets'))


def test_every_target_is_tried(targets: dict[str, fuzz.Target]) -> None:
    assert tuple(targets) == TARGETS


@pytest.mark.parametrize('name', TARGETS)
@pytest.mark.filterwarnings('ignore::RuntimeWarning')
@settings(max_examples=15, deadline=None, derandomize=True,
          suppress_health_check=list(HealthCheck))
@given(rng=st.randoms(use_true_random=False))
def test_damaged_input_is_refused_by_name_or_read(targets: dict[str, fuzz.Target], name: str,
                                                  rng: random.Random) -> None:
    with contextlib.suppress(HybridDepthError):
        targets[name](rng)


def test_the_fuzzer_counts_and_finds(tmp_path: Path) -> None:
    """What is not an error of this project is a finding that names its input."""
    def fine(rng: random.Random) -> None:
        raise BadFrame('no', 'good')

    def bad(rng: random.Random) -> None:
        if rng.random() < 0.2:
            raise KeyError('surprise')
    out = tmp_path / 'fuzz.json'
    counts, failures = fuzz.fuzz({'fine': fine, 'bad': bad}, 0.05, 3, out)
    assert counts['fine'] >= counts['bad'] > 0
    assert failures
    assert all('bad, input' in text and 'KeyError' in text for text in failures)
    assert json.loads(out.read_text())['inputs'] == dict(counts)
    again, same = fuzz.fuzz({'fine': fine, 'bad': bad}, 0.05, 3, out)
    assert same[:1] == failures[:1]
    assert set(again) == set(counts)
