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
from __future__ import annotations

import cv2
import numpy as np
import pytest

from hybrid_depth.keyframes import angle_deg, is_jump, is_rigid, KeyframeRules, Keyframes, Source

RULES = KeyframeRules(store_baseline=0.03, short_baseline=0.08, long_baseline=0.25)
DEPTH_M = 10.0
U, V = np.meshgrid(np.linspace(-0.8, 0.8, 40), np.linspace(-0.25, 0.25, 12))
RAYS = np.stack([U, V], axis=-1).astype(np.float32)
THUMBNAIL = np.zeros((12, 40), np.uint8)


def pose(x: float = 0.0, y: float = 0.0, z: float = 0.0, turn_deg: float = 0.0) -> np.ndarray:
    """Return odom_T_camera turned about its y axis."""
    result = np.eye(4)
    result[:3, :3] = cv2.Rodrigues(np.array([0, np.radians(turn_deg), 0]))[0]
    result[:3, 3] = x, y, z
    return result


class Drive:
    """Feeds frames in order, 0.5 s apart."""

    def __init__(self, rules: KeyframeRules = RULES) -> None:
        self.keyframes = Keyframes(rules)
        self.stamp_ns = 0

    def see(self, odom_T_camera: np.ndarray | None, stamp_ns: int | None = None,
            count: int = 2) -> list[Source]:
        self.stamp_ns = self.stamp_ns + 500_000_000 if stamp_ns is None else stamp_ns
        sources = self.keyframes.choose(self.stamp_ns, odom_T_camera, count)
        if odom_T_camera is not None:
            self.keyframes.add(self.stamp_ns, odom_T_camera, f'f{self.stamp_ns}', THUMBNAIL,
                               np.full(RAYS.shape[:2], DEPTH_M, np.float32), RAYS)
        return sources

    def along(self, metres: float, step: float = 0.4, start: float = 0.0) -> list[Source]:
        sources: list[Source] = []
        for z in np.arange(start, start + metres + 1e-9, step):
            sources = self.see(pose(z=z))
        return sources


def stamps(sources: list[Source]) -> list[int]:
    return [source.keyframe.stamp_ns for source in sources]


def test_a_short_and_a_long_baseline_are_chosen_not_the_previous_frame() -> None:
    drive = Drive()
    sources = drive.along(8.0)
    # 0.08 and 0.25 of 10 m, in steps of 0.4 m
    assert [float(s.source_T_target[2, 3]) for s in sources] == pytest.approx([0.8, 2.4])
    for source in sources:
        np.testing.assert_allclose(source.keyframe.odom_T_camera @ source.source_T_target,
                                   pose(z=8.0), atol=1e-12)
        assert source.keyframe.features == f'f{source.keyframe.stamp_ns}'


def test_source_T_target_takes_points_of_this_camera_to_the_earlier_one() -> None:
    drive = Drive()
    drive.see(pose())
    source, = drive.see(pose(x=0.5, turn_deg=10))
    # the point 2 m ahead of the turned camera, seen from the first camera at the origin
    point = source.source_T_target @ [0, 0, 2, 1]
    np.testing.assert_allclose(point[:3], [0.5 + 2 * np.sin(np.radians(10)), 0,
                                           2 * np.cos(np.radians(10))], atol=1e-12)


def test_baselines_follow_the_depth_of_the_scene() -> None:
    drive = Drive()
    global DEPTH_M
    before = DEPTH_M
    try:
        DEPTH_M = 2.0
        sources = drive.along(1.6, step=0.08)
    finally:
        DEPTH_M = before
    assert [float(s.source_T_target[2, 3]) for s in sources] == pytest.approx([0.16, 0.48])


def test_a_standing_camera_keeps_its_sources() -> None:
    drive = Drive()
    drive.along(4.0)
    length = len(drive.keyframes)
    rng = np.random.default_rng(0)
    seen = {tuple(stamps(drive.see(pose(z=4.0 + rng.uniform(-0.02, 0.02)))))
            for _ in range(100)}
    assert len(seen) == 1
    assert len(seen.pop()) == 2
    assert len(drive.keyframes) == length


def test_a_camera_that_turns_on_the_spot_has_nothing_to_match() -> None:
    drive = Drive()
    assert not any(drive.see(pose(turn_deg=angle)) for angle in range(0, 90, 5))


def test_too_far_turned_is_no_source_and_neither_is_a_view_elsewhere() -> None:
    drive = Drive()
    drive.see(pose())
    assert drive.see(pose(x=1.0, turn_deg=20), stamp_ns=10**9)
    assert not drive.see(pose(x=1.0, turn_deg=27), stamp_ns=2 * 10**9)
    # so far to the side that less than half of the wall in front was in view
    for x, expected in ((7.0, 1), (9.0, 0)):
        wide = Drive(KeyframeRules(max_baseline=5.0))
        wide.see(pose())
        assert len(wide.see(pose(x=x), stamp_ns=10**9)) == expected


@pytest.mark.parametrize(('metres', 'usable'), [(0.1, False), (0.3, True), (5.9, True),
                                                (6.1, False)])
def test_the_baseline_must_be_useful(metres: float, usable: bool) -> None:
    drive = Drive()
    drive.see(pose())
    assert bool(drive.see(pose(z=metres), stamp_ns=10**9)) is usable


def test_one_source_where_only_one_is_there() -> None:
    drive = Drive()
    assert drive.see(pose()) == []
    assert len(drive.see(pose(z=0.4))) == 1
    assert len(drive.see(pose(z=0.8), count=1)) == 1
    assert len(drive.see(pose(z=1.2), count=3)) == 3


def test_the_ring_is_bounded_and_keeps_the_newest() -> None:
    drive = Drive()
    drive.along(40.0)
    assert len(drive.keyframes) == RULES.length


def test_a_camera_that_goes_to_and_fro_does_not_push_other_places_out() -> None:
    drive = Drive()
    drive.along(4.0)
    length = len(drive.keyframes)
    for _ in range(30):
        for z in (4.0, 4.4):
            sources = drive.see(pose(z=z))
    assert len(drive.keyframes) <= length + 1
    assert len(sources) == 2


def test_repeated_and_late_stamps_are_served_but_change_nothing() -> None:
    drive = Drive()
    drive.along(4.0)
    newest, length = drive.stamp_ns, len(drive.keyframes)
    expected = stamps(drive.keyframes.choose(newest, pose(z=4.0), 2))
    assert stamps(drive.see(pose(z=4.0), stamp_ns=newest)) == expected
    late = drive.see(pose(z=3.6), stamp_ns=newest - 100_000_000)
    assert all(abs(s.source_T_target[2, 3]) > 0.2 for s in late)
    assert drive.see(pose(z=9.0), stamp_ns=newest - 50_000_000)  # would be a jump in order
    assert len(drive.keyframes) == length
    assert len(drive.see(pose(z=4.1), stamp_ns=newest + 100_000_000)) == 2


def test_a_short_outage_of_the_pose_is_bridged_a_long_one_forgets() -> None:
    drive = Drive()
    drive.along(4.0)
    for _ in range(3):
        assert drive.see(None) == []
    assert len(drive.see(pose(z=4.4))) == 2
    for _ in range(5):
        drive.see(None)
    assert len(drive.keyframes) == 0
    assert drive.see(pose(z=4.8)) == []


def test_frames_far_apart_in_time_are_no_outage() -> None:
    drive = Drive()
    drive.along(4.0)
    assert len(drive.see(pose(z=4.4), stamp_ns=drive.stamp_ns + 30 * 10**9)) == 2


def test_a_jump_of_the_odometry_forgets() -> None:
    drive = Drive()
    drive.along(4.0)
    assert drive.see(pose(x=5.0, z=4.0)) == []
    assert len(drive.keyframes) == 1
    assert len(drive.see(pose(x=5.0, z=4.4))) == 1


def test_time_that_goes_back_forgets() -> None:
    drive = Drive()
    drive.along(4.0, start=100.0)
    assert drive.see(pose(z=104.0), stamp_ns=drive.stamp_ns - 1_100_000_000) == []
    assert len(drive.keyframes) == 1


def test_depth_without_a_number_stores_nothing() -> None:
    keyframes = Keyframes()
    nothing = np.full(RAYS.shape[:2], np.nan, np.float32)
    assert not keyframes.add(1, pose(), 'f', THUMBNAIL, nothing, RAYS)
    assert keyframes.choose(2, pose(z=1.0), 2) == []


@pytest.mark.parametrize(('seconds', 'metres', 'jumps'), [
    ((0.1, 0.1), (1.0, 1.0), False),  # 10 m/s
    ((0.1, 0.1), (1.0, 0.7), False),  # braking hard, within the slack
    ((0.1, 0.1), (0.0, 0.15), False),  # noise of a standing robot
    ((0.1, 0.1), (0.0, 0.5), True),  # 50 m/s^2
    ((0.1, 0.1), (1.0, -1.0), True),
    ((0.1, 0.3), (1.0, 3.0), False),  # two frames lost
    ((0.1, 1.0), (0.0, 5.0), False),  # accelerated meanwhile
    ((0.1, 1.0), (1.0, 80.0), True),  # faster than anything
])
def test_a_jump_is_a_motion_that_cannot_follow(seconds: tuple, metres: tuple,
                                               jumps: bool) -> None:
    track = [(0, pose()), (round(seconds[0] * 1e9), pose(z=metres[0]))]
    now = pose(z=sum(metres))
    assert is_jump(track, round(sum(seconds) * 1e9), now, RULES) is jumps
    assert not is_jump(track, track[-1][0], pose(z=99.0), RULES)
    assert not is_jump([], 0, now, RULES)


@pytest.mark.parametrize(('degrees', 'jumps'), [(3, False), (20, False), (40, True)])
def test_a_sudden_turn_is_a_jump(degrees: float, jumps: bool) -> None:
    track = [(0, pose()), (10**8, pose(turn_deg=2))]
    assert is_jump(track, 2 * 10**8, pose(turn_deg=2 + degrees), RULES) is jumps


@pytest.mark.parametrize(('bad', 'expected'), [
    (lambda T: T, True),
    (lambda T: T.astype(np.float32), True),
    (lambda T: T * np.nan, False),
    (lambda T: T + np.inf, False),
    (lambda T: T @ np.diag([1, 1, -1, 1]), False),  # a reflection
    (lambda T: T @ np.diag([1.02, 1.02, 1.02, 1]), False),
    (lambda T: np.zeros((4, 4)), False),
    (lambda T: T[:3], False),
    (lambda T: T.T, False),
    (lambda T: T.astype(int), False),
    (lambda T: T.astype(object), False),
])
def test_a_pose_is_a_finite_rigid_motion(bad, expected: bool) -> None:
    assert is_rigid(bad(pose(1.0, 2.0, 3.0, 30.0))) is expected


@pytest.mark.parametrize('degrees', [0.0, 1e-6, 1.0, 90.0, 179.9, 180.0])
def test_the_angle_of_a_rotation(degrees: float) -> None:
    rotation = cv2.Rodrigues(np.radians(degrees) * np.array([0.6, 0, 0.8]))[0]
    assert angle_deg(rotation) == pytest.approx(degrees, abs=1e-6)
