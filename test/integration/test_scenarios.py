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
"""The scenarios of test/scenarios.py on a real process, without launch; and the end of it."""
from __future__ import annotations

from collections.abc import Callable, Iterator
import os
import random
import signal
import time

import pytest

rclpy = pytest.importorskip('rclpy', reason='rclpy is not installed: no node can be run')

from scenarios import ready, SCENARIOS  # noqa: E402

from hybrid_depth_ros.demo import isolated_environment  # noqa: E402
from hybrid_depth_ros.processes import Children  # noqa: E402
from hybrid_depth_ros.soak.driver import Driver  # noqa: E402
from hybrid_depth_ros.soak.oracle import Oracle  # noqa: E402
from hybrid_depth_ros.soak.world import World  # noqa: E402


@pytest.fixture(scope='module')
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Start a node on a domain of its own, and what is a robot to it."""
    folder = tmp_path_factory.mktemp('scenarios')
    environment = isolated_environment(dict(os.environ))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        rclpy.init(domain_id=int(environment['ROS_DOMAIN_ID']))
        driver = Driver(Oracle())
        try:
            with Children(environment, folder / 'log') as children:
                yield World(children, driver, random.Random(0), folder)
        finally:
            driver.close()
            rclpy.try_shutdown()


@pytest.mark.parametrize('scenario', SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_scenario(world: World, scenario: Callable[[Driver], None]) -> None:
    scenario(world.driver)


def test_sigterm_ends_it_cleanly_and_a_new_one_works(world: World) -> None:
    ready(world.driver)
    start = time.monotonic()
    world.signal_node(signal.SIGTERM)
    assert world.wait_ended(20.0)
    assert world.children.status('node') == 0
    assert time.monotonic() - start < 20.0
    assert world.supervise()
    assert world.wait_ready()
    ready(world.driver)
    assert world.crashes == []
    assert world.ends == 1
    (restart,) = world.restarts
    assert restart.cpu_s > 0
    assert 0 < restart.active_s < restart.depth_s
