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
What any subscriber may rely on in the node's outputs, checked from the outside.

REP-103 frames, REP-117/118 depth, camera_info that belongs to the depth image, organised cloud.
Each function returns what is wrong as short texts; none means right.
"""
from __future__ import annotations

from typing import Any

import numpy as np

SAMPLE_STEP = 7  # every n-th row and column of the cloud is compared with the depth image
TOLERANCE_M = 1e-3  # relative to metres of depth
DEPTH_ENCODING = '32FC1'


def float_image(message: Any) -> np.ndarray:
    """Return the pixels of a 32FC1 image, (H, W) float32, a view of its data."""
    return np.frombuffer(message.data, '<f4').reshape(message.height, message.width)


def cloud_points(message: Any) -> np.ndarray:
    """Return x, y, z of an organised PointCloud2, (H, W, 3) float32."""
    offsets = {field.name: field.offset for field in message.fields}
    kind = np.dtype({'names': ['x', 'y', 'z'], 'formats': ['<f4'] * 3,
                     'offsets': [offsets[name] for name in 'xyz'],
                     'itemsize': message.point_step})
    points = np.frombuffer(message.data, kind).reshape(message.height, message.width)
    return np.stack([points['x'], points['y'], points['z']], axis=-1)


def check_header(message: Any, name: str, frame_id: str) -> list[str]:
    """Check the frame; the stamp has already matched a published one."""
    if message.header.frame_id == frame_id:
        return []
    return [f"{name}: frame_id is '{message.header.frame_id}', the image's is '{frame_id}'"]


def check_layout(message: Any, name: str) -> list[str]:
    """Check that an Image is a little-endian 32FC1 image of the size that it says."""
    wrong = []
    if message.encoding != DEPTH_ENCODING:
        wrong.append(f'{name}: encoding is {message.encoding}, expected {DEPTH_ENCODING}')
    if message.is_bigendian or message.step != 4 * message.width:
        wrong.append(f'{name}: step {message.step} or byte order is not that of its width')
    if len(message.data) != 4 * message.width * message.height:
        wrong.append(f'{name}: {len(message.data)} bytes for {message.width}x{message.height}')
    return wrong


def check_depth(depth_m: np.ndarray) -> list[str]:
    """Check REP-117 values: positive metres, NaN, +Inf or -Inf; a 0 would become a point."""
    wrong = []
    finite = depth_m[np.isfinite(depth_m)]
    if not finite.size:
        wrong.append('depth/image: not one pixel has a depth')
    elif finite.min() <= 0:
        wrong.append('depth/image: holds depths of 0 or less')
    return wrong


def check_sigma(sigma_m: np.ndarray, depth_m: np.ndarray) -> list[str]:
    """Check that sigma is there, and positive, exactly where depth is."""
    if sigma_m.shape != depth_m.shape:
        return ['depth/sigma: other size than depth/image']
    known = np.isfinite(depth_m)
    if not np.array_equal(np.isfinite(sigma_m), known):
        return ['depth/sigma: is not finite exactly where depth/image is']
    if known.any() and sigma_m[known].min() <= 0:
        return ['depth/sigma: is not positive']
    return []


def check_camera_info(info: Any, source: Any, depth: Any) -> list[str]:
    """Check that K and P are the input's, scaled to the depth image (half-pixel exact)."""
    if (info.width, info.height) != (depth.width, depth.height):
        return [f'depth/camera_info: {info.width}x{info.height} beside an image of '
                f'{depth.width}x{depth.height}']
    sx, sy = depth.width / source.width, depth.height / source.height
    expected = np.array([
        [source.k[0] * sx, 0, (source.k[2] + 0.5) * sx - 0.5],
        [0, source.k[4] * sy, (source.k[5] + 0.5) * sy - 0.5], [0, 0, 1]])
    K = np.array(info.k).reshape(3, 3)
    wrong = []
    if np.abs(K - expected).max() > 0.01:
        wrong.append("depth/camera_info: K is not the input's scaled to the depth image")
    is_distorted = any(info.d)
    if not is_distorted and np.abs(np.array(info.p).reshape(3, 4)[:, :3] - K).max() > 0.01:
        wrong.append('depth/camera_info: P does not repeat K')
    return wrong


def check_cloud(cloud: Any, depth_m: np.ndarray, info: Any) -> list[str]:
    """Check an organised xyz+rgb cloud, and its points against depth image and camera_info."""
    names = {field.name for field in cloud.fields}
    if not names >= {'x', 'y', 'z', 'rgb'}:
        return [f'points: fields are {sorted(names)}, expected x, y, z, rgb']
    if cloud.row_step != cloud.point_step * cloud.width or \
            len(cloud.data) != cloud.row_step * cloud.height:
        return ['points: row_step or the number of bytes does not fit its size']
    wrong = []
    if cloud.is_dense or cloud.is_bigendian:
        wrong.append('points: is_dense or is_bigendian is set')
    stride = max(1, round(depth_m.shape[1] / cloud.width))
    if depth_m[::stride, ::stride].shape != (cloud.height, cloud.width):
        return [*wrong, f'points: {cloud.width}x{cloud.height} is not organised like depth/image']
    return wrong + _check_points(cloud_points(cloud), depth_m, info, stride)


def _check_points(points: np.ndarray, depth_m: np.ndarray, info: Any, stride: int) -> list[str]:
    step = SAMPLE_STEP * stride
    z = depth_m[::step, ::step]
    points = points[::SAMPLE_STEP, ::SAMPLE_STEP]
    there = np.isfinite(points).all(axis=-1)
    if (np.isfinite(points).any(axis=-1) != there).any():
        return ['points: half of a point is NaN']
    if (there & ~np.isfinite(z)).any():
        return ['points: a point where the depth image has no depth']
    if there.sum() < 0.2 * np.isfinite(z).sum():
        return ['points: most pixels that have a depth have no point']
    if any(info.d):
        return _far_from(points[..., 2:], z[..., None], there)  # rays are checked where D is zero
    u = np.arange(0, depth_m.shape[1], step)[None, :]
    v = np.arange(0, depth_m.shape[0], step)[:, None]
    rays = np.stack(np.broadcast_arrays((u - info.k[2]) / info.k[0], (v - info.k[5]) / info.k[4],
                                        1.0), axis=-1)
    return _far_from(points, rays * z[..., None], there)


def _far_from(points: np.ndarray, expected: np.ndarray, there: np.ndarray) -> list[str]:
    off = np.abs(points[there] - expected[there])
    if (off > TOLERANCE_M * np.maximum(1.0, np.abs(expected[there]))).any():
        return [f'points: up to {off.max():.3f} m from where depth and camera_info put them']
    return []
