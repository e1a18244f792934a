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
The raw ground truth of the KITTI Eigen split, made from the scans of the raw data.

As it was published, with its two oddities: depth is a point's distance along the LiDAR's forward
axis, not the camera's (about 0.27 m more), and points lie one pixel too far up and left, as if the
projection counted pixels from one.
It is for comparing with published figures; the projected scans of the data set, and every other
truth in this project, have the camera's depth at the right pixel.
"""
from __future__ import annotations

from pathlib import Path

import numpy as np

from hybrid_depth.drives.kitti_raw import calibration_entry, read_calibration, read_rigid
from hybrid_depth.errors import DriveError
from hybrid_depth_training.protocols.splits import read_split


def write_eigen_truth(raw: Path, split: Path, out: Path) -> int:
    """
    Write ``out/DRIVE/image_02/FRAME.npz`` for every frame of ``split``; return their number.

    ``raw`` is the root of KITTI raw, with ``DATE/calib_*.txt`` and
    ``DATE/DRIVE/velodyne_points/data/FRAME.bin``. Raises DriveError where the list is not of
    KITTI drives, or a scan or calibration is missing or damaged.
    """
    names = read_split(split)
    for name in names:
        drive, _, rest = name.partition('/')
        camera, _, frame = rest.partition('/')
        if not frame:
            raise DriveError(f'{split} lists {name}; expected lines of KITTI drives and frames')
        folder = raw / drive[:10]
        scan = folder / drive / 'velodyne_points' / 'data' / f'{frame}.bin'
        image_T_lidar, shape = _projection(folder, camera)
        path = out / drive / camera / f'{frame}.npz'
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, depth=eigen_truth(read_scan(scan), image_T_lidar, shape))
    return len(names)


def eigen_truth(points_m: np.ndarray, image_T_lidar: np.ndarray,
                shape: tuple[int, int]) -> np.ndarray:
    """
    Project LiDAR points (N, 3), metres, x forward, into an image of ``shape`` (height, width).

    ``image_T_lidar`` (3, 4) is P_rect @ R_rect @ camera_T_lidar. Returns (H, W) float32 metres
    along the LiDAR's x axis, NaN = none; of several points in a pixel the nearest counts.
    """
    points_m = points_m[points_m[:, 0] >= 0].astype(np.float64)
    projected = points_m @ image_T_lidar[:, :3].T + image_T_lidar[:, 3]
    ahead = projected[:, 2] > 0
    points_m, projected = points_m[ahead], projected[ahead]
    u, v = (np.rint(projected[:, axis] / projected[:, 2]) - 1 for axis in (0, 1))
    inside = (u >= 0) & (v >= 0) & (u < shape[1]) & (v < shape[0])
    depth_m = np.full(shape, np.inf, np.float32)
    pixels = v[inside].astype(np.int64), u[inside].astype(np.int64)
    np.minimum.at(depth_m, pixels, points_m[inside, 0].astype(np.float32))
    depth_m[np.isinf(depth_m)] = np.nan
    return depth_m


def read_scan(path: Path) -> np.ndarray:
    """Read a scan as (N, 3) float32 metres. Raises DriveError where absent or cut off."""
    if not path.is_file():
        raise DriveError(f'there is no scan {path}; copy velodyne_points of the raw data there')
    values = np.fromfile(path, np.float32)
    if not values.size or values.size % 4:
        raise DriveError(f'{path} has {values.size} numbers; expected four a point: copy it again')
    return values.reshape(-1, 4)[:, :3]


def _projection(folder: Path, camera: str) -> tuple[np.ndarray, tuple[int, int]]:
    path, number = folder / 'calib_cam_to_cam.txt', camera[-2:]
    calibration = read_calibration(path)
    R = np.eye(4)
    R[:3, :3] = calibration_entry(calibration, 'R_rect_00', 9, path).reshape(3, 3)
    P = calibration_entry(calibration, f'P_rect_{number}', 12, path).reshape(3, 4)
    width, height = calibration_entry(calibration, f'S_rect_{number}', 2, path)
    return P @ R @ read_rigid(folder / 'calib_velo_to_cam.txt'), (int(height), int(width))
