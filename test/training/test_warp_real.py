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
True depth and true pose explain a real image from its neighbour.

The mean absolute difference in grey levels, moved and unmoved, is compared with what the notes
beside the recordings say; a wrong axis, a swapped frame or an inverse pose misses it widely.
"""
from kitti_excerpt import excerpt
import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from hybrid_depth.drives import open_drive  # noqa: E402
from hybrid_depth_training.data import load  # noqa: E402
from hybrid_depth_training.geometry import inverse_pose, warp  # noqa: E402


def differences(target, source, is_inverse: bool = False) -> tuple[float, float]:
    """Return the mean difference of the moved and of the unmoved source, grey levels."""
    depth = torch.from_numpy(target.depth_m)[None, None]
    has_depth = torch.isfinite(depth)
    depth = torch.where(has_depth, depth, torch.ones_like(depth))
    motion = np.linalg.inv(source.world_T_camera) @ target.world_T_camera
    source_T_target = torch.from_numpy(motion).float()[None]
    if is_inverse:
        source_T_target = inverse_pose(source_T_target)
    K = torch.from_numpy(target.camera.K).float()[None]
    seen, unmoved = (torch.from_numpy(frame.image_rgb).permute(2, 0, 1)[None].float()
                     for frame in (target, source))
    moved, inside = warp(unmoved, depth, K, source_T_target)
    counts = (has_depth & inside).expand_as(seen)
    return (float((moved - seen).abs()[counts].mean()),
            float((unmoved - seen).abs()[counts].mean()))


def check(target, source, moved: float, unmoved: float) -> None:
    found = differences(target, source)
    assert found == pytest.approx((moved, unmoved), rel=0.1)
    wrong, _ = differences(target, source, is_inverse=True)
    assert wrong > 1.5 * found[0]


@pytest.mark.parametrize(('sequence', 'moved', 'unmoved'), [
    ('06_first51', 11.4, 27.9), ('01_first51', 7.0, 22.5)])
def test_street_with_stereo_depth(shared_data, tmp_path, sequence, moved, unmoved):
    folder = excerpt(shared_data / 'kitti_odometry' / sequence, tmp_path / sequence, [8, 9])
    (recording,) = load('kitti_odometry', str(folder))
    check(recording[0], recording[1], moved, unmoved)


def test_rooms_walked_through_with_a_headset(shared_data):
    drive = open_drive(shared_data / 'hololens_rgbd')
    check(drive.frame(186), drive.frame(190), 13.8, 86.6)


def test_a_room_scanned_by_hand(shared_data, tmp_path):
    source = shared_data / 'sevenscenes_rgbd'
    names = sorted(path.name.removesuffix('.color.jpg') for path in source.glob('*.color.jpg'))
    (tmp_path / 'camera-intrinsics.txt').symlink_to(source / 'camera-intrinsics.txt')
    for name in names[38:40]:
        for path in source.glob(f'{name}.*'):
            (tmp_path / path.name).symlink_to(path)
    (recording,) = load('sevenscenes', str(tmp_path))
    check(recording[0], recording[1], 6.2, 24.0)


def test_street_with_lidar(shared_data):
    drive = open_drive(shared_data / 'kitti_raw/2011_09_26/2011_09_26_drive_0013_sync')
    found = np.mean([differences(drive.frame(i), drive.frame(i + 1))
                     for i in range(0, 143, 13)], axis=0)
    assert found == pytest.approx((15.6, 32.0), rel=0.15)
