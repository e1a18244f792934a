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
How long each frame took, as topics of numbers to plot.

They tell of frames that somebody wanted for their depth: whoever listens to these alone makes
nothing be computed.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from std_msgs.msg import Float64

from hybrid_depth_ros.outputs import camera_topic
from hybrid_depth_ros.qos import advertise, output_qos


@dataclass(frozen=True)
class FrameTimes:
    """What was measured of one frame, in milliseconds."""

    processing: float
    latency: float
    cycle: float | None  # None = there was no frame before


# topic -> field of FrameTimes, and what it is
DEBUG_TOPICS = {
    '~/debug/processing_time_ms': (
        'processing', 'from taken up by the inference thread to all outputs published'),
    '~/debug/pipeline_latency_ms': (
        'latency', "from the stamp of the image, by the node's clock, to all outputs published"),
    '~/debug/cyclic_time_ms': (
        'cycle', 'since the frame before was taken up, from the second frame on'),
}


class DebugTopics:
    """The publishers of DEBUG_TOPICS for one camera; ``tell`` is the inference thread's."""

    def __init__(self, node: Any, camera: str = '') -> None:
        self._node = node
        self._publishers: dict[str, Any] = {}
        try:
            for topic, (field, _) in DEBUG_TOPICS.items():
                self._publishers[field] = advertise(
                    node.create_lifecycle_publisher, node, Float64, camera_topic(camera, topic),
                    output_qos(), lambda: None)
        except Exception:
            self.destroy()
            raise

    def tell(self, times: FrameTimes) -> None:
        """Publish what has a subscriber."""
        for field, publisher in self._publishers.items():
            value = getattr(times, field)
            if value is not None and publisher.get_subscription_count() > 0:
                publisher.publish(Float64(data=value))

    def destroy(self) -> None:
        """Destroy all publishers; call only when no inference thread runs."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()
