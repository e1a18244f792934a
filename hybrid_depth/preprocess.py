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
Camera image -> network image, and network arrays back onto the camera's pixels.

The network sees an undistorted pinhole view of the camera, scaled isotropically to fit its size
and centred, the rest filled by repeating the border. Training and the robot use this same code.
"""
from __future__ import annotations

from dataclasses import dataclass
import functools

import cv2
import numpy as np

from hybrid_depth.camera import CameraModel


@dataclass(frozen=True)
class NetworkView:
    """How one camera is shown to a network of size (height, width)."""

    camera: CameraModel  # of the input image, distortion and all
    content: CameraModel  # the pinhole view inside the network image
    left: int  # padding in network pixels
    top: int
    height: int  # network size
    width: int

    @property
    def K(self) -> np.ndarray:
        """Intrinsics of the network image, (1, 3, 3) float32 pixels: the graph's input ``K``."""
        padded = self.content.cropped(-self.left, -self.top, self.width, self.height)
        return padded.K.astype(np.float32)[None]


def network_view(camera: CameraModel, size: tuple[int, int]) -> NetworkView:
    """Fit ``camera`` into a network of ``size`` (H, W) without stretching and without cropping."""
    height, width = size
    scale = min(width / camera.width, height / camera.height)
    content_width = min(width, max(1, round(camera.width * scale)))
    content_height = min(height, max(1, round(camera.height * scale)))
    content = camera.pinhole().resized(content_width, content_height)
    return NetworkView(camera, content, (width - content_width) // 2,
                       (height - content_height) // 2, height, width)


def to_network(image_rgb: np.ndarray, view: NetworkView) -> np.ndarray:
    """
    Turn a camera image into the graph's input ``image``.

    ``image_rgb`` (H, W, 3) uint8 on ``view.camera``; returns (1, height, width, 3) uint8.
    """
    content = view.content
    if view.camera.is_distorted:
        # remap samples points, so shrink first or the result aliases
        small, factor = _shrink(image_rgb, content.width, content.height)
        image = cv2.remap(small, *_shrunk_maps(view.camera, content, factor), cv2.INTER_LINEAR,
                          borderMode=cv2.BORDER_REPLICATE)
    else:
        image = resized(image_rgb, content.width, content.height)
    right = view.width - content.width - view.left
    bottom = view.height - content.height - view.top
    if view.left or view.top or right or bottom:
        image = cv2.copyMakeBorder(image, view.top, bottom, view.left, right,
                                   cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(image)[None]


def resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """
    Resize (H, W, 3) uint8 as the network is shown its images on the robot.

    Halves by areas as often as that leaves no less than is asked for, then interpolates: areas
    all the way would take a pass in floats over the whole image. The image's borders map to the
    result's. Where nothing is to be done, ``image`` itself is returned.
    """
    rows, columns = image.shape[:2]
    small, factor = _shrink(image, width, height)
    if (rows, columns) == (factor * height, factor * width):
        return small
    if small.shape[:2] == (rows / factor, columns / factor):
        return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    # half of an odd image lacks the last row or column, which cv2.resize would stretch away
    scale_u, scale_v = columns / width / factor, rows / height / factor
    small_of_result = np.array([[scale_u, 0, (scale_u - 1) / 2], [0, scale_v, (scale_v - 1) / 2]])
    return cv2.warpAffine(small, small_of_result, (width, height),
                          flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                          borderMode=cv2.BORDER_REPLICATE)


def content_of(array: np.ndarray, view: NetworkView) -> np.ndarray:
    """Cut the padding off a (height, width) network array; a view, not a copy."""
    return array[view.top:view.top + view.content.height,
                 view.left:view.left + view.content.width]


def camera_to_content(view: NetworkView) -> tuple[np.ndarray, np.ndarray]:
    """
    Return where each camera pixel lies in the content image, as cv2.remap maps (u, v).

    (H, W) float32 each, read-only; NaN where the pinhole view does not reach.
    """
    return _camera_to_content(view.camera, view.content)


@functools.lru_cache(maxsize=8)
def _camera_to_content(camera: CameraModel,
                       content: CameraModel) -> tuple[np.ndarray, np.ndarray]:
    rays = camera.rays()
    maps = (np.ascontiguousarray(rays[..., 0] * np.float32(content.fx) + np.float32(content.cx)),
            np.ascontiguousarray(rays[..., 1] * np.float32(content.fy) + np.float32(content.cy)))
    inside = ((maps[0] >= -0.5) & (maps[0] <= content.width - 0.5)
              & (maps[1] >= -0.5) & (maps[1] <= content.height - 0.5))
    for array in maps:
        if camera.is_distorted:
            array[~inside] = np.nan
        array.setflags(write=False)
    return maps


def content_seen(view: NetworkView) -> np.ndarray:
    """
    Return which content pixels show something that the camera saw; (h, w) bool, read-only.

    The pinhole view of a distorted camera can reach past the camera's image, and past the angle
    where the distortion model folds back and would show other pixels a second time.
    """
    return _content_seen(view.camera, view.content)


@functools.lru_cache(maxsize=8)
def _content_seen(camera: CameraModel, content: CameraModel) -> np.ndarray:
    if not camera.is_distorted:
        seen = np.ones((content.height, content.width), bool)
    else:
        map_u, map_v = _undistort_maps(camera, content)
        seen = ((map_u >= -0.5) & (map_u <= camera.width - 0.5)
                & (map_v >= -0.5) & (map_v <= camera.height - 0.5))
        u, v = (np.where(seen, array, np.float32(0)) for array in (map_u, map_v))
        rays = cv2.remap(camera.rays(), u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        # where it folds back, the camera pixel's own ray is another one; NaN is neither
        miss_px = np.abs(rays - content.rays()).max(axis=-1) * content.fx
        seen &= miss_px < 1
    seen.setflags(write=False)
    return seen


@functools.lru_cache(maxsize=8)
def _undistort_maps(camera: CameraModel,
                    content: CameraModel) -> tuple[np.ndarray, np.ndarray]:
    """Where each content pixel lies in the (distorted) camera image."""
    rays = content.rays().reshape(-1, 2)
    points = np.concatenate([rays, np.ones((len(rays), 1), np.float32)], axis=1)
    uv = camera.project(points).astype(np.float32).reshape(content.height, content.width, 2)
    return np.ascontiguousarray(uv[..., 0]), np.ascontiguousarray(uv[..., 1])


@functools.lru_cache(maxsize=8)
def _shrunk_maps(camera: CameraModel, content: CameraModel,
                 factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the same in the camera image shrunk by ``factor``, in cv2's fast form."""
    map_u, map_v = _undistort_maps(camera, content)
    maps = cv2.convertMaps((map_u + np.float32(0.5)) / factor - np.float32(0.5),
                           (map_v + np.float32(0.5)) / factor - np.float32(0.5), cv2.CV_16SC2)
    return maps[0], maps[1]


def _shrink(image: np.ndarray, width: int, height: int) -> tuple[np.ndarray, int]:
    """
    Halve the image by areas as often as it stays no smaller than ``width`` x ``height``.

    Returns it and the factor; an odd last row or column is left out.
    """
    factor = 1
    while image.shape[1] >= 2 * width and image.shape[0] >= 2 * height:
        rows, columns = image.shape[0] // 2, image.shape[1] // 2
        image = cv2.resize(image[:2 * rows, :2 * columns], (columns, rows),
                           interpolation=cv2.INTER_AREA)
        factor *= 2
    return image, factor
