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
Depth by a classical plane sweep along known motion: the bar for what is learned. Nothing is.

Planes at equal steps of inverse depth are swept through the view (Collins, CVPR 1996); on each,
source images warped onto the target are compared by the census transform (Zabih and Woodfill,
ECCV 1994), whose bits are the signs of differences to the centre pixel; costs are averaged over a
window, with a little of a wide one, and the cheapest plane wins.
"""
from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth.errors import BadFrame

_CENSUS_STEPS = (-3, -2, -1, 0, 1, 2, 3)  # 7 x 7
_MAX_SOURCES = 4
_COST_UNIT = 200  # of a differing bit, so that all bits of four sources fit 16 bits
_OUTSIDE = 24  # bits that differ where a source does not see the point: as many as by chance


@dataclass(frozen=True)
class SweepConfig:
    """How the sweep is made; distances in metres, sizes in pixels of the swept image."""

    near_m: float = 3.0
    far_m: float = 200.0
    planes: int = 128
    width: int = 621  # the image is shrunk to this width
    window: int = 11  # that costs are averaged over
    wide_window: int = 61  # that decides where the window holds no texture
    wide_weight: float = 0.5
    max_ratio: float = 0.9  # best cost / best cost elsewhere, of a pixel to be sure of
    max_sigma: float = 0.1  # of a sure pixel's depth, relative, if matched to half a pixel
    max_round_trip_px: float = 1.5  # there and back again, of a sure pixel


STREET = SweepConfig()
ROOM = SweepConfig(near_m=0.4, far_m=10.0, width=540)


def plane_sweep(image_rgb: np.ndarray, camera: CameraModel, sources: list[np.ndarray],
                source_T_target: list[np.ndarray],
                config: SweepConfig = STREET) -> tuple[np.ndarray, np.ndarray]:
    """
    Return depth (H, W) float32 metres, and where it is sure, (H, W) bool.

    ``image_rgb`` and the ``sources`` are (H, W, 3) uint8 of the same undistorted ``camera``;
    ``source_T_target`` (4, 4) takes points of the target camera to that of each source. Depth is
    given everywhere, by chance where there is nothing to match. It is sure where another plane
    is clearly worse, parallax tells the depth to ``max_sigma``, and the source's best partner is
    this pixel. Raises BadFrame unless there are one to four sources.
    """
    if not 1 <= len(sources) <= _MAX_SOURCES or len(sources) != len(source_T_target):
        raise BadFrame('no_source', f'{len(sources)} source images and {len(source_T_target)} '
                       'poses were given; a plane sweep needs at least one of each, at most '
                       f'{_MAX_SOURCES}')
    width = min(config.width, camera.width)
    small = camera.resized(width, round(camera.height * width / camera.width))
    target = _grey(image_rgb, small)
    greys = [_grey(source, small) for source in sources]
    inv_depths = np.linspace(1 / config.far_m, 1 / config.near_m, config.planes)
    bits = _census(target)
    costs = np.empty((config.planes, *target.shape), np.uint16)
    for index, inv_depth in enumerate(inv_depths):
        cost = _plane_cost(bits, greys, source_T_target, small.K, inv_depth)
        near, wide = (cv2.boxFilter(cost, cv2.CV_32F, (size, size), borderType=cv2.BORDER_REFLECT)
                      for size in (config.window, config.wide_window))
        costs[index] = _COST_UNIT * (near + config.wide_weight * wide)
    best = costs.argmin(axis=0)
    inv_depth = _between_planes(costs, best, inv_depths)
    is_sure = _is_unique(costs, best, config.max_ratio)
    cost = np.take_along_axis(costs, best[None], 0)[0]
    is_sure &= _parallax_sigma(inv_depth, small, source_T_target) < config.max_sigma
    is_sure &= _comes_back(inv_depth, cost, small, source_T_target[0], config.max_round_trip_px)
    size = (camera.width, camera.height)
    depth_m = (1 / cv2.resize(inv_depth, size, interpolation=cv2.INTER_NEAREST))
    sure = cv2.resize(is_sure.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    return depth_m.astype(np.float32), sure


def _grey(image_rgb: np.ndarray, camera: CameraModel) -> np.ndarray:
    grey = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, (camera.width, camera.height), interpolation=cv2.INTER_AREA)


def _neighbours(grey: np.ndarray) -> list[np.ndarray]:
    """Return views of the padded image: it moved by every offset of the census but none."""
    reach = max(_CENSUS_STEPS)
    padded = cv2.copyMakeBorder(grey, reach, reach, reach, reach, cv2.BORDER_REFLECT)
    height, width = grey.shape
    return [padded[reach + dy:reach + dy + height, reach + dx:reach + dx + width]
            for dy in _CENSUS_STEPS for dx in _CENSUS_STEPS if (dy, dx) != (0, 0)]


def _census(grey: np.ndarray) -> list[np.ndarray]:
    """Return the 48 bits of every pixel as images: 255 where the neighbour is brighter."""
    return [cv2.compare(neighbour, grey, cv2.CMP_GT) for neighbour in _neighbours(grey)]


def _plane_cost(bits: list[np.ndarray], sources: list[np.ndarray],
                source_T_target: list[np.ndarray], K: np.ndarray, inv_depth: float,
                ) -> np.ndarray:
    """Return how many census bits differ on one plane, summed over sources, (H, W) uint8."""
    total = np.zeros(bits[0].shape, np.uint8)
    for source, pose in zip(sources, source_T_target, strict=True):
        # a plane z = 1 / inv_depth of the target: p_source ~ K (R + t n^T inv_depth) K^-1 p
        motion = pose[:3, :3].copy()
        motion[:, 2] += pose[:3, 3] * inv_depth
        homography = K @ motion @ np.linalg.inv(K)
        size = (source.shape[1], source.shape[0])
        warp = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        warped = cv2.warpPerspective(source, homography, size, flags=warp,
                                     borderMode=cv2.BORDER_REPLICATE)
        seen = cv2.warpPerspective(np.ones_like(source), homography, size,
                                   flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
        differing = np.zeros_like(total)
        for bit, neighbour in zip(bits, _neighbours(warped), strict=True):
            # the comparison is 255 or 0, as is the bit: xor leaves 255 = -1 where they differ
            differing -= cv2.bitwise_xor(cv2.compare(neighbour, warped, cv2.CMP_GT), bit)
        total += np.where(seen > 0, differing, np.uint8(_OUTSIDE))
    return total


def _between_planes(costs: np.ndarray, best: np.ndarray, inv_depths: np.ndarray) -> np.ndarray:
    """Return the inverse depth at the vertex of the parabola through the three best costs."""
    inner = np.clip(best, 1, len(costs) - 2)
    before, at, after = (np.take_along_axis(costs, inner[None] + step, 0)[0].astype(np.float32)
                         for step in (-1, 0, 1))
    curvature = before - 2 * at + after
    with np.errstate(divide='ignore', invalid='ignore'):
        offset = np.where((inner == best) & (curvature > 0), (before - after) / (2 * curvature), 0)
    step = inv_depths[1] - inv_depths[0]
    return (inv_depths[0] + step * (best + np.clip(offset, -0.5, 0.5))).astype(np.float32)


def _is_unique(costs: np.ndarray, best: np.ndarray, max_ratio: float) -> np.ndarray:
    """Return where every local minimum elsewhere costs clearly more than the best plane."""
    lowest = np.take_along_axis(costs, best[None], 0)[0]
    second = np.full_like(lowest, np.iinfo(lowest.dtype).max)
    for index in range(len(costs)):
        elsewhere = np.abs(best - index) > 2
        is_minimum = costs[index] <= costs[max(index - 1, 0)]
        is_minimum &= costs[index] <= costs[min(index + 1, len(costs) - 1)]
        np.minimum(second, costs[index], out=second, where=elsewhere & is_minimum)
    return lowest <= max_ratio * second


def _project(inv_depth: np.ndarray, camera: CameraModel,
             source_T_target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the source pixels (H, W, 2) and the inverse depth there, of target pixels."""
    rays = np.concatenate([camera.rays(), np.ones((camera.height, camera.width, 1))], axis=-1)
    # homogeneous points (ray, inv_depth) stay finite at infinity
    points = rays @ source_T_target[:3, :3].T + inv_depth[..., None] * source_T_target[:3, 3]
    z = np.maximum(points[..., 2], 1e-6)
    uv = points[..., :2] / z[..., None] * (camera.fx, camera.fy) + (camera.cx, camera.cy)
    return uv, inv_depth / z


def _parallax_sigma(inv_depth: np.ndarray, camera: CameraModel,
                    source_T_target: list[np.ndarray]) -> np.ndarray:
    """Return the relative sigma of depth if the best source was matched to half a pixel."""
    step = 0.02 * inv_depth
    moved = [np.linalg.norm(_project(inv_depth + step, camera, pose)[0]
                            - _project(inv_depth, camera, pose)[0], axis=-1)
             for pose in source_T_target]
    return 0.5 * 0.02 / np.maximum(np.max(moved, axis=0), 1e-9)


def _comes_back(inv_depth: np.ndarray, cost: np.ndarray, camera: CameraModel,
                source_T_target: np.ndarray, max_px: float) -> np.ndarray:
    """
    Return where the source pixel's cheapest partner leads back to the target pixel.

    The check between left and right of stereo matching, without a second sweep: of all target
    pixels that land on one source pixel, the cheapest is its partner.
    """
    uv, _ = _project(inv_depth, camera, source_T_target)
    column, row = (np.rint(uv[..., axis]).astype(np.int64) for axis in (0, 1))
    inside = (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
    place = np.where(inside, row * camera.width + column, 0)
    order = np.argsort(-cost[inside].astype(np.int64), kind='stable')  # the cheapest is last
    partner = np.full(camera.width * camera.height, -1)
    partner[place[inside][order]] = np.flatnonzero(inside)[order]
    other = partner[place]
    own_row, own_column = np.indices(cost.shape)
    away = np.hypot(other // camera.width - own_row, other % camera.width - own_column)
    # several target pixels may share a source pixel where the source is farther away
    return inside & (away <= max_px + 1)
