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
Camera model: intrinsics under resize and crop, distortion, and the viewing ray of every pixel.

Pixel convention of ROS and OpenCV: the centre of the top-left pixel is (0, 0). Resizing is
half-pixel exact, as ``cv2.resize`` samples: ``cx' = (cx + 0.5) * sx - 0.5``.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
import functools

import cv2
import numpy as np

from hybrid_depth.errors import BadFrame

# distortion model name (as in sensor_msgs/CameraInfo) -> allowed numbers of coefficients
DISTORTION_MODELS = {
    '': (0,),
    'none': (0,),
    'plumb_bob': (0, 4, 5),
    'rational_polynomial': (0, 8, 12, 14),
    'equidistant': (0, 4),
}

# What is taken for a camera at all: bounds of memory, and of what float32 can hold. Pixels.
MAX_SIDE, MAX_PIXELS = 1 << 15, 1 << 26
MIN_FOCAL, MAX_NUMBER = 1e-2, 1e8


@dataclass(frozen=True)
class CameraModel:
    """
    Pinhole camera, optionally distorted, of images ``width`` x ``height``.

    Raises BadFrame on construction where the numbers cannot be a camera.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion_model: str = 'none'
    D: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0:
            raise BadFrame('bad_camera_info', f'camera size is {self.width}x{self.height}; '
                           'expected positive width and height in camera_info')
        # before anything is allocated: a message may claim any size
        if max(self.width, self.height) > MAX_SIDE or self.width * self.height > MAX_PIXELS:
            raise BadFrame('bad_camera_info', f'camera size is {self.width}x{self.height}; '
                           f'expected at most {MAX_SIDE} on a side and {MAX_PIXELS} pixels; '
                           'correct camera_info')
        numbers = np.array([self.fx, self.fy, self.cx, self.cy, *self.D], dtype=np.float64)
        if not np.isfinite(numbers).all():
            raise BadFrame('bad_camera_info', f'camera_info holds non-finite numbers: '
                           f'{numbers.tolist()}; recalibrate the camera')
        if self.fx <= 0 or self.fy <= 0:
            raise BadFrame('no_intrinsics', f'focal length is fx={self.fx}, fy={self.fy}: the '
                           'camera is uncalibrated; publish camera_info with a calibrated K')
        if not MIN_FOCAL <= min(self.fx, self.fy) <= max(self.fx, self.fy) <= MAX_NUMBER \
                or max(abs(self.cx), abs(self.cy)) > MAX_NUMBER:
            raise BadFrame('bad_camera_info', f'camera_info says fx={self.fx}, fy={self.fy}, '
                           f'cx={self.cx}, cy={self.cy}, in pixels; no camera is like that: '
                           'recalibrate it')
        allowed = DISTORTION_MODELS.get(self.distortion_model)
        if allowed is None:
            raise BadFrame('bad_camera_info', f'unknown distortion model '
                           f'{self.distortion_model!r}; known: {sorted(DISTORTION_MODELS)}')
        if len(self.D) not in allowed:
            raise BadFrame('bad_camera_info', f'{self.distortion_model} has {len(self.D)} '
                           f'distortion coefficients; expected one of {allowed}')

    @classmethod
    def from_K(cls, K: np.ndarray, width: int, height: int,
               distortion_model: str = 'none', D: Sequence[float] = ()) -> CameraModel:
        """Make a camera from a 3x3 matrix ``K`` in pixels of a ``width`` x ``height`` image."""
        K = np.asarray(K, dtype=np.float64).reshape(3, 3)
        return cls(int(width), int(height), float(K[0, 0]), float(K[1, 1]),
                   float(K[0, 2]), float(K[1, 2]), distortion_model, tuple(float(d) for d in D))

    @classmethod
    def from_calibration(
        cls, width: int, height: int, K: Sequence[float], D: Sequence[float],
        P: Sequence[float], distortion_model: str, *, rectified: bool,
        binning: tuple[int, int] = (1, 1), roi: tuple[int, int, int, int] = (0, 0, 0, 0),
    ) -> CameraModel:
        """
        Make the camera of the image as delivered, from the fields of sensor_msgs/CameraInfo.

        ``K`` (9), ``P`` (12) and ``width`` x ``height`` speak of the full-resolution sensor; the
        delivered image is the ``roi`` (x, y, width, height in full-resolution pixels; all zero
        means the whole) divided by ``binning`` (0 or 1 means none). For a rectified image ``P``
        holds the intrinsics and ``D`` does not apply.
        """
        if rectified and len(P) == 12 and P[0] != 0.0:
            fx, fy, cx, cy = P[0], P[5], P[2], P[6]
        else:
            fx, fy, cx, cy = K[0], K[4], K[2], K[5]
        D = () if rectified or not np.any(np.asarray(D, dtype=np.float64)) else tuple(D)
        model = distortion_model if D else 'none'
        camera = cls(int(width), int(height), float(fx), float(fy), float(cx), float(cy),
                     model, tuple(float(d) for d in D))
        x, y, w, h = roi
        if w and h:
            camera = camera.cropped(x, y, w, h)
        bx, by = max(1, binning[0]), max(1, binning[1])
        if (bx, by) != (1, 1):
            # a sensor leaves out the last pixels that fill no bin, so cut before scaling
            width, height = camera.width // bx, camera.height // by
            camera = camera.cropped(0, 0, width * bx, height * by).resized(width, height)
        return camera

    @property
    def K(self) -> np.ndarray:
        """Intrinsic matrix, (3, 3) float64, pixels."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], np.float64)

    @property
    def is_distorted(self) -> bool:
        return any(self.D)

    def resized(self, width: int, height: int) -> CameraModel:
        """Return the camera of this image resized to ``width`` x ``height`` (half-pixel exact)."""
        sx, sy = width / self.width, height / self.height
        return replace(self, width=int(width), height=int(height),
                       fx=self.fx * sx, fy=self.fy * sy,
                       cx=(self.cx + 0.5) * sx - 0.5, cy=(self.cy + 0.5) * sy - 0.5)

    def cropped(self, x: int, y: int, width: int, height: int) -> CameraModel:
        """Return the camera of the window at (x, y); negative x or y means padding."""
        return replace(self, width=int(width), height=int(height),
                       cx=self.cx - x, cy=self.cy - y)

    def pinhole(self) -> CameraModel:
        """Return the same intrinsics without distortion."""
        return replace(self, distortion_model='none', D=())

    def project(self, points: np.ndarray) -> np.ndarray:
        """Project (N, 3) points of the optical frame, z > 0, to (N, 2) pixels."""
        points = np.asarray(points, dtype=np.float64).reshape(-1, 1, 3)
        zero = np.zeros(3)
        if self.distortion_model == 'equidistant' and self.is_distorted:
            uv, _ = cv2.fisheye.projectPoints(points, zero, zero, self.K, np.array(self.D))
        else:
            uv, _ = cv2.projectPoints(points, zero, zero, self.K, np.array(self.D))
        return uv.reshape(-1, 2)

    def ray_axes(self) -> tuple[np.ndarray, np.ndarray]:
        """
        Return x/z of every column, (1, W), and y/z of every row, (H, 1), both float32.

        What ``rays`` says, where there is no distortion; distortion is left out here.
        """
        u, v = np.arange(self.width), np.arange(self.height)
        return (((u - self.cx) / self.fx).astype(np.float32)[None, :],
                ((v - self.cy) / self.fy).astype(np.float32)[:, None])

    def rays(self) -> np.ndarray:
        """
        Return x/z and y/z of every pixel's undistorted viewing ray, (H, W, 2) float32.

        ``depth * (ray_x, ray_y, 1)`` is the pixel's point in the optical frame. NaN where the
        distortion model has no inverse. The array is cached and read-only.
        """
        return _rays(self)


@functools.lru_cache(maxsize=8)
def _rays(camera: CameraModel) -> np.ndarray:
    if not camera.is_distorted:
        rays = np.empty((camera.height, camera.width, 2), np.float32)
        rays[..., 0], rays[..., 1] = camera.ray_axes()
    else:
        u = np.arange(camera.width, dtype=np.float64)
        v = np.arange(camera.height, dtype=np.float64)
        uv = np.stack(np.meshgrid(u, v), axis=-1).reshape(-1, 1, 2)
        D = np.array(camera.D)
        if camera.distortion_model == 'equidistant':
            # cv2 marks pixels whose angle it cannot invert with -1e6
            xy = cv2.fisheye.undistortPoints(uv, camera.K, D)
        else:
            criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 40, 1e-9)
            xy = cv2.undistortPointsIter(uv, camera.K, D, np.eye(3), np.eye(3), criteria)
        xy = xy.reshape(-1, 2)
        # the iteration may settle on a wrong root far out: keep only what projects back
        with np.errstate(all='ignore'):
            back = camera.project(np.concatenate([xy, np.ones((len(xy), 1))], axis=1))
            bad = ~(np.abs(back - uv.reshape(-1, 2)).max(axis=1) < 0.1)
        xy[bad] = np.nan
        rays = xy.reshape(camera.height, camera.width, 2).astype(np.float32)
    rays.setflags(write=False)
    return rays
