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
Which earlier frames to match against.

A short ring of keyframes, stored by distance travelled and not by time, so that a robot that
stands keeps its last good views. For each frame the sources are chosen by baseline (relative to
the depth of the scene: parallax is what counts), viewing angle and overlap.
"""
from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import Any

import numpy as np

from hybrid_depth.poses import inverse

_RIGID_TOLERANCE = 5e-3  # of the entries of R^T R - I; poses from text files carry few digits
_GRID = (8, 20)  # rows, columns of the coarse grid that overlap is measured on


@dataclass(frozen=True)
class KeyframeRules:
    """Every threshold of keyframes. Baselines are fractions of the scene's median depth."""

    length: int = 16  # keyframes kept
    store_baseline: float = 0.02  # a frame is stored after moving so far,
    store_angle_deg: float = 5.0  # or turning so far
    # The two lengths were chosen on KITTI odometry 06 and 01 with a single frame that never saw
    # KITTI: 0.05 and 0.12 gave d1 0.806 and 0.902, 0.08 and 0.35 0.800 and 0.906, these 0.807 and
    # 0.910.
    short_baseline: float = 0.06  # the sources aimed for, spaced evenly in ratio from short: ...
    long_baseline: float = 0.22  # ... seen whole and matched easily, to long: far away resolved
    min_baseline: float = 0.02  # below, parallax drowns in noise
    max_baseline: float = 0.6  # beyond, the views look too different
    max_angle_deg: float = 25.0  # between the two views
    min_overlap: float = 0.5  # part of what is seen now that the source saw as well
    hold_baseline: float = 0.01  # a camera that moved less keeps its sources: no flicker
    hold_angle_deg: float = 1.0
    max_gap_s: float = 2.0  # after so long without pose, the odometry is another one
    reset_after_s: float = 1.0  # time going back so far is a recording that starts again
    max_speed_mps: float = 70.0  # faster is a jump of the odometry
    max_acceleration_mps2: float = 20.0  # so is a sudden change of speed ...
    max_turn_acceleration_radps2: float = 50.0  # ... or of turn rate


@dataclass(frozen=True, eq=False)
class Keyframe:
    """An earlier frame that can be matched against."""

    stamp_ns: int
    odom_T_camera: np.ndarray  # (4, 4) float64 metres, optical frame
    features: Any  # handle of the runtime; nobody else looks inside
    thumbnail: np.ndarray  # (h, w) uint8 grey, at feature resolution


@dataclass(frozen=True, eq=False)
class Source:
    """A keyframe chosen for the present frame, the target."""

    keyframe: Keyframe
    source_T_target: np.ndarray  # (4, 4) float64 metres, optical frames


def is_rigid(pose: np.ndarray) -> bool:
    """Tell whether ``pose`` is a finite (4, 4) rigid motion: a rotation, not a reflection."""
    pose = np.asarray(pose)
    if pose.shape != (4, 4) or pose.dtype.kind != 'f' or not np.isfinite(pose).all():
        return False
    R = pose[:3, :3]
    return bool(np.abs(R.T @ R - np.eye(3)).max() < _RIGID_TOLERANCE and np.linalg.det(R) > 0
                and np.array_equal(pose[3], (0, 0, 0, 1)))


def angle_deg(rotation: np.ndarray) -> float:
    """Return the angle of a (3, 3) rotation, 0 to 180 degrees."""
    # plain numbers: this runs for every keyframe, and numpy takes longer for so few.
    # The sine keeps small angles exact where the arc cosine of almost 1 would not
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation.tolist()
    return math.degrees(math.atan2(math.hypot(zy - yz, xz - zx, yx - xy), xx + yy + zz - 1))


def motion(odom_T_a: np.ndarray, odom_T_b: np.ndarray) -> tuple[float, float]:
    """Return metres and degrees between two poses."""
    return (math.dist(odom_T_a[:3, 3], odom_T_b[:3, 3]),
            angle_deg(odom_T_a[:3, :3].T @ odom_T_b[:3, :3]))


def is_jump(track: Sequence[tuple[int, np.ndarray]], stamp_ns: int, odom_T_camera: np.ndarray,
            rules: KeyframeRules) -> bool:
    """
    Tell whether the pose at ``stamp_ns`` cannot follow from the one or two before.

    ``track`` holds (stamp, pose), oldest first. The camera is expected to go on with constant
    velocity, within the accelerations of ``rules`` and a slack of 0.1 m + 50 % of the way and of
    8 degrees + 50 % of the turn for noise of poses and stamps.
    """
    if not track:
        return False
    seconds = (stamp_ns - track[-1][0]) * 1e-9
    if seconds <= 0:
        return False
    last = inverse(track[-1][1])
    step = last @ odom_T_camera
    if np.linalg.norm(step[:3, 3]) > rules.max_speed_mps * seconds + 0.1:
        return True
    if len(track) < 2:
        return False
    before = last @ track[-2][1]
    ratio = seconds / ((track[-1][0] - track[-2][0]) * 1e-9)
    expected = -before[:3, 3] * ratio
    slack = 0.1 + 0.5 * np.linalg.norm(expected) + rules.max_acceleration_mps2 * seconds**2 / 2
    if np.linalg.norm(step[:3, 3] - expected) > slack:
        return True
    turned, turn = angle_deg(before[:3, :3]) * ratio, angle_deg(step[:3, :3])
    more = np.degrees(rules.max_turn_acceleration_radps2) * seconds**2 / 2
    return bool(turn > 8 + 1.5 * turned + more)


class Keyframes:
    """
    The keyframes of one camera, and the choice among them.

    For each frame in turn: ``choose``, then, with its depth, ``add``. Stamps that repeat or come
    out of order are served but never stored. The past is forgotten (``reset``) where time goes
    back, the odometry jumps, or there was no pose for too long; the caller does so where the
    camera changes.
    """

    def __init__(self, rules: KeyframeRules | None = None) -> None:
        self.rules = rules or KeyframeRules()
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._ring: deque[Keyframe] = deque(maxlen=self.rules.length)
        self._track: deque[tuple[int, np.ndarray]] = deque(maxlen=2)
        self._newest_ns: int | None = None
        self._scene: _Scene | None = None
        self._held: tuple[np.ndarray, list[Keyframe]] | None = None

    def __len__(self) -> int:
        return len(self._ring)

    def choose(self, stamp_ns: int, odom_T_camera: np.ndarray | None, count: int) -> list[Source]:
        """
        Return up to ``count`` sources for a frame at ``odom_T_camera`` (None = no pose).

        The shortest wanted baseline comes first. The pose must be rigid (see ``is_rigid``).
        """
        rules = self.rules
        if self._newest_ns is not None \
                and stamp_ns < self._newest_ns - round(rules.reset_after_s * 1e9):
            self.reset()
        self._newest_ns = max(stamp_ns, self._newest_ns or stamp_ns)
        if odom_T_camera is None:
            if self._track and stamp_ns - self._track[-1][0] > rules.max_gap_s * 1e9:
                self.reset()
            return []
        if is_jump(self._track, stamp_ns, odom_T_camera, rules):
            self.reset()
            self._newest_ns = stamp_ns
        if not self._track or stamp_ns > self._track[-1][0]:
            self._track.append((stamp_ns, odom_T_camera))
        if self._scene is None or not self._ring:
            return []
        if not self._holds(odom_T_camera):
            self._held = odom_T_camera, _best(self._ring, odom_T_camera, self._scene, count, rules)
        assert self._held is not None
        return [Source(keyframe, inverse(keyframe.odom_T_camera) @ odom_T_camera)
                for keyframe in self._held[1]]

    def add(self, stamp_ns: int, odom_T_camera: np.ndarray, features: Any, thumbnail: np.ndarray,
            depth_m: np.ndarray, rays: np.ndarray) -> bool:
        """
        Take in the finished frame; return whether it became a keyframe.

        ``depth_m`` (h, w) float32 and ``rays`` (h, w, 2), x/z and y/z, are at feature resolution.
        """
        scene = _scene(depth_m, rays)
        if scene is None:
            return False
        self._scene = scene
        if self._ring:
            if stamp_ns <= self._ring[-1].stamp_ns \
                    or self._is_near(self._ring[-1].odom_T_camera, odom_T_camera):
                return False
            # a camera that returns replaces its old view, instead of pushing other places out
            kept = [k for k in self._ring if not self._is_near(k.odom_T_camera, odom_T_camera)]
            self._ring = deque(kept, maxlen=self.rules.length)
        self._ring.append(Keyframe(stamp_ns, odom_T_camera, features, thumbnail))
        self._held = None
        return True

    def _is_near(self, odom_T_a: np.ndarray, odom_T_b: np.ndarray) -> bool:
        assert self._scene is not None
        metres, degrees = motion(odom_T_a, odom_T_b)
        return metres < self.rules.store_baseline * self._scene.median_m \
            and degrees < self.rules.store_angle_deg

    def _holds(self, odom_T_camera: np.ndarray) -> bool:
        if self._held is None or self._scene is None or not self._held[1]:
            return False
        metres, degrees = motion(self._held[0], odom_T_camera)
        return metres < self.rules.hold_baseline * self._scene.median_m \
            and degrees < self.rules.hold_angle_deg


@dataclass(frozen=True, eq=False)
class _Scene:
    """What the last depth said; taken for the depth of the present frame as well."""

    points: np.ndarray  # (N, 3) float64, optical frame
    median_m: float
    low: np.ndarray  # (2,) x/z, y/z at the image's borders
    high: np.ndarray


def _scene(depth_m: np.ndarray, rays: np.ndarray) -> _Scene | None:
    rows, columns = (np.linspace(0, length - 1, min(length, wanted)).round().astype(int)
                     for length, wanted in zip(depth_m.shape, _GRID, strict=True))
    z = depth_m[np.ix_(rows, columns)].ravel().astype(np.float64)
    xy = rays[np.ix_(rows, columns)].reshape(-1, 2)
    good = np.isfinite(z) & (z > 0)
    if not good.any():
        return None
    points = np.column_stack([xy * z[:, None], z])[good]
    return _Scene(points, float(np.median(z[good])), xy.min(axis=0), xy.max(axis=0))


def _best(ring: Sequence[Keyframe], odom_T_camera: np.ndarray, scene: _Scene, count: int,
          rules: KeyframeRules) -> list[Keyframe]:
    """Choose the keyframe nearest to each wanted baseline, no keyframe twice."""
    poses = np.stack([keyframe.odom_T_camera for keyframe in ring])
    moved = [motion(pose, odom_T_camera) for pose in poses]
    baseline = np.array([metres for metres, _ in moved]) / scene.median_m
    angle = np.array([degrees for _, degrees in moved])
    overlap = _overlap(poses, odom_T_camera, scene)
    usable = (baseline >= rules.min_baseline) & (baseline <= rules.max_baseline) \
        & (angle <= rules.max_angle_deg) & (overlap >= rules.min_overlap)
    chosen: list[int] = []
    for wanted in np.geomspace(rules.short_baseline, rules.long_baseline, count):
        # a view that is off by a factor e in baseline is as bad as one that overlaps by nothing
        cost = np.abs(np.log(np.maximum(baseline, 1e-9) / wanted)) + (1 - overlap) \
            + angle / (2 * rules.max_angle_deg)
        cost[~usable] = np.inf
        cost[chosen] = np.inf
        index = int(np.argmin(cost))
        if np.isfinite(cost[index]):
            chosen.append(index)
    return [ring[index] for index in chosen]


def _overlap(odom_T_sources: np.ndarray, odom_T_camera: np.ndarray, scene: _Scene) -> np.ndarray:
    """Return for each of (N, 4, 4) poses which part of the present view it saw as well."""
    odom_points = scene.points @ odom_T_camera[:3, :3].T + odom_T_camera[:3, 3]
    points = (odom_points - odom_T_sources[:, None, :3, 3]) @ odom_T_sources[:, :3, :3]
    z = points[..., 2:]
    with np.errstate(divide='ignore', invalid='ignore'):
        xy = points[..., :2] / z
    seen = (z[..., 0] > 0) & (xy >= scene.low).all(axis=-1) & (xy <= scene.high).all(axis=-1)
    return seen.mean(axis=1)
