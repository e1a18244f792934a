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

import pytest

from hybrid_depth.config import PipelineConfig
from hybrid_depth.errors import ConfigError


def test_a_mapping_overrides_and_leaves_the_original_alone() -> None:
    base = PipelineConfig()
    changed = base.updated({'max_depth_m': 40, 'far_policy': 'nan'})
    assert (changed.max_depth_m, changed.far_policy) == (40.0, 'nan')
    assert isinstance(changed.max_depth_m, float)
    assert base == PipelineConfig()
    assert PipelineConfig.from_mapping({}) == base


@pytest.mark.parametrize('mapping', [{'max_depth': 3.0}, {3: 4, 'nope': 1}])
def test_an_unknown_key_is_an_error_that_lists_the_known(mapping: dict) -> None:
    with pytest.raises(ConfigError, match=r'unknown.*known:.*max_depth_m'):
        PipelineConfig.from_mapping(mapping)


@pytest.mark.parametrize(('key', 'value'), [
    ('model', ''), ('model', 3), ('backend', ''), ('backend', None),
    ('cpu_threads', 0), ('cpu_threads', 65), ('cpu_threads', 2.0), ('cpu_threads', True),
    ('resolution', 'full'), ('far_policy', 'zero'),
    ('min_depth_m', 0.0), ('min_depth_m', 80.0), ('min_depth_m', float('nan')),
    ('max_depth_m', 1001.0), ('max_depth_m', float('nan')), ('max_depth_m', float('inf')),
    ('max_depth_m', '80'), ('max_depth_m', True),
    ('max_relative_sigma', -0.1), ('max_relative_sigma', float('nan')),
    ('edge_ratio', 1.0), ('edge_ratio', 11.0), ('edge_ratio', float('nan')),
    ('use_odometry', 1), ('use_odometry', 'yes'),
    ('camera_height_m', -0.1), ('camera_height_m', 101.0), ('camera_height_m', float('nan')),
])
def test_a_bad_value_is_an_error_that_names_the_key(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=key):
        PipelineConfig.from_mapping({key: value})
