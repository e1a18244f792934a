# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Odometry messages to camera poses: mounting, waiting, jumps."""
from __future__ import annotations

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


class NoTransforms:
    def lookup(self, target: str, source: str) -> np.ndarray | None:
        return None


class MountedAhead(NoTransforms):
    def lookup(self, target: str, source: str) -> np.ndarray | None:
        return make_pose([0, 0, 0, 1], [9.0, 0, 0]) if target == 'base_link' else None


def moving(child: str, *extrinsics: object) -> PoseSource:
    """Return a source with odometry at 1.0 s and 1.1 s, 1 m apart."""
    source = PoseSource(Extrinsics(*extrinsics).lookup, 0.3)
    source.add(odometry(1000 * MS, 1.0, child))
    source.add(odometry(1100 * MS, 2.0, child))
    return source


def test_mounting_from_parameters() -> None:
    source = moving('base_link', settings(extrinsic__translation=[0.5, 0.0, 1.5],
                                          extrinsic__rotation=OPTICAL), NoTransforms())
    pose = source.pose_at(1050 * MS, 'camera', 0.0)
    np.testing.assert_allclose(pose[:3, 3], [2.0, 0.0, 1.5])
    np.testing.assert_allclose(pose[:3, 2], [1.0, 0.0, 0.0], atol=1e-12)  # looks forward
    np.testing.assert_allclose(pose[:3, 1], [0.0, 0.0, -1.0], atol=1e-12)  # y is down


def test_tf_comes_before_parameters() -> None:
    source = moving('base_link', settings(extrinsic__rotation=OPTICAL), MountedAhead())
    np.testing.assert_allclose(source.pose_at(1000 * MS, 'camera', 0.0)[:3, 3], [10.0, 0, 0])


def test_odometry_of_the_camera_itself_needs_no_mounting() -> None:
    source = moving('camera', settings(), NoTransforms())
    np.testing.assert_allclose(source.pose_at(1000 * MS, 'camera', 0.0)[:3, 3], [1.0, 0, 0])


def test_waits_for_late_odometry_but_not_longer() -> None:
    source = moving('camera', settings(), NoTransforms())
    late = threading.Timer(0.05, lambda: source.add(odometry(1300 * MS, 4.0, 'camera')))
    late.start()
    np.testing.assert_allclose(source.pose_at(1200 * MS, 'camera', 2000.0)[:3, 3], [3.0, 0, 0])
    start = time.monotonic()
    assert source.pose_at(1400 * MS, 'camera', 30.0) is None
    assert 0.025 < time.monotonic() - start < 1.0
    assert source.facts()['odometry.state'].startswith('waiting')


def test_closing_ends_the_wait() -> None:
    source = moving('camera', settings(), NoTransforms())
    threading.Timer(0.05, source.close).start()
    start = time.monotonic()
    assert source.pose_at(1300 * MS, 'camera', 5000.0) is None
    assert time.monotonic() - start < 2.0


@pytest.mark.parametrize(('stamp_ns', 'state'), [(900 * MS, 'too_old'), (3000 * MS, 'stale')])
def test_outside_odometry(stamp_ns: int, state: str) -> None:
    source = moving('camera', settings(), NoTransforms())
    assert source.pose_at(stamp_ns, 'camera', 0.0) is None
    assert source.facts()['odometry.state'] == f'{state}: {ODOMETRY_STATES[state]}'


def test_jump_and_loop_are_counted() -> None:
    source = moving('camera', settings(), NoTransforms())
    source.add(odometry(1200 * MS, 500.0, 'camera'))
    source.add(odometry(1200 * MS, 500.0, 'camera'))
    source.add(odometry(1150 * MS, 500.0, 'camera'))
    source.add(odometry(10 * MS, 0.0, 'camera'))
    facts = source.facts()
    assert (facts['odometry.jump'], facts['odometry.out_of_order'], facts['odometry.reset']) == \
        ('1', '1', '1')


def test_image_that_goes_back_keeps_odometry_of_the_new_lap() -> None:
    source = moving('camera', settings(), NoTransforms())
    source.image_arrived(60_000 * MS)
    source.image_arrived(1050 * MS)  # odometry had started again before it
    assert source.pose_at(1050 * MS, 'camera', 0.0) is not None
    source.image_arrived(10 * MS)  # now odometry is ahead
    assert source.pose_at(1050 * MS, 'camera', 0.0) is None


@pytest.mark.skipif(find_spec('tf2_ros') is None, reason='tf2_ros is not installed')
def test_static_transforms_over_a_chain(ros: None) -> None:
    from geometry_msgs.msg import TransformStamped
    import rclpy
    from tf2_msgs.msg import TFMessage

    from hybrid_depth_ros.extrinsics import StaticTransforms
    node = rclpy.create_node('transforms')
    transforms = StaticTransforms(node)
    links = []
    for parent, child, x in (('base_link', 'mast', 1.0), ('mast', 'camera', 0.5)):
        link = TransformStamped(child_frame_id=child)
        link.header.frame_id = parent
        link.transform.translation.x = x
        link.transform.rotation.w = 1.0
        links.append(link)
    assert transforms.lookup('base_link', 'camera') is None
    transforms._on_transforms(TFMessage(transforms=links))
    np.testing.assert_allclose(transforms.lookup('base_link', 'camera')[:3, 3], [1.5, 0, 0])
    transforms.close()
    node.destroy_node()
