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
"""The listener of the benchmark and the soak, as a process of its own."""
from __future__ import annotations

from collections.abc import Iterator
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import pytest
import rclpy
from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import Image

from hybrid_depth_ros.bench.statistics import Arrival, read_arrivals
from hybrid_depth_ros.conversions import stamp_to_ns
from hybrid_depth_ros.drive_messages import time_message

TOPIC = '/hybrid_depth/depth/image'
pytestmark = pytest.mark.usefixtures('ros')


@pytest.fixture
def publisher(ros: None) -> Iterator[Node]:
    node = rclpy.create_node('publisher')
    yield node
    node.destroy_node()


@pytest.mark.parametrize('is_reliable', [False, True])
def test_arrivals_are_written_until_told_to_end(publisher: Node, tmp_path: Path,
                                                is_reliable: bool) -> None:
    out = tmp_path / 'arrivals'
    images = publisher.create_publisher(Image, TOPIC, 5)
    domain = rclpy.get_default_context().get_domain_id()
    listener = subprocess.Popen(
        [sys.executable, '-m', 'hybrid_depth_ros.listener', '--out', str(out), '--topics',
         'depth/image', 'points', *(['--reliable'] if is_reliable else [])],
        env=os.environ | {'ROS_DOMAIN_ID': str(domain)})
    try:
        end = time.monotonic() + 60
        while not images.get_subscription_count():
            assert time.monotonic() < end
            assert listener.poll() is None
            time.sleep(0.02)
        (known,) = publisher.get_subscriptions_info_by_topic(TOPIC)
        assert (known.qos_profile.reliability == ReliabilityPolicy.RELIABLE) == is_reliable
        sent = Image()
        arrivals: list[Arrival] = []
        while not arrivals:
            assert time.monotonic() < end
            sent.header.stamp = time_message(time.time_ns())
            images.publish(sent)
            time.sleep(0.05)
            arrivals = read_arrivals(out, 'depth/image')
        assert 0 <= arrivals[0].arrival_ns - arrivals[0].stamp_ns < 10**10
        assert arrivals[-1].stamp_ns <= stamp_to_ns(sent.header.stamp)
        assert read_arrivals(out, 'points') == []
    finally:
        listener.send_signal(signal.SIGINT)
        assert listener.wait(timeout=60) == 0
