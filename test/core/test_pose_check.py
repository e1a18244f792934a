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
"""Views of a street of painted planes, rendered exactly for any pose; and a real recording."""
from __future__ import annotations

from collections.abc import Callable
import functools
from pathlib import Path

import cv2
import numpy as np
import pytest

from hybrid_depth.camera import CameraModel
from hybrid_depth.drives import open_drive
from hybrid_depth.keyframes import Keyframes
from hybrid_depth.matching import small_map, thumbnail
from hybrid_depth.pose_check import fit_motion, PoseCheck, PoseChecker, PoseCheckRules
from hybrid_depth.poses import inverse

CAMERA = CameraModel(160, 48, 93.0, 93.0, 79.5, 22.0)
RAYS = CAMERA.rays()
RULES = PoseCheckRules()
# base_link (x forward, y left, z up) from optical (x right, y down, z forward)
BASE_T_OPTICAL = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]], float)


def turned(axis: str, degrees: float) -> np.ndarray:
    result = np.eye(4)
    result[:3, :3] = cv2.Rodrigues(np.radians(degrees) * np.eye(3)['xyz'.index(axis)])[0]
    return result


@functools.lru_cache(maxsize=64)
def _view(key: bytes) -> tuple[np.ndarray, np.ndarray]:
    world_T_camera = np.frombuffer(key).reshape(4, 4)
    directions = np.concatenate([RAYS, np.ones((*RAYS.shape[:2], 1))], axis=-1) \
        @ world_T_camera[:3, :3].T
    origin = world_T_camera[:3, 3]
    depth = np.full(RAYS.shape[:2], np.inf)
    # ground, walls left and right, a house at the end
    for axis, offset in ((1, 1.6), (0, -7.0), (0, 7.0), (2, 45.0)):
        with np.errstate(divide='ignore'):
            along = (offset - origin[axis]) / directions[..., axis]
        depth = np.where((along > 0) & (along < depth), along, depth)
    X, Y, Z = np.moveaxis(origin + depth[..., None] * directions, -1, 0)
    paint = sum(np.sin(a * X + b * Y + c * Z + d) for a, b, c, d in (
        (1.9, 1.1, 0.7, 0.0), (0.6, 2.3, 1.3, 1.0), (-1.2, 0.4, 1.9, 2.0), (0.3, -1.7, 0.5, 3.0),
        (3.1, 2.9, -2.3, 4.0)))
    grey = np.clip(125 + 22 * paint, 0, 255).astype(np.uint8)
    return grey, depth.astype(np.float32)


def view(world_T_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return grey (48, 160) uint8 and depth (48, 160) of the street from a pose."""
    return _view(np.ascontiguousarray(world_T_camera, float).tobytes())


def drive_poses(count: int = 20, step: float = 0.8) -> list[np.ndarray]:
    """Return poses of a camera that drives forward in a gentle curve, optical axes."""
    poses = [np.eye(4)]
    for _ in range(count - 1):
        motion = turned('y', 0.4)
        motion[2, 3] = step
        poses.append(poses[-1] @ motion)
    return poses


def check_drive(wrong: Callable[[np.ndarray], np.ndarray] = lambda T: T,
                paint: Callable[[np.ndarray, int], np.ndarray] = lambda grey, index: grey,
                poses: list[np.ndarray] | None = None, depth_factor: float = 1.0,
                checker: PoseChecker | None = None) -> list[PoseCheck]:
    """Check each frame against the one before, with what ``wrong`` makes of the true poses."""
    checker = checker or PoseChecker()
    poses = drive_poses() if poses is None else poses
    results = []
    for index in range(1, len(poses)):
        before, now = poses[index - 1], poses[index]
        grey, depth = view(now)
        results.append(checker.update(
            paint(grey, index), paint(view(before)[0], index - 1),
            inverse(wrong(before)) @ wrong(now), depth * np.float32(depth_factor), RAYS,
            index * 100_000_000))
    return results


def test_right_poses_are_ok() -> None:
    results = check_drive()
    assert [result.verdict for result in results[RULES.window_min - 1:]] == \
        ['ok'] * (20 - RULES.window_min)
    last = results[-1]
    assert last.error < 0.6 * last.error_unmoved
    assert last.misfit < 0.05
    assert last.direction_deg < 1.0
    assert last.scale_ratio == pytest.approx(1.0, abs=0.05)
    assert (last.fault, last.reason) == ('', '')


def test_nothing_is_said_before_enough_frames() -> None:
    results = check_drive()
    early = results[:RULES.window_min - 1]
    assert {result.verdict for result in early} == {'unknown'}
    assert {result.frame_verdict for result in early} == {'ok'}


WRONG = {
    'tilted by 5 degrees': lambda T: T @ turned('x', 5),
    'tilted by 10 degrees': lambda T: T @ turned('x', -10),
    'looks 7 degrees aside': lambda T: T @ turned('y', 7),
    'looks 10 degrees aside': lambda T: T @ turned('y', -10),
    'optical axes taken for base_link': lambda T: T @ inverse(BASE_T_OPTICAL),
    'extrinsic inverted': lambda T: T @ inverse(BASE_T_OPTICAL) @ inverse(BASE_T_OPTICAL),
    'poses inverted': inverse,
    'looks backward': lambda T: T @ turned('y', 180),
}


@pytest.mark.parametrize('name', WRONG)
def test_wrong_poses_are_found_within_a_second(name: str) -> None:
    results = check_drive(WRONG[name])
    assert {result.verdict for result in results[9:]} == {'inconsistent'}
    small = 'by 5' in name or 'aside' in name
    assert {result.fault for result in results[9:]} <= \
        ({'motion', 'direction'} if small else {'motion'})
    assert 'mounting of the camera' in results[-1].reason


def test_the_direction_that_is_off_is_measured() -> None:
    assert check_drive(WRONG['tilted by 5 degrees'])[-1].direction_deg == pytest.approx(5, abs=0.7)
    aside = check_drive(WRONG['looks 10 degrees aside'])[-1]
    assert aside.direction_deg == pytest.approx(10, abs=1.5)


@pytest.mark.parametrize('factor', [0.5, 2.0])
def test_a_wrong_length_of_the_way_is_a_fault_of_its_own(factor: float) -> None:
    def scaled(T: np.ndarray) -> np.ndarray:
        result = T.copy()
        result[:3, 3] *= factor
        return result
    for results in (check_drive(scaled), check_drive(depth_factor=1 / factor)):
        assert {result.fault for result in results[9:]} == {'scale'}
        assert results[-1].scale_ratio == pytest.approx(1 / factor, rel=0.05)
        assert 'as far' in results[-1].reason


@pytest.mark.parametrize('factor', [0.8, 1.25])
def test_the_scale_error_of_a_good_network_is_no_fault(factor: float) -> None:
    results = check_drive(depth_factor=factor)
    assert {result.fault for result in results} == {''}


@pytest.mark.parametrize('paint', [
    lambda grey, index: np.clip(grey * (0.6 + 0.05 * (index % 7)), 0, 255).astype(np.uint8),
    lambda grey, index: np.clip(grey.astype(int) + 15 * (-1) ** index, 0, 255).astype(np.uint8),
    lambda grey, index: (255 * (grey / 255) ** (0.7 + 0.1 * (index % 6))).astype(np.uint8),
    lambda grey, index: cv2.add(grey, np.tile(np.linspace(0, 70, 160).astype(np.uint8), (48, 1))),
])
def test_light_may_change(paint: Callable) -> None:
    assert check_drive(paint=paint)[-1].verdict == 'ok'
    assert check_drive(WRONG['tilted by 5 degrees'], paint)[-1].verdict == 'inconsistent'


def test_a_roll_about_the_direction_of_travel_is_not_seen() -> None:
    straight = [np.eye(4) for _ in range(15)]
    for index, pose in enumerate(straight):
        pose[2, 3] = 0.8 * index
    assert check_drive(lambda T: T @ turned('z', 10), poses=straight)[-1].verdict == 'ok'


@pytest.mark.parametrize(('paint', 'step'), [
    (lambda grey, index: np.full_like(grey, 90), 0.8),  # fog
    (lambda grey, index: grey, 0.0),  # standing
    (lambda grey, index: grey, 0.01),
])
def test_without_texture_or_motion_nothing_is_known(paint: Callable, step: float) -> None:
    poses = [np.eye(4) for _ in range(12)]
    for index, pose in enumerate(poses):
        pose[2, 3] = step * index
    for wrong in (lambda T: T, WRONG['tilted by 10 degrees'], inverse):
        results = check_drive(wrong, paint, poses)
        assert {result.verdict for result in results} == {'unknown'}
        assert {result.fault for result in results} == {''}


def test_the_verdict_stays_while_nothing_can_be_told_and_changes_with_new_evidence() -> None:
    checker = PoseChecker()
    check_drive(WRONG['tilted by 10 degrees'], checker=checker)
    standing = check_drive(poses=[np.eye(4)] * 30, checker=checker)
    assert {result.verdict for result in standing} == {'inconsistent'}
    assert {result.frame_verdict for result in standing} == {'unknown'}
    assert check_drive(checker=checker)[-1].verdict == 'ok'
    checker.reset()
    assert check_drive(checker=checker)[0].verdict == 'unknown'


def test_depth_with_holes_and_without_any() -> None:
    poses = drive_poses(2)
    (source, _), (target, depth) = (view(pose) for pose in poses)
    motion = inverse(poses[0]) @ poses[1]
    holes = depth.copy()
    holes[::2] = np.nan
    holes[:, ::5] = np.inf
    assert fit_motion(target, source, motion, holes, RAYS).error < 0.4
    nothing = fit_motion(target, source, motion, np.full_like(depth, np.nan), RAYS)
    assert nothing.source_T_target is None
    assert nothing.texture == 0


def test_the_best_motion_is_the_true_one() -> None:
    poses = drive_poses(2)
    (source, _), (target, depth) = (view(pose) for pose in poses)
    true = inverse(poses[0]) @ poses[1]
    start = true @ turned('x', 0.7)
    start[:3, 3] += (0.1, 0.05, -0.2)
    found = fit_motion(target, source, start, depth, RAYS).source_T_target
    assert found is not None
    np.testing.assert_allclose(found[:3, 3], true[:3, 3], atol=0.03)
    np.testing.assert_allclose(found[:3, :3], true[:3, :3], atol=2e-3)


@pytest.fixture(scope='module')
def handheld(shared_data: Path) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return grey, depth and pose of real frames, and their camera's rays last."""
    drive = open_drive(shared_data / 'hololens_rgbd')
    frames = []
    for index in range(40, 68):
        frame = drive.frame(index)
        depth = np.full(frame.image_rgb.shape[:2], np.nan, np.float32) \
            if frame.depth_m is None else frame.depth_m
        frames.append((thumbnail(frame.image_rgb, 5), small_map(depth, 5), frame.world_T_camera,
                       frame.camera.resized(108, 72).rays()))
    return frames


@pytest.mark.parametrize(('name', 'expected'), [
    ('right', 'ok'), ('tilted by 10 degrees', 'inconsistent'),
    ('looks 10 degrees aside', 'inconsistent'),
    ('optical axes taken for base_link', 'inconsistent'), ('poses inverted', 'inconsistent'),
    ('extrinsic inverted', 'inconsistent')])
def test_on_a_real_recording(handheld: list, name: str, expected: str) -> None:
    wrong = WRONG.get(name, lambda T: T)
    keyframes, checker = Keyframes(), PoseChecker()
    known = 2.0  # metres, of frames without depth
    check = None
    for index, (grey, depth, world_T_camera, rays) in enumerate(handheld):
        pose, stamp_ns = wrong(world_T_camera), index * 100_000_000
        sources = keyframes.choose(stamp_ns, pose, 2)
        if sources and np.isfinite(depth).any():
            check = checker.update(grey, sources[0].keyframe.thumbnail,
                                   sources[0].source_T_target, depth, rays, stamp_ns)
        filled = np.where(np.isfinite(depth), depth, np.float32(known))
        keyframes.add(stamp_ns, pose, None, grey, filled, rays)
    assert check is not None
    assert check.verdict == expected
