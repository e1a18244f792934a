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
"""A camera on a pan-tilt head: TF at the stamp of the image, waited for, and missing."""
from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
import threading
from types import SimpleNamespace
from typing import Any

from geometry_msgs.msg import TransformStamped
import numpy as np
import pytest
from rclpy.time import Time
from ros_messages import odometry, time_message

from hybrid_depth_ros import extrinsics
from hybrid_depth_ros.extrinsics import Extrinsics, Transforms
from hybrid_depth_ros.parameters import make_settings, PARAMETERS
from hybrid_depth_ros.pose_source import PoseSource

MS = 1_000_000


class TransformException(Exception):
    pass


class Buffer:
    """What is used of tf2_ros.Buffer, for one joint: nothing is known outside its stamps."""

    def __init__(self) -> None:
        self.known: dict[int, TransformStamped] = {}

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        self.known[transform.header.stamp.sec * 10**9
                   + transform.header.stamp.nanosec] = transform

    set_transform_static = set_transform

    def clear(self) -> None:
        self.known.clear()

    def lookup_transform(self, target: str, source: str, stamp: Time) -> TransformStamped:
        if (target, source) != ('base_link', 'camera') or stamp.nanoseconds not in self.known:
            raise TransformException
        return self.known[stamp.nanoseconds]


def joint(stamp_ns: int, x: float) -> Any:
    transform = TransformStamped(child_frame_id='camera')
    transform.header.frame_id = 'base_link'
    transform.header.stamp = time_message(stamp_ns)
    transform.transform.translation.x = x
    transform.transform.rotation.w = 1.0
    return SimpleNamespace(transforms=[transform])


class Node:

    def __init__(self) -> None:
        self.gone: list[Any] = []

    def destroy_subscription(self, subscription: Any) -> None:
        self.gone.append(subscription)


@pytest.fixture
def listened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Return the topics that are listened to, with tf2_ros as above."""
    topics: list[str] = []
    modules = {'tf2_ros': SimpleNamespace(Buffer=Buffer, TransformException=TransformException),
               'tf2_msgs.msg': SimpleNamespace(TFMessage=None)}
    monkeypatch.setattr(extrinsics, 'is_installed', lambda _: True)
    monkeypatch.setattr(extrinsics, 'import_module', modules.__getitem__)
    monkeypatch.setattr(extrinsics, 'listen',
                        lambda node, kind, topic, *more: topics.append(topic) or topic)
    return topics


def source_of(transforms: Transforms, **values: Any) -> PoseSource:
    given = make_settings({**{row.name: row.default for row in PARAMETERS},
                           'extrinsic.moving': True, 'odom.max_wait_ms': 200.0, **values})
    source = PoseSource(Extrinsics(given, transforms).lookup, lambda: given, 'posed')
    for step in range(3):
        source.add(odometry((1000 + 100 * step) * MS, float(step), 'base_link'))
    return source


def test_the_place_is_that_of_the_image_stamp(listened: list[str]) -> None:
    transforms = Transforms(Node(), is_moving=True)
    assert listened == ['/tf_static', '/tf']
    source = source_of(transforms)
    epochs = set()
    for stamp_ns, x in ((1000 * MS, 0.3), (1050 * MS, 0.4), (1100 * MS, 0.5)):
        transforms._on_transforms(joint(stamp_ns, x))
    for stamp_ns, x in ((1000 * MS, 0.3), (1050 * MS, 0.9), (1100 * MS, 1.5)):
        pose = source.camera_pose(stamp_ns, 'camera')
        assert pose.odom_T_camera[0, 3] == pytest.approx(x)
        np.testing.assert_allclose(pose.down_camera, [0, 0, -1])
        epochs.add(pose.epoch)
    assert len(epochs) == 1  # a head that turns does not cut the past off


def test_late_tf_is_waited_for(listened: list[str]) -> None:
    transforms = Transforms(Node(), is_moving=True)
    source = source_of(transforms)
    threading.Timer(0.05, transforms._on_transforms, [joint(1000 * MS, 0.3)]).start()
    assert source.camera_pose(1000 * MS, 'camera').odom_T_camera[0, 3] == pytest.approx(0.3)


def test_tf_that_never_comes_is_counted(listened: list[str]) -> None:
    transforms = Transforms(Node(), is_moving=True)
    # the parameters are those of another place of the head
    source = source_of(transforms, **{'odom.max_wait_ms': 20.0,
                                      'extrinsic.rotation': [0.0, 0.0, 0.0, 1.0]})
    for _ in range(2):
        assert source.camera_pose(1000 * MS, 'camera').odom_T_camera is None
    facts = source.facts()
    assert facts['odometry.no_tf'] == '2'
    assert facts['odometry.state'].startswith('no_tf')
    transforms._on_transforms(joint(1000 * MS, 0.3))
    assert source.camera_pose(1000 * MS, 'camera').odom_T_camera is not None
    assert source.facts()['odometry.state'].startswith('ok')


def test_closing_ends_the_wait(listened: list[str]) -> None:
    node = Node()
    transforms = Transforms(node, is_moving=True)
    threading.Timer(0.05, transforms.close).start()
    done = threading.Event()

    def wait() -> None:
        assert transforms.lookup_at('base_link', 'camera', 5, 300.0) is None
        done.set()
    threading.Thread(target=wait, daemon=True).start()
    assert done.wait(60)
    assert node.gone == ['/tf_static', '/tf']


def test_tf_that_starts_again_is_not_mixed_with_the_lap_before(listened: list[str]) -> None:
    transforms = Transforms(Node(), is_moving=True)
    transforms._on_transforms(joint(60_000 * MS, 0.3))
    transforms._on_transforms(joint(59_900 * MS, 0.3))  # disorder
    assert transforms.lookup_at('base_link', 'camera', 60_000 * MS, 0.0) is not None
    transforms._on_transforms(joint(1000 * MS, 0.5))
    assert transforms.lookup_at('base_link', 'camera', 60_000 * MS, 0.0) is None
    assert transforms.lookup_at('base_link', 'camera', 1000 * MS, 0.0)[0, 3] == 0.5


def test_a_camera_that_is_bolted_on_needs_no_tf_topic(listened: list[str]) -> None:
    Transforms(Node())
    assert listened == ['/tf_static']


@pytest.mark.skipif(find_spec('tf2_ros') is None, reason='tf2_ros is not installed')
def test_tf2_interpolates(ros: None) -> None:
    import rclpy
    node = rclpy.create_node('moving_transforms')
    transforms = Transforms(node, is_moving=True)
    for stamp_ns, x in ((1000 * MS, 0.0), (1100 * MS, 1.0)):
        transforms._on_transforms(joint(stamp_ns, x))
    found = transforms.lookup_at('base_link', 'camera', 1025 * MS, 0.0)
    assert found[0, 3] == pytest.approx(0.25)
    assert transforms.lookup_at('base_link', 'camera', 1200 * MS, 0.01) is None
    transforms.close()
    node.destroy_node()
