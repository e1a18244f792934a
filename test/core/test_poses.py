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

import threading

from hypothesis import assume, given
from hypothesis import strategies as st
import numpy as np
import pytest

from hybrid_depth.errors import BadFrame
from hybrid_depth.poses import inverse, make_pose, PoseBuffer, slerp

UNIT = (0.0, 0.0, 0.0, 1.0)
SECOND = 1_000_000_000
number = st.floats(-1.0, 1.0)


@st.composite
def quaternions(draw: st.DrawFn) -> np.ndarray:
    q = np.array([draw(number) for _ in range(4)])
    norm = np.linalg.norm(q)
    assume(norm > 0.1)
    return q / norm


@st.composite
def poses(draw: st.DrawFn) -> np.ndarray:
    return make_pose(draw(quaternions()), [100 * draw(number) for _ in range(3)])


def is_rigid(T: np.ndarray) -> bool:
    R = T[:3, :3]
    return bool(np.allclose(R @ R.T, np.eye(3), atol=1e-12) and np.linalg.det(R) > 0
                and (T[3] == [0, 0, 0, 1]).all())


def turn_z(angle: float) -> np.ndarray:
    return np.array([0, 0, np.sin(angle / 2), np.cos(angle / 2)])


@given(pose=poses())
def test_inverse_undoes(pose: np.ndarray) -> None:
    assert is_rigid(pose)
    assert is_rigid(inverse(pose))
    np.testing.assert_allclose(inverse(pose) @ pose, np.eye(4), atol=1e-10)


def test_make_pose_follows_the_ros_order_and_hand() -> None:
    pose = make_pose(turn_z(np.pi / 2), [1, 2, 3])
    np.testing.assert_allclose(pose @ [1, 0, 0, 1], [1, 3, 3, 1], atol=1e-12)


@pytest.mark.parametrize(('quaternion', 'translation'), [
    ((0, 0, 0, 0), (0, 0, 0)),
    ((0, 0, 0, 1.02), (0, 0, 0)),
    ((0, 0, np.nan, 1), (0, 0, 0)),
    ((0, 0, 0, np.inf), (0, 0, 0)),
    (UNIT, (0, np.nan, 0)),
    (UNIT, (0, 0, -np.inf)),
    (UNIT, (0, 0)),
    ((0, 0, 1), (0, 0, 0)),
])
def test_numbers_that_are_no_pose(quaternion: tuple, translation: tuple) -> None:
    with pytest.raises(BadFrame) as caught:
        make_pose(quaternion, translation)
    assert caught.value.reason == 'bad_odometry'
    buffer = PoseBuffer()
    with pytest.raises(BadFrame):
        buffer.insert(0, quaternion, translation)
    assert len(buffer) == 0


def test_a_slightly_off_quaternion_is_normalised() -> None:
    assert is_rigid(make_pose((0, 0, 0, 1.005), (0, 0, 0)))


@given(q0=quaternions(), q1=quaternions(), fraction=st.floats(0, 1))
def test_slerp_stays_a_rotation_and_meets_its_ends(q0: np.ndarray, q1: np.ndarray,
                                                   fraction: float) -> None:
    def matrix(q: np.ndarray) -> np.ndarray:
        return make_pose(q, (0, 0, 0))[:3, :3]

    assert np.linalg.norm(slerp(q0, q1, fraction)) == pytest.approx(1)
    np.testing.assert_allclose(matrix(slerp(q0, q1, 0.0)), matrix(q0), atol=1e-9)
    np.testing.assert_allclose(matrix(slerp(q0, q1, 1.0)), matrix(q1), atol=1e-9)

    def angle(a: np.ndarray, b: np.ndarray) -> float:
        return 2 * float(np.arccos(np.clip(abs(a @ b), 0, 1)))

    # constant speed on the shorter arc
    total = angle(q0, q1)
    assert angle(q0, slerp(q0, q1, fraction)) == pytest.approx(fraction * total, abs=1e-6)


def filled(count: int = 11, step_ns: int = SECOND // 10, **settings: float) -> PoseBuffer:
    """Drive 1 m/s along x, turning 0.5 rad/s about z, at ``count`` stamps from 0."""
    buffer = PoseBuffer(**settings)
    for i in range(count):
        t = i * step_ns / SECOND
        outcome = buffer.insert(i * step_ns, turn_z(0.5 * t), (t, 0, 0), (1, 0, 0), (0, 0, 0.5))
        assert outcome == 'ok'
    return buffer


@given(stamp_ns=st.integers(0, SECOND))
def test_lookup_interpolates_between_samples(stamp_ns: int) -> None:
    found = filled().lookup(stamp_ns)
    assert found.state == 'ok'
    assert not found.is_extrapolated
    assert is_rigid(found.odom_T_base)
    t = stamp_ns / SECOND
    np.testing.assert_allclose(found.odom_T_base, make_pose(turn_z(0.5 * t), (t, 0, 0)),
                               atol=1e-9)


def test_lookup_at_a_sample_is_that_sample() -> None:
    found = filled().lookup(3 * SECOND // 10)
    np.testing.assert_array_equal(found.odom_T_base,
                                  make_pose(turn_z(0.5 * 0.3), (0.3, 0, 0)))


def test_the_twist_carries_on_for_a_moment() -> None:
    buffer = PoseBuffer()
    # a circle of radius 2 about (0, 2): the twist in the base frame is constant
    buffer.insert(0, turn_z(0.0), (0, 0, 0), (1, 0, 0), (0, 0, 0.5))
    found = buffer.lookup(SECOND // 25)
    assert (found.state, found.is_extrapolated) == ('ok', True)
    angle = 0.5 / 25
    expected = make_pose(turn_z(angle), (2 * np.sin(angle), 2 - 2 * np.cos(angle), 0))
    np.testing.assert_allclose(found.odom_T_base, expected, atol=1e-6)


def test_the_twist_turns_about_the_axes_of_the_base() -> None:
    lying = np.array([np.sin(np.pi / 4), 0, 0, np.cos(np.pi / 4)])  # base z is odom -y
    buffer = PoseBuffer()
    buffer.insert(0, lying, (0, 0, 0), (0, 0, 0), (0, 0, 1.0))
    found = buffer.lookup(SECOND // 20).odom_T_base
    expected = make_pose(lying, (0, 0, 0)) @ make_pose(turn_z(0.05), (0, 0, 0))
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize(('stamp_ns', 'state'), [
    (-1, 'too_old'),
    (SECOND + SECOND // 20, 'ok'),  # 0.05 s past the newest
    (SECOND + SECOND // 20 + 1, 'waiting'),
    (SECOND + SECOND // 2, 'waiting'),
    (SECOND + SECOND // 2 + 1, 'stale'),
])
def test_states_outside_the_samples(stamp_ns: int, state: str) -> None:
    found = filled().lookup(stamp_ns)
    assert found.state == state
    assert (found.odom_T_base is None) == (state != 'ok')


def test_without_a_twist_nothing_is_extrapolated() -> None:
    buffer = PoseBuffer()
    buffer.insert(0, UNIT, (0, 0, 0))
    assert buffer.lookup(1).state == 'waiting'
    assert buffer.lookup(0).state == 'ok'


def test_an_empty_buffer_says_so() -> None:
    assert PoseBuffer().lookup(0).state == 'empty'
    buffer = filled()
    buffer.clear()
    assert buffer.lookup(0).state == 'empty'


def test_a_gap_is_not_bridged_but_its_ends_are_known() -> None:
    buffer = filled()
    buffer.insert(2 * SECOND, turn_z(1.0), (2, 0, 0))
    assert buffer.lookup(3 * SECOND // 2).state == 'gap'
    assert buffer.lookup(SECOND).state == 'ok'
    assert buffer.lookup(2 * SECOND).state == 'ok'
    buffer.insert(2 * SECOND + SECOND // 10, turn_z(1.05), (2.1, 0, 0))
    assert buffer.lookup(2 * SECOND + SECOND // 20).state == 'ok'


def test_samples_that_are_not_newer_are_ignored() -> None:
    buffer = filled()
    assert buffer.insert(SECOND, UNIT, (9, 9, 9)) == 'duplicate'
    assert buffer.insert(SECOND - 5, UNIT, (9, 9, 9)) == 'out_of_order'
    assert len(buffer) == 11
    assert buffer.lookup(SECOND).odom_T_base[0, 3] == 1.0


def test_time_that_goes_back_far_starts_again() -> None:
    buffer = filled(50)
    assert buffer.insert(0, UNIT, (0, 0, 0)) == 'reset'
    assert len(buffer) == 1
    assert buffer.lookup(SECOND).state == 'stale'
    assert buffer.insert(SECOND // 10, UNIT, (0.1, 0, 0)) == 'ok'
    assert buffer.lookup(SECOND // 20).state == 'ok'


@pytest.mark.parametrize(('quaternion', 'translation'), [
    (turn_z(0.5), (30.0, 0, 0)),  # 290 m/s
    (turn_z(0.5 + np.pi), (1.1, 0, 0)),  # 31 rad/s
])
def test_a_jump_forgets_the_past(quaternion: np.ndarray, translation: tuple) -> None:
    buffer = filled()
    assert buffer.insert(SECOND + SECOND // 10, quaternion, translation) == 'jump'
    assert len(buffer) == 1
    assert buffer.lookup(SECOND + SECOND // 20).state == 'too_old'


def test_a_quaternion_of_the_other_sign_is_no_jump() -> None:
    buffer = filled()
    assert buffer.insert(SECOND + SECOND // 10, -turn_z(0.55), (1.1, 0, 0)) == 'ok'
    found = buffer.lookup(SECOND + SECOND // 20)
    np.testing.assert_allclose(found.odom_T_base, make_pose(turn_z(0.525), (1.05, 0, 0)),
                               atol=1e-9)


def test_the_buffer_is_bounded_in_age_and_length() -> None:
    buffer = filled(100, max_age_s=2.0)
    assert len(buffer) == 21
    assert buffer.lookup(0).state == 'too_old'
    assert len(filled(100, max_length=7)) == 7


def test_reading_while_another_thread_writes() -> None:
    buffer = PoseBuffer(max_length=50)
    buffer.insert(0, UNIT, (0, 0, 0))
    failures: list[str] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            stamp = max(0, newest[0] - SECOND // 100)
            found = buffer.lookup(stamp)
            if found.odom_T_base is not None \
                    and abs(found.odom_T_base[0, 3] - stamp / SECOND) > 1e-6:
                failures.append(f'{stamp}: {found}')

    newest = [0]
    thread = threading.Thread(target=read)
    thread.start()
    for i in range(1, 3000):
        stamp = i * SECOND // 200
        buffer.insert(stamp, UNIT, (stamp / SECOND, 0, 0))
        newest[0] = stamp
    done.set()
    thread.join()
    assert not failures
    assert len(buffer) == 50


@pytest.mark.parametrize('rate_hz', [2, 10, 30, 100, 400])
@pytest.mark.parametrize('acceleration', [-9.0, 3.0])
def test_braking_and_stamps_that_jitter_are_no_jump(rate_hz: int, acceleration: float) -> None:
    rng = np.random.default_rng(rate_hz)
    count = 3 * rate_hz
    buffer = PoseBuffer()
    for i in range(count):
        t = i / rate_hz
        # by the reception of the message: up to 5 ms late, sometimes two at once
        stamp_ns = round((t + 0.005 * rng.random()) * SECOND) + i
        x = 28 * t + acceleration * t**2 / 2 + rng.normal(0, 0.02)
        outcome = buffer.insert(stamp_ns, turn_z(rng.normal(0, 0.005)), (x, 0, 0))
        assert outcome in ('ok', 'out_of_order', 'duplicate')


@pytest.mark.parametrize(('rate_hz', 'hop', 'turn'), [
    (10, 3.0, 0.0), (10, -3.0, 0.0), (50, 1.0, 0.0), (10, 0.0, 1.5), (50, 0.0, -1.0)])
def test_odometry_that_is_set_to_another_place_jumps(rate_hz: int, hop: float,
                                                     turn: float) -> None:
    buffer = PoseBuffer()
    step = SECOND // rate_hz
    for i in range(20):
        assert buffer.insert(i * step, UNIT, (2.0 * i / rate_hz, 0, 0)) == 'ok'
    before = buffer.lookup(19 * step)
    place = (2.0 * 20 / rate_hz + hop, 0, 0)
    assert buffer.insert(20 * step, turn_z(turn), place) == 'jump'
    after = buffer.lookup(20 * step)
    assert (before.state, after.state) == ('ok', 'ok')
    assert before.epoch != after.epoch
    # what follows belongs to the new world
    assert buffer.insert(21 * step, turn_z(turn), place) == 'ok'
    assert buffer.lookup(20 * step + 1).epoch == after.epoch


def test_what_begins_a_new_epoch() -> None:
    buffer = filled()
    epochs = {buffer.lookup(stamp).epoch for stamp in (0, SECOND // 2, SECOND)}
    assert len(epochs) == 1
    first = epochs.pop()
    buffer.insert(2 * SECOND, turn_z(1.0), (2, 0, 0))  # a gap, but nobody starts again in 1 s
    assert buffer.lookup(2 * SECOND).epoch == first
    assert buffer.insert(5 * SECOND, turn_z(1.0), (2, 0, 0)) == 'pause'
    second = buffer.lookup(5 * SECOND)
    assert second.state == 'ok'
    assert second.epoch != first
    assert buffer.lookup(2 * SECOND).epoch == first
    assert buffer.lookup(3 * SECOND).state == 'gap'
    assert buffer.insert(0, UNIT, (0, 0, 0)) == 'reset'
    third = buffer.lookup(0).epoch
    buffer.clear()
    buffer.insert(0, UNIT, (0, 0, 0))
    assert len({first, second.epoch, third, buffer.lookup(0).epoch}) == 4


@pytest.mark.parametrize(('heading', 'linear', 'angular', 'state'), [
    (0.0, (10, 0, 0), (0, 0, 0), 'ok'),
    (np.pi / 2, (10, 0, 0), (0, 0, 0), 'ok'),
    (np.pi / 2, (0, 10, 0), (0, 0, 0), 'bad_twist'),  # velocity in odom, not in the base
    (0.0, (0, 0, 0), (0, 0, 0), 'bad_twist'),  # never set
    (0.0, (36, 0, 0), (0, 0, 0), 'bad_twist'),  # km/h
    (0.0, (10, 0, 0), (0, 0, 2.0), 'bad_twist'),  # the poses do not turn
    (0.0, (9, 0.2, 0), (0, 0, 0.1), 'ok'),
])
def test_a_twist_that_contradicts_the_poses_is_not_used(heading: float, linear: tuple,
                                                        angular: tuple, state: str) -> None:
    buffer = PoseBuffer()
    way = np.array([np.cos(heading), np.sin(heading), 0])
    for i in range(20):
        buffer.insert(i * SECOND // 50, turn_z(heading), 10 * i / 50 * way, linear, angular)
    found = buffer.lookup(19 * SECOND // 50 + SECOND // 25)
    assert found.state == state
    if state == 'ok':
        np.testing.assert_allclose(found.odom_T_base[:3, 3], (10 * 19 / 50 + 0.4) * way, atol=0.05)


def test_the_bound_of_extrapolation() -> None:
    for bound_s, state in ((0.03, 'waiting'), (0.04, 'ok'), (0.0, 'waiting')):
        buffer = filled(max_extrapolation_s=bound_s)
        assert buffer.lookup(SECOND + SECOND // 25).state == state
    assert filled(max_extrapolation_s=0.0).lookup(SECOND).state == 'ok'


def test_the_course_does_not_reach_back_across_a_pause() -> None:
    buffer = filled()
    standing = (0.0, 0, 0), (0, 0, 0)
    assert buffer.insert(4 * SECOND, UNIT, (80, 0, 0), *standing) == 'pause'
    # 27 m/s from before it, standing by its twist: nothing is known against the twist
    assert buffer.lookup(4 * SECOND + SECOND // 25).state == 'ok'
