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
"""Raw ground truth of the Eigen split against the official projection of the same scan."""
from __future__ import annotations

import numpy as np
import pytest

from hybrid_depth.errors import DriveError
from hybrid_depth_training.protocols.folders import depth_files, read_depth
from hybrid_depth_training.protocols.lidar import eigen_truth, read_scan, write_eigen_truth

DRIVE = '2011_09_26_drive_0013_sync'


def test_nearest_point_of_a_pixel_wins_and_pixels_are_counted_from_one():
    # a camera at the LiDAR: x forward is the optical z, y left is -x, z up is -y
    axes = np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]], float)
    image_T_lidar = np.hstack([np.array([[10, 0, 5], [0, 10, 3], [0, 0, 1]]) @ axes,
                               np.zeros((3, 1))])
    points = np.array([[2.0, 0, 0], [4.0, 0, 0], [8.0, -0.8, 0], [-3.0, 0, 0], [2.0, 9, 0]])
    depth = eigen_truth(points, image_T_lidar, (6, 10))
    assert np.count_nonzero(np.isfinite(depth)) == 2
    assert depth[2, 4] == 2.0
    assert depth[2, 5] == 8.0


def test_truth_of_a_real_scan_is_the_official_one_but_for_its_two_oddities(shared_data, tmp_path):
    (tmp_path / 'list.txt').write_text(f'2011_09_26/{DRIVE} 0 l\n2011_09_26/{DRIVE} 100 l\n')
    assert write_eigen_truth(shared_data / 'kitti_raw', tmp_path / 'list.txt',
                             tmp_path / 'truth') == 2
    files = depth_files(tmp_path / 'truth')
    assert set(files) == {f'{DRIVE}/image_02/{i:010d}' for i in (0, 100)}
    official = shared_data / 'kitti_raw' / '2011_09_26' / DRIVE / 'proj_depth' / 'velodyne_raw'
    for name, path in files.items():
        ours = read_depth(path, 256)
        theirs = read_depth(official / 'image_02' / f'{name[-10:]}.png', 256)
        assert ours.shape == theirs.shape
        moved = theirs[1:, 1:]  # their pixel is one to the right and below
        both = np.isfinite(ours[:-1, :-1]) & np.isfinite(moved)
        assert both.sum() > 0.95 * np.isfinite(moved).sum()
        difference = (ours[:-1, :-1] - moved)[both]
        assert np.median(difference) == pytest.approx(0.27, abs=0.05)
        assert np.percentile(np.abs(difference - np.median(difference)), 90) < 0.1


def test_missing_and_damaged_scans_are_refused(tmp_path):
    (tmp_path / 'cut.bin').write_bytes(np.ones(7, np.float32).tobytes())
    with pytest.raises(DriveError, match='7 numbers'):
        read_scan(tmp_path / 'cut.bin')
    with pytest.raises(DriveError, match='no scan'):
        read_scan(tmp_path / 'absent.bin')
    (tmp_path / 'names.txt').write_text('a\n')
    with pytest.raises(DriveError, match='lists a; expected lines of KITTI drives'):
        write_eigen_truth(tmp_path, tmp_path / 'names.txt', tmp_path / 'out')
