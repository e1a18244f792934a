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
The depth node as users run it, with a stopwatch: each frame's times go to a file as JSON lines.

The runtime 'null' is there beside the others. A line has ``take_ms`` (message from the middleware
to Python), ``work_ms`` (from the mailbox to the last output published) and ``stages``.
"""
from __future__ import annotations

import argparse
import json
from pathlib import Path
import sys
import time
from typing import Any

from rclpy.executors import SingleThreadedExecutor
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import Image

from hybrid_depth.runtime import BACKENDS
from hybrid_depth_ros import depth_node
from hybrid_depth_ros.diagnostics import FrameStats


class Stopwatch:
    """Collects the times of the frame that is being worked on."""

    def __init__(self, path: Path) -> None:
        self._file = path.open('w', buffering=1)
        self.take_ms: float | None = None  # None where this rclpy cannot be timed

    def processed(self, work_ms: float, stages_ms: dict[str, float]) -> None:
        """Write the line of a frame."""
        self._file.write(json.dumps({'take_ms': self.take_ms, 'work_ms': work_ms,
                                     'stages': dict(stages_ms)}) + '\n')


def install(stopwatch: Stopwatch) -> None:
    """Put ``stopwatch`` where this process's node takes images and counts frames."""
    class Executor(SingleThreadedExecutor):

        def _take_subscription(self, sub: Any) -> Any:
            start = time.perf_counter()
            handler = super()._take_subscription(sub)
            if sub.msg_type is Image:
                stopwatch.take_ms = 1e3 * (time.perf_counter() - start)
            return handler

    count = FrameStats.processed

    def processed(self: FrameStats, latency_ms: float, work_ms: float, stages_ms: Any,
                  *more: Any) -> None:
        count(self, latency_ms, work_ms, stages_ms, *more)
        stopwatch.processed(work_ms, stages_ms)

    setattr(FrameStats, 'processed', processed)  # noqa: B010 - a method of this process alone
    setattr(depth_node, 'SingleThreadedExecutor', Executor)  # noqa: B010


def main() -> int:
    """Run the node; return its exit code."""
    parser = argparse.ArgumentParser(description='The depth node with a stopwatch.')
    parser.add_argument('--times', type=Path, required=True, help='file to write')
    arguments = parser.parse_args(remove_ros_args(sys.argv)[1:])
    BACKENDS['null'] = 'hybrid_depth_ros.bench.null_runtime'
    install(Stopwatch(arguments.times))
    return depth_node.main()


if __name__ == '__main__':
    sys.exit(main())
