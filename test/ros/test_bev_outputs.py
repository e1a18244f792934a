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
"""Maps and clouds for costmaps through a real node, of a world of boxes that is known exactly."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from node_bench import Bench, FakePipeline
import numpy as np
import pytest
from rclpy.parameter import Parameter
from ros_messages import camera_info, FRAME, grey_image, odometry
from sensor_msgs.msg import PointCloud2
from tiny_world import CAMERA, pose_at, seen

from hybrid_depth.bev import BevConfig, Window
from hybrid_depth.bev import maps as bev_maps
from hybrid_depth.bev.elevation import LAYERS
from hybrid_depth.pipeline import DepthPipeline
from hybrid_depth.pose_check import PoseCheck
from hybrid_depth.types import DepthResult, Frame
from hybrid_depth_ros.bev_outputs import BevState, fill_elevation_cloud, fill_grid_map
from hybrid_depth_ros.pose_source import CameraPose

MS = 1_000_000
BOX = (6.1, 7.4, 1.1, 2.4, 0.0, 1.6)
MOUNT = {'extrinsic__rotation': [-0.5, 0.5, -0.5, 0.5], 'extrinsic__translation': [0.2, 0.0, 1.5]}
CELLS = {'bev__resolution_m': 0.5, 'bev__size_m': 30.0, 'bev__max_range_m': 14.0}
pytestmark = pytest.mark.usefixtures('ros')


class ScenePipeline(FakePipeline):
    """Sees BOX from where the odometry, else the mounting, has the camera."""

    boxes = (BOX,)

    def run(self, frame: Frame, extras: Any = ()) -> DepthResult:
        pose = pose_at(x=0.2) if frame.odom_T_camera is None else frame.odom_T_camera
        result = seen(pose, self.boxes, stamp_ns=frame.stamp_ns, frame_id=frame.frame_id)
        return replace(result, timings_ms={'total': 1.0}, **self.more)


@pytest.fixture
def rig(ros: None) -> Iterator[Bench]:
    """Return a bench whose camera sits on a robot."""
    made = Bench(ScenePipeline, **MOUNT, **CELLS)
    yield made
    made.close()


def start(bench: Bench, *topics: str) -> None:
    bench.start('depth/image', *topics)
    bench.calibrate(camera_info(CAMERA.width, CAMERA.height, CAMERA.fx))


def drive(bench: Bench, *xs: float, at_ms: int = 2000, step_ms: int = 100) -> None:
    """Tell the odometry, 100 ms from one x to the next."""
    bench.tell(*(odometry((at_ms + step_ms * index) * MS, x, child='base_link')
                 for index, x in enumerate(xs)))


def shoot(bench: Bench, stamp_ms: int, topic: str) -> Any:
    """Send an image and return what comes out."""
    return bench.send_and_wait(grey_image(width=CAMERA.width, height=CAMERA.height,
                                          stamp_ns=stamp_ms * MS), topic)


def set_parameter(bench: Bench, name: str, value: Any) -> Any:
    return bench.node.set_parameters([Parameter(name, value=value)])[0]


def at(grid: Any, x: float, y: float) -> int:
    """Return the value of a nav_msgs/OccupancyGrid at a place of its frame."""
    column = math.floor((x - grid.info.origin.position.x) / grid.info.resolution)
    row = math.floor((y - grid.info.origin.position.y) / grid.info.resolution)
    return int(grid.data[row * grid.info.width + column])


def xyz(cloud: PointCloud2) -> np.ndarray:
    names = [field.name for field in cloud.fields]
    assert names[:3] == ['x', 'y', 'z']
    points = np.frombuffer(cloud.data, '<f4').reshape(cloud.width, -1)
    assert cloud.height == 1
    assert cloud.is_dense
    assert cloud.row_step == len(cloud.data) == cloud.point_step * cloud.width
    assert np.isfinite(points).all()
    return points


def cells(message: Any) -> dict[tuple[float, float], list[float]]:
    """Return layers by x and y of what was seen, as a reader of either form finds them."""
    names = ['elevation', 'variance', 'elevation_max', 'n_points']
    if isinstance(message, PointCloud2):
        assert [field.name for field in message.fields] == ['x', 'y', 'z', *names[1:]]
        return {(x, y): rest for x, y, *rest in xyz(message).tolist()}
    assert list(message.layers) == names
    info = message.info
    corner_x = info.pose.position.x + info.length_x / 2
    corner_y = info.pose.position.y + info.length_y / 2
    found = {}
    layers = [np.asarray(data.data) for data in message.data]
    for index in np.flatnonzero(np.isfinite(layers[0])).tolist():
        column, row = divmod(index, message.data[0].layout.dim[1].size)
        found[corner_x - info.resolution * (row + 0.5), corner_y
              - info.resolution * (column + 0.5)] = [float(layer[index]) for layer in layers]
    return found


def test_occupancy_stays_in_the_odometry_frame_as_the_robot_moves(rig: Bench) -> None:
    start(rig, 'bev/occupancy')
    drive(rig, *(0.13 * index for index in range(12)))
    for stamp_ms in range(2000, 3000, 100):
        grid = shoot(rig, stamp_ms, 'bev/occupancy')
    assert (grid.header.frame_id, grid.header.stamp.sec) == ('odom', 2)
    assert grid.header.stamp.nanosec == 900 * MS
    info = grid.info
    assert (info.width, info.height, info.origin.orientation.w) == (60, 60, 1.0)
    assert info.resolution == 0.5
    assert at(grid, 6.2, 1.7) == 100
    assert at(grid, 6.2, -1.7) != 100
    assert 0 <= at(grid, 5.2, 0.1) < 10
    assert at(grid, 9.5, 2.4) == at(grid, -5.0, 0.0) == -1
    # the camera, at 0.2 + 9 * 0.13, is in the middle cell
    assert info.origin.position.x == 0.5 * (2 - 30)
    assert rig.received['depth/image'][-1].header.frame_id == FRAME  # nobody else's header


def test_a_new_start_of_the_odometry_empties_the_map(rig: Bench) -> None:
    start(rig, 'bev/occupancy')
    drive(rig, *(0.0 for _ in range(5)))
    for stamp_ms in range(2000, 2400, 100):
        grid = shoot(rig, stamp_ms, 'bev/occupancy')
    assert at(grid, 6.2, 1.7) > 65
    drive(rig, 500.0, 500.0, at_ms=2500)
    grid = shoot(rig, 2550, 'bev/occupancy')
    assert not np.any(np.asarray(grid.data) > 65)


def test_frames_that_lack_a_pose_do_not_change_the_frame_of_the_map(rig: Bench) -> None:
    start(rig, 'bev/occupancy', 'bev/elevation')
    drive(rig, 0.0, 0.0)
    shoot(rig, 2050, 'bev/occupancy')
    count = len(rig.received['bev/occupancy'])
    shoot(rig, 9000, 'depth/image')  # no odometry for seconds
    rig.pipeline.more = {'pose_check': PoseCheck(
        'inconsistent', 'inconsistent', 0.4, 0.4, 0.2, 0.9, 10.0, 1.0, 'motion', 'swapped axes')}
    shoot(rig, 2060, 'depth/image')
    rig.spin(0.05)
    assert len(rig.received['bev/occupancy']) == count


def test_without_odometry_each_frame_has_a_map_of_its_own(rig: Bench) -> None:
    start(rig, 'bev/occupancy')
    first = shoot(rig, 2000, 'bev/occupancy')
    assert first.header.frame_id == 'base_link'
    assert at(first, 6.2, 1.7) > 65
    rig.pipeline.boxes = ()
    second = shoot(rig, 2100, 'bev/occupancy')
    assert at(second, 6.2, 1.7) <= 45
    assert second.info.origin == first.info.origin


def test_without_any_frame_nothing_is_published() -> None:
    bench = Bench(ScenePipeline, **CELLS)
    try:
        start(bench, 'bev/occupancy', 'bev/elevation', 'points_filtered', 'points_clearing')
        shoot(bench, 2000, 'points_clearing')
        bench.spin(0.1)
        for topic in ('bev/occupancy', 'bev/elevation', 'points_filtered'):
            assert not bench.received[topic]
        assert bench.node._resources.cameras[0].stats.snapshot().processed == 1
    finally:
        bench.close()


def test_elevation_is_that_of_the_box_and_its_ground(rig: Bench) -> None:
    start(rig, 'bev/elevation')
    drive(rig, 0.0, 0.0)
    message = shoot(rig, 2050, 'bev/elevation')
    assert message.header.frame_id == 'odom'
    place = cells(message)
    assert place[4.25, -0.25][0] == pytest.approx(0.0, abs=0.01)
    assert place[6.25, 1.75][2] == pytest.approx(1.6, abs=0.1)
    assert (9.75, 2.75) not in place  # hidden


def test_filtered_points_are_in_the_frame_of_the_robot(rig: Bench) -> None:
    set_parameter(rig, 'cloud.voxel_m', 0.0)
    set_parameter(rig, 'cloud.max_range_m', 14.0)
    start(rig, 'points', 'points_filtered')
    message = shoot(rig, 2000, 'points_filtered')
    rig.until(lambda: bool(rig.received['points']))
    points = xyz(message)
    assert (message.header.frame_id, message.header.stamp.sec) == ('base_link', 2)
    organised = np.frombuffer(rig.received['points'][0].data, '<f4').reshape(-1, 4)
    assert len(points) == np.isfinite(organised[:, 2]).sum()
    front = points[(points[:, 2] > 0.1) & (abs(points[:, 1] - 1.7) < 0.5)]
    assert front[:, 0] == pytest.approx(6.1, abs=0.01)
    assert points[:, 2].min() == pytest.approx(0.0, abs=1e-3)
    assert set_parameter(rig, 'cloud.voxel_m', 0.5).successful
    assert len(xyz(shoot(rig, 2100, 'points_filtered'))) < len(points) / 4


def test_clearing_points_are_as_far_as_the_parameter_says(rig: Bench) -> None:
    start(rig, 'points_clearing')
    message = shoot(rig, 2000, 'points_clearing')
    assert message.header.frame_id == FRAME
    points = xyz(message)
    assert points.shape == (np.isposinf(seen(pose_at(x=0.2), [BOX]).depth_m).sum(), 3)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 30.0, rtol=1e-5)
    assert set_parameter(rig, 'cloud.clearing_range_m', 12.0).successful
    points = xyz(shoot(rig, 2100, 'points_clearing'))
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 12.0, rtol=1e-5)


def test_parameters_act_with_the_next_frame(rig: Bench) -> None:
    start(rig, 'bev/occupancy')
    assert shoot(rig, 2000, 'bev/occupancy').info.width == 60
    assert set_parameter(rig, 'bev.size_m', 20.0).successful
    assert shoot(rig, 2100, 'bev/occupancy').info.width == 40
    assert set_parameter(rig, 'bev.max_height_m', 0.35).successful  # what is higher hangs above
    assert set_parameter(rig, 'bev.resolution_m', 0.25).successful
    grid = shoot(rig, 2200, 'bev/occupancy')
    assert (grid.info.width, grid.info.resolution) == (80, 0.25)
    bad = set_parameter(rig, 'bev.min_height_m', 3.0)
    assert not bad.successful
    assert 'bev.max_height_m' in bad.reason
    assert shoot(rig, 2300, 'bev/occupancy').info.width == 80


def test_maps_cost_nothing_while_nobody_listens(rig: Bench,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    look = bev_maps.look
    monkeypatch.setattr(bev_maps, 'look', lambda *a: looked.append(1) or look(*a))
    start(rig, 'points_filtered')
    shoot(rig, 2000, 'points_filtered')
    assert not looked
    rig.listen('bev/occupancy', 'bev/elevation')
    rig.until(lambda: rig.node.count_subscribers('/hybrid_depth/bev/elevation') > 0)
    shoot(rig, 2100, 'bev/occupancy')
    assert len(looked) == 1  # both maps look at a frame once


def fake_grid_map() -> Any:
    """Return what fill_grid_map writes to, with the fields of grid_map_msgs/GridMap."""
    pose = SimpleNamespace(position=SimpleNamespace(x=0.0, y=0.0, z=0.0),
                           orientation=SimpleNamespace(x=0.0, y=0.0, z=0.0, w=0.0))
    return SimpleNamespace(info=SimpleNamespace(resolution=0, length_x=0, length_y=0, pose=pose),
                           layers=[], basic_layers=[], data=[], outer_start_index=9,
                           inner_start_index=9)


def test_grid_map_is_laid_out_as_its_readers_expect() -> None:
    window = Window(0.5, 4, column=10, row=-2)  # x 5 to 7, y -1 to 1
    layers = {name: np.full((4, 4), np.nan, np.float32) for name in LAYERS}
    layers['elevation'][3, 1] = 7.0  # x 5.5 to 6, y 0.5 to 1: one cell off every symmetry
    message = fake_grid_map()
    fill_grid_map(message, layers, window)
    assert message.layers == ['elevation', 'variance', 'elevation_max', 'n_points']
    assert message.basic_layers == ['elevation']
    assert (message.info.resolution, message.info.length_x, message.info.length_y) == (0.5, 2, 2)
    assert (message.outer_start_index, message.inner_start_index) == (0, 0)
    position = message.info.pose.position
    assert (position.x, position.y, message.info.pose.orientation.w) == (6.0, 0.0, 1.0)
    first = message.data[0]
    assert [(d.label, d.size, d.stride) for d in first.layout.dim] == [
        ('column_index', 4, 16), ('row_index', 4, 4)]
    # as a reader goes: element (i, j) is at i + j * rows, its middle half a cell inside the corner
    # of the largest x and y, less i cells of x and j of y
    index = int(np.flatnonzero(np.isfinite(first.data))[0])
    i, j = index % 4, index // 4
    assert (position.x + 1 - 0.5 * (i + 0.5), position.y + 1 - 0.5 * (j + 0.5)) == (5.75, 0.75)
    assert first.data[index] == 7.0


def test_elevation_cloud_has_one_point_a_cell() -> None:
    window = Window(0.5, 4, column=10, row=-2)
    layers = {name: np.full((4, 4), np.nan, np.float32) for name in LAYERS}
    for value, name in enumerate(LAYERS):
        layers[name][3, 1] = value
    message = PointCloud2()
    fill_elevation_cloud(message, layers, window)
    np.testing.assert_array_equal(xyz(message), [[5.75, 0.75, 0, 1, 2, 3]])


def pose_of(frame: str, odom_T_camera: np.ndarray | None, epoch: int = 1,
            **more: Any) -> CameraPose:
    down = None if odom_T_camera is None else -odom_T_camera[2, :3]
    return CameraPose(odom_T_camera, epoch, down, frame, **more)


def test_all_cameras_feed_one_map_until_one_of_them_starts_anew() -> None:
    state = BevState()
    config = BevConfig(resolution_m=0.5, size_m=30.0, max_range_m=14.0)

    def occupied(camera: str, yaw: float, epoch: int) -> set[tuple[int, int]]:
        pose = pose_at(yaw=yaw)
        box = (6.1, 7.4, -1.0, 1.0, 0.0, 1.6) if yaw == 0 else (-1.0, 1.0, 6.1, 7.4, 0.0, 1.6)
        for _ in range(3):
            result = seen(pose, [box], frame_id=camera)
            assert state.show(result, pose_of('odom', pose, epoch), config, 0.0) == 'odom'
            values = state.maps.occupancy().values(config)
        return set(zip(*(index.tolist() for index in np.nonzero(values > 65)), strict=True))
    front = occupied('front', 0.0, 1)
    both = occupied('left', math.pi / 2, 7)  # each camera counts its own epochs
    assert both > front
    assert not occupied('front', 0.0, 8) & (both - front)


def test_odometry_whose_z_does_not_point_up_holds_no_map() -> None:
    state = BevState()
    base_T_camera = pose_at()
    optical = np.linalg.inv(base_T_camera) @ base_T_camera  # a world that is the first camera
    pose = CameraPose(optical, 1, -base_T_camera[2, :3], 'world', 'base_link', base_T_camera)
    assert state.show(seen(base_T_camera, [BOX]), pose, BevConfig(), 0.0) == 'base_link'
    nowhere = CameraPose(optical, 1, None, 'world')
    assert not state.show(seen(base_T_camera, [BOX]), nowhere, BevConfig(), 0.0)


def test_a_real_pipeline_feeds_maps_and_clouds(tiny_model: Path) -> None:
    bench = Bench(DepthPipeline, model=str(tiny_model), **MOUNT, **CELLS)
    topics = ('bev/occupancy', 'bev/elevation', 'points_filtered', 'points_clearing')
    try:
        bench.start('depth/image', *topics)
        bench.calibrate()
        drive(bench, 0.0, 0.0)
        for stamp_ms in (2050, 2060):
            bench.send_and_wait(grey_image(stamp_ns=stamp_ms * MS), 'bev/occupancy')
        bench.until(lambda: all(len(bench.received[topic]) == 2 for topic in topics))
        grid = np.asarray(bench.received['bev/occupancy'][-1].data)
        assert (grid != -1).any()
        assert len(xyz(bench.received['points_filtered'][-1])) > 100
    finally:
        bench.close()
