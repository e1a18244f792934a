# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Where the camera sits on the robot: from TF, from parameters, or nowhere."""
from __future__ import annotations

from importlib import import_module
import logging
from typing import Any

import numpy as np
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.time import Time

from hybrid_depth.poses import make_pose
from hybrid_depth_ros.optional_packages import is_installed
from hybrid_depth_ros.parameters import Settings
from hybrid_depth_ros.qos import listen

_LOG = logging.getLogger(__name__)


class StaticTransforms:
    """
    What /tf_static says, without the cost of /tf: a camera is bolted to its robot.

    Only where tf2_ros is installed; elsewhere it knows no transform.
    """

    def __init__(self, node: Any) -> None:
        self._node = node
        self._subscription: Any = None
        if not is_installed('tf2_ros'):
            return
        self._tf2_ros = import_module('tf2_ros')
        self._buffer = self._tf2_ros.Buffer()
        # RELIABLE, TRANSIENT_LOCAL as the broadcasters offer it, or what came before is missed
        qos = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE,
                         durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._subscription = listen(node, import_module('tf2_msgs.msg').TFMessage, '/tf_static',
                                    self._on_transforms, qos)

    def lookup(self, target: str, source: str) -> np.ndarray | None:
        """Return target_T_source, (4, 4) float64 metres, None where TF does not know it."""
        if self._subscription is None:
            return None
        try:
            found = self._buffer.lookup_transform(target, source, Time()).transform
        except self._tf2_ros.TransformException:
            return None
        rotation, shift = found.rotation, found.translation
        return make_pose((rotation.x, rotation.y, rotation.z, rotation.w),
                         (shift.x, shift.y, shift.z))

    def close(self) -> None:
        """Stop listening."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def _on_transforms(self, message: Any) -> None:
        for transform in message.transforms:
            self._buffer.set_transform_static(transform, 'hybrid_depth')


class Extrinsics:
    """
    Finds child_T_camera for a pair of frames; what TF says is kept.

    The parameters stand in only until TF knows better: it may come after the first images.
    """

    def __init__(self, settings: Settings, transforms: StaticTransforms) -> None:
        self._transforms = transforms
        self._known: dict[tuple[str, str], np.ndarray] = {}
        self._told: set[tuple[str, str, str]] = set()
        self._given: np.ndarray | None = None
        if any(settings['extrinsic.rotation']):
            self._given = make_pose(settings['extrinsic.rotation'],
                                    settings['extrinsic.translation'])

    def lookup(self, child_frame: str, camera_frame: str) -> np.ndarray | None:
        """Return child_T_camera, (4, 4) float64 metres, None where nobody has said it yet."""
        frames = (child_frame, camera_frame)
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
