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
"""KITTI odometry stereo pairs; the truth is semi-global matching with a left-right check."""
from __future__ import annotations

import functools
import os
from pathlib import Path

import cv2
import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth.drives.image_files import list_images
from hybrid_depth.drives.kitti_raw import calibration_entry, read_calibration
from hybrid_depth.errors import DriveError
from hybrid_depth_training.data import DepthSample, Recording

_DISPARITIES = 128
_FAR_M = 120.0  # matched beyond this counts as "nothing within range"
_BLOCK = 5


def load(path: str, keep_in: str = '') -> list[Recording]:
    """
    Load a sequence folder with the grey pairs ``image_0`` and ``image_1``.

    Calibration: ``calib.txt`` (lines ``P0: ...`` and ``P1: ...``, as downloaded) or
    ``calib_P0_P1.txt`` (the two 3x4 matrices, one a line). Poses of the left camera, 3x4, one a
    line: ``poses.txt`` or ``../../poses/SEQUENCE.txt``; they may be absent. Depth is matched when
    a frame is first asked for (about 0.2 s) and kept in the folder ``keep_in``, where that is set.
    Raises DriveError.
    """
    folder = Path(path)
    P0, P1 = _read_calibration(folder)
    images = list_images(folder / 'image_0')
    poses = _read_poses(folder, len(images))
    read = functools.partial(_read, images, poses, P0, float(P0[0, 3] - P1[0, 3]), keep_in)
    return [Recording(folder.name, read, poses, range(len(images)))]


def _read(images: list[Path], poses: list[np.ndarray | None], P0: np.ndarray,
          focal_baseline: float, keep_in: str, index: int) -> DepthSample:
    left_path = images[index]
    sequence = left_path.parents[1]
    left = cv2.imread(str(left_path), cv2.IMREAD_GRAYSCALE)
    right = cv2.imread(str(sequence / 'image_1' / left_path.name), cv2.IMREAD_GRAYSCALE)
    if left is None or right is None or left.shape != right.shape:
        raise DriveError(f'{left_path} and its right image cannot be read as a pair')
    kept = Path(keep_in, sequence.name, f'{left_path.stem}.npy') if keep_in else None
    if kept is not None and kept.is_file():
        depth = np.load(kept, allow_pickle=False)
    else:
        depth = stereo_depth(left, right, focal_baseline)
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            part = kept.with_suffix(f'.{os.getpid()}')
            with part.open('wb') as stream:  # save would add a suffix to a path
                np.save(stream, depth)
            os.replace(part, kept)
    camera = CameraModel.from_K(P0[:, :3], left.shape[1], left.shape[0])
    return DepthSample(f'{sequence.name}/{left_path.stem}', cv2.cvtColor(left, cv2.COLOR_GRAY2RGB),
                       camera, depth, False, poses[index])


def _read_calibration(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    matrices = folder / 'calib_P0_P1.txt'
    if matrices.is_file():
        P0, P1 = np.loadtxt(matrices).reshape(2, 3, 4)
        return P0, P1
    path = folder / 'calib.txt'
    if not path.is_file():
        raise DriveError(f'{folder} is no KITTI odometry folder: calib.txt and {matrices.name} '
                         'are missing')
    entries = read_calibration(path)
    P0, P1 = (calibration_entry(entries, key, 12, path).reshape(3, 4) for key in ('P0', 'P1'))
    return P0, P1


def _read_poses(folder: Path, count: int) -> list[np.ndarray | None]:
    paths = folder / 'poses.txt', folder.parents[1] / 'poses' / f'{folder.name}.txt'
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return [None] * count
    rows = np.loadtxt(path, ndmin=2)
    if rows.shape != (count, 12):
        raise DriveError(f'{path} holds {rows.shape[0]} rows of {rows.shape[1]} numbers; expected '
                         f'{count} rows of 12')
    return [np.vstack([row.reshape(3, 4), (0.0, 0.0, 0.0, 1.0)]) for row in rows]


def stereo_depth(left: np.ndarray, right: np.ndarray, focal_baseline: float) -> np.ndarray:
    """
    Match two rectified (H, W) uint8 images.

    ``focal_baseline`` in pixel metres. Returns (H, W) float32 metres, NaN where the two directions
    of matching disagree by more than a pixel, +Inf beyond 120 m.
    """
    def match(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        matcher = cv2.StereoSGBM_create(
            minDisparity=0, numDisparities=_DISPARITIES, blockSize=_BLOCK, P1=8 * _BLOCK**2,
            P2=32 * _BLOCK**2, uniquenessRatio=10, speckleWindowSize=100, speckleRange=2,
            mode=cv2.STEREO_SGBM_MODE_SGBM_3WAY)
        # the matcher has no answer in the first columns: give it some that are cut off again
        pad = ((0, 0), (_DISPARITIES, 0))
        padded = matcher.compute(np.pad(first, pad, 'edge'), np.pad(second, pad, 'edge'))
        return padded[:, _DISPARITIES:].astype(np.float32) / 16
    disparity = match(left, right)
    from_right = match(right[:, ::-1], left[:, ::-1])[:, ::-1]
    rows, columns = np.indices(disparity.shape)
    target = columns - np.round(disparity).astype(int)
    agrees = (disparity > 0) & (target >= 0)
    agrees &= np.abs(from_right[rows, np.clip(target, 0, columns.max())] - disparity) <= 1
    depth = np.full(disparity.shape, np.nan, np.float32)
    depth[agrees] = focal_baseline / disparity[agrees]
    depth[depth > _FAR_M] = np.inf
    return depth
