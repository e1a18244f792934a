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
"""Finding out what kind of drive a path is."""
from __future__ import annotations

from importlib import import_module
from pathlib import Path
import subprocess
import sys

import cv2
import numpy as np
import pytest

from hybrid_depth.drives import Drive, DRIVES, open_drive
from hybrid_depth.errors import DriveError


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True)
    cv2.imwrite(str(path), np.zeros((4, 6, 3), np.uint8))


@pytest.mark.parametrize('row', DRIVES)
def test_every_row_can_tell_and_open(row: str, tmp_path: Path) -> None:
    module = import_module(DRIVES[row])
    assert module.matches(tmp_path), 'an empty folder is no drive'
    assert callable(module.open_drive)


def test_opening_by_format(tmp_path: Path, monkeypatch) -> None:
    write_image(tmp_path / 'plain' / 'images' / 'a.png')
    (tmp_path / 'plain' / 'K.txt').write_text('5 0 3 0 5 2 0 0 1')
    write_image(tmp_path / 'kitti' / 'image_02' / 'data' / '0000000000.png')
    for name in ('bag', 'file'):
        (tmp_path / name).mkdir()
    (tmp_path / 'bag' / 'metadata.yaml').write_text('')
    (tmp_path / 'file' / 'a.mcap').write_bytes(b'')
    opened = {}
    for row, module_name in DRIVES.items():
        monkeypatch.setattr(import_module(module_name), 'open_drive',
                            lambda path, row=row: opened.setdefault(path.name, row))
    for path in ('plain', 'kitti', 'bag', 'file/a.mcap'):
        open_drive(tmp_path / path)
        open_drive(str(tmp_path / path))
    assert opened == {'plain': 'folder', 'kitti': 'kitti_raw', 'bag': 'bag', 'a.mcap': 'bag'}


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DriveError, match=r"there is no drive .*nowhere; name a .*'synthetic'"):
        open_drive(tmp_path / 'nowhere')


def test_no_format_says_what_each_looked_for(tmp_path: Path) -> None:
    (tmp_path / 'images').mkdir()
    with pytest.raises(DriveError) as caught:
        open_drive(tmp_path)
    for row, looked_for in (('kitti_raw', 'no image_02/data/'), ('folder', 'no K.txt'),
                            ('bag', 'no metadata.yaml')):
        assert f'{row}: {looked_for}' in str(caught.value)


def test_file_that_is_no_drive(tmp_path: Path) -> None:
    (tmp_path / 'film.mp4').write_bytes(b'')
    with pytest.raises(DriveError, match=r'bag: no \.db3 or \.mcap file'):
        open_drive(tmp_path / 'film.mp4')


@pytest.mark.parametrize('path', ['synthetic:', 'synthetic:0', 'synthetic'])
def test_own_drive_by_name(path: str) -> None:
    drive = open_drive(path)
    assert drive.name == 'synthetic:0'
    assert drive.source is None


def test_frames_are_loaded_when_asked_for_and_only_those_there_are(tmp_path: Path) -> None:
    loaded = []
    drive = Drive('three', None, (1, 2, 3), lambda index: loaded.append(index) or index, None)
    assert list(drive) == [0, 1, 2]
    assert drive.frame(1) == 1
    assert loaded == [0, 1, 2, 1]
    for index in (-1, 3):
        with pytest.raises(DriveError, match=f'three has no frame {index}; it has frames 0 to 2'):
            drive.frame(index)


def test_rosbags_is_not_needed_for_other_drives() -> None:
    code = ("import sys; sys.modules['rosbags'] = None\n"
            'from hybrid_depth.drives import open_drive\n'
            'from hybrid_depth.errors import DriveError\n'
            "assert len(open_drive('synthetic')) > 1\n"
            'try:\n    open_drive(sys.argv[1])\n'
            'except DriveError as error:\n    print(error)\n')
    result = subprocess.run([sys.executable, '-c', code, str(Path(__file__).parent)], text=True,
                            capture_output=True, check=True,
                            cwd=Path(__file__).resolve().parents[3])
    assert 'is no drive in a known format' in result.stdout
