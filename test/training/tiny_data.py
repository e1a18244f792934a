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
Miniatures of the layouts that datasets have on disk.

Each ``write_...(folder)`` writes one and returns the options to load it with. All but TuSimple and
NYU, which have no poses, are a straight drive towards a wall: DEPTH_M ahead of the first frame and
STEP_M nearer with every frame, times BANDS of eight parts of the image from the top to the bottom.
Images are random.
"""
from __future__ import annotations

from collections.abc import Callable
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hybrid_depth_training.data.sunrgbd import encode_depth

FRAMES = 4
HEIGHT, WIDTH = 64, 96
FOCAL, CX, CY = 80.0, 47.0, 30.0
DEPTH_M, STEP_M = 12.0, 0.75
BANDS = 3.0 ** (1 - np.arange(8) / 7)
BASELINE_M = 0.5
K = np.array([[FOCAL, 0, CX], [0, FOCAL, CY], [0, 0, 1]])


def image(index: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    """Return a random smooth colour image."""
    rng = np.random.default_rng(index)
    return cv2.GaussianBlur(rng.integers(0, 255, (*size, 3), dtype=np.uint8), (0, 0), 1.0)


def depth_of(index: int) -> float:
    return DEPTH_M - STEP_M * index


def depth_map(index: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    bands = np.repeat(BANDS, size[0] // len(BANDS))[:, None]
    return depth_of(index) * np.broadcast_to(bands, size)


def pose(index: int) -> np.ndarray:
    matrix = np.eye(4)
    matrix[2, 3] = STEP_M * index
    return matrix


def write_png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def depth_png(index: int, per_metre: float, size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    """Return a 16-bit depth image; its first column is without truth."""
    raw = np.round(depth_map(index, size) * per_metre).astype(np.uint16)
    raw[:, 0] = 0
    return raw


def write_drive(folder: Path) -> dict[str, Any]:
    """Write a folder drive, as the HoloLens recording is kept."""
    for index in range(FRAMES):
        write_png(folder / 'images' / f'{index:04d}.png', image(index))
        write_png(folder / 'depth' / f'{index:04d}.png', depth_png(index, 1000))
    np.savetxt(folder / 'K.txt', K)
    np.savetxt(folder / 'poses.txt', [pose(i).reshape(-1) for i in range(FRAMES)])
    return {}


def write_kitti_raw(folder: Path) -> dict[str, Any]:
    """Write one drive with both cameras, OXTS, scans and two kinds of depth images; and a list."""
    date = folder / '2011_09_26'
    drive = date / '2011_09_26_drive_0001_sync'
    projections = {f'P_rect_0{camera}': np.hstack([K, [[-FOCAL * shift], [0], [0]]])
                   for camera, shift in ((2, 0.0), (3, BASELINE_M))}
    date.mkdir(parents=True)
    (date / 'calib_cam_to_cam.txt').write_text('\n'.join(
        ['calib_time: 09-Jan-2012 13:57:47', f'R_rect_00: {numbers(np.eye(3))}',
         *(f'S_rect_0{camera}: {WIDTH} {HEIGHT}' for camera in (2, 3)),
         *(f'{key}: {numbers(value)}' for key, value in projections.items())]) + '\n')
    # LiDAR and INS: x forward, y left, z up, where the camera is
    cam_R_velo = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
    (date / 'calib_velo_to_cam.txt').write_text(
        f'R: {numbers(cam_R_velo)}\nT: 0 0 0\n')
    (date / 'calib_imu_to_velo.txt').write_text(f'R: {numbers(np.eye(3))}\nT: 0 0 0\n')
    for index in range(FRAMES):
        stem = f'{index:010d}'
        for number, camera in enumerate(('image_02', 'image_03')):
            write_png(drive / camera / 'data' / f'{stem}.png', image(10 * number + index))
            for kind in ('groundtruth', 'velodyne_raw'):
                raw = depth_png(index, 256)
                raw[::2] = 0
                write_png(drive / 'proj_depth' / kind / camera / f'{stem}.png', raw)
        (drive / 'oxts' / 'data').mkdir(parents=True, exist_ok=True)
        longitude = np.degrees(STEP_M * index / 6378137.0)  # eastwards along the equator
        (drive / 'oxts' / 'data' / f'{stem}.txt').write_text(
            f'0 {longitude:.12f} 0 0 0 0' + ' 0' * 24 + '\n')
        (drive / 'velodyne_points' / 'data').mkdir(parents=True, exist_ok=True)
        y, z = (grid.ravel() for grid in np.meshgrid(np.linspace(-4, 4, 40),
                                                     np.linspace(-2, 2, 12)))
        points = np.stack([np.full_like(y, depth_of(index)), y, z, np.zeros_like(y)], axis=1)
        points = np.concatenate([points, points + [3, 0, 0, 0], points - [30, 0, 0, 0]])
        points.astype(np.float32).tofile(drive / 'velodyne_points' / 'data' / f'{stem}.bin')
    lines = [f'2011_09_26/{drive.name} {index} {side}' for side in 'lr' for index in (1, 2)]
    (folder / 'split.txt').write_text('\n'.join(lines) + '\n')
    return {'split_file': str(folder / 'split.txt'), 'truth': 'annotated', 'poses': True}


def write_kitti_odometry(folder: Path) -> dict[str, Any]:
    """Write grey stereo pairs of textured walls, wide enough to be matched."""
    size = (64, 320)
    for index in range(FRAMES):
        wall = cv2.cvtColor(image(index, (size[0], size[1] + 64)), cv2.COLOR_BGR2GRAY)
        disparity = np.round(8 * FOCAL * BASELINE_M / depth_map(index, size)[:, 0]).astype(int)
        right = np.stack([row[shift:shift + size[1]]
                          for row, shift in zip(wall, disparity, strict=True)])
        write_png(folder / 'image_0' / f'{index:06d}.png', wall[:, :size[1]])
        write_png(folder / 'image_1' / f'{index:06d}.png', right)
    focal = 8 * FOCAL
    P0 = np.array([[focal, 0, 160, 0], [0, focal, 30, 0], [0, 0, 1, 0]])
    P1 = P0.copy()
    P1[0, 3] = -focal * BASELINE_M
    (folder / 'calib.txt').write_text(f'P0: {numbers(P0)}\nP1: {numbers(P1)}\n')
    np.savetxt(folder / 'poses.txt', [pose(i)[:3].reshape(-1) for i in range(FRAMES)])
    return {}


def write_nyu(folder: Path) -> dict[str, Any]:
    """Write a scene of three consecutive images and one that is apart, and one of a single one."""
    lines = []
    for scene, index in (('kitchen', 1), ('kitchen', 2), ('kitchen', 3), ('kitchen', 9),
                         ('bath', 4)):
        write_png(folder / scene / f'rgb_{index:05d}.jpg', image(index))
        write_png(folder / scene / f'sync_depth_{index:05d}.png', depth_png(index, 1000))
        lines.append(f'/{scene}/rgb_{index:05d}.jpg /{scene}/sync_depth_{index:05d}.png 518.8579')
    (folder / 'list.txt').write_text('\n'.join(lines) + '\n')
    return {'split_file': str(folder / 'list.txt')}


def write_rgbd(folder: Path) -> dict[str, Any]:
    """Write a recording as ScanNet's exporter does; tracking was lost in the last frame."""
    for index in range(FRAMES):
        write_png(folder / 'color' / f'{8 + index}.jpg', image(index))  # 8, 9, 10, 11
        write_png(folder / 'depth' / f'{8 + index}.png', depth_png(index, 1000, (32, 48)))
        (folder / 'pose').mkdir(exist_ok=True)
        np.savetxt(folder / 'pose' / f'{8 + index}.txt',
                   pose(index) if index < FRAMES - 1 else np.full((4, 4), -np.inf))
    (folder / 'intrinsic').mkdir()
    matrix = np.eye(4)
    matrix[:3, :3] = K
    np.savetxt(folder / 'intrinsic' / 'intrinsic_color.txt', matrix)
    return {}


def write_sevenscenes(folder: Path) -> dict[str, Any]:
    """Write files side by side; the second image is without depth."""
    for index in range(FRAMES):
        write_png(folder / f'frame-{index:06d}.color.jpg', image(index))
        if index != 1:
            raw = depth_png(index, 1000)
            raw[:, 1] = 65535
            write_png(folder / f'frame-{index:06d}.depth.png', raw)
        np.savetxt(folder / f'frame-{index:06d}.pose.txt', pose(index))
    np.savetxt(folder / 'camera-intrinsics.txt', K)
    return {}


def write_sunrgbd(folder: Path) -> dict[str, Any]:
    """Write two scenes of two sensors; the first pixel column is without truth."""
    for index, scene in enumerate(('kv1/NYUdata/NYU0001', 'xtion/sun3ddata/room/0002')):
        write_png(folder / scene / 'image' / f'{index}.jpg', image(index))
        depth = depth_map(index)
        depth[:, 0] = np.nan
        write_png(folder / scene / 'depth_bfx' / f'{index}.png', encode_depth(depth))
        (folder / scene / 'intrinsics.txt').write_text(numbers(K))
        (folder / scene / 'scene.txt').write_text('office_kitchen')
    return {}


def write_tusimple(folder: Path) -> dict[str, Any]:
    """Write images with three lanes: two that are seen, and one that is not."""
    rows = [*range(20, HEIGHT, 4)]
    with (folder / 'label_data_0313.json').open('w') as stream:
        for index in range(FRAMES):
            name = f'clips/0313-1/{index}/20.jpg'
            write_png(folder / name, image(index))
            lanes = [[-2 if row < 28 else 48 - (row - 20) // 2 for row in rows],
                     [48 + (row - 20) // 2 for row in rows], [-2] * len(rows)]
            stream.write(json.dumps({'raw_file': name, 'h_samples': rows, 'lanes': lanes}) + '\n')
    return {'focal_px': FOCAL}


def write_synthetic(folder: Path) -> dict[str, Any]:
    return {'count': 2, 'height': HEIGHT, 'width': WIDTH}


def numbers(matrix: np.ndarray) -> str:
    return ' '.join(f'{value:.12g}' for value in np.asarray(matrix).ravel())


WRITERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    'drive': write_drive,
    'kitti_raw': write_kitti_raw,
    'kitti_odometry': write_kitti_odometry,
    'nyu': write_nyu,
    'rgbd': write_rgbd,
    'sevenscenes': write_sevenscenes,
    'sunrgbd': write_sunrgbd,
    'tusimple': write_tusimple,
    'synthetic': write_synthetic,
    'synthetic_clips': write_synthetic,
}
