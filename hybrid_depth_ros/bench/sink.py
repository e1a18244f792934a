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
"""Listen to the node and write when outputs arrive: topic, stamp and time in ns, by line."""
from __future__ import annotations

import argparse
from pathlib import Path
import sys
import time
from typing import Any, TextIO

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import Image, PointCloud2

from hybrid_depth_ros.bench.statistics import Arrival
from hybrid_depth_ros.conversions import stamp_to_ns

TYPES = {'depth/image': Image, 'depth/sigma': Image, 'points': PointCloud2}


def listen(node: Node, topic: str, file: TextIO) -> None:
    """Subscribe to an output of the node."""
    def arrived(message: Any) -> None:
        now = time.time_ns()
        file.write(f'{topic} {stamp_to_ns(message.header.stamp)} {now}\n')
    node.create_subscription(TYPES[topic], f'/hybrid_depth/{topic}', arrived,
                             QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT))


def read_arrivals(path: Path, topic: str) -> list[Arrival]:
    """Return what a sink has written of ``topic`` so far."""
    rows = (line.split() for line in path.read_text().splitlines())
    return [Arrival(int(row[1]), int(row[2])) for row in rows
            if len(row) == 3 and row[0] == topic]


def main() -> int:
    """Listen until told to end."""
    parser = argparse.ArgumentParser(description='Write down when outputs of the node arrive.')
    parser.add_argument('--out', type=Path, required=True, help='file to write')
    parser.add_argument('--topics', nargs='+', choices=list(TYPES), required=True)
    arguments = parser.parse_args(remove_ros_args(sys.argv)[1:])
    rclpy.init()
    node = rclpy.create_node('bench_sink')
    with arguments.out.open('w', buffering=1) as file:
        for topic in arguments.topics:
            listen(node, topic, file)
        try:
            rclpy.spin(node)
        except (KeyboardInterrupt, ExternalShutdownException):
            pass
        finally:
            node.destroy_node()
            rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
