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
"""What flows through the core: a frame goes in, a depth result comes out."""
from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from hybrid_depth.camera import CameraModel
    from hybrid_depth.pose_check import PoseCheck
    from hybrid_depth.scale import ScaleReport


# What a result can hold beside depth that takes time of its own.
EXTRAS = frozenset({'sigma', 'evidence'})


@dataclass(frozen=True)
class Frame:
    """One camera image with everything known about it."""

    image_rgb: np.ndarray  # (H, W, 3) uint8, RGB
    stamp_ns: int  # acquisition time
    frame_id: str  # optical frame: x right, y down, z forward
    camera: CameraModel  # of exactly this image's pixels
    odom_T_camera: np.ndarray | None = None  # (4, 4) float64 metres, None = no usable pose
    pose_epoch: int = 0  # poses of frames with different epochs are not of one odom frame
    down_camera: np.ndarray | None = None  # (3,) gravity in the optical frame, None = unknown


class Evidence(IntEnum):
    """What the depth of a pixel rests on, and if not on matching, why not."""

    SINGLE_FRAME = 0  # the image alone: no usable earlier frame, or nothing to match there
    MATCHED = 1  # matched against earlier frames along the camera's motion
    EPIPOLE = 2  # seen before, but the motion moves it too little in the image to measure
    OCCLUDED = 3  # out of view of the earlier frames, or hidden there behind something nearer
    MOVING = 4  # matching and the image alone disagree: most likely it moves by itself


@dataclass(frozen=True)
class DepthResult:
    """Metric depth of one frame, pixel for pixel on ``camera``."""

    depth_m: np.ndarray  # (H, W) float32, along +Z; NaN = invalid, +Inf = beyond range
    # (H, W) float32, one standard deviation; NaN where depth is not finite or nobody asked for it
    sigma_m: np.ndarray
    edge: np.ndarray  # (H, W) bool, True = depth discontinuity (flying-pixel danger)
    image_rgb: np.ndarray  # (H, W, 3) uint8 on the same pixels, for colouring
    camera: CameraModel  # intrinsics of these arrays
    stamp_ns: int
    frame_id: str
    mode: str  # 'posed' = matched against earlier frames, else 'single_frame'
    timings_ms: dict[str, float] = field(default_factory=dict)  # stage -> milliseconds
    sources: int = 0  # earlier frames that it was matched against
    # (H, W) uint8, values of Evidence; None = the model has no such thing or nobody asked for it
    evidence: np.ndarray | None = None
    scale: ScaleReport | None = None  # None = nothing but the model to judge the scale by
    pose_check: PoseCheck | None = None  # None = no earlier frame to check the poses with
