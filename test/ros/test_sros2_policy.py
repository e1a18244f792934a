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
"""The SROS 2 policy allows what the node has, and nothing else."""
from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from node_bench import Bench

POLICY = Path(__file__).resolve().parents[2] / 'config' / 'sros2' / 'policy.xml'
# not of a running node, but of one with other parameters or packages, or of the middleware
ALSO_READ = {'/image/compressed', '/tf', '/tf_static', '/clock', '/parameter_events'}
ALSO_WRITTEN = {'/rosout', '/parameter_events'}


def allowed(kind: str, action: str) -> set[str]:
    tree = ElementTree.parse(POLICY)
    return {entry.text or '' for group in tree.iter(kind) if group.get(action) == 'ALLOW'
            for entry in group}


def test_the_policy_is_that_of_the_node(bench: Bench) -> None:
    bench.start('depth/image')
    node = bench.node
    name, namespace = node.get_name(), node.get_namespace()
    read = {topic for topic, _ in node.get_subscriber_names_and_types_by_node(name, namespace)}
    written = {topic for topic, _ in node.get_publisher_names_and_types_by_node(name, namespace)}
    served = {topic for topic, _ in node.get_service_names_and_types_by_node(name, namespace)}
    assert read <= allowed('topics', 'subscribe') <= read | ALSO_READ
    assert written <= allowed('topics', 'publish') <= written | ALSO_WRITTEN
    assert served == allowed('services', 'reply')
