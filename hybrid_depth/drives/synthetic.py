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
The project's own drive: a ray-cast street with exact depth, poses and moving objects.

The world has x along the street, y left, z up, metres. The same seed gives the same pixels. Every
moment of a street is rendered from scratch, so frames can be asked for in any order.
"""
from __future__ import annotations

import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth.drives import DEFAULT_PERIOD_NS, Drive, DriveFrame, FIRST_STAMP_NS
from hybrid_depth.drives.render import render
from hybrid_depth.drives.street import make_street, Street

FRAMES = 60
SPEED_MPS = 8.0
# optical axes (x right, y down, z forward) seen from a body with x forward, y left, z up
_BODY_R_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


def open_drive(seed: int = 0) -> Drive:
    """Return the synthetic drive of ``seed``: 60 frames of 640x192 at 10 Hz, 48 m of street."""
    camera = CameraModel(640, 192, 370.0, 370.0, 319.0, 92.0)
    street = make_street(seed, FRAMES * SPEED_MPS * DEFAULT_PERIOD_NS * 1e-9)

    def load(index: int) -> DriveFrame:
        time_s = index * DEFAULT_PERIOD_NS * 1e-9
        pose = ego_pose(street, time_s)
        image_rgb, depth_m = render(street, camera, pose, time_s)
        return DriveFrame(f'{index:010d}', FIRST_STAMP_NS + index * DEFAULT_PERIOD_NS, image_rgb,
                          camera, pose, depth_m)

    stamps_ns = tuple(FIRST_STAMP_NS + index * DEFAULT_PERIOD_NS for index in range(FRAMES))
    return Drive(f'synthetic:{seed}', camera, stamps_ns, load, None)


def ego_pose(street: Street, time_s: float, height_m: float = 1.65, pitch: float = 0.0,
             sway: float = 1.0) -> np.ndarray:
    """
    Return world_T_camera (4, 4) of the car at ``time_s``.

    It keeps its lane and, times ``sway``, nods and drifts as a real car does. ``pitch`` (radians)
    looks down where positive.
    """
    x, y, yaw = street.ground.at(SPEED_MPS * time_s,
                                 street.lane_m + sway * 0.12 * np.sin(0.7 * time_s))
    yaw += sway * 0.006 * np.sin(1.3 * time_s)
    pitch += sway * 0.004 * np.sin(5.1 * time_s + 1)
    roll = sway * 0.003 * np.sin(3.7 * time_s + 2)
    (cy, cp, cr), (sy, sp, sr) = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    R = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]]) @ \
        np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]]) @ \
        np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    pose = np.eye(4)
    pose[:3, :3] = R @ _BODY_R_OPTICAL
    pose[:3, 3] = (x, y, height_m + sway * 0.01 * np.sin(5.1 * time_s))
    return pose


def render_random(seed: int, size: tuple[int, int] = (192, 640), fx: float | None = None,
                  ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """
    Render one view of the street of ``seed``, for training.

    ``size`` is (H, W); the focal length ``fx`` in pixels is drawn at random where it is None, as
    are place, camera height (1.2 to 2.0 m), pitch (2 degrees) and heading. Returns ``image_rgb``
    (H, W, 3) uint8, ``depth_m`` (H, W) float32 along +Z with +Inf for sky, ``K`` (3, 3) float64
    and ``world_T_camera`` (4, 4) float64.
    """
    rng = np.random.default_rng([seed, 23])
    height, width = size
    focal = fx if fx is not None else width * rng.uniform(0.45, 0.95)
    camera = CameraModel(width, height, focal, focal, (width - 1) / 2 + rng.uniform(-6, 6),
                         (height - 1) / 2 + rng.uniform(-0.05, 0.05) * height)
    street = make_street(seed)
    time_s = rng.uniform(0, 6.0)
    pose = ego_pose(street, time_s, rng.uniform(1.2, 2.0), np.radians(rng.uniform(-2, 2)), 1.5)
    turn = rng.normal(0, 0.05)
    pose[:3, :3] = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0],
                             [0, 0, 1]]) @ pose[:3, :3]
    image_rgb, depth_m = render(street, camera, pose, time_s)
    return image_rgb, depth_m, camera.K, pose
