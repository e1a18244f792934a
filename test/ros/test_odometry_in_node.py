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
"""Odometry, evidence and scale through the node, on real topics, with a pipeline that is fake."""
from __future__ import annotations

from collections.abc import Iterator
import math
from pathlib import Path
from typing import Any

from node_bench import Bench, PosedFake
import numpy as np
import pytest
from rclpy.parameter import Parameter
from ros_messages import grey_image, HEIGHT, image_message, odometry, WIDTH

from hybrid_depth.pipeline import DepthPipeline
from hybrid_depth.pose_check import PoseCheck
from hybrid_depth.scale import ScaleReport
from hybrid_depth.types import Evidence, Frame

MS = 1_000_000
pytestmark = pytest.mark.usefixtures('ros')


@pytest.fixture
def posed(ros: None) -> Iterator[Bench]:
    """Return a bench whose fake model wants poses, listening and calibrated."""
    made = Bench(PosedFake)
    made.start('depth/image')
    made.calibrate()
    yield made
    made.close()


def frame_at(bench: Bench, stamp_ns: int) -> Frame:
    """Send an image and return the frame that the pipeline got."""
    bench.send_and_wait(grey_image(stamp_ns=stamp_ns))
    return bench.pipeline.frames[-1]


def set_parameter(bench: Bench, name: str, value: Any) -> None:
    assert bench.node.set_parameters([Parameter(name, value=value)])[0].successful


def floats(cloud: Any) -> np.ndarray:
    return np.frombuffer(cloud.data, '<f4').reshape(cloud.height, cloud.width, 4)


def test_the_pose_is_that_of_the_image_stamp(posed: Bench) -> None:
    posed.tell(odometry(2000 * MS, 1.0), odometry(2100 * MS, 2.0))
    np.testing.assert_allclose(frame_at(posed, 2050 * MS).odom_T_camera[:3, 3], [1.5, 0, 0])
    posed.diagnosed(lambda _, values: values['odometry.state'].startswith('ok')
                    and values['odometry.received'] == '2')


def test_single_frame_models_say_that_poses_are_not_used(bench: Bench) -> None:
    bench.start('depth/image')
    bench.calibrate()
    bench.tell(odometry(2000 * MS, 1.0))
    frame_at(bench, 2000 * MS)
    bench.diagnosed(lambda _, values: 'no: this model' in values['odometry.use']
                    and values['odometry.state'].startswith('ok'))


def test_the_time_offset_shifts_the_pose(posed: Bench) -> None:
    posed.tell(odometry(2000 * MS, 1.0), odometry(2100 * MS, 2.0))
    first = frame_at(posed, 2050 * MS)
    set_parameter(posed, 'odom.time_offset_s', 0.03)  # the odometry is stamped 30 ms too early
    second = frame_at(posed, 2060 * MS)
    assert second.odom_T_camera[0, 3] == pytest.approx(1.3)
    assert second.pose_epoch != first.pose_epoch
    assert posed.received['depth/image'][-1].header.stamp.nanosec == 60 * MS


def test_odometry_that_jumps_begins_a_new_epoch(posed: Bench) -> None:
    posed.tell(*(odometry((2000 + 100 * i) * MS, 0.1 * i) for i in range(4)))
    first, second = frame_at(posed, 2050 * MS), frame_at(posed, 2300 * MS)
    assert first.pose_epoch == second.pose_epoch
    posed.tell(odometry(2400 * MS, 9.0))
    third = frame_at(posed, 2400 * MS)
    assert third.odom_T_camera[0, 3] == 9.0
    assert third.pose_epoch != second.pose_epoch
    posed.diagnosed(lambda _, values: values['odometry.jump'] == '1')


def test_a_frame_waits_for_late_odometry(posed: Bench) -> None:
    set_parameter(posed, 'odom.max_wait_ms', 200.0)
    posed.tell(odometry(2000 * MS, 1.0))
    posed.send(grey_image(stamp_ns=2100 * MS))
    posed.until(lambda: posed.node._resources.cameras[0].stats.snapshot().received == 1)
    posed.spin(0.05)
    assert not posed.pipeline.frames
    posed.tell(odometry(2200 * MS, 3.0))
    posed.until(lambda: bool(posed.received['depth/image']))
    np.testing.assert_allclose(posed.pipeline.frames[0].odom_T_camera[:3, 3], [2.0, 0, 0])


def test_an_orientation_that_is_none_is_rejected(posed: Bench) -> None:
    posed.tell(odometry(2000 * MS, 1.0), odometry(2050 * MS, 7.0, w=0.0),
               odometry(2100 * MS, 2.0))
    assert frame_at(posed, 2050 * MS).odom_T_camera[0, 3] == pytest.approx(1.5)
    posed.diagnosed(lambda _, values: values['odometry.rejected'] == '1')


def test_parameters_of_odometry_and_scale_reach_the_pipeline(posed: Bench) -> None:
    posed.tell(odometry(2000 * MS, 1.0))
    frame_at(posed, 2000 * MS)
    assert (posed.pipeline.config.use_odometry, posed.pipeline.config.camera_height_m) == (True, 0)
    set_parameter(posed, 'odom.use', False)
    set_parameter(posed, 'camera_height_m', 1.65)
    frame_at(posed, 2000 * MS)
    assert (posed.pipeline.config.use_odometry, posed.pipeline.config.camera_height_m) == \
        (False, 1.65)
    posed.diagnosed(lambda _, values: values['odometry.use'] == 'no: odom.use is false')


def test_the_direction_of_gravity_reaches_the_pipeline() -> None:
    bench = Bench(PosedFake, extrinsic__rotation=[-0.5, 0.5, -0.5, 0.5])
    try:
        bench.start('depth/image')
        bench.calibrate()
        np.testing.assert_allclose(frame_at(bench, 2000 * MS).down_camera, [0, 1, 0], atol=1e-12)
    finally:
        bench.close()


def test_scale_has_the_header_of_its_image(posed: Bench) -> None:
    posed.listen('scale')
    posed.until(lambda: len(posed.node._resources.cameras[0].outputs.wanted()) == 2)
    posed.pipeline.more = {'scale': ScaleReport(1.25, 0.04, {'network': (1.0, 0.15)}, True, '')}
    image = grey_image(stamp_ns=3_123_456_789)
    message = posed.send_and_wait(image, 'scale')
    assert message.header == image.header
    assert (message.vector.x, message.vector.y, message.vector.z) == (
        1.25, pytest.approx(0.05), 1.0)
    posed.pipeline.more = {'scale': ScaleReport(1.25, 0.04, {}, False, 'ground says 2')}
    assert posed.send_and_wait(topic='scale').vector.z == 0.0
    posed.diagnosed(lambda _, values: values['scale.state'] == 'ground says 2'
                    and values['scale.value'] == '1.250')
    posed.pipeline.more = {}
    unknown = posed.send_and_wait(topic='scale').vector
    assert math.isnan(unknown.x)
    assert math.isnan(unknown.y)
    assert unknown.z == 0.0


def test_evidence_is_an_image_of_its_values(posed: Bench) -> None:
    posed.listen('depth/evidence')
    posed.until(lambda: len(posed.node._resources.cameras[0].outputs.wanted()) == 2)
    evidence = (np.arange(HEIGHT * WIDTH) % len(Evidence)).astype(np.uint8).reshape(HEIGHT, WIDTH)
    posed.pipeline.more = {'evidence': evidence}
    image = grey_image(stamp_ns=3_000_000_007)
    message = posed.send_and_wait(image, 'depth/evidence')
    assert message.header == image.header
    assert (message.encoding, message.width, message.step) == ('mono8', WIDTH, WIDTH)
    np.testing.assert_array_equal(
        np.frombuffer(message.data, np.uint8).reshape(HEIGHT, WIDTH), evidence)
    posed.pipeline.more = {}
    assert not any(posed.send_and_wait(topic='depth/evidence').data)


def test_thresholds_take_out_exactly_their_points(bench: Bench) -> None:
    bench.start('points')
    bench.calibrate()
    rng = np.random.default_rng(4)
    depth_m = rng.uniform(2, 9, (HEIGHT, WIDTH)).astype(np.float32)
    relative = rng.uniform(0, 0.4, (HEIGHT, WIDTH)).astype(np.float32)
    evidence = rng.integers(0, len(Evidence), (HEIGHT, WIDTH)).astype(np.uint8)
    bench.pipeline.more = {'depth_m': depth_m, 'sigma_m': relative * depth_m,
                           'evidence': evidence}

    def missing() -> np.ndarray:
        return np.isnan(floats(bench.send_and_wait(topic='points'))[..., 2])
    assert not missing().any()
    set_parameter(bench, 'cloud.max_relative_sigma', 0.2)
    unsure = relative * depth_m > np.float32(0.2) * depth_m
    np.testing.assert_array_equal(missing(), unsure)
    set_parameter(bench, 'cloud.remove_moving', True)
    np.testing.assert_array_equal(missing(), unsure | (evidence == Evidence.MOVING))
    set_parameter(bench, 'cloud.max_relative_sigma', 0.0)
    np.testing.assert_array_equal(missing(), evidence == Evidence.MOVING)
    set_parameter(bench, 'cloud.only_matched', True)
    np.testing.assert_array_equal(missing(), evidence != Evidence.MATCHED)
    set_parameter(bench, 'cloud.only_matched', False)
    set_parameter(bench, 'cloud.remove_moving', False)
    assert not missing().any()


def test_contradictions_are_diagnosed_while_frames_come(posed: Bench) -> None:
    wrong = PoseCheck(verdict='inconsistent', frame_verdict='inconsistent', error=0.5,
                      error_unmoved=0.5, error_best=0.2, misfit=1.0, direction_deg=90.0,
                      scale_ratio=1.0, fault='motion', reason='sideways')
    posed.pipeline.more = {'pose_check': wrong, 'mode': 'posed', 'sources': 2}
    timer = posed.client.create_timer(0.05, posed.send)

    def seen(status: Any, values: dict[str, str]) -> bool:
        return status.level == b'\2' and status.message.startswith('sideways') \
            and 'extrinsic.rotation' in status.message and values['sources'] == '2' \
            and values['pose_check.verdict'] == 'inconsistent'
    posed.diagnosed(seen)
    posed.pipeline.more = {'scale': ScaleReport(2.0, 0.5, {}, False, 'they differ')}
    posed.diagnosed(lambda status, _: status.level == b'\1'
                    and status.message == 'metric scale: they differ')
    posed.pipeline.more = {}
    posed.diagnosed(lambda status, _: status.level == b'\0' and status.message == 'active')
    posed.client.destroy_timer(timer)


def test_a_recurrent_model_in_the_node(tiny_posed_model: Path) -> None:
    bench = Bench(DepthPipeline, model=str(tiny_posed_model))
    texture = np.random.default_rng(5).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    modes: list[str] = []

    def step(stamp_ns: int, x: float) -> None:
        """Send odometry and an image of the same stamp, and note how depth was made."""
        bench.tell(odometry(stamp_ns, x))
        bench.send_and_wait(image_message(texture, stamp_ns=stamp_ns), 'depth/evidence')
        stats = bench.node._resources.cameras[0].stats
        bench.until(lambda: stats.snapshot().processed == len(modes) + 1)  # counted once it is out
        modes.append(stats.snapshot().mode)
    try:
        bench.start('depth/evidence', 'scale')
        bench.until(lambda: len(bench.node._resources.cameras[0].outputs.wanted()) == 2)
        bench.calibrate()
        for i in range(6):
            step((2000 + 100 * i) * MS, 0.2 * i)
        assert modes[0] == 'single_frame'
        assert modes[-1] == 'posed'
        assert any(bench.received['depth/evidence'][-1].data)
        bench.until(lambda: len(bench.received['scale']) == 6)
        assert [m.header for m in bench.received['scale']] == \
            [m.header for m in bench.received['depth/evidence']]
        bench.diagnosed(lambda _, values: int(values['sources']) > 0
                        and float(values['posed_share']) > 0
                        and values['odometry.use'] == 'yes')
        # a new epoch: the same place, but nobody may compare it with the one before
        assert bench.node.set_parameters([Parameter('odom.time_offset_s', value=1e-4)])
        step(2600 * MS, 1.2)
        step(2700 * MS, 1.4)
        assert modes[-2] == 'single_frame'
    finally:
        bench.close()
