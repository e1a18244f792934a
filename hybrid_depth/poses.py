# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
Rigid motions, and a buffer of time-stamped odometry that is interpolated at image stamps.

``target_T_source`` is a (4, 4) float64 matrix that takes points of ``source`` to ``target``;
metres and radians. Quaternions are (x, y, z, w) as in ROS.
"""
from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
import threading
from typing import Literal

import numpy as np

from hybrid_depth.errors import BadFrame

State = Literal['ok', 'waiting', 'gap', 'empty', 'stale', 'too_old']
Outcome = Literal['ok', 'duplicate', 'out_of_order', 'reset', 'jump']


def make_pose(quaternion: Sequence[float], translation: Sequence[float]) -> np.ndarray:
    """
    Return the (4, 4) pose of a quaternion (x, y, z, w) and a translation (3) in metres.

    Raises BadFrame (``bad_odometry``) where a number is not finite or the quaternion's norm is
    not within 0.01 of 1.
    """
    return _matrix(_checked_quaternion(quaternion), _checked(translation, 3, 'position'))


def inverse(target_T_source: np.ndarray) -> np.ndarray:
    """Return source_T_target of a rigid motion."""
    result = np.eye(4)
    result[:3, :3] = target_T_source[:3, :3].T
    result[:3, 3] = -result[:3, :3] @ target_T_source[:3, 3]
    return result


def camera_motion(odom_T_base_0: np.ndarray, odom_T_base_1: np.ndarray,
                  base_T_camera: np.ndarray) -> np.ndarray:
    """
    Return camera1_T_camera0: takes points of the camera at time 0 to the camera at time 1.

    ``base_T_camera`` is the mounting of the camera's optical frame on the robot's base.
    """
    odom_T_camera_0 = odom_T_base_0 @ base_T_camera
    odom_T_camera_1 = odom_T_base_1 @ base_T_camera
    return inverse(odom_T_camera_1) @ odom_T_camera_0


def slerp(q0: np.ndarray, q1: np.ndarray, fraction: float) -> np.ndarray:
    """Interpolate unit quaternions on the shorter arc; fraction 0 gives q0, 1 gives +-q1."""
    cosine = float(q0 @ q1)
    if cosine < 0:
        q1, cosine = -q1, -cosine
    angle = np.arctan2(np.linalg.norm(q1 - cosine * q0), cosine)
    if angle < 1e-6:  # sin(angle) would divide by nothing; the chord is the arc
        result = (1 - fraction) * q0 + fraction * q1
    else:
        result = (np.sin((1 - fraction) * angle) * q0 + np.sin(fraction * angle) * q1)
    return result / np.linalg.norm(result)


@dataclass(frozen=True)
class PoseLookup:
    """
    The pose at one stamp, or why there is none.

    state: 'ok'; 'waiting' = newer odometry may still come; 'gap' = the neighbours are too far
    apart; 'stale' = odometry has stopped; 'too_old' = before the buffer begins; 'empty'.
    """

    odom_T_base: np.ndarray | None  # (4, 4) float64, None unless state is 'ok'
    state: State
    is_extrapolated: bool = False


@dataclass(frozen=True)
class _Sample:
    quaternion: np.ndarray  # (4,) unit
    translation: np.ndarray  # (3,) metres
    linear: np.ndarray | None  # (3,) m/s in the base frame
    angular: np.ndarray | None  # (3,) rad/s in the base frame


class PoseBuffer:
    """
    The last odometry of a robot, safe to fill and read from different threads.

    Bounded by ``max_age_s`` behind the newest stamp and by ``max_length`` samples. Between
    samples more than ``max_gap_s`` apart nothing is interpolated; beyond the newest one the twist
    carries on for ``max_extrapolation_s``. Motion faster than ``max_speed_mps`` or
    ``max_turn_radps`` is a jump of the odometry, not of the robot: the past is forgotten. So it is
    when time goes back by more than ``reset_after_s`` (a recording that starts again).
    """

    def __init__(self, *, max_age_s: float = 10.0, max_length: int = 4000, max_gap_s: float = 0.5,
                 max_extrapolation_s: float = 0.05, max_speed_mps: float = 70.0,
                 max_turn_radps: float = 20.0, reset_after_s: float = 1.0) -> None:
        self._max_age_ns = round(max_age_s * 1e9)
        self._max_length = max_length
        self._max_gap_ns = round(max_gap_s * 1e9)
        self._max_extrapolation_ns = round(max_extrapolation_s * 1e9)
        self._max_speed = max_speed_mps
        self._max_turn = max_turn_radps
        self._reset_after_ns = round(reset_after_s * 1e9)
        self._lock = threading.Lock()
        self._stamps: list[int] = []
        self._samples: list[_Sample] = []

    def __len__(self) -> int:
        with self._lock:
            return len(self._stamps)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._clear()

    def insert(self, stamp_ns: int, quaternion: Sequence[float], translation: Sequence[float],
               linear: Sequence[float] | None = None,
               angular: Sequence[float] | None = None) -> Outcome:
        """
        Add one odometry sample: pose of the base in odom, twist in the base frame (or None).

        Returns 'ok'; 'duplicate' or 'out_of_order' (ignored: not newer than the newest); 'reset'
        or 'jump' (the past was forgotten, this sample is kept).
        Raises BadFrame (``bad_odometry``) where numbers are not finite or no rotation.
        """
        sample = _Sample(_checked_quaternion(quaternion), _checked(translation, 3, 'position'),
                         None if linear is None else _checked(linear, 3, 'linear velocity'),
                         None if angular is None else _checked(angular, 3, 'angular velocity'))
        with self._lock:
            outcome = self._outcome(stamp_ns, sample)
            if outcome in ('duplicate', 'out_of_order'):
                return outcome
            if outcome in ('reset', 'jump'):
                self._clear()
            self._stamps.append(stamp_ns)
            self._samples.append(sample)
            self._trim()
        return outcome

    def lookup(self, stamp_ns: int) -> PoseLookup:
        """Return the pose of the base in odom at ``stamp_ns``, or why there is none."""
        with self._lock:
            if not self._stamps:
                return PoseLookup(None, 'empty')
            after = bisect_left(self._stamps, stamp_ns)
            if after == len(self._stamps):
                return self._beyond(stamp_ns - self._stamps[-1])
            stamp, sample = self._stamps[after], self._samples[after]
            if stamp == stamp_ns:
                return PoseLookup(_matrix(sample.quaternion, sample.translation), 'ok')
            if after == 0:
                return PoseLookup(None, 'too_old')
            before_stamp, before = self._stamps[after - 1], self._samples[after - 1]
        if stamp - before_stamp > self._max_gap_ns:
            return PoseLookup(None, 'gap')
        f = (stamp_ns - before_stamp) / (stamp - before_stamp)
        return PoseLookup(_matrix(slerp(before.quaternion, sample.quaternion, f),
                                  (1 - f) * before.translation + f * sample.translation), 'ok')

    def _beyond(self, late_ns: int) -> PoseLookup:
        """Answer for a stamp ``late_ns`` after the newest sample."""
        newest = self._samples[-1]
        if late_ns > self._max_gap_ns:
            return PoseLookup(None, 'stale')
        if late_ns > self._max_extrapolation_ns or newest.linear is None \
                or newest.angular is None:
            return PoseLookup(None, 'waiting')
        seconds = late_ns * 1e-9
        half = _quaternion_product(newest.quaternion, _rotation(newest.angular * seconds / 2))
        end = _quaternion_product(newest.quaternion, _rotation(newest.angular * seconds))
        # the base turns on the way: its mean heading is that at half the time
        moved = _matrix(half, np.zeros(3))[:3, :3] @ newest.linear * seconds
        return PoseLookup(_matrix(end, newest.translation + moved), 'ok', is_extrapolated=True)

    def _outcome(self, stamp_ns: int, sample: _Sample) -> Outcome:
        if not self._stamps:
            return 'ok'
        elapsed_ns = stamp_ns - self._stamps[-1]
        if elapsed_ns <= 0:
            if elapsed_ns < -self._reset_after_ns:
                return 'reset'
            return 'duplicate' if elapsed_ns == 0 else 'out_of_order'
        newest, seconds = self._samples[-1], elapsed_ns * 1e-9
        distance = float(np.linalg.norm(sample.translation - newest.translation))
        cosine = abs(float(sample.quaternion @ newest.quaternion))
        angle = 2 * float(np.arccos(min(1.0, cosine)))
        # the slack keeps noise of samples that follow within microseconds from being a speed
        is_jump = distance > self._max_speed * seconds + 0.05 \
            or angle > self._max_turn * seconds + 0.05
        return 'jump' if is_jump else 'ok'

    def _trim(self) -> None:
        oldest = bisect_left(self._stamps, self._stamps[-1] - self._max_age_ns)
        excess = max(oldest, len(self._stamps) - self._max_length)
        if excess > 0:
            del self._stamps[:excess], self._samples[:excess]

    def _clear(self) -> None:
        self._stamps.clear()
        self._samples.clear()


def _checked(values: Sequence[float], length: int, what: str) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (length,) or not np.isfinite(array).all():
        raise BadFrame('bad_odometry', f'the {what} of the odometry is {array.tolist()}; expected '
                       f'{length} finite numbers')
    return array


def _checked_quaternion(values: Sequence[float]) -> np.ndarray:
    quaternion = _checked(values, 4, 'orientation')
    norm = float(np.linalg.norm(quaternion))
    if abs(norm - 1) > 1e-2:
        raise BadFrame('bad_odometry', f'the orientation of the odometry has norm {norm:.4g}; '
                       'expected a unit quaternion (all zero means that it was never set)')
    return quaternion / norm


def _rotation(vector: np.ndarray) -> np.ndarray:
    """Return the quaternion of a rotation vector (3), radians."""
    half = float(np.linalg.norm(vector)) / 2
    # np.sinc(x) is sin(pi x) / (pi x), well behaved at 0
    return np.array([*(vector / 2 * np.sinc(half / np.pi)), np.cos(half)])


def _quaternion_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    (ax, ay, az, aw), (bx, by, bz, bw) = a, b
    return np.array([aw * bx + ax * bw + ay * bz - az * by,
                     aw * by - ax * bz + ay * bw + az * bx,
                     aw * bz + ax * by - ay * bx + az * bw,
                     aw * bw - ax * bx - ay * by - az * bz])


def _matrix(quaternion: np.ndarray, translation: np.ndarray) -> np.ndarray:
    x, y, z, w = quaternion
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w), translation[0]],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w), translation[1]],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y), translation[2]],
        [0, 0, 0, 1]], dtype=np.float64)
