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
"""Odometry messages to camera poses: mounting, waiting, jumps."""
from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
import threading
import time

import numpy as np
import pytest
from ros_messages import odometry

from hybrid_depth.poses import make_pose
from hybrid_depth_ros.extrinsics import Extrinsics
from hybrid_depth_ros.parameters import make_settings, PARAMETERS, Settings
from hybrid_depth_ros.pose_source import ODOMETRY_STATES, PoseSource

OPTICAL = [-0.5, 0.5, -0.5, 0.5]  # base_link (x forward, z up) -> optical (z forward, y down)
MS = 1_000_000


def settings(**values: object) -> Settings:
    given = {name.replace('__', '.'): value for name, value in values.items()}
    return make_settings({**{row.name: row.default for row in PARAMETERS}, **given})


def patient(**values: object) -> Settings:
    """Return settings that wait a minute, so that a busy machine is not taken for waiting."""
    given = settings(**values)
    return replace(given, values={**given.values, 'odom.max_wait_ms': 60e3})


class NoTransforms:

    def lookup(self, target: str, source: str) -> np.ndarray | None:
        return None


class MountedAhead(NoTransforms):

    def lookup(self, target: str, source: str) -> np.ndarray | None:
        return make_pose([0, 0, 0, 1], [9.0, 0, 0]) if target == 'base_link' else None


def source_of(given: Settings, transforms: object, model_kind: str = 'posed') -> PoseSource:
    return PoseSource(Extrinsics(given, transforms).lookup, lambda: given, model_kind)


def moving(child: str, given: Settings, transforms: object,
           model_kind: str = 'posed') -> PoseSource:
    """Return a source with odometry at 1.0 s and 1.1 s, 1 m apart."""
    source = source_of(given, transforms, model_kind)
    source.add(odometry(1000 * MS, 1.0, child))
    source.add(odometry(1100 * MS, 2.0, child))
    return source


def x_at(source: PoseSource, stamp_ns: int) -> float | None:
    """Return how far the camera is, in metres, or None."""
    pose = source.camera_pose(stamp_ns, 'camera').odom_T_camera
    return None if pose is None else round(float(pose[0, 3]), 6)


def state_of(source: PoseSource) -> str:
    return source.facts()['odometry.state'].split(':')[0]


def test_mounting_from_parameters() -> None:
    source = moving('base_link', settings(extrinsic__translation=[0.5, 0.0, 1.5],
                                          extrinsic__rotation=OPTICAL), NoTransforms())
    pose = source.camera_pose(1050 * MS, 'camera').odom_T_camera
    np.testing.assert_allclose(pose[:3, 3], [2.0, 0.0, 1.5])
    np.testing.assert_allclose(pose[:3, 2], [1.0, 0.0, 0.0], atol=1e-12)  # looks forward
    np.testing.assert_allclose(pose[:3, 1], [0.0, 0.0, -1.0], atol=1e-12)  # y is down


def test_tf_comes_before_parameters() -> None:
    source = moving('base_link', settings(extrinsic__rotation=OPTICAL), MountedAhead())
    assert x_at(source, 1000 * MS) == 10.0


def test_tf_that_comes_late_replaces_the_parameters() -> None:
    class Late(MountedAhead):
        is_here = False

        def lookup(self, target: str, source: str) -> np.ndarray | None:
            return super().lookup(target, source) if self.is_here else None
    transforms = Late()
    source = moving('base_link', settings(extrinsic__rotation=OPTICAL), transforms)
    before = source.camera_pose(1000 * MS, 'camera')
    transforms.is_here = True
    after = source.camera_pose(1000 * MS, 'camera')
    assert (before.odom_T_camera[0, 3], after.odom_T_camera[0, 3]) == (1.0, 10.0)
    assert before.epoch != after.epoch


def test_odometry_of_the_camera_itself_needs_no_mounting() -> None:
    assert x_at(moving('camera', settings(), NoTransforms()), 1000 * MS) == 1.0


def test_which_way_is_down() -> None:
    tilted = make_pose([-0.5, 0.5, -0.5, 0.5], [0, 0, 1.5]) @ make_pose(
        [np.sin(-0.1), 0, 0, np.cos(0.1)], [0, 0, 0])  # 0.2 rad to the ground

    class Tilted(NoTransforms):

        def lookup(self, target: str, source: str) -> np.ndarray | None:
            return tilted if target == 'base_link' else None

    def down(source: PoseSource) -> np.ndarray | None:
        return source.camera_pose(1050 * MS, 'camera').down_camera
    level = settings(extrinsic__rotation=OPTICAL)
    np.testing.assert_allclose(down(moving('base_link', level, NoTransforms())), [0, 1, 0],
                               atol=1e-12)
    # a camera that looks at the ground sees it ahead: down has a part along +z
    expected = [0, np.cos(0.2), np.sin(0.2)]
    for source in (moving('base_link', settings(), Tilted()),
                   moving('camera', settings(), Tilted()),  # odometry of the camera itself
                   source_of(settings(), Tilted())):  # no odometry at all
        np.testing.assert_allclose(down(source), expected, atol=1e-12)
    assert down(moving('camera', settings(), NoTransforms())) is None


def test_waits_for_late_odometry_but_not_longer() -> None:
    source = moving('camera', patient(), NoTransforms())
    late = threading.Timer(0.05, lambda: source.add(odometry(1300 * MS, 4.0, 'camera')))
    late.start()
    assert x_at(source, 1200 * MS) == 3.0
    source = moving('camera', settings(odom__max_wait_ms=150.0), NoTransforms())
    start = time.monotonic()
    assert x_at(source, 1400 * MS) is None
    assert 0.14 < time.monotonic() - start < 10.0
    assert state_of(source) == 'waiting'


@pytest.mark.parametrize(('kind', 'use', 'reason'), [
    ('single_frame', True, 'single images'), ('posed', False, 'odom.use')])
def test_nothing_waits_for_a_pose_that_is_not_used(kind: str, use: bool, reason: str) -> None:
    source = moving('camera', patient(odom__use=use), NoTransforms(), kind)
    start = time.monotonic()
    assert x_at(source, 1250 * MS) is None
    assert time.monotonic() - start < 10.0
    assert state_of(source) == 'waiting'
    assert reason in source.facts()['odometry.use']
    assert x_at(source, 1050 * MS) == 1.5
    assert moving('camera', settings(), NoTransforms()).facts()['odometry.use'] == 'yes'


def test_a_twist_stands_in_within_its_bound() -> None:
    def drive(bound_ms: float) -> PoseSource:
        source = source_of(settings(odom__max_wait_ms=0.0, odom__max_extrapolation_ms=bound_ms),
                           NoTransforms())
        for i in range(3):
            message = odometry((1000 + 100 * i) * MS, i, 'camera')
            message.twist.twist.linear.x = 10.0
            source.add(message)
        return source
    assert x_at(drive(40.0), 1240 * MS) == 2.4
    assert x_at(drive(40.0), 1241 * MS) is None
    assert x_at(drive(0.0), 1201 * MS) is None


def test_a_twist_that_was_never_set_is_reported() -> None:
    source = moving('camera', settings(odom__max_wait_ms=0.0), NoTransforms())
    assert x_at(source, 1130 * MS) is None
    assert state_of(source) == 'bad_twist'


def test_closing_ends_the_wait() -> None:
    source = moving('camera', patient(), NoTransforms())
    source.close()
    start = time.monotonic()
    assert x_at(source, 1300 * MS) is None
    assert time.monotonic() - start < 10.0


@pytest.mark.parametrize(('stamp_ns', 'state'), [(900 * MS, 'too_old'), (3000 * MS, 'stale')])
def test_outside_odometry(stamp_ns: int, state: str) -> None:
    source = moving('camera', settings(), NoTransforms())
    assert x_at(source, stamp_ns) is None
    assert source.facts()['odometry.state'] == f'{state}: {ODOMETRY_STATES[state]}'


@pytest.mark.parametrize(('offset_s', 'x'), [(0.0, 1.5), (0.02, 1.3), (-0.02, 1.7), (5.0, None)])
def test_the_offset_is_added_to_the_stamps_of_the_odometry(offset_s: float,
                                                           x: float | None) -> None:
    source = moving('camera', settings(odom__time_offset_s=offset_s), NoTransforms())
    # odometry of 1.0 s and 1.1 s counts as of 1.0 s + offset and 1.1 s + offset
    assert x_at(source, 1050 * MS) == x


def test_the_offset_is_found_by_trying() -> None:
    given = [settings()]
    source = PoseSource(Extrinsics(given[0], NoTransforms()).lookup, lambda: given[0], 'posed')
    source.add(odometry(1000 * MS, 1.0, 'camera'))
    source.add(odometry(1100 * MS, 2.0, 'camera'))
    first = source.camera_pose(1050 * MS, 'camera').epoch
    assert source.camera_pose(1060 * MS, 'camera').epoch == first
    given[0] = settings(odom__time_offset_s=0.02)
    assert x_at(source, 1060 * MS) == 1.4
    assert source.camera_pose(1060 * MS, 'camera').epoch != first


def test_waiting_is_by_the_clock_of_the_odometry() -> None:
    source = moving('camera', settings(odom__time_offset_s=-100.0 / 1e3, odom__max_wait_ms=150.0),
                    NoTransforms())
    threading.Timer(0.03, lambda: source.add(odometry(1300 * MS, 4.0, 'camera'))).start()
    assert x_at(source, 1100 * MS) == 3.0  # the odometry of 1.2 s


def epoch_after(source: PoseSource, *messages: object) -> int:
    """Return the epoch at the last message, which must give a pose."""
    for message in messages:
        source.add(message)
    stamp = messages[-1].header.stamp
    pose = source.camera_pose(stamp.sec * 10**9 + stamp.nanosec, 'camera')
    assert pose.odom_T_camera is not None
    return pose.epoch


def test_a_new_world_has_a_new_epoch() -> None:
    source = source_of(settings(), NoTransforms())
    messages = [odometry((1000 + 100 * i) * MS, 0.1 * i, 'camera') for i in range(3)]
    first = epoch_after(source, *messages)
    assert epoch_after(source, odometry(1300 * MS, 0.3, 'camera')) == first
    elsewhere = odometry(5100 * MS, 0.1, 'camera')
    elsewhere.header.frame_id = 'map'
    assert len({
        first,
        epoch_after(source, odometry(1350 * MS, 3.3, 'camera')),  # set to another place
        epoch_after(source, odometry(100 * MS, 0.0, 'camera')),  # starts again
        epoch_after(source, odometry(5000 * MS, 0.1, 'camera')),  # after silence
        epoch_after(source, elsewhere),
    }) == 5
    facts = source.facts()
    assert [facts[f'odometry.{key}'] for key in ('jump', 'reset', 'pause')] == ['1', '1', '1']
    assert facts['odometry.frame_change'] == '1'


def test_another_session_has_another_epoch() -> None:
    epochs = [moving('camera', settings(), NoTransforms()).camera_pose(1050 * MS, 'camera').epoch
              for _ in range(2)]
    assert epochs[0] != epochs[1]


def test_jump_and_loop_are_counted() -> None:
    source = moving('camera', settings(), NoTransforms())
    source.add(odometry(1200 * MS, 500.0, 'camera'))
    source.add(odometry(1200 * MS, 500.0, 'camera'))
    source.add(odometry(1150 * MS, 500.0, 'camera'))
    source.add(odometry(10 * MS, 0.0, 'camera'))
    facts = source.facts()
    assert (facts['odometry.jump'], facts['odometry.out_of_order'], facts['odometry.reset']) == \
        ('1', '1', '1')


@pytest.mark.parametrize('w', [0.0, 0.9, float('nan')])
def test_an_orientation_that_is_none_costs_a_message_only(w: float) -> None:
    source = moving('camera', settings(), NoTransforms())
    source.add(odometry(1150 * MS, 2.5, 'camera', w=w))
    assert source.facts()['odometry.rejected'] == '1'
    assert x_at(source, 1050 * MS) == 1.5


def test_image_that_goes_back_keeps_odometry_of_the_new_lap() -> None:
    source = moving('camera', settings(), NoTransforms())
    source.image_arrived(60_000 * MS)
    source.image_arrived(1050 * MS)  # odometry had started again before it
    assert x_at(source, 1050 * MS) is not None
    source.image_arrived(10 * MS)  # now odometry is ahead
    assert x_at(source, 1050 * MS) is None


@pytest.mark.skipif(find_spec('tf2_ros') is None, reason='tf2_ros is not installed')
def test_static_transforms_over_a_chain(ros: None) -> None:
    from geometry_msgs.msg import TransformStamped
    import rclpy
    from tf2_msgs.msg import TFMessage

    from hybrid_depth_ros.extrinsics import Transforms
    node = rclpy.create_node('transforms')
    transforms = Transforms(node)
    links = []
    for parent, child, x in (('base_link', 'mast', 1.0), ('mast', 'camera', 0.5)):
        link = TransformStamped(child_frame_id=child)
        link.header.frame_id = parent
        link.transform.translation.x = x
        link.transform.rotation.w = 1.0
        links.append(link)
    assert transforms.lookup('base_link', 'camera') is None
    transforms._on_static_transforms(TFMessage(transforms=links))
    np.testing.assert_allclose(transforms.lookup('base_link', 'camera')[:3, 3], [1.5, 0, 0])
    transforms.close()
    node.destroy_node()
