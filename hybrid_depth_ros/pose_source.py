# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Odometry messages -> the camera's pose at an image stamp."""
from __future__ import annotations

from collections import Counter
from collections.abc import Callable
import logging
import threading
from typing import Any

import numpy as np

from hybrid_depth.errors import BadFrame
from hybrid_depth.poses import PoseBuffer, PoseLookup
from hybrid_depth_ros.conversions import odometry_sample
from hybrid_depth_ros.diagnostics import ThrottledWarnings

_LOG = logging.getLogger(__name__)

# state of the pose of the latest frame -> what diagnostics say
ODOMETRY_STATES = {
    'none': 'no odometry received',
    'ok': 'received, not yet used by this model',
    'waiting': 'odometry came too late for the latest frame (odom.max_wait_ms)',
    'gap': 'odometry too far apart around the latest frame (odom.max_gap_s)',
    'stale': 'odometry has stopped',
    'too_old': 'the latest frame is older than all odometry',
    'no_extrinsic': 'received, but nobody says where the camera sits: publish TF or set '
                    'extrinsic.rotation and extrinsic.translation',
}


class PoseSource:
    """
    Collects odometry and answers with ``odom_T_camera``.

    ``add`` and ``image_arrived`` are called by the executor, ``pose_at`` by the inference thread.
    A frame without a pose is not a fault: the network of this version works from the image alone.
    """

    def __init__(self, lookup_extrinsic: Callable[[str, str], np.ndarray | None],
                 max_gap_s: float) -> None:
        self._lookup_extrinsic = lookup_extrinsic
        self._max_gap_s = max_gap_s
        self._buffer = PoseBuffer(max_gap_s=max_gap_s)
        self._arrived = threading.Condition()
        self._is_closed = False
        self._child_frame = ''
        self._newest_ns = 0
        self._last_image_ns = 0
        self._counts: Counter[str] = Counter()
        self._state = 'none'
        self._warnings = ThrottledWarnings(_LOG)

    def add(self, message: Any) -> None:
        """Take a nav_msgs/Odometry; a bad one is counted and reported."""
        stamp_ns, quaternion, position, linear, angular = odometry_sample(message)
        try:
            if not np.isfinite([*linear, *angular]).all():
                raise BadFrame('bad_odometry', f'twist holds non-finite numbers: linear {linear}, '
                               f'angular {angular}')
            outcome = self._buffer.insert(stamp_ns, quaternion, position, linear, angular)
        except BadFrame as error:
            self._counts['rejected'] += 1
            self._warnings.warn(error.reason, f'{error}; message ignored, check the odometry '
                                'source')
            return
        self._counts['received' if outcome == 'ok' else outcome] += 1
        if outcome in ('reset', 'jump'):
            self._warnings.warn(outcome, 'odometry went back in time' if outcome == 'reset' else
                                'odometry jumped farther than a robot can move; its past is '
                                'forgotten')
        with self._arrived:
            self._child_frame = message.child_frame_id
            self._newest_ns = stamp_ns
            self._arrived.notify_all()

    def image_arrived(self, stamp_ns: int) -> None:
        """Watch image time; where it goes back (a looped recording), forget older odometry."""
        went_back = stamp_ns < self._last_image_ns
        self._last_image_ns = stamp_ns
        if not went_back:
            return
        self._counts['image_time_back'] += 1
        self._warnings.warn('time_back', 'image time went backwards, as when a recording starts '
                            'again; old odometry is forgotten')
        # odometry of the new lap may have come before its first image: keep that
        if self._newest_ns - stamp_ns > self._max_gap_s * 1e9:
            self._buffer.clear()

    def pose_at(self, stamp_ns: int, camera_frame: str, max_wait_ms: float) -> np.ndarray | None:
        """
        Return odom_T_camera at ``stamp_ns``, (4, 4) float64 metres, or None.

        Waits up to ``max_wait_ms`` where odometry is only just late.
        """
        found = self._buffer.lookup(stamp_ns)
        if found.state == 'waiting' and max_wait_ms > 0:
            found = self._wait(stamp_ns, max_wait_ms)
        if found.odom_T_base is None:
            self._state = 'none' if found.state == 'empty' else found.state
            return None
        base_T_camera = self._lookup_extrinsic(self._child_frame, camera_frame)
        if base_T_camera is None:
            self._state = 'no_extrinsic'
            return None
        self._state = 'ok'
        return found.odom_T_base @ base_T_camera

    def close(self) -> None:
        """Let a waiting ``pose_at`` return at once."""
        with self._arrived:
            self._is_closed = True
            self._arrived.notify_all()

    def facts(self) -> dict[str, str]:
        """Return what diagnostics say about odometry."""
        state = self._state
        facts = {'odometry.state': f'{state}: {ODOMETRY_STATES[state]}'}
        for key in ('received', 'rejected', 'out_of_order', 'reset', 'jump', 'image_time_back'):
            facts[f'odometry.{key}'] = str(self._counts[key])
        return facts

    def _wait(self, stamp_ns: int, max_wait_ms: float) -> PoseLookup:
        with self._arrived:
            self._arrived.wait_for(lambda: self._newest_ns >= stamp_ns or self._is_closed,
                                   max_wait_ms / 1e3)
        return self._buffer.lookup(stamp_ns)
