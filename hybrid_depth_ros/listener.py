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
"""
A subscriber of the node's outputs in a process of its own, which can be stopped and ended.

It can write down when they arrive: topic, stamp and time in ns, by line.
"""
from __future__ import annotations

import argparse
from contextlib import nullcontext
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

from hybrid_depth_ros.conversions import stamp_to_ns

TYPES = {'depth/image': Image, 'depth/sigma': Image, 'points': PointCloud2}


def listen(node: Node, topic: str, reliability: ReliabilityPolicy, file: TextIO | None) -> None:
    """Subscribe to an output of the node."""
    def arrived(message: Any) -> None:
        now = time.time_ns()
        if file is not None:
            file.write(f'{topic} {stamp_to_ns(message.header.stamp)} {now}\n')
    node.create_subscription(TYPES[topic], f'/hybrid_depth/{topic}', arrived,
                             QoSProfile(depth=5, reliability=reliability))


def main() -> int:
    """Listen until told to end."""
    parser = argparse.ArgumentParser(description='Take outputs of the node.')
    parser.add_argument('--topics', nargs='+', choices=list(TYPES), required=True)
    parser.add_argument('--reliable', action='store_true', help='acknowledge what arrives')
    parser.add_argument('--out', type=Path, help='file to write arrivals to')
    arguments = parser.parse_args(remove_ros_args(sys.argv)[1:])
    reliability = ReliabilityPolicy.RELIABLE if arguments.reliable else \
        ReliabilityPolicy.BEST_EFFORT
    rclpy.init()
    node = rclpy.create_node('hybrid_depth_listener')
    with arguments.out.open('w', buffering=1) if arguments.out else nullcontext() as file:
        for topic in arguments.topics:
            listen(node, topic, reliability, file)
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
