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
"""Odometry messages -> the camera's pose at an image stamp."""
from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
import logging
import threading
from typing import Any

import numpy as np

from hybrid_depth.errors import BadFrame
from hybrid_depth.poses import PoseBuffer, PoseLookup
from hybrid_depth_ros.conversions import odometry_sample
from hybrid_depth_ros.diagnostics import ThrottledWarnings
from hybrid_depth_ros.parameters import Settings

_LOG = logging.getLogger(__name__)
BASE_FRAME = 'base_link'  # REP-105: the robot itself, z up
# Of the process, not of one source: the pipeline outlives a deactivation, and the odometry may be
# another one when the node is activated again.
_EPOCHS = count(1)

# state of the pose of the latest frame -> what diagnostics say
ODOMETRY_STATES = {
    'none': 'no odometry received',
    'ok': 'the latest frame has a pose',
    'waiting': 'odometry came too late for the latest frame (odom.max_wait_ms, '
               'odom.max_extrapolation_ms)',
    'bad_twist': 'odometry came too late for the latest frame, and its twist contradicts its '
                 'poses: expected the velocity in child_frame_id',
    'gap': 'odometry too far apart around the latest frame (odom.max_gap_s)',
    'stale': "odometry has stopped, or its clock is behind the camera's (odom.time_offset_s)",
    'too_old': 'the latest frame is older than all odometry, or the clock of the odometry is '
               "ahead of the camera's (odom.time_offset_s)",
    'no_extrinsic': 'received, but nobody says where the camera sits: publish TF or set '
                    'extrinsic.rotation and extrinsic.translation',
    'no_tf': 'received, but /tf does not say where the moving camera was at the stamp of the '
             'latest frame (extrinsic.moving, odom.max_wait_ms)',
}
_COUNTED = ('received', 'rejected', 'out_of_order', 'pause', 'jump', 'reset', 'frame_change',
            'image_time_back', 'no_tf')
_NEW_EPOCH = {
    'reset': 'odometry went back in time',
    'jump': 'odometry moved as no robot can; its past is forgotten',
    'frame_change': 'odometry changed its header.frame_id or child_frame_id; its past is '
                    'forgotten. Is there one publisher only?',
}


@dataclass(frozen=True)
class CameraPose:
    """What is known of the camera's place at an image stamp."""

    odom_T_camera: np.ndarray | None  # (4, 4) float64 metres, None = no usable pose
    epoch: int  # poses of different epochs are not of one odom frame
    down_camera: np.ndarray | None  # (3,) gravity in the optical frame, None = unknown
    odom_frame: str = ''  # of odom_T_camera; '' = no odometry has come yet
    base_frame: str = ''  # the robot itself, z up; '' = nobody says where the camera sits on it
    base_T_camera: np.ndarray | None = None  # (4, 4) float64 metres, None = likewise


class PoseSource:
    """
    Collects odometry and answers with the pose of the camera.

    ``add`` and ``image_arrived`` are called by the executor, ``camera_pose`` by the inference
    thread. A frame without a pose is not a fault: its depth comes from the image alone.
    ``lookup_extrinsic`` returns child_T_camera for two frames at a stamp in ns, waiting as many
    seconds for it, or None.
    """

    def __init__(self, lookup_extrinsic: Callable[[str, str, int, float], np.ndarray | None],
                 settings: Callable[[], Settings], model_kind: str) -> None:
        self._lookup_extrinsic = lookup_extrinsic
        self._settings = settings
        self._model_kind = model_kind
        start = settings()
        self._max_gap_ns = round(start['odom.max_gap_s'] * 1e9)
        self._buffer = PoseBuffer(
            max_gap_s=start['odom.max_gap_s'],
            max_extrapolation_s=start['odom.max_extrapolation_ms'] / 1e3)
        self._arrived = threading.Condition()
        self._is_closed = False
        self._frames = ('', '')  # header.frame_id, child_frame_id
        self._newest_ns = 0  # by the clock of the odometry
        self._last_image_ns = 0
        self._epoch = next(_EPOCHS)
        self._world: tuple[object, ...] = ()  # what the poses of this epoch have in common
        self._counts: Counter[str] = Counter()
        self._state = 'none'
        self._warnings = ThrottledWarnings(_LOG)

    def add(self, message: Any) -> None:
        """Take a nav_msgs/Odometry; a bad one is counted and reported."""
        stamp_ns, quaternion, position, linear, angular = odometry_sample(message)
        frames = (message.header.frame_id, message.child_frame_id)
        if self._newest_ns and frames != self._frames:
            self._buffer.clear()
            self._counts['frame_change'] += 1
            self._warnings.warn('frame_change', f'{_NEW_EPOCH["frame_change"]} From '
                                f'{self._frames} to {frames}')
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
        if outcome in _NEW_EPOCH:
            self._warnings.warn(outcome, _NEW_EPOCH[outcome])
        with self._arrived:
            self._frames = frames
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
        if self._newest_ns - self._by_odometry_clock(stamp_ns) > self._max_gap_ns:
            self._buffer.clear()

    def camera_pose(self, stamp_ns: int, camera_frame: str) -> CameraPose:
        """
        Return where the camera was at ``stamp_ns``.

        Waits up to ``odom.max_wait_ms`` where odometry is only just late, then carries on by its
        twist for at most ``odom.max_extrapolation_ms``.
        """
        found = self._find(self._by_odometry_clock(stamp_ns), is_wanted=self._use() == 'yes')
        child_frame = self._frames[1]
        is_used = found.odom_T_base is not None and self._use() == 'yes'
        base_T_camera = self._lookup_extrinsic(
            child_frame, camera_frame, stamp_ns,
            self._settings()['odom.max_wait_ms'] / 1e3 if is_used else 0.0)
        mount = self._mount(child_frame, camera_frame, stamp_ns)
        if found.odom_T_base is None:
            self._state = 'none' if found.state == 'empty' else found.state
            return CameraPose(None, self._epoch, *mount)
        is_moving = self._settings()['extrinsic.moving']
        if base_T_camera is None:
            self._state = 'no_tf' if is_moving else 'no_extrinsic'
            self._counts['no_tf'] += is_moving
            return CameraPose(None, self._epoch, *mount)
        self._state = 'ok'
        # another mounting is another world, but a camera that moves stays in its own
        world = (found.epoch, self._settings()['odom.time_offset_s'], camera_frame,
                 None if is_moving else base_T_camera.tobytes())
        if world != self._world:
            self._world = world
            self._epoch = next(_EPOCHS)
        return CameraPose(found.odom_T_base @ base_T_camera, self._epoch, *mount)

    def close(self) -> None:
        """Let a waiting ``camera_pose`` return at once."""
        with self._arrived:
            self._is_closed = True
            self._arrived.notify_all()

    def facts(self) -> dict[str, str]:
        """Return what diagnostics say about odometry."""
        state = self._state
        facts = {'odometry.state': f'{state}: {ODOMETRY_STATES[state]}',
                 'odometry.use': self._use()}
        for key in _COUNTED:
            facts[f'odometry.{key}'] = str(self._counts[key])
        return facts

    def _use(self) -> str:
        """Return 'yes', or why depth does not use poses."""
        if self._model_kind != 'posed':
            return 'no: this model works from single images'
        return 'yes' if self._settings().pipeline.use_odometry else 'no: odom.use is false'

    def _by_odometry_clock(self, stamp_ns: int) -> int:
        return stamp_ns - round(self._settings()['odom.time_offset_s'] * 1e9)

    def _mount(self, child_frame: str, camera_frame: str, stamp_ns: int,
               ) -> tuple[np.ndarray | None, str, str, np.ndarray | None]:
        """
        Return CameraPose's last four: gravity, and how the camera sits on the robot.

        Down is -z of the base, for a robot on level ground.
        """
        for base in dict.fromkeys((BASE_FRAME, child_frame)):
            # odometry of the camera itself says nothing of how the camera hangs
            base_T_camera = None if base == camera_frame else \
                self._lookup_extrinsic(base, camera_frame, stamp_ns, 0.0)
            if base_T_camera is not None:
                return -base_T_camera[2, :3], self._frames[0], base, base_T_camera
        return None, self._frames[0], '', None

    def _find(self, stamp_ns: int, is_wanted: bool) -> PoseLookup:
        """Look up ``stamp_ns`` of the odometry's clock, and again where that may tell more."""
        found = self._buffer.lookup(stamp_ns)
        max_wait_ms = self._settings()['odom.max_wait_ms']
        is_late = found.is_extrapolated or found.state in ('waiting', 'bad_twist')
        if not is_late or not is_wanted or max_wait_ms <= 0:
            return found
        with self._arrived:
            self._arrived.wait_for(lambda: self._newest_ns >= stamp_ns or self._is_closed,
                                   max_wait_ms / 1e3)
        return self._buffer.lookup(stamp_ns)
