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
"""Asks a node in another process for its state."""
from __future__ import annotations

import time

from lifecycle_msgs.srv import GetState
import rclpy
from rclpy.executors import SingleThreadedExecutor

PATIENCE_S = 60.0  # with a process that starts on a busy machine


def state_of(node: str, domain_id: int) -> str:
    """Wait until ``node`` answers; return the name of its state. Fails after PATIENCE_S."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain_id)
    client = rclpy.create_node('who_asks', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(client)
    try:
        service = client.create_client(GetState, f'{node}/get_state')
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if not service.wait_for_service(1.0):
                continue
            # again and again: an answer is lost where its sender has not discovered us yet
            answer = service.call_async(GetState.Request())
            executor.spin_until_future_complete(answer, 2.0)
            if answer.done():
                return str(answer.result().current_state.label)
        raise AssertionError(f'{node} does not answer')
    finally:
        executor.shutdown()
        client.destroy_node()
        rclpy.shutdown(context=context)
