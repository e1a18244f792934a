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
"""ROS 2 bags, written with rosbags and read back: pixels, times, poses, truth, complaints."""
from __future__ import annotations

from collections.abc import Iterator
import logging
from pathlib import Path
import shutil
import sqlite3
import sys
import threading
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rosbags', reason='rosbags is not installed')

from tiny_bags import (
    CAMERA_FRAME,
    camera_info,
    camera_messages,
    depth,
    HEIGHT,
    image,
    odometry,
    open_messages,
    PERIOD_NS,
    picture,
    STAMPS,
    START_NS,
    STORAGES,
    transforms,
    WIDTH,
    write_bag,
)

from hybrid_depth.drives import Drive, open_drive
from hybrid_depth.errors import DriveError

# the camera looks along the base's x, 1.5 m ahead of it and 0.5 m up: quaternion by hand
OPTICAL = (-0.5, 0.5, -0.5, 0.5)
BASE_T_CAMERA = np.array([[0, 0, 1, 1.5], [-1, 0, 0, 0], [0, -1, 0, 0.5], [0, 0, 0, 1.0]])
MOUNTING = transforms(('base_link', 'mast', (1.5, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)),
                      ('mast', CAMERA_FRAME, (0.0, 0.0, 0.5), OPTICAL))
INFO_MESSAGE = ('/cam/camera_info', camera_info(STAMPS[0], WIDTH, HEIGHT))


def full_messages() -> Iterator[tuple[str, Any]]:
    yield '/tf_static', MOUNTING
    # odometry 30 ms before the images, 1 m in 0.1 s along x
    for index in range(6):
        yield '/odom', odometry(START_NS - 30_000_000 + index * PERIOD_NS, (index, 2.0, 0.0))
    yield from camera_messages(padding=5)
    for index in (0, 1, 3):
        yield '/cam/depth', image(STAMPS[index] + 20_000_000, depth(index), '32FC1', padding=3)


@pytest.fixture(scope='module', params=[(storage, single) for storage in STORAGES
                                        for single in (False, True)],
                ids=lambda value: f'{value[0]}-{"file" if value[1] else "folder"}')
def drive(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Drive:
    """Open the same drive in both storages, as a folder and as the file in it."""
    storage, single = request.param
    bag = write_bag(tmp_path_factory.mktemp('bags') / 'drive', full_messages(), storage)
    return open_drive(next(bag.glob('drive.*')) if single else bag)


def test_pixels_times_and_camera(drive: Drive) -> None:
    assert drive.name == 'drive'
    assert drive.stamps_ns == tuple(STAMPS)  # of the headers, not of reception
    assert (drive.camera.width, drive.camera.height, drive.camera.fx) == (WIDTH, HEIGHT, 20.0)
    assert (drive.camera.cx, drive.camera.cy) == (7.5, 5.5)
    for index in (2, 0, 3, 1):  # any order
        frame = drive.frame(index)
        assert (frame.name, frame.stamp_ns) == (f'{index:010d}', STAMPS[index])
        assert frame.camera == drive.camera
        assert frame.image_rgb.flags.writeable
        np.testing.assert_array_equal(frame.image_rgb, picture(index))


def test_poses_are_interpolated_and_mounted(drive: Drive) -> None:
    for index in range(4):
        expected = BASE_T_CAMERA.copy()
        expected[:3, 3] += (index + 0.3, 2.0, 0.0)  # 30 of 100 ms after sample `index`
        np.testing.assert_allclose(drive.frame(index).world_T_camera, expected, atol=1e-9)


def test_truth_within_half_a_period(drive: Drive) -> None:
    for index in (0, 1, 3):
        np.testing.assert_array_equal(drive.frame(index).depth_m, depth(index))
    assert drive.frame(2).depth_m is None


def test_read_from_several_threads(drive: Drive) -> None:
    wrong = []

    def read(index: int) -> None:
        for _ in range(10):
            if not np.array_equal(drive.frame(index).image_rgb, picture(index)):
                wrong.append(index)
    threads = [threading.Thread(target=read, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_colour_is_taken_before_grey_and_more_before_fewer(tmp_path: Path, caplog) -> None:
    grey, colour = picture(1)[..., 0], picture(2)
    caplog.set_level(logging.INFO)
    drive = open_messages(tmp_path, [
        *((f'/{name}/camera_info', camera_info(STAMPS[0], WIDTH, HEIGHT, focal))
          for name, focal in (('grey', 10.0), ('short', 20.0), ('long', 30.0))),
        ('/nowhere/image', image(STAMPS[0], colour)),  # no camera_info beside it
        *(('/grey/image', image(stamp_ns, grey, 'mono8')) for stamp_ns in STAMPS),
        ('/short/image', image(STAMPS[0], colour)),
        *(('/long/image', image(stamp_ns, colour, 'bgr8')) for stamp_ns in STAMPS[:2])])
    assert (len(drive), drive.camera.fx) == (2, 30.0)
    np.testing.assert_array_equal(drive.frame(0).image_rgb, colour[..., ::-1])
    assert 'images from /long/image (bgr8, 2 messages)' in caplog.text
    assert 'other cameras: /grey/image, /short/image' in caplog.text


def test_camera_info_nearest_in_time(tmp_path: Path) -> None:
    drive = open_messages(tmp_path, [
        ('/camera_info', camera_info(STAMPS[0], WIDTH, HEIGHT, 20.0)),
        ('/camera_info', camera_info(STAMPS[3], WIDTH, HEIGHT, 40.0)),
        *(('/image', image(stamp_ns, picture(0))) for stamp_ns in STAMPS)])
    assert [frame.camera.fx for frame in drive] == [20.0, 20.0, 40.0, 40.0]


@pytest.mark.parametrize(('topic', 'is_distorted'), [('/image_raw', True), ('/image_rect', False)])
def test_rectified_by_name(tmp_path: Path, topic: str, is_distorted: bool) -> None:
    drive = open_messages(tmp_path, [
        ('/camera_info', camera_info(STAMPS[0], WIDTH, HEIGHT, D=(-0.1, 0.02, 0.0, 0.0, 0.0))),
        (topic, image(STAMPS[0], picture(0)))])
    assert drive.camera.is_distorted is is_distorted


def test_stamps_are_sorted_and_unique(tmp_path: Path, caplog) -> None:
    drive = open_messages(tmp_path, [
        ('/camera_info', camera_info(0, WIDTH, HEIGHT)),
        *(('/image', image(STAMPS[index], picture(index))) for index in (1, 0, 1, 2))],
        is_one_burst=True)
    assert drive.stamps_ns == tuple(STAMPS[:3])
    np.testing.assert_array_equal(drive.frame(0).image_rgb, picture(0))
    np.testing.assert_array_equal(drive.frame(1).image_rgb, picture(1))
    assert '1 of 4 messages repeat a time stamp' in caplog.text


@pytest.mark.parametrize(('topic', 'message'), [
    ('/depth', image(STAMPS[0], depth(0)[:-1], '32FC1')),
    ('/depth', image(STAMPS[0], depth(0), '32FC1', frame_id='depth_optical_frame')),
    ('/hybrid_depth/depth/image', image(STAMPS[0], depth(0), '32FC1')),
], ids=['another size', 'another view', 'our own output'])
def test_what_is_no_truth(tmp_path: Path, topic: str, message: Any) -> None:
    drive = open_messages(tmp_path, [*camera_messages(), (topic, message)])
    assert drive.frame(0).depth_m is None


def short_data() -> Any:
    message = image(STAMPS[0], picture(0))
    message.data = message.data[:-1]
    return message


def huge() -> Any:
    message = image(STAMPS[0], picture(0))
    message.height = message.width = 2**31
    return message


@pytest.mark.parametrize(('messages', 'words'), [
    ([INFO_MESSAGE], r'no image topic with a camera_info.*\[\].*/cam/camera_info'),
    ([INFO_MESSAGE, ('/other/image', image(STAMPS[0], picture(0)))], '/other/image'),
    ([INFO_MESSAGE, ('/cam/depth', image(STAMPS[0], depth(0), '32FC1'))], '/cam/depth'),
    ([('/cam/camera_info', camera_info(STAMPS[0], WIDTH, HEIGHT, 0.0)),
      ('/cam/image', image(STAMPS[0], picture(0)))], '/cam/camera_info: focal length is fx=0'),
    ([INFO_MESSAGE, ('/cam/image', image(STAMPS[0], picture(0), 'nv21'))],
     "/cam/image is encoded as 'nv21'; expected one of rgb8, bgr8"),
    ([INFO_MESSAGE, ('/cam/image', image(0, picture(0)))], '/cam/image carry no time stamp'),
    ([INFO_MESSAGE, ('/cam/image', image(STAMPS[0], picture(0))), ('/vio', odometry(0, (0, 0, 0))),
      ('/tf_static', transforms(('base_link', CAMERA_FRAME, (0, 0, 0), (0, 0, 0, 0))))],
     f'/tf_static: {CAMERA_FRAME} in base_link is no rigid transform'),
])
def test_bad_bag(tmp_path: Path, messages: list, words: str) -> None:
    with pytest.raises(DriveError, match=words):
        open_messages(tmp_path, messages)


@pytest.mark.parametrize(('message', 'words'), [
    (short_data(), '575 bytes, but step 48 x height 12'),
    (huge(), '2147483648x2147483648, its camera_info says 16x12'),
    (image(STAMPS[0], picture(0)[:-1]), '16x11, its camera_info says 16x12'),
])
def test_bad_image(tmp_path: Path, message: Any, words: str) -> None:
    drive = open_messages(tmp_path, [INFO_MESSAGE, ('/cam/image', message)])
    with pytest.raises(DriveError, match=f'/cam/image, frame 0.*{words}'):
        drive.frame(0)


@pytest.mark.parametrize('storage', STORAGES)
def test_damaged_file(tmp_path: Path, storage: str) -> None:
    bag = write_bag(tmp_path / 'bag', camera_messages(), storage)
    file = next(bag.glob('bag.*'))
    file.write_bytes(file.read_bytes()[:200])
    for path in (bag, file):
        with pytest.raises(DriveError, match='cannot be read as a ROS 2 bag'):
            open_drive(path)


def test_bag_without_message_definitions(tmp_path: Path) -> None:
    """Bags of Humble and older hold none in sqlite3: the stock definitions serve."""
    bag = write_bag(tmp_path / 'bag', full_messages())
    with sqlite3.connect(bag / 'bag.db3') as database:
        database.execute('DROP TABLE message_definitions')
        database.execute('UPDATE schema SET schema_version = 3')
    database.close()
    drive = open_drive(bag)
    np.testing.assert_array_equal(drive.frame(1).image_rgb, picture(1))
    assert drive.frame(1).world_T_camera is not None


@pytest.mark.parametrize(('storage', 'mode'), [
    ('sqlite3', 'FILE'), ('sqlite3', 'MESSAGE'), ('mcap', 'STORAGE')])
def test_compressed_bag(tmp_path: Path, storage: str, mode: str) -> None:
    bag = write_bag(tmp_path / 'bag', full_messages(), storage, compression=mode)
    drive = open_drive(bag)
    for index in (3, 0):
        frame = drive.frame(index)
        np.testing.assert_array_equal(frame.image_rgb, picture(index))
        np.testing.assert_array_equal(frame.depth_m, depth(index))


def test_counts_that_are_wrong(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / 'bag', [INFO_MESSAGE, ('/cam/image', image(STAMPS[0], picture(0)))])
    with sqlite3.connect(bag / 'bag.db3') as database:
        database.execute('DELETE FROM messages')
    database.close()
    with pytest.raises(DriveError, match=r'no messages of /cam/.* ros2 bag reindex'):
        open_drive(bag)


def test_recording_that_was_not_ended(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / 'bag', camera_messages(), 'mcap')
    (bag / 'metadata.yaml').unlink()
    with pytest.raises(DriveError, match=r'name its file bag\.mcap itself'):
        open_drive(bag)
    assert len(open_drive(bag / 'bag.mcap')) == 4


def test_bag_can_be_removed_after_use(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / 'bag', camera_messages())
    drive = open_drive(bag)
    drive.frame(0)
    del drive
    shutil.rmtree(bag)
    with pytest.raises(DriveError, match='there is no drive'):
        open_drive(bag)


def test_without_rosbags(tmp_path: Path, monkeypatch) -> None:
    bag = write_bag(tmp_path / 'bag', camera_messages())
    monkeypatch.setitem(sys.modules, 'rosbags.rosbag2', None)
    with pytest.raises(DriveError, match='pip install rosbags'):
        open_drive(bag)
