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
"""Real rclpy for the tests of the node; without it none of them is collected, with the reason."""
from __future__ import annotations

from collections.abc import Iterator
import importlib.util
import os
from pathlib import Path
import sys
from typing import TYPE_CHECKING
import zlib

import pytest

if TYPE_CHECKING:
    from node_bench import Bench

ROOT = Path(__file__).resolve().parents[2]
HAS_ROS = importlib.util.find_spec('rclpy') is not None

os.environ.setdefault('AMENT_PREFIX_PATH', sys.prefix)
os.environ.setdefault('FASTDDS_DEFAULT_PROFILES_FILE', str(ROOT / 'config' / 'fastdds_shm.xml'))
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'

if not HAS_ROS:
    collect_ignore_glob = ['test_*.py']


def pytest_report_header() -> str:
    """Say at the top why test/ros is left out, where it is."""
    return 'test/ros: real rclpy' if HAS_ROS else \
        'test/ros: LEFT OUT, rclpy cannot be imported (make test installs it)'


@pytest.fixture(scope='module')
def ros(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run rclpy on a domain of the test module's own."""
    import rclpy
    # 2..101 are the domains whose ports are free on every platform; two runs at once differ by pid
    domain = 2 + (zlib.crc32(request.node.name.encode()) + os.getpid()) % 100
    rclpy.init(domain_id=domain)
    yield
    rclpy.try_shutdown()


@pytest.fixture
def bench(ros: None) -> Iterator[Bench]:
    """Return a node on a bench, with a pipeline that is fake."""
    from node_bench import Bench
    made = Bench()
    yield made
    made.close()
