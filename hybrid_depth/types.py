# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What flows through the core: a frame goes in, a depth result comes out."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from hybrid_depth.camera import CameraModel


@dataclass(frozen=True)
class Frame:
    """One camera image with everything known about it."""

    image_rgb: np.ndarray  # (H, W, 3) uint8, RGB
    stamp_ns: int  # acquisition time
    frame_id: str  # optical frame: x right, y down, z forward
    camera: CameraModel  # of exactly this image's pixels
    odom_T_camera: np.ndarray | None = None  # (4, 4) float64 metres, None = no usable pose


@dataclass(frozen=True)
class DepthResult:
    """Metric depth of one frame, pixel for pixel on ``camera``."""

    depth_m: np.ndarray  # (H, W) float32, along +Z; NaN = invalid, +Inf = beyond range
    sigma_m: np.ndarray  # (H, W) float32, one standard deviation; NaN where depth is not finite
    edge: np.ndarray  # (H, W) bool, True = depth discontinuity (flying-pixel danger)
    image_rgb: np.ndarray  # (H, W, 3) uint8 on the same pixels, for colouring
    camera: CameraModel  # intrinsics of these arrays
    stamp_ns: int
    frame_id: str
    mode: str  # 'single_frame'; pose-conditioned modes have their own names
    timings_ms: dict[str, float] = field(default_factory=dict)  # stage -> milliseconds
