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
"""What the node publishes, read by the packages that users read it with, where installed."""
from __future__ import annotations

from collections.abc import Iterator
import struct
from typing import Any

import cv2
from node_bench import Bench, FakePipeline
import numpy as np
import pytest
from ros_messages import FRAME

from hybrid_depth.types import DepthResult, Frame

TOPICS = ('depth/image', 'depth/image_raw', 'depth/image/compressedDepth', 'depth/evidence',
          'points', 'points_filtered', 'points_clearing')
MOUNT = {'extrinsic__rotation': [-0.5, 0.5, -0.5, 0.5], 'extrinsic__translation': [0.2, 0.0, 1.5]}
pytestmark = pytest.mark.usefixtures('ros')


class Mixed(FakePipeline):
    """Depth with everything in it that a depth image may hold."""

    def run(self, frame: Frame, extras: Any = ()) -> DepthResult:
        result = super().run(frame, extras)
        result.depth_m[2, :] = np.inf
        result.depth_m[3, :5] = np.nan
        result.depth_m[4, :5] = -np.inf
        return result


@pytest.fixture(scope='module')
def published(ros: None) -> Iterator[dict[str, Any]]:
    """Return one message of each of TOPICS, all of one image."""
    bench = Bench(Mixed, cloud__voxel_m=0.0, **MOUNT)
    try:
        bench.start(*TOPICS)
        bench.calibrate()
        bench.send()
        bench.until(lambda: all(bench.received[topic] for topic in TOPICS))
        yield {topic: bench.received[topic][0] for topic in TOPICS}
    finally:
        bench.close()


def depth_of(published: dict[str, Any]) -> np.ndarray:
    image = published['depth/image']
    return np.frombuffer(image.data, '<f4').reshape(image.height, image.width)


def test_sensor_msgs_py_reads_the_clouds(published: dict[str, Any]) -> None:
    point_cloud2 = pytest.importorskip('sensor_msgs_py.point_cloud2',
                                       reason='sensor_msgs_py is not installed')
    depth_m = depth_of(published)
    cloud = published['points']
    # not with its reshape_organized_cloud, which takes width for height
    points = point_cloud2.read_points(cloud, skip_nans=False).reshape(cloud.height, cloud.width)
    assert points.dtype.names == ('x', 'y', 'z', 'rgb')
    is_point = np.isfinite(points['z'])
    np.testing.assert_array_equal(points['z'][is_point], depth_m[is_point])
    assert not is_point[~np.isfinite(depth_m)].any()
    dense = point_cloud2.read_points_numpy(cloud, ('x', 'y', 'z'), skip_nans=True)
    assert dense.shape == (is_point.sum(), 3)
    filtered = published['points_filtered']
    assert filtered.header.frame_id == 'base_link'
    moved = np.stack((dense[:, 2] + 0.2, -dense[:, 0], 1.5 - dense[:, 1]), axis=1)
    np.testing.assert_allclose(point_cloud2.read_points_numpy(filtered, ('x', 'y', 'z')), moved,
                               atol=1e-4)
    clearing = published['points_clearing']
    assert clearing.header.frame_id == FRAME
    rays = point_cloud2.read_points_numpy(clearing)
    assert rays.shape == (np.isposinf(depth_m).sum(), 3)
    np.testing.assert_allclose(np.linalg.norm(rays, axis=1), 30.0, rtol=1e-5)


def test_cv_bridge_reads_the_images(published: dict[str, Any]) -> None:
    bridge = pytest.importorskip('cv_bridge', reason='cv_bridge is not installed').CvBridge()
    depth_m = depth_of(published)
    for desired in ('passthrough', '32FC1'):
        np.testing.assert_array_equal(
            bridge.imgmsg_to_cv2(published['depth/image'], desired), depth_m)
    raw = bridge.imgmsg_to_cv2(published['depth/image_raw'])
    assert raw.dtype == np.uint16
    is_depth = np.isfinite(depth_m) & (depth_m < 65.534)
    np.testing.assert_allclose(raw[is_depth] / 1000, depth_m[is_depth], atol=5.1e-4)
    assert not raw[~is_depth].any()
    evidence = bridge.imgmsg_to_cv2(published['depth/evidence'], 'mono8')
    assert evidence.shape == depth_m.shape


def test_compressed_depth_is_read_as_its_format_says(published: dict[str, Any]) -> None:
    message = published['depth/image/compressedDepth']
    assert message.format.split(';')[0] == '32FC1'
    kind, a, b = struct.unpack('<iff', bytes(message.data[:12]))
    codes = cv2.imdecode(np.frombuffer(message.data, np.uint8)[12:], cv2.IMREAD_UNCHANGED)
    assert (kind, codes.dtype) == (0, np.uint16)
    depth_m = depth_of(published)
    is_depth = codes > 0
    np.testing.assert_array_equal(is_depth, np.isfinite(depth_m) & (depth_m < 80))
    with np.errstate(divide='ignore'):
        back = a / (codes.astype(np.float32) - b)
    error = np.abs(back - depth_m)[is_depth] / depth_m[is_depth] ** 2
    assert error.max() < 1 / 10100 * 1.05
