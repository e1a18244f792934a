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
"""Poses of a bag: odometry between samples, the mounting in /tf_static, and what is missing."""
from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rosbags', reason='rosbags is not installed')

from tiny_bags import (
    CAMERA_FRAME,
    camera_info,
    camera_messages,
    HEIGHT,
    image,
    odometry,
    open_messages,
    PERIOD_NS,
    picture,
    STAMPS,
    START_NS,
    transforms,
    WIDTH,
)

OPTICAL = (-0.5, 0.5, -0.5, 0.5)


def moving(*skip: int) -> list[tuple[str, Any]]:
    return [('/odom', odometry(START_NS + (index - 1) * PERIOD_NS, (index - 1.0, 0.0, 0.0)))
            for index in range(6) if index not in skip]


@pytest.mark.parametrize(('extra', 'words'), [
    ([], 'no nav_msgs/Odometry'),
    (moving(), "/tf_static does not connect 'base_link'"),
    ([*moving(), ('/tf_static', transforms(('map', CAMERA_FRAME, (0, 0, 0), OPTICAL)))],
     f"with '{CAMERA_FRAME}'"),
])
def test_poses_left_out_with_the_reason(tmp_path: Path, caplog, extra: list, words: str) -> None:
    caplog.set_level(logging.INFO)
    drive = open_messages(tmp_path, [*camera_messages(), *extra])
    assert [frame.world_T_camera for frame in drive] == [None] * 4
    lines = [record.message for record in caplog.records
             if record.message.startswith('poses are left out')]
    assert len(lines) == 1
    assert words in lines[0]


def test_two_frames_without_a_name_are_not_the_same(tmp_path: Path, caplog) -> None:
    nameless = camera_info(STAMPS[0], WIDTH, HEIGHT)
    nameless.header.frame_id = ''
    drive = open_messages(tmp_path, [
        ('/camera_info', nameless), ('/image', image(STAMPS[0], picture(0), frame_id='')),
        ('/odom', odometry(STAMPS[0], (1, 2, 3), child=''))])
    assert drive.frame(0).world_T_camera is None
    assert 'poses are left out' in caplog.text


def test_mounting_from_the_camera_down_to_the_base(tmp_path: Path) -> None:
    # the camera is the parent, as where a sensor head carries the tree; base 2 m behind it
    drive = open_messages(tmp_path, [
        *camera_messages(), *moving(),
        ('/tf_static', transforms((CAMERA_FRAME, 'head', (0, 0, -2.0), (0.5, -0.5, 0.5, 0.5)))),
        ('/tf_static', transforms(('base_link', 'head', (0.5, 0, 0), (0, 0, 0, 1))))])
    np.testing.assert_allclose(drive.frame(0).world_T_camera, [
        [0, 0, 1, 2.5], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]], atol=1e-9)


def test_moving_transforms_are_no_mounting(tmp_path: Path) -> None:
    drive = open_messages(tmp_path, [
        *camera_messages(), *moving(),
        ('/tf', transforms(('base_link', CAMERA_FRAME, (0, 0, 0), OPTICAL)))])
    assert drive.frame(0).world_T_camera is None


def test_odometry_out_of_order(tmp_path: Path) -> None:
    drive = open_messages(tmp_path, [*camera_messages(), *(
        ('/vio', odometry(STAMPS[index], (0, 0, float(index)), child=CAMERA_FRAME))
        for index in (1, 0, 3, 2))], is_one_burst=True)
    assert [frame.world_T_camera[2, 3] for frame in drive] == [0, 1, 2, 3]


def test_odometry_of_the_camera_itself_needs_no_mounting(tmp_path: Path) -> None:
    drive = open_messages(tmp_path, [*camera_messages(), *(
        ('/vio', odometry(stamp_ns, (0, 0, float(index)), child='/' + CAMERA_FRAME))
        for index, stamp_ns in enumerate(STAMPS))])
    assert [frame.world_T_camera[2, 3] for frame in drive] == [0, 1, 2, 3]


def test_rotation_is_interpolated_on_the_arc(tmp_path: Path) -> None:
    half = np.sqrt(0.5)
    drive = open_messages(tmp_path, [
        *camera_messages(),
        ('/vio', odometry(STAMPS[0] - PERIOD_NS, (0, 0, 0), (0, 0, 0, 1), CAMERA_FRAME)),
        # 90 degrees about z, with the sign that is the long way round
        ('/vio', odometry(STAMPS[0] + PERIOD_NS, (0, 0, 0), (0, 0, -half, -half), CAMERA_FRAME))])
    np.testing.assert_allclose(drive.frame(0).world_T_camera[:2, :2],
                               [[half, -half], [half, half]], atol=1e-12)


def test_no_pose_outside_the_odometry_or_across_a_jump(tmp_path: Path, caplog) -> None:
    samples = [(-30, 0.0), (70, 0.1), (170, 500.0), (270, 500.1)]  # ms after the first image, m
    drive = open_messages(tmp_path, [*camera_messages(), *(
        ('/vio', odometry(START_NS + ms * 10**6, (x, 0, 0), child=CAMERA_FRAME))
        for ms, x in samples)])
    x = [None if frame.world_T_camera is None else frame.world_T_camera[0, 3] for frame in drive]
    assert x[0] == pytest.approx(0.03)
    assert x[1] is None  # between 70 and 170 ms the odometry jumps
    assert x[2] == pytest.approx(500.03)
    assert x[3] is None  # after its end
    assert 'jumps 1 times' in caplog.text
    assert '2 of 4 frames have no pose' in caplog.text


def test_bad_odometry_costs_only_itself(tmp_path: Path, caplog) -> None:
    never_set = odometry(START_NS + 10, (0, 0, 0), (0, 0, 0, 0), CAMERA_FRAME)
    drive = open_messages(tmp_path, [*camera_messages(), ('/vio', never_set), *(
        ('/vio', odometry(stamp_ns, (1, 0, 0), child=CAMERA_FRAME)) for stamp_ns in STAMPS)])
    assert all(frame.world_T_camera[0, 3] == 1 for frame in drive)
    assert '1 odometry messages hold no pose' in caplog.text
