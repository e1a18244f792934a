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
"""The latest camera_info, kept as the camera of the images that come beside it."""
from __future__ import annotations

from collections import deque
from dataclasses import dataclass
import logging
import threading
from typing import Any, cast

from hybrid_depth.camera import CameraModel
from hybrid_depth.camera_info import camera_from_info, is_rectified
from hybrid_depth.errors import BadFrame
from hybrid_depth_ros.conversions import calibration_key, stamp_to_ns

_LOG = logging.getLogger(__name__)
MAX_WAIT_S = 0.1  # for the camera_info of an image, where images have had theirs so far
_REMEMBERED = 16  # calibrations by stamp


@dataclass(frozen=True)
class CameraState:
    """One calibration: what was received and what it means."""

    info: Any  # sensor_msgs/CameraInfo as received
    key: tuple[object, ...]
    rectified: bool
    camera: CameraModel | BadFrame  # BadFrame: why there is none


class CameraSource:
    """
    Cache of camera_info, not synchronised in time: a calibration holds until another one comes.

    Yet where a camera_info with an image's own stamp has come, that one counts: a camera that is
    exchanged, or zooms, would else be seen for an image with the intrinsics of another. Where
    most images had theirs of late, one that has overtaken its own waits for it, ``MAX_WAIT_S`` at
    most. ``update`` is called by the executor, ``for_image`` by the inference thread.
    """

    def __init__(self, rectified_mode: str) -> None:
        self._mode = rectified_mode
        self._state: CameraState | None = None
        self._warned_frames: set[tuple[str, str]] = set()
        self._arrived = threading.Condition()
        self._by_stamp: dict[int, CameraState] = {}  # the latest, in the order of their arrival
        self._had_own: deque[bool] = deque(maxlen=8)  # the latest images: a camera_info each?

    @property
    def state(self) -> CameraState | None:
        """Return the latest calibration, None before the first."""
        return self._state

    @property
    def is_known(self) -> bool:
        """Whether the latest calibration makes a camera."""
        return self._state is not None and isinstance(self._state.camera, CameraModel)

    def update(self, info: Any, image_topic: str) -> bool:
        """Take a camera_info; return whether it says something new."""
        key = calibration_key(info)
        is_new = self._state is None or self._state.key != key
        if is_new:
            self._state = self._read(info, key, image_topic)
        with self._arrived:
            stamp_ns = stamp_to_ns(info.header.stamp)
            self._by_stamp.pop(stamp_ns, None)
            self._by_stamp[stamp_ns] = cast(CameraState, self._state)
            if len(self._by_stamp) > _REMEMBERED:
                del self._by_stamp[next(iter(self._by_stamp))]
            self._arrived.notify_all()
        return is_new

    def _read(self, info: Any, key: tuple[object, ...], image_topic: str) -> CameraState:
        rectified, reason = is_rectified(info, self._mode, image_topic)
        try:
            camera: CameraModel | BadFrame = camera_from_info(info, rectified)
        except BadFrame as bad:
            camera = bad
        if isinstance(camera, CameraModel):
            _LOG.info('camera: %dx%d, fx %.1f fy %.1f cx %.1f cy %.1f, %s; pixels taken as %s: %s',
                      camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy,
                      camera.distortion_model, 'rectified' if rectified else 'not rectified',
                      reason)
        return CameraState(info, key, rectified, camera)

    def _at(self, stamp_ns: int) -> CameraState | None:
        """Return the calibration that was sent with an image, else the latest."""
        with self._arrived:
            if any(self._had_own) and 2 * sum(self._had_own) >= len(self._had_own):
                self._arrived.wait_for(lambda: stamp_ns in self._by_stamp, MAX_WAIT_S)
            own = self._by_stamp.get(stamp_ns)
            self._had_own.append(own is not None)
        return own or self._state

    def for_image(self, size: tuple[int, int], frame_id: str,
                  stamp_ns: int) -> tuple[CameraState, CameraModel]:
        """Return calibration and camera of an image of (width, height). Raises BadFrame."""
        state = self._at(stamp_ns)
        if state is None:
            raise BadFrame('no_camera_info', 'no camera_info has arrived, so the intrinsics are '
                           "unknown; remap 'camera_info' to the camera's own")
        camera = state.camera
        if isinstance(camera, BadFrame):
            raise BadFrame(camera.reason, str(camera))
        if size != (camera.width, camera.height):
            raise BadFrame('size_mismatch', f'image is {size[0]}x{size[1]}, but '
                           f'camera_info (after ROI and binning) says {camera.width}x'
                           f'{camera.height}; publish the camera_info of this very image')
        frames = (frame_id, state.info.header.frame_id)
        if frames[0] != frames[1] and frames not in self._warned_frames:
            self._warned_frames.add(frames)
            _LOG.warning('image is in frame %r but camera_info in %r; using that of the image',
                         *frames)
        return state, camera
