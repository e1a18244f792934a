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
"""Several cameras in one node: topics, parameters, fairness, counts, one shared model."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
import re
import time
from typing import Any

from nav_msgs.msg import OccupancyGrid
from node_bench import Bench, FakePipeline, PATIENCE_S, PosedFake
import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from ros_messages import camera_info, grey_image, image_message, odometry
from sensor_msgs.msg import CameraInfo, Image
from tiny_model import tiny_depth

from hybrid_depth.errors import ConfigError
from hybrid_depth.pipeline import DepthPipeline
from hybrid_depth_ros.depth_node import DepthNode
from hybrid_depth_ros.outputs import OUTPUTS
from hybrid_depth_ros.parameters import camera_names, NodeParameters, PARAMETERS

pytestmark = pytest.mark.usefixtures('ros')
ROOT = Path(__file__).resolve().parents[2]
MS = 1_000_000
SIZES = {'front': (128, 96), 'left': (64, 48)}
OPTICAL = {'front': [-0.5, 0.5, -0.5, 0.5],  # looks along x of the robot
           'left': [-0.70710678, 0.0, 0.0, 0.70710678]}  # along y


class Rig(Bench):
    """A node with the cameras 'front' and 'left', of different sizes."""

    def __init__(self, make_pipeline: Any = None, **parameters: Any) -> None:
        super().__init__(make_pipeline, cameras=list(SIZES), **parameters)
        qos = QoSProfile(depth=100)
        self.cameras = {name: (self.client.create_publisher(Image, f'{name}/image', qos),
                               self.client.create_publisher(CameraInfo, f'{name}/camera_info',
                                                            qos)) for name in SIZES}

    def connect(self, *topics: str) -> None:
        """Activate, calibrate both cameras, and wait until images would arrive."""
        assert self.node.start()
        self.listen(*topics)
        self.until(lambda: all(publisher.get_subscription_count() > 0
                               for pair in self.cameras.values() for publisher in pair))
        for name, (width, height) in SIZES.items():
            self.cameras[name][1].publish(camera_info(width, height, frame_id=name))
        self.until(lambda: all(camera.source.is_known for camera in self.of_node.values()))

    @property
    def of_node(self) -> dict[str, Any]:
        return {camera.name: camera for camera in self.node._resources.cameras}

    def shoot(self, name: str, stamp_ns: int, grey: int = 100) -> Image:
        width, height = SIZES[name]
        image = grey_image(grey, width=width, height=height, stamp_ns=stamp_ns, frame_id=name)
        self.cameras[name][0].publish(image)
        return image

    def counts(self, name: str) -> Any:
        return self.of_node[name].stats.snapshot()


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


def floats(message: Any) -> np.ndarray:
    return np.frombuffer(message.data, '<f4').reshape(message.height, message.width)


def test_each_camera_has_its_own_outputs_from_one_model(tiny_model: Path) -> None:
    rig = Rig(DepthPipeline, model=str(tiny_model))
    try:
        rig.connect('front/depth/image', 'left/depth/image', 'left/depth/camera_info')
        for step in range(3):
            sent = {name: rig.shoot(name, (10 + step) * 10**9 + index, 50 + 100 * index)
                    for index, name in enumerate(SIZES)}
            rig.until(lambda step=step: all(len(rig.received[f'{name}/depth/image']) == step + 1
                                            for name in SIZES))
            for name, image in sent.items():
                depth = rig.received[f'{name}/depth/image'][-1]
                assert depth.header == image.header
                assert (depth.width, depth.height) == SIZES[name]
                focal = 100 * SIZES['front'][0] / depth.width  # as the network sees it
                pixels = np.frombuffer(image.data, np.uint8).reshape(depth.height, depth.width, 3)
                np.testing.assert_allclose(floats(depth), tiny_depth(pixels, focal), rtol=1e-4)
        info = rig.received['left/depth/camera_info'][-1]
        assert (info.header.frame_id, info.width, info.height) == ('left', *SIZES['left'])
        front, left = (camera.pipeline for camera in rig.of_node.values())
        assert front is not left
        assert front._engine is left._engine
        assert front._backend is left._backend  # both are 4:3
        assert len(front._engine.sizes) == 1
        assert len(rig.pipelines) == 1
        rig.node.trigger_deactivate()
        rig.node.trigger_cleanup()
        assert front._engine.sizes == []
    finally:
        rig.close()


def test_topics_of_a_rig(rig: Rig) -> None:
    assert rig.node.start()
    published = {publisher.topic_name for publisher in rig.node.publishers}
    for row in OUTPUTS:
        own = {row.topic.replace('~', f'/hybrid_depth/{name}') for name in SIZES}
        shared = {row.topic.replace('~', '/hybrid_depth')}
        assert (shared if row.is_shared else own) <= published
        assert not (own if row.is_shared else shared) & published


def test_a_fast_camera_does_not_starve_a_slow_one(rig: Rig) -> None:
    rig.connect('front/depth/image', 'left/depth/image')
    for camera in rig.of_node.values():
        camera.pipeline.delay_s = 0.02
    answered, stamp_ns = 0, 10 * 10**9

    def flood_until(condition: Callable[[], bool]) -> None:
        """Let the front camera shoot as fast as it goes: far above what the model can do."""
        nonlocal stamp_ns
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end, 'waited in vain'
            stamp_ns += MS
            rig.shoot('front', stamp_ns)
            rig.executor.spin_once(timeout_sec=0.002)
    for count in range(1, 6):
        rig.shoot('left', count * 10**9)
        flood_until(lambda count=count: rig.counts('left').received == count)
        before = rig.counts('front').processed
        flood_until(lambda count=count: rig.counts('left').processed == count)
        answered += 1
        # at most the frame in work, the one whose turn it was, and one before we look
        assert rig.counts('front').processed - before <= 3
    rig.until(lambda: len(rig.received['left/depth/image']) == answered)
    front, left = rig.counts('front'), rig.counts('left')
    assert left.drops == {}
    assert left.received == left.processed == answered
    assert front.drops.get('replaced', 0) > 0
    assert front.processed >= answered - 1  # they take turns; the slow one may have the last
    stamps = [message.header.stamp.sec for message in rig.received['left/depth/image']]
    assert stamps == [1, 2, 3, 4, 5]


def test_drops_and_diagnostics_are_those_of_the_camera(rig: Rig) -> None:
    statuses: dict[str, Any] = {}
    rig.node._diagnostics.publish = lambda message: statuses.update(
        {status.name: (status, {entry.key: entry.value for entry in status.values})
         for status in message.status})
    rig.connect('front/depth/image', 'left/depth/image')
    width, height = SIZES['front']
    rig.cameras['left'][0].publish(grey_image(width=width, height=height, frame_id='left'))
    rig.until(lambda: rig.counts('left').drops == {'size_mismatch': 1})
    rig.shoot('front', 2 * 10**9)
    rig.until(lambda: bool(rig.received['front/depth/image']))
    assert rig.counts('front').drops == {}
    rig.until(lambda: statuses.get('/hybrid_depth: left/depth', (0, {}))[1].get(
        'drops.size_mismatch') == '1' and statuses['/hybrid_depth: front/depth'][1][
            'frames_processed'] == '1')
    status, values = statuses['/hybrid_depth: front/depth']
    assert (status.level, status.hardware_id) == (b'\0', '/front/image')
    assert values['camera'] == '128x96'
    assert not any(key.startswith('drops.') for key in values)
    assert set(statuses) == {'/hybrid_depth: front/depth', '/hybrid_depth: left/depth',
                             '/hybrid_depth: process'}


def test_only_the_camera_that_is_wanted_is_listened_to(rig: Rig) -> None:
    rig.connect('front/depth/image', 'left/depth/image')
    rig.ignore('left/depth/image')
    left, front = rig.cameras['left'][0], rig.cameras['front'][0]
    rig.until(lambda: left.get_subscription_count() == 0)
    assert front.get_subscription_count() == 1
    assert rig.odometry.get_subscription_count() == 1
    rig.ignore('front/depth/image')
    rig.until(lambda: rig.odometry.get_subscription_count() == 0)


def test_one_odometry_and_a_mounting_for_each_camera() -> None:
    rig = Rig(PosedFake, **{f'{name}__extrinsic__rotation': OPTICAL[name] for name in SIZES},
              left__extrinsic__translation=[0.0, 0.5, 1.0], left__camera_height_m=1.0)
    try:
        rig.connect('front/depth/image', 'left/depth/image')
        for stamp_ns, x in ((1000 * MS, 1.0), (1100 * MS, 2.0)):
            rig.odometry.publish(odometry(stamp_ns, x, child='base_link'))
        rig.until(lambda: all(poses._counts['received'] == 2
                              for poses in rig.node._session.poses.values()))
        for name, ahead, shift in (('front', [1, 0, 0], [1.5, 0, 0]),
                                   ('left', [0, 1, 0], [1.5, 0.5, 1.0])):
            rig.shoot(name, 1050 * MS)
            rig.until(lambda name=name: bool(rig.received[f'{name}/depth/image']))
            pipeline = rig.of_node[name].pipeline
            pose = pipeline.frames[-1].odom_T_camera
            np.testing.assert_allclose(pose[:3, 2], ahead, atol=1e-6)
            np.testing.assert_allclose(pose[:3, 3], shift, atol=1e-6)
            assert pipeline.config.camera_height_m == (1.0 if name == 'left' else 0.0)
    finally:
        rig.close()


def test_one_map_of_what_all_cameras_see() -> None:
    rig = Rig(PosedFake, **{f'{name}__extrinsic__rotation': OPTICAL[name] for name in SIZES},
              **{f'{name}__extrinsic__translation': [0.0, 0.0, 1.0] for name in SIZES},
              camera_height_m=1.0, bev__resolution_m=0.5, bev__size_m=20.0)
    maps: list[OccupancyGrid] = []
    rig.client.create_subscription(OccupancyGrid, '/hybrid_depth/bev/occupancy', maps.append, 10)
    try:
        rig.connect()
        for step in range(8):
            stamp_ns = (10 + step) * 100 * MS
            rig.odometry.publish(odometry(stamp_ns, 0.0, child='base_link'))
            rig.until(lambda step=step: all(poses._counts['received'] == step + 1
                                            for poses in rig.node._session.poses.values()))
            for index, name in enumerate(SIZES):
                rig.shoot(name, stamp_ns, 100)  # a wall 4.92 m ahead
                rig.until(lambda count=2 * step + index + 1: len(maps) >= count)
        latest = maps[-1]
        assert latest.header.frame_id == 'odom'
        cells = np.array(latest.data, np.int8).reshape(latest.info.height, latest.info.width)
        assert cells.shape == (40, 40)

        def at(x: float, y: float) -> int:
            origin = latest.info.origin.position
            return int(cells[int((y - origin.y) / 0.5), int((x - origin.x) / 0.5)])
        assert min(at(4.92, 0.1), at(0.1, 4.92)) > 60  # what each of them sees
        assert max(at(2.9, 0.1), at(0.1, 2.9)) < 40
        assert at(-4.92, 0.1) == -1  # what none of them does
    finally:
        rig.close()


def test_parameters_of_a_camera(rig: Rig) -> None:
    node = rig.node

    def set_one(name: str, value: Any) -> Any:
        return node.set_parameters([Parameter(name, value=value)])[0]
    assert set_one('left.camera_height_m', 1.5).successful
    assert node._table.settings_of('left').pipeline.camera_height_m == 1.5
    assert node._table.settings_of('front').pipeline.camera_height_m == 0.0
    assert set_one('max_depth_m', 50.0).successful  # of all
    assert node._table.settings_of('left').pipeline.max_depth_m == 50.0
    assert node._table.settings_of('left').pipeline.camera_height_m == 1.5
    result = set_one('camera_height_m', 2.0)
    assert not result.successful
    assert 'front.camera_height_m' in result.reason
    assert not set_one('left.camera_height_m', -1.0).successful
    assert not set_one('left.rectified', 'true').successful  # of the start


def test_general_values_are_the_start_of_each_camera() -> None:
    rig = Rig(rectified='true', left__rectified='false')
    try:
        of = rig.node._table.settings_of
        assert (of('front')['rectified'], of('left')['rectified']) == ('true', 'false')
    finally:
        rig.close()


@pytest.mark.parametrize('names', [[], ['Front'], ['a', 'a'], ['front', ''], ['a/b'], ['1st']])
def test_bad_names(names: list[str]) -> None:
    with pytest.raises(ConfigError, match='cameras'):
        camera_names({'cameras': names})


def test_a_bad_value_names_its_camera() -> None:
    node = Node('bad_start', parameter_overrides=[
        Parameter('cameras', value=list(SIZES)),
        Parameter('left.extrinsic.rotation', value=[1.0, 1.0, 0.0, 0.0])])
    try:
        with pytest.raises(ConfigError, match=r'camera left: extrinsic\.rotation'):
            NodeParameters(node)
    finally:
        node.destroy_node()


def test_the_documented_rig_starts(tmp_path: Path) -> None:
    text = (ROOT / 'docs' / 'cameras.md').read_text()
    path = tmp_path / 'rig.yaml'
    path.write_text(re.search(r'```yaml\n(.*?)```', text, re.DOTALL)[1])
    node = Node('documented', cli_args=['--ros-args', '--params-file', str(path)])
    try:
        table = NodeParameters(node)
        assert table.cameras == ('front', 'left')
        left = table.settings_of('left')
        assert left['extrinsic.translation'] == [0.2, 0.3, 1.2]
        assert (left['rectified'], left['image_transport']) == ('true', 'compressed')
    finally:
        node.destroy_node()
    documented = set(re.findall(r'`front\.([\w.]+\*?)`', text))
    own = {re.sub(r'^extrinsic\..*', 'extrinsic.*', row.name)
           for row in PARAMETERS if row.is_per_camera}
    assert documented == own


def test_nodes_in_namespaces_side_by_side() -> None:
    nodes = [DepthNode(FakePipeline, namespace=name) for name in SIZES]
    client = rclpy.create_node('side_by_side')
    executor = SingleThreadedExecutor()
    received: dict[str, list[Any]] = {name: [] for name in SIZES}
    try:
        for node in (*nodes, client):
            executor.add_node(node)
        cameras = {}
        for name, node in zip(SIZES, nodes, strict=True):
            assert node.start()
            client.create_subscription(Image, f'/{name}/hybrid_depth/depth/image',
                                       received[name].append, 10)
            cameras[name] = (client.create_publisher(Image, f'/{name}/image', 10),
                             client.create_publisher(CameraInfo, f'/{name}/camera_info', 10))

        def until(condition: Any) -> None:
            end = time.monotonic() + PATIENCE_S
            while not condition():
                assert time.monotonic() < end, 'waited in vain'
                executor.spin_once(timeout_sec=0.02)
        until(lambda: all(publisher.get_subscription_count() > 0
                          for pair in cameras.values() for publisher in pair))
        for name, (width, height) in SIZES.items():
            cameras[name][1].publish(camera_info(width, height, frame_id=name))
        until(lambda: all(node._resources.cameras[0].source.is_known for node in nodes))
        for name, (width, height) in SIZES.items():
            cameras[name][0].publish(image_message(np.full((height, width, 3), 90, np.uint8),
                                                   frame_id=name))
        until(lambda: all(received.values()))
        assert {name: (messages[0].header.frame_id, messages[0].width)
                for name, messages in received.items()} == \
            {name: (name, SIZES[name][0]) for name in SIZES}
    finally:
        executor.shutdown()
        for node in (*nodes, client):
            node.destroy_node()
