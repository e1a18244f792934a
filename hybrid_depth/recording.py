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
Frames for the rerun viewer, as a recording (.rrd) or live: camera, image, depth, cloud and path.

Sizes are kept to what is looked at: pictures at most 800 pixels wide, JPEG images, depth in
centimetres, some ten thousand points a frame; about 0.4 MB a frame.
"""
from __future__ import annotations

from collections import deque
import os
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth.errors import ConfigError

MAX_WIDTH = 800
MAX_POINTS = 12_000
JPEG_QUALITY = 80
PNG_LEVEL = 3  # smaller files than OpenCV's own choice for some milliseconds more a frame
DEPTH_UNITS_PER_M = 100
EDGE_RATIO = 1.08  # neighbours that differ more are an outline: their points would float
_UP = {(0, 1): 'RIGHT_HAND_X_UP', (0, -1): 'RIGHT_HAND_X_DOWN', (1, 1): 'RIGHT_HAND_Y_UP',
       (1, -1): 'RIGHT_HAND_Y_DOWN', (2, 1): 'RIGHT_HAND_Z_UP', (2, -1): 'RIGHT_HAND_Z_DOWN'}


class Recording:
    """
    An .rrd file being written, as a context manager.

    The file appears under its name when the block ends without an error; until then, and after an
    error, there is nothing. Raises ConfigError where rerun is not installed.
    """

    def __init__(self, path: Path, name: str, max_m: float = 80.0) -> None:
        self._path = Path(path)
        self._part = self._path.with_suffix('.part')
        self._stream = import_rerun().RecordingStream(name)
        self._stream.save(str(self._part))
        self._log = FrameLog(self._stream, max_m)

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._stream.send_blueprint(self._log.blueprint())
        self._stream.flush()
        self._stream.disconnect()
        if kind is None:
            os.replace(self._part, self._path)
        else:
            self._part.unlink(missing_ok=True)

    def add(self, stamp_ns: int, image_rgb: np.ndarray, camera: CameraModel, depth_m: np.ndarray,
            world_T_camera: np.ndarray | None = None, truth_m: np.ndarray | None = None) -> None:
        """Add one frame; see FrameLog."""
        self._log.add(stamp_ns, image_rgb, camera, depth_m, world_T_camera, truth_m)


class FrameLog:
    """
    Frames written to a rerun.RecordingStream, wherever that leads.

    ``path_length``: how many of the latest places of the camera are shown, None = all.
    """

    def __init__(self, stream: Any, max_m: float = 80.0, path_length: int | None = None) -> None:
        self._rr, self._stream, self._max_m = import_rerun(), stream, max_m
        self._centres: deque[np.ndarray] = deque(maxlen=path_length)
        self._views = ['depth']

    def add(self, stamp_ns: int, image_rgb: np.ndarray, camera: CameraModel, depth_m: np.ndarray,
            world_T_camera: np.ndarray | None = None, truth_m: np.ndarray | None = None) -> None:
        """
        Add one frame.

        ``image_rgb`` (H, W, 3) uint8, ``depth_m`` and ``truth_m`` (H, W) float32 metres, all on
        ``camera``; ``world_T_camera`` (4, 4) where the camera is known to be. Raises ConfigError
        where the sizes differ.
        """
        rr, stream = self._rr, self._stream
        for array in (image_rgb, depth_m, truth_m):
            if array is not None and array.shape[:2] != (camera.height, camera.width):
                raise ConfigError(f'an array of shape {array.shape} does not fit the camera of '
                                  f'{camera.width}x{camera.height}; record at one size')
        stream.set_time('time', timestamp=np.datetime64(stamp_ns, 'ns'))
        self._place(world_T_camera)
        width = min(camera.width, MAX_WIDTH)
        height = max(1, round(camera.height * width / camera.width))
        small = camera.pinhole().resized(width, height)
        image = cv2.resize(image_rgb, (width, height), interpolation=cv2.INTER_AREA)
        stream.log('world/camera/image', rr.Pinhole(
            image_from_camera=small.K, resolution=[width, height],
            camera_xyz=rr.ViewCoordinates.RDF, image_plane_distance=1.0))
        _, jpeg = cv2.imencode('.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR),
                               [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        stream.log('world/camera/image/rgb',
                   rr.EncodedImage(contents=jpeg.tobytes(), media_type='image/jpeg'))
        # below no Pinhole, so that the viewer does not draw a second cloud from it
        stream.log('depth', self._depth_image(depth_m, width, height))
        if truth_m is not None:
            stream.log('truth', self._depth_image(truth_m, width, height))
            if 'truth' not in self._views:
                self._views.append('truth')
        points, colours = _cloud(image_rgb, camera, depth_m, self._max_m)
        stream.log('world/camera/cloud', rr.Points3D(points, colors=colours, radii=-1.5))

    def _place(self, world_T_camera: np.ndarray | None) -> None:
        rr, stream = self._rr, self._stream
        if not self._centres:
            up = 'RDF' if world_T_camera is None else _up_axis(world_T_camera)
            stream.log('world', getattr(rr.ViewCoordinates, up), static=True)
        if world_T_camera is None:
            self._centres.append(np.zeros(3))
            return
        self._centres.append(world_T_camera[:3, 3].copy())
        stream.log('world/camera', rr.Transform3D(translation=world_T_camera[:3, 3],
                                                  mat3x3=world_T_camera[:3, :3]))
        stream.log('world/path', rr.LineStrips3D([np.array(self._centres)],
                                                 colors=[[255, 170, 0]]))

    def _depth_image(self, depth_m: np.ndarray, width: int, height: int) -> Any:
        small = cv2.resize(depth_m, (width, height), interpolation=cv2.INTER_NEAREST)
        # 0 is 'none' to the viewer, as in any 16-bit depth image
        units = np.where(np.isfinite(small) & (small > 0), small, 0) * DEPTH_UNITS_PER_M
        _, png = cv2.imencode('.png', np.minimum(np.round(units), 65535).astype(np.uint16),
                              [cv2.IMWRITE_PNG_COMPRESSION, PNG_LEVEL])
        return self._rr.EncodedDepthImage(
            png.tobytes(), media_type='image/png', meter=DEPTH_UNITS_PER_M, colormap='Turbo',
            depth_range=[0, self._max_m * DEPTH_UNITS_PER_M])

    def blueprint(self) -> Any:
        """Return how the viewer lays out what was added so far."""
        from rerun import blueprint
        return blueprint.Blueprint(blueprint.Horizontal(
            blueprint.Spatial3DView(origin='world', name='cloud'),
            blueprint.Vertical(
                blueprint.Spatial2DView(origin='world/camera/image', name='image'),
                *(blueprint.Spatial2DView(origin=view, name=view) for view in self._views)),
            column_shares=[3, 2]), collapse_panels=True)


def import_rerun() -> Any:
    """Return the module. Raises ConfigError, with the remedy, where it is not installed."""
    try:
        import rerun
    except ImportError as error:
        raise ConfigError(f'the viewer needs rerun, which cannot be imported ({error}); '
                          'pip install rerun-sdk') from error
    return rerun


def _up_axis(world_T_camera: np.ndarray) -> str:
    """Name the axis of the world nearest to the image's upward direction."""
    up = -world_T_camera[:3, 1]
    axis = int(np.argmax(np.abs(up)))
    return _UP[axis, int(np.sign(up[axis]))]


def _cloud(image_rgb: np.ndarray, camera: CameraModel, depth_m: np.ndarray,
           max_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (N, 3) float32 points of the optical frame and their (N, 3) uint8 colours."""
    ratio = np.float32(EDGE_RATIO)
    kernel = np.ones((3, 3), np.uint8)
    known = np.where(np.isfinite(depth_m), depth_m, np.float32(1e6))
    near, far = cv2.erode(known, kernel), cv2.dilate(known, kernel)
    # a slanted surface changes steadily: its middle lies between its neighbours
    outline = (far > known * ratio) & (known > near * ratio) | (far > near * ratio ** 6)
    rays = camera.rays()
    stride = np.sqrt(depth_m.size / MAX_POINTS)
    # rows lie further apart on the ground than columns do
    down, across = max(1, int(stride / 1.5)), max(1, int(np.ceil(stride * 1.5)))
    keep = np.zeros(depth_m.shape, bool)
    keep[down // 2::down, across // 2::across] = True
    keep &= np.isfinite(depth_m) & (depth_m > 0) & (depth_m <= max_m) & ~outline \
        & np.isfinite(rays[..., 0])
    z = depth_m[keep]
    return np.column_stack([rays[keep] * z[:, None], z]).astype(np.float32), image_rgb[keep]
