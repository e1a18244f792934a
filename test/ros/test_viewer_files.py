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
"""What RViz and Foxglove are told to show is there, of that type, with a QoS that matches."""
from __future__ import annotations

from collections.abc import Iterator
import json
from pathlib import Path
import re
from typing import Any

import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
import yaml

from hybrid_depth_ros.debug_topics import DEBUG_TOPICS
from hybrid_depth_ros.outputs import OUTPUTS
from hybrid_depth_ros.qos import output_qos

CONFIG = Path(__file__).resolve().parents[2] / 'config'
INPUTS = {'image': 'Image', 'camera_info': 'CameraInfo', 'odom': 'Odometry'}
TYPES = {**INPUTS, **{row.topic.replace('~', 'hybrid_depth'): row.message_type.__name__
                      for row in OUTPUTS}}
SHOWN_BY = {'PointCloud2': 'PointCloud2', 'Image': 'Image', 'Map': 'OccupancyGrid',
            'Odometry': 'Odometry'}  # class of a display -> type of its topic
UPDATES = '_updates'  # of a map; nobody sends any
EVERYTHING = {'points', 'points_filtered', 'points_clearing', 'depth/image', 'depth/sigma',
              'depth/evidence', 'bev/occupancy'}


def displays() -> list[dict[str, Any]]:
    text = (CONFIG / 'rviz' / 'depth.rviz').read_text()
    return yaml.safe_load(text)['Visualization Manager']['Displays']


def topics(node: Any) -> Iterator[dict[str, Any]]:
    """Return every topic with its QoS below ``node``."""
    if isinstance(node, dict):
        for value in node.values():
            if isinstance(value, dict) and {'Reliability Policy', 'Depth'} <= set(value):
                yield value
            yield from topics(value)


@pytest.mark.parametrize('display', displays(), ids=lambda display: display['Name'])
def test_rviz_display(display: dict[str, Any]) -> None:
    kind = display['Class'].partition('/')[2]
    found = list(topics(display))
    if kind in SHOWN_BY:
        assert TYPES[found[0]['Value']] == SHOWN_BY[kind]
    offered = output_qos()
    for topic in found:
        name = topic['Value']
        assert name.removesuffix(UPDATES) in TYPES
        wanted = QoSProfile(
            depth=topic['Depth'],
            reliability=ReliabilityPolicy[topic['Reliability Policy'].upper().replace(' ', '_')],
            durability=DurabilityPolicy[topic['Durability Policy'].upper().replace(' ', '_')])
        assert wanted.durability == DurabilityPolicy.VOLATILE == offered.durability
        if name in INPUTS:  # whose publisher may offer no more
            assert wanted.reliability == ReliabilityPolicy.BEST_EFFORT
        assert 1 <= wanted.depth <= 10
    for key in ('Depth Map Topic', 'Color Image Topic'):
        assert TYPES.get(display.get(key, 'image')) == 'Image'
    assert display['Enabled'] == display['Value']


def test_rviz_shows_everything() -> None:
    named = {topic['Value'] for topic in topics(dict(enumerate(displays())))}
    assert {f'hybrid_depth/{name}' for name in EVERYTHING} <= named
    assert not any(name.startswith('/') for name in named)  # they follow the namespace


def test_foxglove_layout() -> None:
    layout = json.loads((CONFIG / 'foxglove' / 'depth.json').read_text())
    panels = layout['configById']
    shown = set(re.findall(r'"(\w+![\w-]+)"', json.dumps(layout['layout'])))
    assert shown == set(panels)
    known = {**{f'/{name}': type_ for name, type_ in TYPES.items()},
             '/diagnostics': 'DiagnosticArray'}
    plotted = {topic.replace('~', '/hybrid_depth') for topic in DEBUG_TOPICS}
    for name, panel in panels.items():
        if name.startswith('3D!'):
            assert {known[topic] for topic in panel['topics']} == {'PointCloud2', 'OccupancyGrid'}
        elif name.startswith('Image!'):
            assert known[panel['imageMode']['imageTopic']] == 'Image'
            assert known[panel['imageMode']['calibrationTopic']] == 'CameraInfo'
        elif name == 'Plot!latency':
            assert {path['value'] for path in panel['paths']} == {f'{t}.data' for t in plotted}
        elif name == 'Plot!scale':
            assert {path['value'].rpartition('.vector.')[0] for path in panel['paths']} == \
                {'/hybrid_depth/scale'}
        else:
            assert panel['topicToRender'] in known
