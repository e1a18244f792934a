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
"""Compressed input, encoded depth, lenses, clocks and QoS through the node, on real topics."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
import struct
from typing import Any

from builtin_interfaces.msg import Time
import cv2
from node_bench import Bench, PosedFake
import numpy as np
import pytest
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from ros_messages import camera_info, FRAME, grey_image, HEIGHT, odometry, WIDTH
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage
from tiny_model import tiny_depth

from hybrid_depth.pipeline import DepthPipeline

pytestmark = pytest.mark.usefixtures('ros')
MS = 1_000_000


def floats(message: Any) -> np.ndarray:
    return np.frombuffer(message.data, '<f4').reshape(message.height, message.width)


def picture() -> np.ndarray:
    pixels = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    pixels[:, WIDTH // 2:] = (10, 200, 90)
    return pixels


def compressed(data: bytes, image_format: str = 'rgb8; png compressed bgr8',
               stamp_ns: int = 2 * 10**9) -> CompressedImage:
    message = CompressedImage(format=image_format, data=data)
    message.header.frame_id = FRAME
    message.header.stamp = Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return message


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode('.png', pixels[..., ::-1])[1].tobytes()


@pytest.fixture
def squeezed(tiny_model: Path) -> Iterator[Bench]:
    """Return a node with the tiny model that listens to compressed images."""
    bench = Bench(DepthPipeline, model=str(tiny_model), image_transport='compressed')
    bench.images = bench.client.create_publisher(CompressedImage, 'image/compressed',
                                                 QoSProfile(depth=10))
    bench.start('depth/image')
    bench.calibrate()
    yield bench
    bench.close()


def test_compressed_images_become_depth(squeezed: Bench) -> None:
    depth = squeezed.send_and_wait(compressed(png(picture()), stamp_ns=5_123_456_789))
    assert (depth.header.stamp.sec, depth.header.stamp.nanosec) == (5, 123_456_789)
    assert depth.header.frame_id == FRAME
    np.testing.assert_allclose(floats(depth), tiny_depth(picture(), 100.0), rtol=1e-5)
    jpeg = cv2.imencode('.jpg', np.full((HEIGHT, WIDTH, 3), 60, np.uint8))[1].tobytes()
    depth = squeezed.send_and_wait(compressed(jpeg, 'jpeg'))
    np.testing.assert_allclose(floats(depth), floats(depth)[0, 0], rtol=0.02)
    # nothing but that is listened to
    assert squeezed.client.count_subscribers('/image') == 0


def huge() -> bytes:
    data = png(picture())
    return data[:16] + struct.pack('>II', 60000, 60000) + data[24:]


@pytest.mark.parametrize(('data', 'reason'), [
    (huge(), 'size_mismatch'), (png(picture())[:200], 'undecodable'), (b'', 'undecodable'),
    (png(picture()[:50]), 'size_mismatch'),
], ids=['claims to be huge', 'cut off', 'empty', 'of another camera'])
def test_bad_compressed_image_is_dropped(squeezed: Bench, data: bytes, reason: str) -> None:
    squeezed.send_bad(compressed(data), reason)
    squeezed.send_and_wait(compressed(png(picture())))


def test_compressed_topic_follows_the_remapping_of_the_image(tiny_model: Path) -> None:
    bench = Bench(image_transport='compressed', cli_args=[
        '--ros-args', '-r', 'image:=/cam/image_rect'])
    try:
        bench.images = bench.client.create_publisher(
            CompressedImage, '/cam/image_rect/compressed', QoSProfile(depth=10))
        bench.start('depth/image')
        bench.calibrate(camera_info(D=[0.1, 0.0, 0.0, 0.0, 0.0]))
        bench.send_and_wait(compressed(png(picture())))
        assert not bench.pipeline.frames[-1].camera.is_distorted  # the name says 'rect'
    finally:
        bench.close()


def test_encoded_depth_outputs(bench: Bench) -> None:
    bench.start('depth/image', 'depth/image_raw', 'depth/image/compressedDepth')
    bench.calibrate()
    image = grey_image(stamp_ns=3 * 10**9)
    depth_m = floats(bench.send_and_wait(image))
    bench.until(lambda: bool(bench.received['depth/image_raw'])
                and bool(bench.received['depth/image/compressedDepth']))
    raw = bench.received['depth/image_raw'][0]
    assert raw.header == image.header
    assert (raw.encoding, raw.step, raw.is_bigendian) == ('16UC1', 2 * WIDTH, 0)
    millimetres = np.frombuffer(raw.data, '<u2').reshape(HEIGHT, WIDTH)
    assert millimetres[0, :2].tolist() == [0, 0]  # NaN and Inf
    np.testing.assert_array_equal(millimetres[1:], np.floor(depth_m[1:] * 1000 + 0.5))
    packed = bench.received['depth/image/compressedDepth'][0]
    assert packed.header == image.header
    assert packed.format == '32FC1; compressedDepth png'
    kind, a, b = struct.unpack('<iff', bytes(packed.data[:12]))
    assert (kind, a, b) == (0, 10100, 1 - 10100 / 80)
    codes = cv2.imdecode(np.frombuffer(packed.data[12:], np.uint8), cv2.IMREAD_UNCHANGED)
    assert codes[0, :2].tolist() == [0, 0]
    np.testing.assert_allclose(a / (codes[1:] - b), depth_m[1:], rtol=2e-3)
    # its decoder's far end is that of the node
    bench.node.set_parameters([Parameter('max_depth_m', value=50.0)])
    packed = bench.send_and_wait(topic='depth/image/compressedDepth')
    assert struct.unpack('<f', bytes(packed.data[8:12]))[0] == 1 - 10100 / 50


def test_zero_for_readers_that_know_no_nan(bench: Bench) -> None:
    bench.start('depth/image')
    bench.calibrate()
    assert np.isnan(floats(bench.send_and_wait())[0, 0])
    bench.node.set_parameters([Parameter('invalid_value', value='zero')])
    depth_m = floats(bench.send_and_wait())
    assert depth_m[0, :2].tolist() == [0, 0]
    assert (depth_m[1:] > 0).all()


# lenses, each by its published formula: x/z, y/z of a ray -> the same on the distorted image

def plumb_bob(x: np.ndarray, y: np.ndarray, D: list[float]) -> tuple[np.ndarray, np.ndarray]:
    k1, k2, p1, p2, k3 = D
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    return (x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y)


def rational(x: np.ndarray, y: np.ndarray, D: list[float]) -> tuple[np.ndarray, np.ndarray]:
    k1, k2, p1, p2, k3, k4, k5, k6 = D
    r2 = x * x + y * y
    radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
    return (x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y)


def equidistant(x: np.ndarray, y: np.ndarray, D: list[float]) -> tuple[np.ndarray, np.ndarray]:
    r = np.hypot(x, y)
    t = np.arctan(r)
    bent = t * (1 + sum(k * t**(2 * i + 2) for i, k in enumerate(D)))
    factor = np.where(r > 1e-9, bent / np.maximum(r, 1e-9), 1)
    return x * factor, y * factor


@pytest.mark.parametrize(('model', 'bend', 'D', 'focal'), [
    ('plumb_bob', plumb_bob, [-0.2, 0.05, 0.001, -0.002, 0.01], 100.0),
    ('rational_polynomial', rational, [0.2, 0.1, 0.001, -0.001, 0.02, 0.4, 0.15, 0.03], 100.0),
    ('equidistant', equidistant, [-0.02, 0.01, -0.003, 0.001], 60.0),
])
def test_points_lie_on_the_rays_of_the_lens(tiny_model: Path, model: str, bend: Any,
                                            D: list[float], focal: float) -> None:
    bench = Bench(DepthPipeline, model=str(tiny_model), cloud__remove_edges=False)
    try:
        bench.start('depth/image', 'points', 'depth/camera_info')
        bench.calibrate(camera_info(focal=focal, D=D, model=model))
        depth_m = floats(bench.send_and_wait())
        bench.until(lambda: bool(bench.received['points'])
                    and bool(bench.received['depth/camera_info']))
        info = bench.received['depth/camera_info'][0]
        assert (info.distortion_model, list(info.d), info.k[0]) == (model, D, focal)
        points = np.frombuffer(bench.received['points'][0].data, '<f4').reshape(HEIGHT, WIDTH, 4)
        kept = np.isfinite(points[..., 2])
        assert kept.mean() > 0.5  # the model sees a pinhole view, which a wide lens exceeds
        np.testing.assert_array_equal(points[..., 2][kept], depth_m[kept])
        x, y, z = (points[..., axis].astype(np.float64) for axis in range(3))
        u, v = (focal * bent + info.k[index] for bent, index in
                zip(bend(x / z, y / z, D), (2, 5), strict=True))
        columns, rows = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
        assert np.abs(u - columns)[kept].max() < 0.05
        assert np.abs(v - rows)[kept].max() < 0.05
        # and they are not those of a lens without distortion
        assert np.abs(focal * x / z + info.k[2] - columns)[kept].max() > 1
    finally:
        bench.close()


def test_network_view_of_a_fisheye_is_a_pinhole(tiny_model: Path) -> None:
    bench = Bench(DepthPipeline, model=str(tiny_model), resolution='network')
    try:
        bench.start('depth/image', 'depth/camera_info')
        bench.calibrate(camera_info(focal=60.0, D=[-0.02, 0.01, 0.0, 0.0], model='equidistant'))
        bench.send_and_wait()
        bench.until(lambda: bool(bench.received['depth/camera_info']))
        info = bench.received['depth/camera_info'][0]
        assert list(info.d) == []
        assert info.k[0] == info.p[0] > 0
    finally:
        bench.close()


def test_a_looped_recording_with_its_clock(tiny_posed_model: Path) -> None:
    bench = Bench(DepthPipeline, model=str(tiny_posed_model), use_sim_time=True)
    clock = bench.client.create_publisher(Clock, '/clock', QoSProfile(depth=10))
    modes: list[list[str]] = []

    def is_told() -> bool:
        clock.publish(Clock(clock=Time(sec=105)))
        return int(bench.node.get_clock().now().nanoseconds) == 105 * 10**9
    try:
        bench.start('depth/image')
        bench.calibrate()
        bench.until(is_told)
        for start_s in (105, 100):  # laps
            modes.append([])
            for step in range(4):
                stamp_ns = start_s * 10**9 + step * 100 * MS
                clock.publish(Clock(clock=Time(sec=start_s, nanosec=step * 100 * MS)))
                bench.tell(odometry(stamp_ns, 0.2 * step))
                out = bench.send_and_wait(grey_image(10 * step + 50, stamp_ns=stamp_ns))
                assert (out.header.stamp.sec, out.header.stamp.nanosec) == \
                    (start_s, step * 100 * MS)
                modes[-1].append(bench.node._resources.cameras[0].stats.snapshot().mode)
        # the first frame of a lap has nothing before it, the others have
        assert modes[0][0] == modes[1][0] == 'single_frame'
        assert modes[0][-1] == modes[1][-1] == 'posed'
        assert not bench.drops()
        bench.diagnosed(lambda _, values: values['odometry.image_time_back'] == '1')
    finally:
        bench.close()


def test_every_endpoint_takes_overrides() -> None:
    bench = Bench(PosedFake, image_transport='compressed')
    try:
        assert bench.node.start()
        bench.listen('depth/image')
        node = bench.node
        own = {'/rosout', '/parameter_events', '/clock'}  # rclpy's

        def endpoints() -> dict[str, str]:
            # not from the graph: a node of a test before this one has the same name, and is in
            # the graph until it is collected
            found = {'subscription': node.subscriptions, 'publisher': node.publishers}
            return {entity.topic_name: kind for kind, entities in found.items()
                    for entity in entities if entity.topic_name not in own}
        bench.until(lambda: {'/image/compressed', '/camera_info', '/odom', '/diagnostics',
                             '/hybrid_depth/depth/image/compressedDepth'} <= set(endpoints()))
        for topic, kind in endpoints().items():
            for policy in ('history', 'depth', 'reliability'):
                assert node.has_parameter(f'qos_overrides.{topic}.{kind}.{policy}')
    finally:
        bench.close()
