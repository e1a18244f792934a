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
"""Where the camera sits on the robot: from TF, from parameters, or nowhere."""
from __future__ import annotations

from importlib import import_module
import logging
import threading
import time
from typing import Any

import numpy as np
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.time import Time

from hybrid_depth.poses import make_pose
from hybrid_depth_ros.conversions import stamp_to_ns
from hybrid_depth_ros.optional_packages import is_installed
from hybrid_depth_ros.parameters import Settings
from hybrid_depth_ros.qos import input_qos, listen

_LOG = logging.getLogger(__name__)
_TIME_BACK_NS = 1_000_000_000  # /tf this far back is a new start, not disorder


class Transforms:
    """
    What /tf_static says and, with ``is_moving``, /tf: most cameras are bolted to their robot.

    ``lookup`` and ``lookup_at`` may be called from any thread, the rest by the executor. Only
    where tf2_ros is installed; elsewhere it knows no transform.
    """

    def __init__(self, node: Any, is_moving: bool = False) -> None:
        self._node = node
        self._subscriptions: list[Any] = []
        self._arrived = threading.Condition()
        self._newest_ns: dict[str, int] = {}  # child frame -> stamp of its newest transform
        if not is_installed('tf2_ros'):
            return
        self._tf2_ros = import_module('tf2_ros')
        self._buffer = self._tf2_ros.Buffer()
        message_type = import_module('tf2_msgs.msg').TFMessage
        # RELIABLE, TRANSIENT_LOCAL as the broadcasters offer it, or what came before is missed
        qos = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE,
                         durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._subscriptions.append(listen(node, message_type, '/tf_static',
                                          self._on_static_transforms, qos))
        if is_moving:
            self._subscriptions.append(listen(node, message_type, '/tf', self._on_transforms,
                                              input_qos(100)))

    def lookup(self, target: str, source: str) -> np.ndarray | None:
        """Return target_T_source, (4, 4) float64 metres, None where TF does not know it."""
        return self._find(target, source, Time())

    def lookup_at(self, target: str, source: str, stamp_ns: int,
                  max_wait_s: float) -> np.ndarray | None:
        """As ``lookup``, at ``stamp_ns``, for which it waits up to ``max_wait_s``."""
        stamp = Time(nanoseconds=stamp_ns)
        end = time.monotonic() + max_wait_s
        with self._arrived:
            while (found := self._find(target, source, stamp)) is None and self._subscriptions:
                if not self._arrived.wait(max(0.0, end - time.monotonic())):
                    break
        return found

    def close(self) -> None:
        """Stop listening, and let whoever waits go on."""
        subscriptions, self._subscriptions = self._subscriptions, []
        for subscription in subscriptions:
            self._node.destroy_subscription(subscription)
        with self._arrived:
            self._arrived.notify_all()

    def _find(self, target: str, source: str, stamp: Time) -> np.ndarray | None:
        if not self._subscriptions:
            return None
        try:
            found = self._buffer.lookup_transform(target, source, stamp).transform
        except self._tf2_ros.TransformException:
            return None
        rotation, shift = found.rotation, found.translation
        return make_pose((rotation.x, rotation.y, rotation.z, rotation.w),
                         (shift.x, shift.y, shift.z))

    def _on_static_transforms(self, message: Any) -> None:
        for transform in message.transforms:
            self._buffer.set_transform_static(transform, 'hybrid_depth')

    def _on_transforms(self, message: Any) -> None:
        for transform in message.transforms:
            stamp_ns = stamp_to_ns(transform.header.stamp)
            child = transform.child_frame_id
            if self._newest_ns.get(child, 0) - stamp_ns > _TIME_BACK_NS:
                _LOG.warning('time of /tf went backwards, as when a recording starts again; what '
                             'it said before is forgotten')
                self._buffer.clear()  # static transforms stay
                self._newest_ns.clear()
            self._newest_ns[child] = max(stamp_ns, self._newest_ns.get(child, 0))
            self._buffer.set_transform(transform, 'hybrid_depth')
        with self._arrived:
            self._arrived.notify_all()


class Extrinsics:
    """
    Finds child_T_camera for a pair of frames; what TF says is kept, unless the camera moves.

    The parameters stand in only until TF knows better: it may come after the first images. For a
    camera that moves on its robot they do not: it is somewhere else at every stamp.
    """

    def __init__(self, settings: Settings, transforms: Transforms) -> None:
        self._transforms = transforms
        self._is_moving: bool = settings['extrinsic.moving']
        self._known: dict[tuple[str, str], np.ndarray] = {}
        self._told: set[tuple[str, str, str]] = set()
        self._given: np.ndarray | None = None
        if any(settings['extrinsic.rotation']):
            self._given = make_pose(settings['extrinsic.rotation'],
                                    settings['extrinsic.translation'])

    def lookup(self, child_frame: str, camera_frame: str, stamp_ns: int,
               max_wait_s: float) -> np.ndarray | None:
        """
        Return child_T_camera at ``stamp_ns``, (4, 4) float64 metres, None where nobody knows it.

        For a camera that moves, TF is waited for up to ``max_wait_s``.
        """
        frames = (child_frame, camera_frame)
        if self._is_moving and child_frame and child_frame != camera_frame:
            return self._transforms.lookup_at(*frames, stamp_ns, max_wait_s)
        if frames in self._known:
            return self._known[frames]
        if child_frame == camera_frame:
            found, origin = np.eye(4), 'the odometry is that of the camera itself'
            self._known[frames] = found
        elif child_frame and (by_tf := self._transforms.lookup(*frames)) is not None:
            found, origin = by_tf, 'from TF'
            self._known[frames] = found
        elif self._given is not None:
            found, origin = self._given, 'from parameters'
        else:
            return None
        if (*frames, origin) not in self._told:
            self._told.add((*frames, origin))
            _LOG.info('camera %s in %s: %s, at %s m', camera_frame, child_frame or '(no frame)',
                      origin, np.round(found[:3, 3], 3).tolist())
        return found
