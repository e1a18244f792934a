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
Camera poses of a bag: its odometry at the image stamps, and the mounting that /tf_static holds.

Anything with the fields of the ROS messages will do.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence
import logging
from typing import Any

import numpy as np

from hybrid_depth.errors import BadFrame, DriveError
from hybrid_depth.poses import inverse, make_pose, PoseBuffer

log = logging.getLogger(__name__)


def stamp_to_ns(stamp: Any) -> int:
    """Return a builtin_interfaces/Time as nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def frame_name(frame_id: str) -> str:
    """Return a frame without the leading slash that old drivers send."""
    return frame_id.lstrip('/')


def find_mounting(transforms: Iterable[Any], base: str, camera: str) -> np.ndarray | None:
    """
    Return base_T_camera (4, 4) float64 metres by a chain of static transforms, or None.

    ``transforms`` are geometry_msgs/TransformStamped; a later one of the same frames counts.
    Raises DriveError where one of them is no rigid transform.
    """
    if not base or not camera:  # two frames without a name are not the same frame
        return None
    neighbours: dict[str, dict[str, np.ndarray]] = {}
    for transform in transforms:
        parent, child = frame_name(transform.header.frame_id), frame_name(transform.child_frame_id)
        q, t = transform.transform.rotation, transform.transform.translation
        try:
            parent_T_child = make_pose((q.x, q.y, q.z, q.w), (t.x, t.y, t.z))
        except BadFrame as error:
            raise DriveError(f'/tf_static: {child} in {parent} is no rigid transform '
                             f'({error})') from error
        neighbours.setdefault(parent, {})[child] = parent_T_child
        neighbours.setdefault(child, {})[parent] = inverse(parent_T_child)
    base_T = {base: np.eye(4)}
    to_visit = [base]
    for frame in to_visit:  # grows while it is walked: breadth first
        for neighbour, frame_T_neighbour in neighbours.get(frame, {}).items():
            if neighbour not in base_T:
                base_T[neighbour] = base_T[frame] @ frame_T_neighbour
                to_visit.append(neighbour)
    return base_T.get(camera)


def poses_at(stamps_ns: Sequence[int], odometry: Iterable[Any],
             base_T_camera: np.ndarray) -> list[np.ndarray | None]:
    """
    Return world_T_camera (4, 4) at each of the increasing ``stamps_ns``.

    ``odometry`` are nav_msgs/Odometry in any order; the world is their frame. None where no two
    samples enclose the stamp closely enough (see PoseBuffer); nothing is extrapolated.
    """
    samples = sorted(odometry, key=lambda message: stamp_to_ns(message.header.stamp))
    buffer = PoseBuffer()
    poses: list[np.ndarray | None] = []
    taken, newest_ns, jumps, bad = 0, -1, 0, 0
    for stamp_ns in stamps_ns:
        # no further than needed: a jump makes the buffer forget what lies before it
        while taken < len(samples) and newest_ns < stamp_ns:
            newest_ns = stamp_to_ns(samples[taken].header.stamp)
            pose = samples[taken].pose.pose
            q, t = pose.orientation, pose.position
            try:
                outcome = buffer.insert(newest_ns, (q.x, q.y, q.z, q.w), (t.x, t.y, t.z))
                jumps += outcome == 'jump'
            except BadFrame as error:
                if not bad:
                    log.warning('%s', error)
                bad += 1
            taken += 1
        odom_T_base = buffer.lookup(stamp_ns).odom_T_base
        poses.append(None if odom_T_base is None else odom_T_base @ base_T_camera)
    if bad:
        log.warning('%d odometry messages hold no pose and are left out', bad)
    if jumps:
        log.warning('the odometry jumps %d times; poses before and after do not belong together',
                    jumps)
    without = sum(pose is None for pose in poses)
    if without:
        log.warning('%d of %d frames have no pose: no odometry shortly before and after them',
                    without, len(poses))
    return poses
