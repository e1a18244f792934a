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
"""The scenarios of test/scenarios.py under launch_testing; skipped where that is not installed."""
from __future__ import annotations

import os
from pathlib import Path
import sys
import tempfile
import unittest

import pytest

pytest.importorskip('launch_testing', reason='launch_testing is not installed: the same scenarios '
                    'run in test/integration/test_scenarios.py')
pytest.importorskip('rclpy', reason='rclpy is not installed: no node can be run')

from launch import LaunchDescription
from launch.actions import ExecuteProcess
import launch_testing
import launch_testing.actions
import launch_testing.asserts
import rclpy

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'test')]  # launch_test is not pytest

from scenarios import SCENARIOS  # noqa: E402

from hybrid_depth_ros.demo import isolated_environment  # noqa: E402
from hybrid_depth_ros.soak import scene  # noqa: E402
from hybrid_depth_ros.soak.driver import Driver  # noqa: E402
from hybrid_depth_ros.soak.oracle import Oracle  # noqa: E402

ENVIRONMENT = isolated_environment(dict(os.environ))


@pytest.mark.launch_test
def generate_test_description():
    """Return the node, started again when it ends."""
    model = Path(tempfile.mkdtemp(prefix='hybrid_depth_launch_')) / 'model.onnx'
    scene.write_model(model)
    node = ExecuteProcess(
        cmd=[sys.executable, '-m', 'hybrid_depth_ros.soak.node', '--ros-args',
             '-p', f'model:={model}', '-p', 'backend:=soak', '-p', 'cpu_threads:=1'],
        env=ENVIRONMENT, output='screen')
    return LaunchDescription([node, launch_testing.actions.ReadyToTest()]), {'node': node}


class TestScenarios(unittest.TestCase):
    """One test that runs all, so that the node is started once."""

    def test_all(self):
        """Run every scenario on the launched node."""
        os.environ.update(ENVIRONMENT)
        rclpy.init(domain_id=int(ENVIRONMENT['ROS_DOMAIN_ID']))
        driver = Driver(Oracle())
        try:
            for scenario in SCENARIOS:
                with self.subTest(scenario.__name__):
                    scenario(driver)
        finally:
            driver.close()
            rclpy.try_shutdown()


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    """What is left when launch has ended."""

    def test_exit_codes(self, proc_info):
        """The node ends with status 0 on SIGINT."""
        launch_testing.asserts.assertExitCodes(proc_info)
