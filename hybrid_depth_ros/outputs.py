# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
One table of output topics, and the publishers made from it.

Adding an output: a function that fills its message, and a row. Whether anybody listens, QoS,
header and message reuse are the same for all rows.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
import math
from typing import Any

from geometry_msgs.msg import Vector3Stamped
import numpy as np
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField

from hybrid_depth.cloud import CloudPacker, FIELDS
from hybrid_depth.types import DepthResult, Evidence
from hybrid_depth_ros.camera_source import CameraState
from hybrid_depth_ros.conversions import (
    fill_byte_image,
    fill_camera_info,
    fill_float_image,
    set_data,
)
from hybrid_depth_ros.qos import advertise, output_qos


@dataclass(frozen=True)
class Product:
    """All that an output message may be filled from."""

    result: DepthResult
    source: CameraState
    cloud_packer: CloudPacker


@dataclass(frozen=True)
class Output:
    """One output topic."""

    topic: str
    message_type: Any
    fill: Callable[[Any, Product], None]  # the header is set by the caller
    description: str


def _fill_depth(message: Any, product: Product) -> None:
    fill_float_image(message, product.result.depth_m)


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


OUTPUTS: tuple[Output, ...] = (
    Output('~/depth/image', Image, _fill_depth,
           '32FC1, metres along the optical Z axis; NaN = invalid, +Inf = beyond range'),
    Output('~/depth/camera_info', CameraInfo, _fill_camera_info,
           'camera of the depth image: K and P scaled to its size'),
    Output('~/depth/sigma', Image, _fill_sigma,
           '32FC1, one standard deviation of the depth in metres; NaN where depth is not finite'),
    Output('~/depth/evidence', Image, _fill_evidence,
           'mono8, what the depth of a pixel rests on: see the table of evidence'),
    Output('~/scale', Vector3Stamped, _fill_scale,
           'x = metric scale of the single-frame depth, y = one standard deviation of x, z = 1 '
           'where its cues agree, else 0; NaN, NaN, 0 = no estimate'),
    Output('~/points', PointCloud2, _fill_points,
           'organised coloured cloud (x, y, z, rgb; 16 bytes a point); NaN = no point'),
)


class OutputPublishers:
    """
    A lifecycle publisher and one reused message for each row of OUTPUTS.

    Created and destroyed by the executor's thread; ``wanted`` and ``publish`` may be called by the
    inference thread in between.
    """

    def __init__(self, node: Any, on_matched: Callable[[], None]) -> None:
        self._node = node
        self._publishers: dict[str, Any] = {}
        self._messages = {row.topic: row.message_type() for row in OUTPUTS}
        try:
            for row in OUTPUTS:
                self._publishers[row.topic] = advertise(
                    node.create_lifecycle_publisher, node, row.message_type, row.topic,
                    output_qos(), on_matched)
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
            row.fill(message, product)
            # the message is serialised before this returns, so it may be filled again afterwards
            self._publishers[row.topic].publish(message)

    def destroy(self) -> None:
        """Destroy all publishers; call only when no inference thread runs."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()
