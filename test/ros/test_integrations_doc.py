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
"""The worked configurations name topics and parameters that this node has."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
import re
from typing import Any

import pytest
import yaml

from hybrid_depth_ros.outputs import OUTPUTS
from hybrid_depth_ros.parameters import make_settings, PARAMETERS

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / 'config' / 'integrations').glob('*.yaml'))
DOC = (ROOT / 'docs' / 'integrations.md').read_text()
TOPICS = {row.topic.replace('~', '/hybrid_depth') for row in OUTPUTS}
NAMED = re.compile(r'/hybrid_depth/[a-z_/]+')


def texts(tree: Any) -> Iterator[str]:
    """Yield every string in a YAML tree."""
    if isinstance(tree, dict):
        for value in tree.values():
            yield from texts(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from texts(value)
    elif isinstance(tree, str):
        yield tree


def flat(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in tree.items():
        result |= flat(value, f'{prefix}{key}.') if isinstance(value, dict) \
            else {prefix + key: value}
    return result


def sources(tree: Any) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Yield each costmap layer with the names of its observation sources."""
    if isinstance(tree, dict):
        if 'observation_sources' in tree:
            yield tree, tree['observation_sources'].split()
        for value in tree.values():
            yield from sources(value)


def test_there_are_files_and_the_page_has_all_of_them() -> None:
    assert len(FILES) == 5
    assert set(re.findall(r'config/integrations/(\w+\.yaml)', DOC)) == {
        path.name for path in FILES}


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_parameters_of_this_node_are_valid(path: Path) -> None:
    values = flat(yaml.safe_load(path.read_text())['hybrid_depth']['ros__parameters'])
    defaults = {row.name: row.default for row in PARAMETERS}
    assert set(values) <= set(defaults)
    for name, value in values.items():
        assert type(value) is type(defaults[name]), name
    make_settings({**defaults, **values})


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_nodes_have_parameters_and_topics_exist(path: Path) -> None:
    tree = yaml.safe_load(path.read_text())
    for text in texts(tree):
        assert text.startswith('/') is (text in TOPICS)
    for node in tree.values():
        assert 'ros__parameters' in node or 'ros__parameters' in next(iter(node.values()))


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_observation_sources_are_described_and_look_from_the_camera(path: Path) -> None:
    frames = {'/hybrid_depth/points_filtered': 'base_link'}
    for layer, names in sources(yaml.safe_load(path.read_text())):
        assert names
        for name in names:
            source = layer[name]
            assert source['data_type'] == 'PointCloud2'
            assert source['topic'] in TOPICS
            if source['clearing'] and source['topic'] in frames:
                assert source['sensor_frame'] == 'camera_optical_frame'


def test_rays_that_meet_nothing_are_farther_than_what_clears_by_them() -> None:
    tree = yaml.safe_load((ROOT / 'config/integrations/nav2_voxel_layer.yaml').read_text())
    clearing_range_m = tree['hybrid_depth']['ros__parameters']['cloud']['clearing_range_m']
    (layer, _), = sources(tree)
    assert clearing_range_m > layer['sky']['raytrace_max_range']
    assert not layer['sky']['marking']


def test_rays_to_ground_and_sky_reach_the_voxel_layer() -> None:
    tree = yaml.safe_load((ROOT / 'config/integrations/nav2_voxel_layer.yaml').read_text())
    (layer, names), = sources(tree)
    for name in names:  # it drops what is outside these, before it clears
        assert layer[name]['min_obstacle_height'] < 0
        assert layer[name]['max_obstacle_height'] > 10
    assert layer['min_obstacle_height'] == 0.3  # the ground does not mark


def test_topics_on_the_page_exist() -> None:
    named = set(NAMED.findall(DOC))
    assert len(named) >= 5
    assert named <= TOPICS
    own = set(re.findall(r'-r (~/[a-z_/]+):=', DOC))
    assert own
    assert own <= {row.topic for row in OUTPUTS}


def test_the_page_says_what_was_tried() -> None:
    chapters = [part for part in DOC.split('\n## ')[1:] if not part.startswith('Tried\n')]
    assert len(chapters) == len(FILES)
    for chapter in chapters:
        assert 'Checked against:' in chapter
        assert 'Tried: ' in chapter
