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
"""The parameter table: declared as it says, rejected with the reason, documented."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import rclpy
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter
import yaml

from hybrid_depth.config import PipelineConfig
from hybrid_depth.errors import ConfigError
from hybrid_depth_ros.parameters import make_settings, NodeParameters, PARAMETERS

ROOT = Path(__file__).resolve().parents[2]
ROWS = {row.name: row for row in PARAMETERS}


@pytest.fixture
def node(ros: None) -> Iterator[Node]:
    made = rclpy.create_node('parameters')
    yield made
    made.destroy_node()


def set_one(node: Node, name: str, value: Any) -> Any:
    return node.set_parameters([RosParameter(name, value=value)])[0]


def test_pipeline_fields_are_all_parameters_with_the_same_default() -> None:
    rows = {row.field: row.default for row in PARAMETERS if row.field}
    assert rows == {entry.name: entry.default for entry in fields(PipelineConfig)}


def test_declared_as_the_table_says(node: Node) -> None:
    table = NodeParameters(node)
    assert table.settings.pipeline == PipelineConfig()
    for row in PARAMETERS:
        descriptor = node.describe_parameter(row.name)
        assert descriptor.description == row.description
        assert descriptor.read_only is not row.is_dynamic
        ranges = [*descriptor.floating_point_range, *descriptor.integer_range]
        assert [(r.from_value, r.to_value) for r in ranges] == \
            ([] if row.low is None else [(row.low, row.high)])
        for choice in row.choices:
            assert choice in descriptor.additional_constraints


@pytest.mark.parametrize(('name', 'value', 'reason'), [
    ('far_policy', 'infinity', "one of 'inf', 'nan', 'clip'"),
    ('resolution', 'half', "'camera', 'network'"),
    ('max_depth_m', 0.05, 'min_depth_m'),
    ('max_depth_m', 1e9, 'max_depth_m'),
    ('max_depth_m', float('nan'), 'max_depth_m'),
    ('edge_ratio', 1.0, 'edge_ratio'),
    ('cloud.stride', 0, 'cloud.stride'),
    ('cloud.stride', 'two', 'Wrong parameter type'),
    ('model', 'other', 'read-only'),
    ('rectified', 'true', 'read-only'),
])
def test_bad_value_is_rejected_with_the_reason(node: Node, name: str, value: Any,
                                               reason: str) -> None:
    table = NodeParameters(node)
    before = table.settings
    result = set_one(node, name, value)
    assert not result.successful
    assert reason in result.reason.replace('read only', 'read-only')
    assert table.settings is before
    assert node.get_parameter(name).value == ROWS[name].default


def test_good_value_makes_new_settings_at_once(node: Node) -> None:
    table = NodeParameters(node)
    before = table.settings
    assert set_one(node, 'far_policy', 'clip').successful
    assert set_one(node, 'cloud.stride', 4).successful
    assert table.settings.pipeline.far_policy == 'clip'
    assert table.settings['cloud.stride'] == 4
    assert before.pipeline.far_policy == 'inf'


def test_several_values_are_taken_together_or_not_at_all(node: Node) -> None:
    table = NodeParameters(node)
    # each alone would break min < max
    good = [RosParameter('min_depth_m', value=100.0), RosParameter('max_depth_m', value=200.0)]
    assert node.set_parameters_atomically(good).successful
    bad = [RosParameter('far_policy', value='nan'), RosParameter('max_depth_m', value=50.0)]
    assert not node.set_parameters_atomically(bad).successful
    assert table.settings.pipeline.far_policy == 'inf'
    assert table.settings.pipeline.max_depth_m == 200.0


def test_parameters_of_others_are_left_alone(node: Node) -> None:
    table = NodeParameters(node)
    before = table.settings
    node.declare_parameter('somebody.elses', 1)
    assert set_one(node, 'somebody.elses', 2).successful
    assert table.settings is before


@pytest.mark.parametrize(('name', 'value'), [
    ('far_policy', 'far'), ('cloud.stride', 99), ('max_depth_m', 80), ('cpu_threads', 0),
    ('extrinsic.translation', [1.0, 2.0]), ('extrinsic.rotation', [1.0, 1.0, 0.0, 0.0]),
])
def test_bad_start_value_is_an_error(ros: None, name: str, value: Any) -> None:
    node = Node('bad_start', parameter_overrides=[RosParameter(name, value=value)])
    try:
        with pytest.raises((ParameterException, ConfigError), match=name):
            NodeParameters(node)
    finally:
        node.destroy_node()


def test_settings_reject_what_no_row_allows() -> None:
    values = {row.name: row.default for row in PARAMETERS}
    with pytest.raises(ConfigError, match='max_range_m'):
        make_settings({**values, 'cloud.max_range_m': -1.0})


def flatten(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in tree.items():
        result.update(flatten(value, f'{prefix}{key}.') if isinstance(value, dict)
                      else {prefix + key: value})
    return result


def test_yaml_file_lists_every_parameter_with_its_default() -> None:
    text = (ROOT / 'config' / 'depth_node.yaml').read_text()
    assert flatten(yaml.safe_load(text)['/**']['ros__parameters']) == \
        {row.name: row.default for row in PARAMETERS}
    words = ' '.join(text.replace('#', ' ').split())
    for row in PARAMETERS:
        assert ' '.join(row.description.split()) in words


def test_yaml_file_starts_a_node(ros: None) -> None:
    node = Node('from_file', cli_args=['--ros-args', '--params-file',
                                       str(ROOT / 'config' / 'depth_node.yaml')])
    try:
        assert NodeParameters(node).settings.pipeline == PipelineConfig()
    finally:
        node.destroy_node()
