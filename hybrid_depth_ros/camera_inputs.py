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
"""Subscriptions that come and go with demand, and those of one camera."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from hybrid_depth.camera import CameraModel
from hybrid_depth_ros.camera_source import CameraSource
from hybrid_depth_ros.conversions import stamp_to_ns
from hybrid_depth_ros.diagnostics import FrameStats
from hybrid_depth_ros.message_gaps import MessageGaps
from hybrid_depth_ros.pose_source import PoseSource
from hybrid_depth_ros.qos import input_qos, listen


class Subscriptions:
    """The subscriptions of an active node, by topic."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._listening: dict[str, Any] = {}

    def listen(self, topic: str, message_type: Any, callback: Callable[..., None],
               depth: int) -> None:
        """Subscribe to ``topic`` where that was not done yet."""
        if topic not in self._listening:
            self._listening[topic] = listen(self._node, message_type, topic, callback,
                                            input_qos(depth))

    def ignore(self, topic: str) -> None:
        """Unsubscribe from ``topic`` where it was subscribed to."""
        subscription = self._listening.pop(topic, None)
        if subscription is not None:
            self._node.destroy_subscription(subscription)

    def close(self) -> None:
        """Unsubscribe from everything."""
        for topic in list(self._listening):
            self.ignore(topic)


def input_topic(camera: str, name: str) -> str:
    """Return the relative topic ``name`` of a camera; '' = the only one."""
    return f'{camera}/{name}' if camera else name


class CameraInputs:
    """
    Image and camera_info of one camera, passed on to where they are kept.

    ``offer`` takes an image, ``offer_if_idle`` a CameraModel to get ready for. All methods belong
    to the executor's thread.
    """

    def __init__(self, node: Any, name: str, transport: str, subscriptions: Subscriptions,
                 source: CameraSource, stats: FrameStats, poses: PoseSource,
                 offer: Callable[[Any], None], offer_if_idle: Callable[[Any], None]) -> None:
        self._subscriptions = subscriptions
        self._source = source
        self._stats = stats
        self._poses = poses
        self._offer = offer
        self._offer_if_idle = offer_if_idle
        self._gaps = MessageGaps()
        self._info_topic = input_topic(name, 'camera_info')
        self._image_topic, self._image_type = input_topic(name, 'image'), Image
        # remapping is that of the image itself, as with image_transport
        self._image_name = node.resolve_topic_name(self._image_topic)
        if transport == 'compressed':
            self._image_topic = f'{self._image_name}/compressed'
            self._image_type = CompressedImage

    def update(self, is_wanted: bool, may_stop: bool) -> None:
        """
        Listen as far as needed; to nothing more where ``may_stop`` and not ``is_wanted``.

        camera_info also until the first good one, so that the model is ready for the camera before
        it is wanted.
        """
        # in this order the executor calls them: what an image needs comes before it
        if is_wanted or not self._source.is_known:
            # not 1: the next image's would overwrite that of an image
            self._subscriptions.listen(self._info_topic, CameraInfo, self._on_camera_info, 5)
        elif may_stop:
            self._subscriptions.ignore(self._info_topic)
        if is_wanted:
            self._subscriptions.listen(self._image_topic, self._image_type, self._on_image, 1)
        elif may_stop:
            self._subscriptions.ignore(self._image_topic)
            self._gaps = MessageGaps()  # what nobody wanted is not lost

    def _on_image(self, message: Any, info: Mapping[str, Any]) -> None:
        self._stats.lost(self._gaps.before(info))
        self._stats.received()
        self._poses.image_arrived(stamp_to_ns(message.header.stamp))
        self._offer(message)

    def _on_camera_info(self, message: CameraInfo) -> None:
        source = self._source
        if source.update(message, self._image_name) and source.state is not None \
                and isinstance(source.state.camera, CameraModel):
            self._offer_if_idle(source.state.camera)
