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
Network output -> metric depth, sigma and edge mask on the output's pixels.

Depth is interpolated in inverse depth, which is affine over the image of a plane, so flat ground
stays flat. Between neighbours whose depths differ by more than ``edge_ratio`` nothing is
interpolated: a depth in between would be a point floating in the air.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import functools

import cv2
import numpy as np

from hybrid_depth.config import PipelineConfig
from hybrid_depth.errors import BadFrame
from hybrid_depth.preprocess import camera_to_content, content_of, content_seen, NetworkView

# A network cannot say more than its ceiling: from here on, a depth means 'at least this far'.
SATURATION = 0.98


@dataclass(frozen=True)
class DepthArrays:
    """Depth of one frame; all (H, W) of the output: the camera's pixels or the network's."""

    depth_m: np.ndarray  # float32; NaN = invalid, +Inf = beyond range, -Inf = too near
    sigma_m: np.ndarray  # float32; NaN where depth is not finite
    edge: np.ndarray  # bool; True = depth discontinuity


def range_limit(config: PipelineConfig, model_max_m: float) -> float:
    """Return the depth in metres beyond which ``config.far_policy`` applies."""
    return min(config.max_depth_m, SATURATION * model_max_m)


def to_depth(depth: np.ndarray, sigma: np.ndarray, view: NetworkView, config: PipelineConfig,
             model_max_m: float, *, with_sigma: bool = True) -> DepthArrays:
    """
    Turn network output into depth on the pixels that ``config.resolution`` asks for.

    ``depth`` and ``sigma`` (height, width) float32 metres of the network image. For 'camera' the
    result lies on ``view.camera``, for 'network' on ``view.content``. A pixel that is not finite
    or not positive in either becomes NaN, as does one that the pinhole view does not reach (for
    'network': one that the camera did not see). ``with_sigma`` False saves the time that the
    result's ``sigma_m`` takes, which then is NaN throughout; its depth is the same.
    Raises BadFrame (``model_output``) where not one pixel is usable.
    """
    depth, sigma = content_of(depth, view), content_of(sigma, view)
    with np.errstate(all='ignore'):
        inverse = 1 / depth
        relative = sigma * inverse
        good = (inverse > 0) & (relative > 0) & np.isfinite(inverse) & np.isfinite(relative)
    good &= content_seen(view)
    if not good.any():
        raise BadFrame('model_output', 'the model gave no positive finite depth for any pixel; '
                       'check the image and the model file')
    inverse = np.where(good, inverse, np.float32(0))
    is_edge = _edge_cells(inverse, config.edge_ratio)
    valid_inverse = np.where(good, inverse, np.float32(np.nan))
    is_wanted = with_sigma or config.max_relative_sigma > 0
    uncertain: np.ndarray | None = relative if is_wanted else None
    if config.resolution == 'network' or view.content == view.camera:
        edge = _around(is_edge)
        inverse = valid_inverse
    else:
        sampler = _sampler(view)
        edge = sampler.cell(is_edge)
        # linear where the cell is smooth, nearest where it has an edge or an invalid corner
        inverse = _choose(edge, sampler.nearest(valid_inverse), sampler.linear(inverse))
        if uncertain is not None:
            uncertain = _choose(edge, sampler.nearest(relative),
                                sampler.linear(np.where(good, relative, np.float32(0))))
    return _limited(inverse, uncertain, edge, config, range_limit(config, model_max_m), with_sigma)


def _choose(mask: np.ndarray, where_set: np.ndarray, elsewhere: np.ndarray) -> np.ndarray:
    """Return one or the other by ``mask`` (H, W) bool; in the memory of ``elsewhere``."""
    return cv2.copyTo(where_set, mask.view(np.uint8), elsewhere)


def _edge_cells(inverse: np.ndarray, edge_ratio: float) -> np.ndarray:
    """
    Return whether the depths around each point between four pixel centres differ too much.

    ``inverse`` (h, w) float32, 0 = invalid, which is an edge like any other. The border is
    repeated outwards, so the result is (h + 1, w + 1) bool: cell (i, j) reaches from pixel
    (i - 1, j - 1) to pixel (i, j).
    """
    padded = cv2.copyMakeBorder(inverse, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    low, high = (
        reduce(reduce(padded[:-1], padded[1:])[:, :-1], reduce(padded[:-1], padded[1:])[:, 1:])
        for reduce in (np.minimum, np.maximum))
    return (high > low * np.float32(edge_ratio)) | (low <= 0)


def _around(cells: np.ndarray) -> np.ndarray:
    """Return (h, w) bool: whether any of the four cells around a pixel is set."""
    return cells[:-1, :-1] | cells[1:, :-1] | cells[:-1, 1:] | cells[1:, 1:]


@dataclass(frozen=True)
class _Sampler:
    """Ways to bring a content array onto the camera's pixels; NaN where it does not reach."""

    linear: Callable[[np.ndarray], np.ndarray]  # (h, w) float32 -> (H, W) float32
    nearest: Callable[[np.ndarray], np.ndarray]  # (h, w) float32 -> (H, W) float32
    cell: Callable[[np.ndarray], np.ndarray]  # (h + 1, w + 1) bool -> (H, W) bool


@functools.lru_cache(maxsize=2)  # the tables of a distorted 720p camera take 30 MB
def _sampler(view: NetworkView) -> _Sampler:
    return _along_distortion(view) if view.camera.is_distorted else _along_resize(view)


def _along_resize(view: NetworkView) -> _Sampler:
    camera, content = view.camera, view.content
    size = (camera.width, camera.height)
    u = (np.arange(camera.width) + 0.5) * (content.width / camera.width)  # 0 = the image's border
    v = (np.arange(camera.height) + 0.5) * (content.height / camera.height)

    def gather(shift: float) -> Callable[[np.ndarray], np.ndarray]:
        columns = np.floor(u + shift).astype(np.intp)
        rows = np.floor(v + shift).astype(np.intp)
        # columns first: the image is still small, and whole rows are then copied
        return lambda array: array.take(columns, axis=1).take(rows, axis=0)

    return _Sampler(
        linear=lambda array: cv2.resize(array, size, interpolation=cv2.INTER_LINEAR),
        nearest=gather(0.0), cell=gather(0.5))


def _along_distortion(view: NetworkView) -> _Sampler:
    content = view.content
    map_u, map_v = camera_to_content(view)
    outside = np.isnan(map_u) | np.isnan(map_v)
    u, v = (np.where(outside, np.float32(0), array) for array in (map_u, map_v))
    maps = cv2.convertMaps(u, v, cv2.CV_16SC2)

    def linear(array: np.ndarray) -> np.ndarray:
        result = cv2.remap(array, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        result[outside] = np.nan
        return result

    def gather(shift: float, width: int, height: int) -> Callable[[np.ndarray], np.ndarray]:
        columns = np.clip(np.floor(u + shift), 0, width - 1).astype(np.intp)
        rows = np.clip(np.floor(v + shift), 0, height - 1).astype(np.intp)
        flat = rows * width + columns
        return lambda array: array.ravel().take(flat)

    nearest = gather(0.5, content.width, content.height)

    def nearest_inside(array: np.ndarray) -> np.ndarray:
        result = nearest(array)
        result[outside] = np.nan
        return result

    return _Sampler(linear, nearest_inside, gather(1.0, content.width + 1, content.height + 1))


def _limited(inverse: np.ndarray, relative: np.ndarray | None, edge: np.ndarray,
             config: PipelineConfig, limit_m: float, with_sigma: bool) -> DepthArrays:
    """Invert, then mark what is too uncertain, too far or too near. Consumes its arrays."""
    sigma_m = np.broadcast_to(np.float32(np.nan), inverse.shape)
    with np.errstate(all='ignore'):
        # in place: at camera size, memory that is new to the process costs more than the sums
        depth_m = np.divide(np.float32(1), inverse, out=inverse)
        if relative is not None:
            if config.max_relative_sigma > 0:
                depth_m[relative > config.max_relative_sigma] = np.nan
            if with_sigma:
                sigma_m = np.multiply(relative, depth_m, out=relative)
    beyond = {'inf': np.inf, 'nan': np.nan, 'clip': limit_m}[config.far_policy]
    is_far, is_near = depth_m > limit_m, depth_m < config.min_depth_m
    np.copyto(depth_m, np.float32(beyond), where=is_far)
    np.copyto(depth_m, np.float32(-np.inf), where=is_near)
    if with_sigma:
        np.copyto(sigma_m, np.float32(np.nan), where=~np.isfinite(depth_m))
    return DepthArrays(depth_m, sigma_m, edge)
