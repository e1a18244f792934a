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

State = Literal['ok', 'waiting', 'gap', 'empty', 'stale', 'too_old', 'bad_twist']
Outcome = Literal['ok', 'duplicate', 'out_of_order', 'reset', 'jump', 'pause']
# What noise may add to a motion before it counts as impossible: m and rad, and a share of the
# motion itself, for stamps that jitter.
_SLACK_M, _SLACK_RAD, _SLACK_SHARE = 0.3, 0.1, 0.25
_LARGEST = 1e9  # m, m/s, rad/s: beyond, squares of what is multiplied from it overflow
# A twist must foretell where the poses are heading to within this, and that share.
_TWIST_M, _TWIST_RAD = 0.02, 0.03
# The heading is taken over this long, and over nothing shorter: stamps may come in pairs.
_COURSE_NS, _SHORTEST_COURSE_NS = 200_000_000, 20_000_000


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
    apart; 'stale' = odometry has stopped; 'too_old' = before the buffer begins; 'empty';
    'bad_twist' = newer odometry may still come, and the twist cannot stand in for it, because it
    contradicts the poses (never set, or not in the base frame).
    """

    odom_T_base: np.ndarray | None  # (4, 4) float64, None unless state is 'ok'
    state: State
    is_extrapolated: bool = False
    epoch: int = 0  # poses of different epochs are not of one odom frame: do not compare them


@dataclass(frozen=True)
class _Sample:
    quaternion: np.ndarray  # (4,) unit
    translation: np.ndarray  # (3,) metres
    linear: np.ndarray | None  # (3,) m/s in the base frame
    angular: np.ndarray | None  # (3,) rad/s in the base frame
    epoch: int


class PoseBuffer:
    """
    The last odometry of a robot, safe to fill and read from different threads.

    Bounded by ``max_age_s`` behind the newest stamp and by ``max_length`` samples. Between
    samples more than ``max_gap_s`` apart nothing is interpolated; beyond the newest one the twist
    carries on for ``max_extrapolation_s``.

    A motion that no robot makes is a jump of the odometry: faster than ``max_speed_mps`` or
    ``max_turn_radps``, or away from where the last samples were heading by more than
    ``max_acceleration_mps2`` or ``max_turn_acceleration_radps2`` explains. Then the past is
    forgotten. So it is when time goes back by more than ``reset_after_s`` (a recording that starts
    again). Each of these, ``clear``, and ``restart_after_s`` without any sample (odometry may have
    been started anew meanwhile) begin a new epoch.
    """

    def __init__(self, *, max_age_s: float = 10.0, max_length: int = 4000, max_gap_s: float = 0.5,
                 max_extrapolation_s: float = 0.05, max_speed_mps: float = 70.0,
                 max_turn_radps: float = 20.0, max_acceleration_mps2: float = 40.0,
                 max_turn_acceleration_radps2: float = 60.0, reset_after_s: float = 1.0,
                 restart_after_s: float = 2.0) -> None:
        self._max_age_ns = round(max_age_s * 1e9)
        self._max_length = max_length
        self._max_gap_ns = round(max_gap_s * 1e9)
        self._max_extrapolation_ns = round(max_extrapolation_s * 1e9)
        self._max_speed = max_speed_mps
        self._max_turn = max_turn_radps
        self._max_acceleration = max_acceleration_mps2
        self._max_turn_acceleration = max_turn_acceleration_radps2
        self._reset_after_ns = round(reset_after_s * 1e9)
        self._restart_after_ns = max(round(restart_after_s * 1e9), self._max_gap_ns)
        self._lock = threading.Lock()
        self._stamps: list[int] = []
        self._samples: list[_Sample] = []
        self._epoch = 0

    def __len__(self) -> int:
        with self._lock:
            return len(self._stamps)

    def clear(self) -> None:
        """Forget everything; what comes is of a new epoch."""
        with self._lock:
            self._clear()

    def insert(self, stamp_ns: int, quaternion: Sequence[float], translation: Sequence[float],
               linear: Sequence[float] | None = None,
               angular: Sequence[float] | None = None) -> Outcome:
        """
        Add one odometry sample: pose of the base in odom, twist in the base frame (or None).

        Returns 'ok'; 'duplicate' or 'out_of_order' (ignored: not newer than the newest); 'reset'
        or 'jump' (the past was forgotten, this sample is kept); 'pause' (kept, as is the past,
        which is of another epoch now).
        Raises BadFrame (``bad_odometry``) where numbers are not finite or no rotation.
        """
        checked_quaternion = _checked_quaternion(quaternion)
        position = _checked(translation, 3, 'position')
        checked_linear = None if linear is None else _checked(linear, 3, 'linear velocity')
        checked_angular = None if angular is None else _checked(angular, 3, 'angular velocity')
        with self._lock:
            outcome = self._outcome(stamp_ns, checked_quaternion, position)
            if outcome in ('duplicate', 'out_of_order'):
                return outcome
            if outcome in ('reset', 'jump'):
                self._clear()
            elif outcome == 'pause':
                self._epoch += 1
            self._stamps.append(stamp_ns)
            self._samples.append(_Sample(checked_quaternion, position, checked_linear,
                                         checked_angular, self._epoch))
            self._trim()
        return outcome

    def lookup(self, stamp_ns: int) -> PoseLookup:
        """Return the pose of the base in odom at ``stamp_ns``, or why there is none."""
        with self._lock:
            if not self._stamps:
                return PoseLookup(None, 'empty', epoch=self._epoch)
            after = bisect_left(self._stamps, stamp_ns)
            if after == len(self._stamps):
                return self._beyond(stamp_ns - self._stamps[-1])
            stamp, sample = self._stamps[after], self._samples[after]
            if stamp == stamp_ns:
                return PoseLookup(_matrix(sample.quaternion, sample.translation), 'ok',
                                  epoch=sample.epoch)
            if after == 0:
                return PoseLookup(None, 'too_old', epoch=sample.epoch)
            before_stamp, before = self._stamps[after - 1], self._samples[after - 1]
        if stamp - before_stamp > self._max_gap_ns:
            return PoseLookup(None, 'gap', epoch=sample.epoch)
        f = (stamp_ns - before_stamp) / (stamp - before_stamp)
        return PoseLookup(_matrix(slerp(before.quaternion, sample.quaternion, f),
                                  (1 - f) * before.translation + f * sample.translation), 'ok',
                          epoch=sample.epoch)

    def _beyond(self, late_ns: int) -> PoseLookup:
        """Answer for a stamp ``late_ns`` after the newest sample."""
        newest = self._samples[-1]
        if late_ns > self._max_gap_ns:
            return PoseLookup(None, 'stale', epoch=newest.epoch)
        if late_ns > self._max_extrapolation_ns or newest.linear is None \
                or newest.angular is None:
            return PoseLookup(None, 'waiting', epoch=newest.epoch)
        seconds = late_ns * 1e-9
        if not self._twist_fits(newest.linear, newest.angular, seconds):
            return PoseLookup(None, 'bad_twist', epoch=newest.epoch)
        half = _quaternion_product(newest.quaternion, _rotation(newest.angular * seconds / 2))
        end = _quaternion_product(newest.quaternion, _rotation(newest.angular * seconds))
        # the base turns on the way: its mean heading is that at half the time
        moved = _turned(half, newest.linear * seconds)
        return PoseLookup(_matrix(end, newest.translation + moved), 'ok', is_extrapolated=True,
                          epoch=newest.epoch)

    def _twist_fits(self, linear: np.ndarray, angular: np.ndarray, seconds: float) -> bool:
        """Return whether the twist leads where the poses of the last moments were heading."""
        velocity, rate, course_s = self._course()
        if course_s == 0:
            return True  # nothing to compare with
        velocity_m = velocity * seconds
        ahead_m = _turned(self._samples[-1].quaternion, linear * seconds)
        return bool(
            np.linalg.norm(ahead_m - velocity_m)
            <= _TWIST_M + _SLACK_SHARE * np.linalg.norm(velocity_m)
            and np.linalg.norm((angular - rate) * seconds)
            <= _TWIST_RAD + _SLACK_SHARE * np.linalg.norm(rate * seconds))

    def _course(self) -> tuple[np.ndarray, np.ndarray, float]:
        """
        Return the mean motion of the last moments.

        Velocity (3) in odom in m/s, turn rate (3) in the base in rad/s, and the seconds that they
        are taken over, 0 where there are too few samples.
        """
        newest, newest_ns = self._samples[-1], self._stamps[-1]
        # one sample back at least, however far apart they are
        first = max(0, min(bisect_left(self._stamps, newest_ns - _COURSE_NS),
                           len(self._stamps) - 2))
        while self._samples[first].epoch != newest.epoch:
            first += 1
        span_ns = newest_ns - self._stamps[first]
        if span_ns < _SHORTEST_COURSE_NS:
            return np.zeros(3), np.zeros(3), 0.0
        shift, turn = _motion(self._samples[first], newest.quaternion, newest.translation)
        return shift / (span_ns * 1e-9), turn / (span_ns * 1e-9), span_ns * 1e-9

    def _outcome(self, stamp_ns: int, quaternion: np.ndarray, position: np.ndarray) -> Outcome:
        if not self._stamps:
            return 'ok'
        elapsed_ns = stamp_ns - self._stamps[-1]
        if elapsed_ns <= 0:
            if elapsed_ns < -self._reset_after_ns:
                return 'reset'
            return 'duplicate' if elapsed_ns == 0 else 'out_of_order'
        seconds = elapsed_ns * 1e-9
        shift, turn = _motion(self._samples[-1], quaternion, position)
        # the slack keeps noise of samples that follow within microseconds from being a speed
        if np.linalg.norm(shift) > self._max_speed * seconds + _SLACK_M \
                or np.linalg.norm(turn) > self._max_turn * seconds + _SLACK_RAD \
                or self._leaves_its_course(shift, turn, seconds):
            return 'jump'
        return 'pause' if elapsed_ns > self._restart_after_ns else 'ok'

    def _leaves_its_course(self, shift: np.ndarray, turn: np.ndarray, seconds: float) -> bool:
        """Return whether a motion after the newest sample does not go on from those before."""
        velocity, rate, course_s = self._course()
        if course_s == 0:
            return False
        expected_shift, expected_turn = velocity * seconds, rate * seconds
        # mean speeds of two intervals are those of their middles
        span = seconds * (seconds + course_s) / 2
        return bool(
            np.linalg.norm(shift - expected_shift) > _SLACK_M + self._max_acceleration * span
            + _SLACK_SHARE * np.linalg.norm(expected_shift)
            or np.linalg.norm(turn - expected_turn) > _SLACK_RAD
            + self._max_turn_acceleration * span + _SLACK_SHARE * np.linalg.norm(expected_turn))

    def _trim(self) -> None:
        oldest = bisect_left(self._stamps, self._stamps[-1] - self._max_age_ns)
        excess = max(oldest, len(self._stamps) - self._max_length)
        if excess > 0:
            del self._stamps[:excess], self._samples[:excess]

    def _clear(self) -> None:
        self._stamps.clear()
        self._samples.clear()
        self._epoch += 1


def _checked(values: Sequence[float], length: int, what: str) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    # NaN compares as False
    if array.shape != (length,) or not (np.abs(array) <= _LARGEST).all():
        raise BadFrame('bad_odometry', f'the {what} of the odometry is {array.tolist()}; expected '
                       f'{length} finite numbers of at most {_LARGEST:g}')
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


def _motion(start: _Sample, quaternion: np.ndarray,
            position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the way from ``start``: shift (3) in odom, rotation vector (3) in the base."""
    x, y, z, w = start.quaternion
    turn = _quaternion_product(np.array([-x, -y, -z, w]), quaternion)
    turn = turn if turn[3] >= 0 else -turn
    sine = float(np.linalg.norm(turn[:3]))
    vector = turn[:3] * (2 * np.arctan2(sine, turn[3]) / sine) if sine > 0 else np.zeros(3)
    return position - start.translation, vector


def _turned(quaternion: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Return ``vector`` (3) of the base in odom."""
    return _matrix(quaternion, np.zeros(3))[:3, :3] @ vector


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
