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
"""The node on real topics, with the tiny model: outputs, headers, demand, parameters."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
import threading

from node_bench import Bench, FakePipeline
import numpy as np
import pytest
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, HistoryPolicy, ReliabilityPolicy
from ros_messages import camera_info, FRAME, grey_image, HEIGHT, image_message, WIDTH
from tiny_model import tiny_depth

from hybrid_depth.pipeline import DepthPipeline
from hybrid_depth_ros import diagnostics
from hybrid_depth_ros.depth_node import DepthNode
from hybrid_depth_ros.outputs import OUTPUTS

ALL = ('depth/image', 'depth/image_raw', 'depth/image/compressedDepth', 'depth/camera_info',
       'depth/sigma', 'depth/evidence', 'scale', 'points')
pytestmark = pytest.mark.usefixtures('ros')


@pytest.fixture
def real(tiny_model: Path) -> Iterator[Bench]:
    """Return a bench with the real pipeline and the tiny model."""
    made = Bench(DepthPipeline, model=str(tiny_model))
    yield made
    made.close()


def floats(message) -> np.ndarray:
    return np.frombuffer(message.data, '<f4').reshape(message.height, message.width)


def test_one_set_of_outputs_for_each_image_with_its_header(real: Bench) -> None:
    real.start(*ALL)
    real.calibrate()
    pixels = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    pixels[:, WIDTH // 2:] = (10, 200, 90)
    for stamp_ns in (5_123_456_789, 5_223_456_789):
        image = image_message(pixels, stamp_ns=stamp_ns)
        real.send_and_wait(image)
        real.until(lambda: len({len(real.received[topic]) for topic in ALL}) == 1)
        for topic in ALL:
            assert real.received[topic][-1].header == image.header
    depth = real.received['depth/image'][-1]
    assert (depth.encoding, depth.step, depth.height) == ('32FC1', 4 * WIDTH, HEIGHT)
    expected = tiny_depth(pixels, 100.0)[:, 20]
    np.testing.assert_allclose(floats(depth)[:, 20], expected, rtol=1e-5)
    sigma = floats(real.received['depth/sigma'][-1])
    np.testing.assert_allclose(sigma[:, 20], 0.1 * floats(depth)[:, 20], rtol=1e-5)
    check_cloud(real.received['points'][-1], floats(depth), pixels)
    info = real.received['depth/camera_info'][-1]
    assert (info.width, info.height, info.k[0], info.p[0]) == (WIDTH, HEIGHT, 100.0, 100.0)


def check_cloud(cloud, depth_m: np.ndarray, pixels: np.ndarray) -> None:
    assert (cloud.height, cloud.width) == (HEIGHT, WIDTH)
    assert (cloud.point_step, cloud.row_step) == (16, 16 * WIDTH)
    assert not cloud.is_dense
    assert not cloud.is_bigendian
    assert [(field.name, field.offset, field.datatype, field.count) for field in cloud.fields] == \
        [('x', 0, 7, 1), ('y', 4, 7, 1), ('z', 8, 7, 1), ('rgb', 12, 7, 1)]
    points = np.frombuffer(cloud.data, '<f4').reshape(HEIGHT, WIDTH, 4)
    kept = np.isfinite(points[..., 2])
    assert kept.mean() > 0.8
    assert np.isnan(points[~kept][:, :3]).all()
    np.testing.assert_array_equal(points[..., 2][kept], depth_m[kept])
    u = np.broadcast_to(np.arange(WIDTH), (HEIGHT, WIDTH))
    np.testing.assert_allclose(points[..., 0][kept],
                               ((u - (WIDTH / 2 - 0.5)) / 100 * depth_m)[kept], atol=1e-4)
    colours = np.frombuffer(cloud.data, np.uint8).reshape(HEIGHT, WIDTH, 16)[..., 12:15]
    np.testing.assert_array_equal(colours, pixels[..., ::-1])  # B, G, R in memory


def test_invalid_and_far_depth(bench: Bench) -> None:
    bench.start(*ALL)
    bench.calibrate()
    depth = floats(bench.send_and_wait())
    assert np.isnan(depth[0, 0])
    assert depth[0, 1] == np.inf
    assert not (depth == 0).any()
    bench.until(lambda: bool(bench.received['points']))
    cloud = np.frombuffer(bench.received['points'][0].data, '<f4').reshape(HEIGHT, WIDTH, 4)
    assert np.isnan(cloud[0, :2, :3]).all()
    assert np.isfinite(cloud[1:, :, :3]).all()


def test_network_resolution_scales_camera_info(real: Bench) -> None:
    real.start('depth/image', 'depth/camera_info')
    real.calibrate(camera_info(320, 240, 200.0))
    real.node.set_parameters([Parameter('resolution', value='network')])
    depth = real.send_and_wait(grey_image(width=320, height=240))
    real.until(lambda: bool(real.received['depth/camera_info']))
    info = real.received['depth/camera_info'][-1]
    assert depth.width < 320
    assert (info.width, info.height) == (depth.width, depth.height)
    scale = depth.width / 320
    assert info.k[0] == pytest.approx(200 * scale)
    assert info.p[2] == pytest.approx((159.5 + 0.5) * scale - 0.5)


def test_parameter_acts_on_the_next_frame(real: Bench) -> None:
    real.start('depth/image')
    real.calibrate()
    assert np.isfinite(floats(real.send_and_wait())).all()
    for policy, value in (('nan', np.nan), ('inf', np.inf), ('clip', 2.0)):
        real.node.set_parameters([Parameter('max_depth_m', value=2.0),
                                  Parameter('far_policy', value=policy)])
        np.testing.assert_array_equal(floats(real.send_and_wait()), np.float32(value))
    assert not real.node.set_parameters([Parameter('far_policy', value='no')])[0].successful
    np.testing.assert_array_equal(floats(real.send_and_wait()), np.float32(2.0))


def test_cloud_parameters_act(bench: Bench) -> None:
    bench.start('points')
    bench.calibrate()
    bench.node.set_parameters([Parameter('cloud.stride', value=4)])
    cloud = bench.send_and_wait(topic='points')
    assert (cloud.width, cloud.height) == (WIDTH // 4, HEIGHT // 4)
    bench.node.set_parameters([Parameter('cloud.max_range_m', value=0.5)])
    cloud = bench.send_and_wait(topic='points')
    assert np.isnan(np.frombuffer(cloud.data, '<f4').reshape(-1, 4)[:, :3]).all()


def test_only_what_is_listened_to_is_published(bench: Bench) -> None:
    bench.start('depth/sigma')
    bench.calibrate()
    bench.send_and_wait(topic='depth/sigma')
    outputs = bench.node._resources.cameras[0].outputs
    assert [row.topic for row in outputs.wanted()] == ['~/depth/sigma']
    # the message of an output that nobody wants was never filled
    assert len(outputs._messages['~/points'].data) == 0
    assert len(outputs._messages['~/depth/image'].data) == 0


def test_only_what_is_listened_to_is_computed(bench: Bench) -> None:
    bench.start('depth/image', 'points')
    bench.calibrate()
    bench.send_and_wait()
    assert bench.pipeline.extras == frozenset()
    bench.node.set_parameters([Parameter('cloud.max_relative_sigma', value=0.5)])
    bench.send_and_wait()
    assert bench.pipeline.extras == {'sigma'}
    bench.listen('depth/evidence')
    bench.until(lambda: bench.send_and_wait() and 'evidence' in bench.pipeline.extras)


def test_nothing_is_received_or_computed_without_listener(bench: Bench) -> None:
    assert bench.node.start()
    bench.until(lambda: bench.infos.get_subscription_count() > 0)
    bench.calibrate()
    # ready for the camera, and from then on not even that is listened to
    bench.until(lambda: bench.infos.get_subscription_count() == 0)
    assert bench.pipeline.warmed_up_for.width == WIDTH
    assert bench.pipeline.was_hurried is False
    assert bench.images.get_subscription_count() == 0
    assert bench.odometry.get_subscription_count() == 0
    bench.listen('depth/image')
    bench.until(lambda: bench.images.get_subscription_count() > 0)
    bench.send_and_wait()
    frames = len(bench.pipeline.frames)
    bench.ignore('depth/image')
    bench.until(lambda: not bench.node._resources.cameras[0].outputs.wanted())
    bench.send()  # arrives before the node has stopped listening
    bench.until(lambda: bench.drops().get('no_subscriber', 0) == 1
                or bench.images.get_subscription_count() == 0)
    bench.until(lambda: bench.images.get_subscription_count() == 0)
    assert len(bench.pipeline.frames) == frames
    bench.diagnosed(lambda status, _: status.level == b'\0' and 'idle' in status.message)


def test_an_image_that_waits_cuts_the_warming_up_short(bench: Bench) -> None:
    bench.start('depth/image')
    bench.pipeline.warm_gate = threading.Event()
    bench.calibrate()
    bench.until(lambda: hasattr(bench.pipeline, 'warmed_up_for'))
    bench.send()
    bench.until(lambda: bench.node._resources.cameras[0].stats.snapshot().received == 1)
    bench.pipeline.warm_gate.set()
    bench.until(lambda: len(bench.received['depth/image']) == 1)
    assert bench.pipeline.was_hurried is True


def test_newest_image_wins_under_overload(bench: Bench) -> None:
    bench.start('depth/image')
    bench.calibrate()
    bench.pipeline.gate = threading.Event()
    first = bench.send()
    bench.until(lambda: len(bench.pipeline.frames) == 1)
    for count in range(5):
        newest = bench.send()
        bench.until(lambda count=count: bench.drops().get('replaced', 0) == count)
        bench.until(lambda count=count:
                    bench.node._resources.cameras[0].stats.snapshot().received == count + 2)
    bench.pipeline.gate.set()
    bench.until(lambda: len(bench.received['depth/image']) == 2)
    bench.spin(0.2)
    assert [message.header for message in bench.received['depth/image']] == \
        [first.header, newest.header]
    assert bench.drops() == {'replaced': 4}
    bench.diagnosed(lambda status, values: status.level == b'\0'
                    and values['drops.replaced'] == '4')


def test_a_model_that_does_not_return_is_told(bench: Bench,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, '_STUCK_S', 0.3)
    bench.start('depth/image')
    bench.calibrate()
    bench.pipeline.gate = threading.Event()
    bench.send()
    bench.until(lambda: len(bench.pipeline.frames) == 1)
    bench.diagnosed(lambda status, _: status.level == b'\2'
                    and status.message.startswith('no depth: one frame has been in work for'))
    bench.pipeline.gate.set()
    bench.until(lambda: len(bench.received['depth/image']) == 1)
    bench.diagnosed(lambda status, _: status.level == b'\0')


def test_qos_of_every_endpoint(bench: Bench) -> None:
    bench.start('depth/image')
    node = bench.node
    for topic, depth in (('/image', 1), ('/camera_info', 5), ('/odom', 50)):
        profile = next(info.qos_profile for info in
                       bench.client.get_subscriptions_info_by_topic(topic)
                       if info.node_name == 'hybrid_depth')
        assert profile.reliability == ReliabilityPolicy.BEST_EFFORT
        assert profile.durability == DurabilityPolicy.VOLATILE
        assert node.get_parameter(f'qos_overrides.{topic}.subscription.depth').value == depth
    for row in OUTPUTS:
        topic = node.resolve_topic_name(row.topic)
        profile = bench.client.get_publishers_info_by_topic(topic)[0].qos_profile
        assert profile.reliability == ReliabilityPolicy.RELIABLE
        assert profile.durability == DurabilityPolicy.VOLATILE
        assert node.get_parameter(f'qos_overrides.{topic}.publisher.depth').value == 1
        assert node.get_parameter(f'qos_overrides.{topic}.publisher.history').value == \
            HistoryPolicy.KEEP_LAST.name.lower()


def test_frame_of_the_camera_may_be_given() -> None:
    bench = Bench(camera_frame=FRAME)
    try:
        bench.start('depth/image')
        bench.calibrate()
        depth = bench.send_and_wait(grey_image(frame_id='', stamp_ns=77))
        assert depth.header.frame_id == FRAME
        assert depth.header.stamp.nanosec == 77
    finally:
        bench.close()


def test_names_follow_the_namespace() -> None:
    node = DepthNode(FakePipeline, namespace='front')
    try:
        assert node.start()
        assert node.resolve_topic_name('image') == '/front/image'
        published = {publisher.topic_name for publisher in node.publishers}
        assert {'/diagnostics', *(f'/front/hybrid_depth/{topic}' for topic in ALL)} <= published
    finally:
        node.destroy_node()


def test_binned_window_of_a_distorted_camera(real: Bench) -> None:
    info = camera_info(4 * WIDTH, 4 * HEIGHT, 400.0, D=[-0.1, 0.01, 0.0, 0.0, 0.0])
    info.roi.x_offset, info.roi.y_offset = 2 * WIDTH, HEIGHT
    info.roi.width, info.roi.height = 2 * WIDTH, 2 * HEIGHT
    info.binning_x = info.binning_y = 2
    real.start('depth/image', 'depth/camera_info')
    real.calibrate(info)
    depth = real.send_and_wait()
    real.until(lambda: bool(real.received['depth/camera_info']))
    out = real.received['depth/camera_info'][0]
    assert (out.width, out.height) == (depth.width, depth.height) == (WIDTH, HEIGHT)
    assert (out.binning_x, out.roi.width) == (0, 0)
    assert list(out.d) == list(info.d)
    assert out.k[0] == out.p[0] == 200.0
    assert out.k[2] == (info.k[2] - 2 * WIDTH + 0.5) / 2 - 0.5
    assert out.k[5] == (info.k[5] - HEIGHT + 0.5) / 2 - 0.5
