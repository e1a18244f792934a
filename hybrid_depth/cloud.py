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
"""Depth -> organised coloured point cloud, packed as sensor_msgs/PointCloud2 wants its bytes."""
from __future__ import annotations

from array import array
from collections.abc import Collection
from dataclasses import dataclass
import functools
import sys

import cv2
import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth.errors import ConfigError
from hybrid_depth.types import DepthResult, Evidence

FLOAT32 = 7  # sensor_msgs/PointField.FLOAT32
POINT_STEP = 16  # bytes of one point
# name, offset, datatype; count is 1. rgb is a float only by convention: its bytes are B, G, R, 0
FIELDS = (('x', 0, FLOAT32), ('y', 4, FLOAT32), ('z', 8, FLOAT32), ('rgb', 12, FLOAT32))


@dataclass(frozen=True)
class PackedCloud:
    """An organised little-endian cloud; ``data`` is reused by the packer's next call."""

    data: array[int]  # typecode 'B', height * row_step bytes
    height: int
    width: int
    point_step: int = POINT_STEP
    fields: tuple[tuple[str, int, int], ...] = FIELDS

    @property
    def row_step(self) -> int:
        """Bytes of one row."""
        return self.width * self.point_step

    def xyz(self) -> np.ndarray:
        """Return the points, (height, width, 3) float32 metres; a view into ``data``."""
        points = np.frombuffer(self.data, np.float32)
        return points.reshape(self.height, self.width, 4)[..., :3]

    def rgb(self) -> np.ndarray:
        """Return the colours, (height, width, 3) uint8 RGB; a view into ``data``."""
        points = np.frombuffer(self.data, np.uint8).reshape(self.height, self.width, POINT_STEP)
        return points[..., 14:11:-1]


class CloudPacker:
    """
    Packs depth results into a buffer of its own, which it reuses from call to call.

    A point is NaN in x, y and z (never left out: the cloud stays organised) where its depth is
    not finite, and where a filter that is on rejects it. ``stride`` takes every n-th pixel of
    both axes, starting with the first. ``max_range_m`` limits z; 0 switches it off, as it does
    ``max_relative_sigma``, the limit of sigma / depth. ``remove_edges`` drops the pixels at
    depth discontinuities, ``remove_evidence`` those whose depth rests on one of these; a result
    without evidence rests on Evidence.SINGLE_FRAME. Points are in the optical frame: x right,
    y down, z forward.
    """

    def __init__(self, stride: int = 1, *, max_range_m: float = 0.0,
                 max_relative_sigma: float = 0.0, remove_edges: bool = False,
                 remove_evidence: Collection[Evidence] = ()) -> None:
        if stride < 1:
            raise ConfigError(f'cloud stride is {stride}; expected 1 or more')
        if not max_range_m >= 0 or not max_relative_sigma >= 0:
            raise ConfigError(f'cloud max_range_m is {max_range_m} and max_relative_sigma '
                              f'{max_relative_sigma}; expected 0 (off) or more')
        if sys.byteorder != 'little':
            raise ConfigError('clouds are packed little-endian only; this machine is big-endian')
        self.stride = stride
        self.max_range_m = max_range_m
        self.max_relative_sigma = max_relative_sigma
        self.remove_edges = remove_edges
        self.remove_evidence = frozenset(remove_evidence)
        self._buffer = array('B')
        self._points = np.empty((0, 0, 4), np.float32)
        self._xy = np.empty((2, 0, 0), np.float32)
        self._colour = np.empty((0, 0, 4), np.uint8)

    @property
    def extras(self) -> frozenset[str]:
        """Return what ``pack`` reads of a result beside its depth; see types.EXTRAS."""
        return frozenset({'sigma'} if self.max_relative_sigma > 0 else ()) \
            | frozenset({'evidence'} if self.remove_evidence else ())

    def pack(self, result: DepthResult) -> PackedCloud:
        """Pack ``result``; the returned buffer holds until the next call."""
        s = self.stride
        depth_m = result.depth_m[::s, ::s]
        height, width = depth_m.shape
        if self._points.shape[:2] != (height, width):
            self._buffer = array('B', bytes(height * width * POINT_STEP))
            self._points = np.frombuffer(self._buffer, np.float32).reshape(height, width, 4)
            self._xy = np.empty((2, height, width), np.float32)
            self._colour = np.empty((height, width, 4), np.uint8)
        ray_x, ray_y = _ray_planes(result.camera, s)
        z = self._filtered(result, depth_m)
        with np.errstate(invalid='ignore'):
            if result.camera.is_distorted:  # a ray that is NaN leaves no point, not half of one
                z += (ray_x + ray_y) * np.float32(0)
            x, y = (np.multiply(ray, z, out=out)
                    for ray, out in zip((ray_x, ray_y), self._xy, strict=True))
        colour = cv2.cvtColor(_every(result.image_rgb, s), cv2.COLOR_RGB2BGRA,
                              dst=self._colour).view(np.uint32)
        colour &= np.uint32(0x00ffffff)  # no alpha: it is the highest byte
        # interleaving four planes at once writes each point in one go
        cv2.merge([x, y, z, colour.view(np.float32)[..., 0]], self._points)
        return PackedCloud(self._buffer, height, width)

    def _filtered(self, result: DepthResult, depth_m: np.ndarray) -> np.ndarray:
        """Return a copy of the depth, (h, w) float32, NaN wherever there shall be no point."""
        s = self.stride
        with np.errstate(invalid='ignore'):
            z = depth_m + (depth_m - depth_m)  # Inf - Inf is NaN
            if self.max_range_m > 0:
                z[z > self.max_range_m] = np.nan
            if self.max_relative_sigma > 0:
                # negated, so that an unknown sigma does not pass
                is_sure = result.sigma_m[::s, ::s] <= self.max_relative_sigma * z
                np.copyto(z, np.float32(np.nan), where=~is_sure)
        if self.remove_edges:
            np.copyto(z, np.float32(np.nan), where=result.edge[::s, ::s])
        if result.evidence is not None:
            evidence = result.evidence[::s, ::s]
            for unwanted in self.remove_evidence:
                z[evidence == unwanted] = np.nan
        elif Evidence.SINGLE_FRAME in self.remove_evidence:
            z[:] = np.nan
        return z


@functools.lru_cache(maxsize=4)
def _ray_planes(camera: CameraModel, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """
    Return x/z and y/z of every ``stride``-th pixel, which broadcast to the cloud's shape.

    Without distortion a row and a column: less memory to go through than two whole planes.
    """
    if not camera.is_distorted:
        x, y = camera.ray_axes()
        return x[:, ::stride], y[::stride]
    rays = camera.rays()[::stride, ::stride]
    return np.ascontiguousarray(rays[..., 0]), np.ascontiguousarray(rays[..., 1])


def _every(image: np.ndarray, stride: int) -> np.ndarray:
    """Return every ``stride``-th row and column of (H, W, 3) uint8."""
    if image.shape[1] % stride:
        return np.ascontiguousarray(image[::stride, ::stride])
    rows = image[::stride]
    # takes column floor(i * W / w), which is i * stride, much faster than indexing
    return rows if stride == 1 else cv2.resize(
        rows, (image.shape[1] // stride, len(rows)), interpolation=cv2.INTER_NEAREST)
