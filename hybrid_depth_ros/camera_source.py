# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The latest camera_info, kept as the camera of the images that come beside it."""
from __future__ import annotations

from dataclasses import dataclass
import logging
from typing import Any

from hybrid_depth.camera import CameraModel
from hybrid_depth.camera_info import camera_from_info, is_rectified
from hybrid_depth.errors import BadFrame
from hybrid_depth_ros.conversions import calibration_key

_LOG = logging.getLogger(__name__)


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

    ``update`` is called by the executor, ``for_image`` by the inference thread.
    """

    def __init__(self, rectified_mode: str) -> None:
        self._mode = rectified_mode
        self._state: CameraState | None = None
        self._warned_frames: set[tuple[str, str]] = set()

    @property
    def state(self) -> CameraState | None:
        """The latest calibration, None before the first."""
        return self._state

    @property
    def is_known(self) -> bool:
        """Whether the latest calibration makes a camera."""
        return self._state is not None and isinstance(self._state.camera, CameraModel)

    def update(self, info: Any, image_topic: str) -> bool:
        """Take a camera_info; return whether it says something new."""
        key = calibration_key(info)
        if self._state is not None and self._state.key == key:
            return False
        rectified, reason = is_rectified(info, self._mode, image_topic)
        try:
            camera: CameraModel | BadFrame = camera_from_info(info, rectified)
        except BadFrame as bad:
            camera = bad
        self._state = CameraState(info, key, rectified, camera)
        if isinstance(camera, CameraModel):
            _LOG.info('camera: %dx%d, fx %.1f fy %.1f cx %.1f cy %.1f, %s; pixels taken as %s: %s',
                      camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy,
                      camera.distortion_model, 'rectified' if rectified else 'not rectified',
                      reason)
        return True

    def for_image(self, image: Any) -> tuple[CameraState, CameraModel]:
        """Return calibration and camera of the sensor_msgs/Image ``image``. Raises BadFrame."""
        state = self._state
        if state is None:
            raise BadFrame('no_camera_info', 'no camera_info has arrived, so the intrinsics are '
                           "unknown; remap 'camera_info' to the camera's own")
        camera = state.camera
        if isinstance(camera, BadFrame):
            raise BadFrame(camera.reason, str(camera))
        if (image.width, image.height) != (camera.width, camera.height):
            raise BadFrame('size_mismatch', f'image is {image.width}x{image.height}, but '
                           f'camera_info (after ROI and binning) says {camera.width}x'
                           f'{camera.height}; publish the camera_info of this very image')
        frames = (image.header.frame_id, state.info.header.frame_id)
        if frames[0] != frames[1] and frames not in self._warned_frames:
            self._warned_frames.add(frames)
            _LOG.warning('image is in frame %r but camera_info in %r; using that of the image',
                         *frames)
        return state, camera
