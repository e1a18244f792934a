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
"""Every dynamic parameter, set on the running node, changes what comes out of it."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
import math
from typing import Any

from node_bench import Bench, FakePipeline, PosedFake
import numpy as np
import pytest
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from ros_messages import camera_info, image_message, odometry
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Float64
from tiny_model import TINY_PROMPTS, write_tiny_clip_prior_model, write_tiny_posed_model
from tiny_world import CAMERA, pose_at, seen

from hybrid_depth.pipeline import DepthPipeline
from hybrid_depth.types import DepthResult, Evidence, Frame
from hybrid_depth_ros.parameters import PARAMETERS

MS = 1_000_000
BOX = (6.1, 7.4, 1.1, 2.4, 0.0, 1.6)
MOUNT = {'extrinsic__rotation': [-0.5, 0.5, -0.5, 0.5], 'extrinsic__translation': [0.2, 0.0, 1.5]}
CELLS = {'bev__resolution_m': 0.5, 'bev__size_m': 30.0, 'bev__max_range_m': 14.0}
PROMPT, FACTOR = next((prompt, factor) for prompt, factor in TINY_PROMPTS.items() if factor != 1)
# grey 60 and 200: depth of the tiny model 2.7 and 7.1 m at a focal length of 200
PICTURE = np.full((240, 320, 3), 60, np.uint8)
PICTURE[:, 160:] = 200
TEXTURE = np.random.default_rng(5).integers(0, 255, (96, 128, 3), np.uint8)
pytestmark = pytest.mark.usefixtures('ros')


class Scene(FakePipeline):
    """A box on the ground, from where the odometry, else the mounting, has the camera."""

    pitch = 0.0  # of the camera, which nobody is told: the ground seems to rise
    sigma = 0.001
    is_moving = False  # the box

    def run(self, frame: Frame, extras: Any = ()) -> DepthResult:
        pose = pose_at(x=0.2, pitch=self.pitch) if frame.odom_T_camera is None \
            else frame.odom_T_camera
        result = seen(pose, [BOX], stamp_ns=frame.stamp_ns, frame_id=frame.frame_id,
                      sigma=self.sigma)
        bare = seen(pose).depth_m
        evidence = np.where(self.is_moving & (result.depth_m != bare), Evidence.MOVING,
                            Evidence.MATCHED).astype(np.uint8)
        return replace(result, evidence=evidence, timings_ms={'total': 1.0})


@dataclass
class World:
    """A running node with what it sees."""

    bench: Bench
    picture: np.ndarray
    start: dict[str, Any] = field(default_factory=dict)  # values it runs with, by parameter
    stamp_ns: int = 2000 * MS

    def shoot(self, topic: str, stamp_ns: int | None = None) -> Any:
        """Send an image, 10 ms after the one before, and return what comes out of it."""
        self.stamp_ns = self.stamp_ns + 10 * MS if stamp_ns is None else stamp_ns
        image = self.bench.send(image_message(self.picture, stamp_ns=self.stamp_ns))
        messages = self.bench.received[topic]
        # by the stamp: other topics of the frame before may still be on their way
        self.bench.until(lambda: bool(messages)
                         and messages[-1].header.stamp == image.header.stamp)
        return messages[-1]

    def set(self, **values: Any) -> None:
        """Set parameters, all at once; __ stands for the point in a name."""
        result = self.bench.node.set_parameters_atomically(
            [Parameter(name.replace('__', '.'), value=value) for name, value in values.items()])
        assert result.successful, result.reason

    def reset(self) -> None:
        """Give every dynamic parameter the value the world started with."""
        self.set(**{row.name: self.start.get(row.name, row.default)
                    for row in PARAMETERS if row.is_dynamic})

    def drive(self, *xs: float) -> None:
        """Tell the odometry, 100 ms from one x to the next, from 100 ms after the last image."""
        child = 'base_link' if self.bench.pipeline.__class__ is Scene else 'camera_optical_frame'
        self.bench.tell(*(odometry(self.stamp_ns + 100 * (index + 1) * MS, x, child)
                          for index, x in enumerate(xs)))


def open_world(name: str, folder: Any) -> World:
    """Start a node for a world and connect everything."""
    models = {'words': write_tiny_clip_prior_model, 'matched': write_tiny_posed_model}
    if name == 'scene':
        picture = np.full((CAMERA.height, CAMERA.width, 3), 90, np.uint8)
        world = World(Bench(Scene, **MOUNT, **CELLS), picture,
                      {key.replace('__', '.'): value for key, value in CELLS.items()})
        info, topics = camera_info(CAMERA.width, CAMERA.height, CAMERA.fx), (
            'points', 'points_filtered', 'points_clearing', 'bev/occupancy', 'bev/elevation')
    elif name == 'posed':
        world = World(Bench(PosedFake), TEXTURE)
        info, topics = camera_info(), ('depth/image',)
    elif name in models:
        path = folder / f'{name}.onnx'
        models[name](path)
        world = World(Bench(DepthPipeline, model=str(path)), TEXTURE)
        info, topics = camera_info(), ('depth/image', 'depth/evidence')
    else:
        world = World(Bench(DepthPipeline, model=name), PICTURE)
        info, topics = camera_info(320, 240, 200.0), ('depth/image', 'points', 'scale')
    world.bench.start(*topics)
    world.bench.until(lambda: len(world.bench.node._resources.cameras[0].outputs.wanted())
                      == len(topics))
    world.bench.calibrate(info)
    return world


@pytest.fixture(scope='module')
def worlds(ros: None, tiny_model: Any,
           tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], World]]:
    """Return worlds by name; one is kept until another is asked for: they share their topics."""
    opened: dict[str, World] = {}
    folder = tmp_path_factory.mktemp('models')

    def close() -> None:
        for name in list(opened):
            opened.pop(name).bench.close()

    def get(name: str) -> World:
        if name not in opened:
            close()
            opened[name] = open_world(str(tiny_model) if name == 'tiny' else name, folder)
        return opened[name]
    yield get
    close()


# what is measured of a message

def floats(message: Any) -> np.ndarray:
    return np.frombuffer(message.data, '<f4')


def share(test: Callable[[np.ndarray], np.ndarray]) -> Callable[[Any], float]:
    """Return a measure: the share of pixels for which ``test`` holds."""
    return lambda message: float(test(floats(message)).mean())


def missing(cloud: PointCloud2) -> float:
    return float(np.isnan(floats(cloud).reshape(-1, 4)[:, 2]).mean())


def value_at_box(grid: Any) -> int:
    origin, side = grid.info.origin.position, grid.info.resolution
    column, row = math.floor((6.2 - origin.x) / side), math.floor((1.7 - origin.y) / side)
    return int(grid.data[row * grid.info.width + column])


def count(test: Callable[[np.ndarray], np.ndarray]) -> Callable[[Any], int]:
    """Return a measure: the number of cells for which ``test`` holds."""
    return lambda grid: int(test(np.asarray(grid.data)).sum())


def highest(message: Any) -> float:
    """Return the largest ``elevation_max`` of an elevation map, whatever its type is here."""
    if isinstance(message, PointCloud2):
        names = [field.name for field in message.fields]
        cells = floats(message).reshape(-1, len(names))
        return float(cells[:, names.index('elevation_max')].max())
    return float(np.nanmax(message.data[message.layers.index('elevation_max')].data))


@dataclass(frozen=True)
class Case:
    """A value to set, where its effect is seen, and what that is."""

    world: str
    value: Any
    topic: str
    measure: Callable[[Any], Any]
    is_right: Callable[[Any, Any], bool]  # of the measure before and after
    given: dict[str, Any] = field(default_factory=dict)  # other parameters, set before
    prepare: dict[str, Any] = field(default_factory=dict)  # attributes of the pipeline


def more(before: float, after: float) -> bool:
    return after > before + 1e-6


def fewer(before: float, after: float) -> bool:
    return after < before - 1e-6


FAR = {'max_depth_m': 5.0}
CASES = {
    'resolution': Case('tiny', 'network', 'depth/image', lambda m: m.width, fewer),
    'min_depth_m': Case('tiny', 5.0, 'depth/image', share(np.isneginf),
                        lambda a, b: a == 0 and b > 0.4),
    'max_depth_m': Case('tiny', 5.0, 'depth/image', share(np.isposinf),
                        lambda a, b: a == 0 and b > 0.4),
    'far_policy': Case('tiny', 'clip', 'depth/image', share(lambda d: d == 5),
                       lambda a, b: a == 0 and b > 0.4, FAR),
    'max_relative_sigma': Case('tiny', 0.05, 'depth/image', share(np.isnan),
                               lambda a, b: a < 0.1 and b == 1),
    'edge_ratio': Case('tiny', 9.0, 'points', missing, fewer),
    'invalid_value': Case('tiny', 'zero', 'depth/image', share(lambda d: d == 0),
                          lambda a, b: a == 0 and b > 0.4, FAR),
    'cloud.stride': Case('tiny', 4, 'points', lambda m: m.width, lambda a, b: (a, b) == (320, 80)),
    'cloud.max_range_m': Case('tiny', 5.0, 'points', missing, lambda a, b: a < 0.1 and b > 0.4),
    'cloud.max_relative_sigma': Case('tiny', 0.05, 'points', missing,
                                     lambda a, b: a < 0.1 and b == 1),
    'cloud.remove_edges': Case('tiny', False, 'points', missing, lambda a, b: a > 0 and b == 0),
    'cloud.only_matched': Case('tiny', True, 'points', missing, lambda a, b: a < 0.1 and b == 1),
    'camera_height_m': Case('tiny', 1.5, 'scale', lambda m: m.vector.x,
                            lambda a, b: math.isnan(a) and math.isfinite(b)),
    'cloud.remove_moving': Case('scene', True, 'points', missing, more,
                                prepare={'is_moving': True}),
    'cloud.voxel_m': Case('scene', 1.0, 'points_filtered', lambda m: m.width, fewer),
    'cloud.clearing_range_m': Case(
        'scene', 12.0, 'points_clearing',
        lambda m: float(np.linalg.norm(floats(m).reshape(-1, 3), axis=1).max()),
        lambda a, b: round(a, 3) == 30 and round(b, 3) == 12),
    'bev.resolution_m': Case('scene', 0.25, 'bev/occupancy', lambda m: m.info.resolution,
                             lambda a, b: (a, b) == (0.5, 0.25)),
    'bev.size_m': Case('scene', 20.0, 'bev/occupancy', lambda m: m.info.width,
                       lambda a, b: (a, b) == (60, 40)),
    'bev.max_range_m': Case('scene', 5.0, 'bev/occupancy', count(lambda d: d >= 0),
                            lambda a, b: 0 < b < a / 2),
    'bev.min_height_m': Case('scene', 1.9, 'bev/occupancy', value_at_box,
                             lambda a, b: a > 65 >= b),
    'bev.max_height_m': Case('scene', 0.5, 'bev/elevation', highest,
                             lambda a, b: a > 1.4 and b < 0.6),
    'bev.max_slope': Case('scene', 0.6, 'bev/occupancy', count(lambda d: d > 65), fewer,
                          prepare={'pitch': 0.25}),
    'bev.sigma_half_m': Case('scene', 0.05, 'bev/occupancy', value_at_box, fewer,
                             prepare={'sigma': 1.0}),
    'bev.show_moving': Case('scene', False, 'bev/occupancy', value_at_box,
                            lambda a, b: a == 100 and b <= 65, prepare={'is_moving': True}),
    'scene_prompt': Case('words', PROMPT, 'depth/image', lambda m: float(np.median(floats(m))),
                         lambda a, b: b == pytest.approx(FACTOR * a, rel=1e-5)),
}
BY_HAND = {'bev.decay_s', 'odom.use', 'odom.time_offset_s', 'odom.max_wait_ms'}


def test_no_dynamic_parameter_is_left_out() -> None:
    dynamic = {row.name for row in PARAMETERS if row.is_dynamic}
    assert set(CASES) | BY_HAND == dynamic
    assert not set(CASES) & BY_HAND


@pytest.mark.parametrize('name', CASES)
def test_it_acts_with_the_next_frame(worlds: Callable[[str], World], name: str) -> None:
    case = CASES[name]
    world = worlds(case.world)
    pipeline = world.bench.pipeline
    usual = {key: getattr(pipeline, key) for key in case.prepare}
    try:
        vars(pipeline).update(case.prepare)
        world.set(**case.given)
        before = case.measure(world.shoot(case.topic))
        world.set(**{name: case.value})
        after = case.measure(world.shoot(case.topic))
        assert case.is_right(before, after), (before, after)
        world.reset()
        world.set(**case.given)
        again = case.measure(world.shoot(case.topic))
        assert again == before or again != again  # NaN
    finally:
        vars(pipeline).update(usual)
        world.reset()


def test_cells_out_of_view_are_forgotten_by_decay(worlds: Callable[[str], World]) -> None:
    world = worlds('scene')
    left = []
    for decay_s in (0.0, 0.05):
        world.set(**{'bev.decay_s': decay_s})
        # standing before the box, then past it; going back at once is a new start with empty maps
        world.drive(*[0.0] * 3, *(0.9 * index for index in range(10)))
        values = [value_at_box(world.shoot('bev/occupancy', world.stamp_ns + 100 * MS))
                  for _ in range(13)]
        assert values[2] > 65
        left.append(values[-1])
    world.reset()
    assert left[0] > 65
    assert left[1] < 65


def test_poses_are_used_or_not(worlds: Callable[[str], World]) -> None:
    world = worlds('matched')

    def evidence() -> bool:
        """Move on by six frames and tell whether the last one was matched with earlier ones."""
        for index in range(6):
            world.drive(world.stamp_ns / 1e9 + 0.2 * (index + 1))
            message = world.shoot('depth/evidence', world.stamp_ns + 100 * MS)
        return any(message.data)
    before = evidence()
    world.set(**{'odom.use': False})
    assert (before, evidence()) == (True, False)


def test_the_time_offset_moves_the_pose(worlds: Callable[[str], World]) -> None:
    world = worlds('posed')

    def x_of(stamp_ns: int) -> float:
        world.shoot('depth/image', stamp_ns)
        return float(world.bench.pipeline.frames[-1].odom_T_camera[0, 3])
    world.stamp_ns = start_ns = 4000 * MS
    world.drive(1.0, 2.0)
    assert x_of(start_ns + 150 * MS) == pytest.approx(1.5)
    world.set(**{'odom.time_offset_s': 0.03})  # the odometry is stamped 30 ms too early
    assert x_of(start_ns + 160 * MS) == pytest.approx(1.3)
    world.reset()


def test_a_frame_waits_as_long_as_it_is_told_to(worlds: Callable[[str], World]) -> None:
    world = worlds('posed')
    took: list[float] = []
    world.bench.client.create_subscription(
        Float64, '/hybrid_depth/debug/processing_time_ms',
        lambda message: took.append(message.data), QoSProfile(depth=10))
    world.bench.until(
        lambda: world.bench.node.count_subscribers('/hybrid_depth/debug/processing_time_ms') == 1)

    def shortest() -> float:
        """Return the least time of three frames whose odometry never comes."""
        took.clear()
        for index in range(3):
            world.shoot('depth/image', world.stamp_ns + 5 * MS)
            world.bench.until(lambda index=index: len(took) == index + 1)
        return min(took)
    world.stamp_ns = 6000 * MS
    world.drive(1.0)
    world.stamp_ns += 160 * MS  # beyond odom.max_extrapolation_ms
    world.set(**{'odom.max_wait_ms': 0.0})
    at_once = shortest()
    world.set(**{'odom.max_wait_ms': 200.0})
    assert shortest() >= 200 > at_once
    world.reset()
