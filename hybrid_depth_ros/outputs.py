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
"""
One table of output topics, and the publishers made from it.

Adding an output: a function that fills its message, and a row. Whether anybody listens, QoS,
header and message reuse are the same for all rows.
"""
from __future__ import annotations

import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
import math
from typing import Any

from geometry_msgs.msg import Vector3Stamped
from nav_msgs.msg import OccupancyGrid
import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField

from hybrid_depth.cloud import CloudPacker, FIELDS
from hybrid_depth.types import DepthResult, Evidence, EXTRAS
from hybrid_depth_ros.bev_outputs import (
    BevState,
    elevation_type,
    fill_clearing,
    fill_elevation,
    fill_filtered,
    fill_occupancy,
)
from hybrid_depth_ros.camera_source import CameraState
from hybrid_depth_ros.conversions import (
    fill_byte_image,
    fill_camera_info,
    fill_float_image,
    fill_millimetre_image,
    set_data,
)
from hybrid_depth_ros.depth_encodings import (
    compressed_depth,
    COMPRESSED_DEPTH_FORMAT,
    to_millimetres,
)
from hybrid_depth_ros.parameters import Settings
from hybrid_depth_ros.pose_source import CameraPose
from hybrid_depth_ros.qos import advertise, output_qos


@dataclass(frozen=True)
class Product:
    """All that an output message may be filled from."""

    result: DepthResult
    source: CameraState
    cloud_packer: CloudPacker
    settings: Settings  # that the result was made with
    pose: CameraPose
    bev: BevState


@dataclass(frozen=True)
class Output:
    """One output topic."""

    topic: str
    message_type: Any
    # the header is set by the caller; False = nothing to say about this frame
    fill: Callable[[Any, Product], bool | None]
    description: str
    # those of types.EXTRAS that fill reads; left out, they take no time
    extras: Callable[[CloudPacker], frozenset[str]] = lambda _: EXTRAS
    is_shared: bool = False  # one topic for all cameras


def _fill_depth(message: Any, product: Product) -> None:
    fill_float_image(message, product.result.depth_m)
    if product.settings['invalid_value'] == 'zero':
        np.nan_to_num(np.frombuffer(message.data, '<f4'), copy=False, posinf=0, neginf=0)


def _fill_millimetres(message: Any, product: Product) -> None:
    fill_millimetre_image(message, to_millimetres(product.result.depth_m))


def _fill_compressed_depth(message: Any, product: Product) -> None:
    message.format = COMPRESSED_DEPTH_FORMAT
    set_data(message, array.array('B', compressed_depth(
        product.result.depth_m, product.settings.pipeline.max_depth_m)))


def _fill_camera_info(message: Any, product: Product) -> None:
    fill_camera_info(message, product.result.camera, product.source.info,
                     product.source.rectified)


def _fill_sigma(message: Any, product: Product) -> None:
    fill_float_image(message, product.result.sigma_m)


def _fill_evidence(message: Any, product: Product) -> None:
    evidence = product.result.evidence
    if evidence is None:  # no such model: all of it rests on the single image
        evidence = np.full(product.result.depth_m.shape, Evidence.SINGLE_FRAME, np.uint8)
    fill_byte_image(message, evidence)


def _fill_scale(message: Any, product: Product) -> None:
    report, vector = product.result.scale, message.vector
    if report is None:
        vector.x, vector.y, vector.z = math.nan, math.nan, 0.0
    else:
        # the report's sigma is that of ln(scale)
        vector.x, vector.y = report.scale, report.scale * report.sigma
        vector.z = float(report.agrees)


def _fill_points(message: Any, product: Product) -> None:
    cloud = product.cloud_packer.pack(product.result)
    if not message.fields:
        message.fields = [PointField(name=name, offset=offset, datatype=datatype, count=1)
                          for name, offset, datatype in FIELDS]
        message.is_bigendian = False
        message.is_dense = False
    message.height, message.width = cloud.height, cloud.width
    message.point_step, message.row_step = cloud.point_step, cloud.row_step
    set_data(message, cloud.data)


def _none(_: CloudPacker) -> frozenset[str]:
    return frozenset()


OUTPUTS: tuple[Output, ...] = (
    Output('~/depth/image', Image, _fill_depth,
           '32FC1, metres along the optical Z axis; NaN = invalid, +Inf = beyond range', _none),
    Output('~/depth/image_raw', Image, _fill_millimetres,
           '16UC1, the same in millimetres; 0 = invalid, or 65.535 m and beyond', _none),
    Output('~/depth/image/compressedDepth', CompressedImage, _fill_compressed_depth,
           'the same for image_transport (compressedDepth png, quantisation 100); NaN = invalid, '
           'or max_depth_m and beyond', _none),
    Output('~/depth/camera_info', CameraInfo, _fill_camera_info,
           'camera of the depth image: K and P scaled to its size', _none),
    Output('~/depth/sigma', Image, _fill_sigma,
           '32FC1, one standard deviation of the depth in metres; NaN where depth is not finite',
           lambda _: frozenset({'sigma'})),
    Output('~/depth/evidence', Image, _fill_evidence,
           'mono8, what the depth of a pixel rests on: see the table of evidence',
           lambda _: frozenset({'evidence'})),
    Output('~/scale', Vector3Stamped, _fill_scale,
           'x = metric scale of the single-frame depth, y = one standard deviation of x, z = 1 '
           'where its cues agree, else 0; NaN, NaN, 0 = no estimate', _none),
    Output('~/points', PointCloud2, _fill_points,
           'organised coloured cloud (x, y, z, rgb; 16 bytes a point); NaN = no point',
           lambda packer: packer.extras),
    Output('~/points_filtered', PointCloud2, fill_filtered,
           'the same points without NaN in base_link, of one row, one in each cloud.voxel_m',
           lambda packer: packer.extras),
    Output('~/points_clearing', PointCloud2, fill_clearing,
           'x, y, z at cloud.clearing_range_m of the rays that meet nothing, of one row, without '
           'NaN: to clear costmaps by', _none),
    Output('~/bev/occupancy', OccupancyGrid, fill_occupancy,
           'free (0), occupied (100), between, or unknown (-1), seen from above: see Maps',
           is_shared=True),
    Output('~/bev/elevation', elevation_type(), fill_elevation,
           'height of what is seen from above, with variance: see Maps', is_shared=True),
)


def output_topic(camera: str, row: Output) -> str:
    """Return the topic of ``row`` for a camera; '' = the only one."""
    return row.topic if row.is_shared else camera_topic(camera, row.topic)


def camera_topic(camera: str, topic: str) -> str:
    """Return the private ``topic`` of a camera; '' = the only one."""
    return topic.replace('~/', f'~/{camera}/', 1) if camera else topic


class OutputPublishers:
    """
    A lifecycle publisher and one reused message for each row of OUTPUTS, for one camera.

    Created and destroyed by the executor's thread; ``wanted`` and ``publish`` may be called by the
    inference thread in between.
    """

    def __init__(self, node: Any, on_matched: Callable[[], None], camera: str = '') -> None:
        self._node = node
        self._publishers: dict[str, Any] = {}
        self._messages = {row.topic: row.message_type() for row in OUTPUTS}
        try:
            for row in OUTPUTS:
                self._publishers[row.topic] = advertise(
                    node.create_lifecycle_publisher, node, row.message_type,
                    output_topic(camera, row), output_qos(), on_matched)
        except Exception:
            self.destroy()
            raise

    def wanted(self) -> list[Output]:
        """Return the rows that have a subscriber."""
        return [row for row in OUTPUTS
                if self._publishers[row.topic].get_subscription_count() > 0]

    def publish(self, rows: Sequence[Output], header: Any, product: Product) -> None:
        """Fill and publish ``rows``, all with ``header``."""
        for row in rows:
            message = self._messages[row.topic]
            message.header = header
            if row.fill(message, product) is False:
                continue
            # the message is serialised before this returns, so it may be filled again afterwards
            self._publishers[row.topic].publish(message)

    def destroy(self) -> None:
        """Destroy all publishers; call only when no inference thread runs."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()
