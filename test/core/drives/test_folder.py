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
"""Plain folders with images/ and K.txt: every optional file, and what is wrong with it."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from hybrid_depth.drives import Drive, open_drive
from hybrid_depth.errors import DriveError

HEIGHT, WIDTH = 6, 10
STEMS = ['a1', 'a2', 'b1']
TURNED = np.array([[0.0, 0, 1, 3], [-1, 0, 0, 4], [0, -1, 0, 5], [0, 0, 0, 1]])


def picture(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images and K, nothing else."""
    folder = tmp_path / 'walk'
    (folder / 'images').mkdir(parents=True)
    for index, stem in enumerate(STEMS):
        cv2.imwrite(str(folder / 'images' / f'{stem}.png'), picture(index)[..., ::-1])
    (folder / 'K.txt').write_text('20 0 4.5\n0 21 2.5\n0 0 1\n')
    return folder


def write_depth(folder: Path, stem: str, raw: np.ndarray) -> None:
    (folder / 'depth').mkdir(exist_ok=True)
    cv2.imwrite(str(folder / 'depth' / f'{stem}.png'), raw)


def units(value: int = 1500) -> np.ndarray:
    """Return raw depth that is ``value`` but for a 0 and a 65535."""
    raw = np.full((HEIGHT, WIDTH), value, np.uint16)
    raw[0, 0], raw[0, 1] = 0, 65535
    return raw


def test_least_that_is_needed(folder: Path) -> None:
    drive = open_drive(folder)
    assert (drive.name, len(drive)) == ('walk', 3)
    camera = drive.camera
    assert (camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy) == (
        WIDTH, HEIGHT, 20.0, 21.0, 4.5, 2.5)
    for index, frame in enumerate(drive):
        assert frame.name == STEMS[index]
        assert frame.camera == camera
        assert frame.world_T_camera is None
        assert frame.depth_m is None
        np.testing.assert_array_equal(frame.image_rgb, picture(index))
    assert drive.stamps_ns[0] > 0
    assert np.diff(drive.stamps_ns).tolist() == [100_000_000] * 2


@pytest.mark.parametrize('count', [12, 16])
def test_poses_of_12_and_16_numbers(folder: Path, count: int) -> None:
    lines = [' '.join(map(str, pose.reshape(-1)[:count])) for pose in (np.eye(4), TURNED, TURNED)]
    (folder / 'poses.txt').write_text('# camera to world\n' + '\n'.join(lines) + '\n')
    drive = open_drive(folder)
    np.testing.assert_array_equal(drive.frame(0).world_T_camera, np.eye(4))
    np.testing.assert_array_equal(drive.frame(1).world_T_camera, TURNED)


@pytest.mark.parametrize(('text', 'expected'), [
    # beyond the digits of a float
    ('1700000000.123456789\n1700000000.223456789\n1700000001\n',
     (1700000000_123456789, 1700000000_223456789, 1700000001_000000000)),
    ('1700000000123456789\n1700000000223456789\n\n1700000001000000001\n',
     (1700000000_123456789, 1700000000_223456789, 1700000001_000000001)),
    ('# since the start\n0.5\n0.6\n1e1\n', (500_000_000, 600_000_000, 10_000_000_000)),
])
def test_stamps_in_seconds_and_nanoseconds(folder: Path, text: str, expected: tuple) -> None:
    (folder / 'stamps.txt').write_text(text)
    drive = open_drive(folder)
    assert drive.stamps_ns == expected
    assert drive.frame(2).stamp_ns == expected[2]


@pytest.mark.parametrize(('scale', 'expected_m'), [
    (None, 1.5), ('1000\n', 1.5), ('256', 1500 / 256), ('5000', 0.3), ('0.001', 1.5),
    ('0.0002\n', 0.3), ('1', 1500.0),
])
def test_depth_scale_both_ways(folder: Path, scale: str | None, expected_m: float) -> None:
    write_depth(folder, 'a2', units())
    if scale is not None:
        (folder / 'depth_scale.txt').write_text(scale)
    drive = open_drive(folder)
    assert drive.frame(0).depth_m is None  # not every image needs depth
    depth_m = drive.frame(1).depth_m
    assert depth_m.dtype == np.float32
    assert np.isnan(depth_m[0, :2]).all()
    np.testing.assert_allclose(depth_m[1:], expected_m, rtol=1e-6)


def test_depth_of_another_size_is_brought_to_the_image(folder: Path) -> None:
    raw = np.kron(np.arange(1, 16, dtype=np.uint16).reshape(3, 5) * 1000, np.ones((1, 1)))
    write_depth(folder, 'a1', raw.astype(np.uint16))
    depth_m = open_drive(folder).frame(0).depth_m
    np.testing.assert_allclose(depth_m, np.kron(np.arange(1, 16).reshape(3, 5), np.ones((2, 2))))


def test_mixed_kinds_of_images(folder: Path) -> None:
    cv2.imwrite(str(folder / 'images' / 'c.jpg'), np.full((HEIGHT, WIDTH), 77, np.uint8))
    (folder / 'images' / 'notes.txt').write_text('not an image')
    (folder / 'images' / '._a1.png').write_bytes(b'left by a file manager')
    drive = open_drive(folder)
    assert len(drive) == 4
    np.testing.assert_array_equal(drive.frame(3).image_rgb, np.full((HEIGHT, WIDTH, 3), 77))


IDENTITY = '1 0 0 0 0 1 0 0 0 0 1 0\n'
SCALED = '2 0 0 0 0 2 0 0 0 0 2 0\n'
MIRRORED = '1 0 0 0 0 1 0 0 0 0 -1 0\n'


def write(name: str, text: str) -> Callable[[Path], None]:
    """Return a change that writes a file."""
    return lambda folder: (folder / name).write_text(text)  # type: ignore[return-value]


@pytest.mark.parametrize(('change', 'words'), [
    (write('K.txt', '20 0 4.5 0 21 2.5'), r'K\.txt holds 6 numbers; expected the 9'),
    (write('K.txt', '20 0 4.5\n0 f 2.5\n0 0 1'), r'K\.txt:2 .*not a number'),
    (write('K.txt', '20 0 4.5\n0 21 2.5\n0 0 nan'), r'K\.txt:3 .*not finite'),
    (write('K.txt', '20 0 0\n0 21 0\n4.5 2.5 1'), r'K\.txt is no intrinsic matrix'),
    (write('K.txt', '-20 0 4.5\n0 21 2.5\n0 0 1'), r'K\.txt: focal length is fx=-20'),
    (write('poses.txt', IDENTITY * 2), r'poses\.txt has 2 poses for 3 images'),
    (write('poses.txt', IDENTITY * 2 + '1 0 0'), r'poses\.txt:3 has 3 numbers; expected 12 or 16'),
    (write('poses.txt', IDENTITY + SCALED + IDENTITY), r'poses\.txt:2 is not a rigid'),
    (write('poses.txt', MIRRORED + IDENTITY * 2), r'poses\.txt:1 is not a rigid'),
    (write('poses.txt', IDENTITY * 2 + IDENTITY.strip() + ' 0 0 1 1'), r'poses\.txt:3 is not a'),
    (write('poses.txt', IDENTITY + IDENTITY.replace('1', 'nan') + IDENTITY),
     r'poses\.txt:2 .*not finite'),
    (write('poses.txt', '# none\n' + IDENTITY + 'one 2 3\n'), r'poses\.txt:3 .*not a number'),
    (write('stamps.txt', '1\n2\n'), r'stamps\.txt has 2 stamps for 3 images'),
    (write('stamps.txt', '1\n2\n2\n'), r'stamps\.txt:3 is not later'),
    (write('stamps.txt', '1\nsoon\n3\n'), r"stamps\.txt:2 is 'soon'"),
    (write('stamps.txt', '1\nnan\n3\n'), r"stamps\.txt:2 is 'nan'"),
    (write('stamps.txt', '1\n2\ninf\n'), r"stamps\.txt:3 is 'inf'"),
    (write('images/a1.jpg', ''), r'a1\.jpg and a1\.png|a1\.png and a1\.jpg'),
    (write('images/A.png', 'no picture'), r'A\.png cannot be read as an image'),
    (lambda folder: (write_depth(folder, 'a1', units()), write('depth_scale.txt', '-1')(folder)),
     r'depth_scale\.txt holds .*expected one positive'),
    (lambda folder: (write_depth(folder, 'a1', units()), write('depth_scale.txt', '1 2')(folder)),
     r'depth_scale\.txt holds .*expected one positive'),
    (lambda folder: write_depth(folder, 'other', units()), r'name the depth of a1\.png a1\.png'),
    (lambda folder: [(folder / 'images' / f'{stem}.png').unlink() for stem in STEMS],
     'holds no images'),
    (lambda folder: (folder / 'K.txt').write_bytes(b'\xff\xfe2\x000\x00'), r'K\.txt is no text'),
])
def test_bad_folder(folder: Path, change: Callable[[Path], object], words: str) -> None:
    change(folder)
    with pytest.raises(DriveError, match=words):
        open_drive(folder)


def failure_of_frame_1(drive: Drive) -> str:
    drive.frame(0)
    with pytest.raises(DriveError) as caught:
        drive.frame(1)
    return str(caught.value)


def test_bad_image_is_named(folder: Path) -> None:
    (folder / 'images' / 'a2.png').write_bytes(b'no picture')
    assert 'a2.png cannot be read as an image' in failure_of_frame_1(open_drive(folder))


def test_image_of_another_size_is_named(folder: Path) -> None:
    cv2.imwrite(str(folder / 'images' / 'a2.png'), np.zeros((4, 5, 3), np.uint8))
    assert 'a2.png is 5x4, the first image is 10x6' in failure_of_frame_1(open_drive(folder))


def test_eight_bit_depth_is_refused(folder: Path) -> None:
    write_depth(folder, 'a2', np.zeros((HEIGHT, WIDTH), np.uint8))
    assert 'a2.png is uint8' in failure_of_frame_1(open_drive(folder))


def test_broken_depth_is_refused(folder: Path) -> None:
    write_depth(folder, 'a2', units())
    (folder / 'depth' / 'a2.png').write_bytes(b'')
    assert 'a2.png cannot be read as a depth image' in failure_of_frame_1(open_drive(folder))


def test_real_folder(shared_data: Path) -> None:
    drive = open_drive(shared_data / 'hololens_rgbd')
    assert len(drive) == 373
    frame = drive.frame(0)
    assert frame.image_rgb.shape == (360, 540, 3)
    assert drive.camera.fx == pytest.approx(495.57, abs=0.01)
    poses = np.array([other.world_T_camera for other in map(drive.frame, range(0, 373, 60))])
    np.testing.assert_allclose(poses[:, :3, :3] @ poses[:, :3, :3].transpose(0, 2, 1),
                               np.broadcast_to(np.eye(3), (7, 3, 3)), atol=2e-3)
    depths = [other.depth_m for other in (drive.frame(0), drive.frame(1))]
    known = next(depth for depth in depths if depth is not None)  # every second frame has some
    assert known.shape == (360, 540)
    assert 0.3 < np.nanmedian(known) < 10  # rooms, in metres
