# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""ROS 2 bags, written with rosbags and read back: pixels, times, poses, truth, complaints."""
from __future__ import annotations

from collections.abc import Iterator
import logging
from pathlib import Path
import shutil
import sys
import threading
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip('rosbags', reason='rosbags is not installed')

from tiny_bags import (
    CAMERA_FRAME,
    camera_info,
    compressed,
    image,
    odometry,
    STORAGES,
    transforms,
    write_bag,
)

from hybrid_depth.drives import Drive, open_drive
from hybrid_depth.errors import DriveError

START_NS = 1_700_000_000_123_456_789
PERIOD_NS = 100_000_000
STAMPS = [START_NS + index * PERIOD_NS for index in range(4)]
HEIGHT, WIDTH = 12, 16
# the camera looks along the base's x, 1.5 m ahead of it and 0.5 m up: quaternion by hand
OPTICAL = (-0.5, 0.5, -0.5, 0.5)
BASE_T_CAMERA = np.array([[0, 0, 1, 1.5], [-1, 0, 0, 0], [0, -1, 0, 0.5], [0, 0, 0, 1.0]])
MOUNTING = transforms(('base_link', 'mast', (1.5, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)),
                      ('mast', CAMERA_FRAME, (0.0, 0.0, 0.5), OPTICAL))


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def depth(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(1, 60, (HEIGHT, WIDTH)).astype(np.float32)


def camera_messages(topic: str = '/cam/image_raw', **more: Any) -> Iterator[tuple[str, Any]]:
    for index, stamp_ns in enumerate(STAMPS):
        yield topic.rpartition('/')[0] + '/camera_info', camera_info(stamp_ns, WIDTH, HEIGHT)
        yield topic, image(stamp_ns, picture(index), **more)


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


def open_messages(tmp_path: Path, messages: Iterator[tuple[str, Any]] | list) -> Drive:
    return open_drive(write_bag(tmp_path / 'bag', messages, 'mcap'))


@pytest.mark.parametrize(('encoding', 'convert'), [
    ('bgr8', lambda rgb: rgb[..., ::-1]),
    ('rgba8', lambda rgb: np.dstack([rgb, rgb[..., 0]])),
    ('mono8', lambda rgb: rgb[..., 1]),
])
def test_encodings(tmp_path: Path, encoding: str, convert) -> None:
    rgb = picture(0)
    drive = open_messages(tmp_path, [
        ('/camera_info', camera_info(STAMPS[0], WIDTH, HEIGHT)),
        ('/image', image(STAMPS[0], convert(rgb), encoding, padding=2))])
    expected = np.repeat(rgb[..., 1:2], 3, axis=2) if encoding == 'mono8' else rgb
    np.testing.assert_array_equal(drive.frame(0).image_rgb, expected)


def test_compressed_images(tmp_path: Path) -> None:
    flat = np.full((HEIGHT, WIDTH, 3), (200, 90, 30), np.uint8)
    bgr = flat[..., ::-1]
    drive = open_messages(tmp_path, [
        ('/cam/camera_info', camera_info(STAMPS[0], WIDTH, HEIGHT)),
        ('/cam/image_raw/compressed', compressed(STAMPS[0], cv2.imencode('.png', bgr)[1])),
        ('/cam/image_raw/compressed', compressed(STAMPS[1], cv2.imencode('.jpg', bgr)[1])),
        ('/cam/image_raw/compressed', compressed(STAMPS[2], np.zeros(0))),
        ('/cam/image_raw/compressed', compressed(STAMPS[3], np.arange(50)))])
    np.testing.assert_array_equal(drive.frame(0).image_rgb, flat)
    assert np.abs(drive.frame(1).image_rgb.astype(int) - flat).max() <= 3
    for index, size in ((2, '0 bytes'), (3, '50 bytes')):
        with pytest.raises(DriveError, match=f'frame {index} cannot be decoded.*{size}'):
            drive.frame(index)


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
        *(('/image', image(STAMPS[index], picture(index))) for index in (1, 0, 1, 2))])
    assert drive.stamps_ns == tuple(STAMPS[:3])
    np.testing.assert_array_equal(drive.frame(0).image_rgb, picture(0))
    np.testing.assert_array_equal(drive.frame(1).image_rgb, picture(1))
    assert '1 of 4 messages repeat a time stamp' in caplog.text


@pytest.mark.parametrize('is_bigendian', [0, 1])
def test_depth_in_millimetres(tmp_path: Path, is_bigendian: int) -> None:
    millimetres = (1000 * np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 64000)
    millimetres[3, 4] = 65535
    pixels = millimetres.astype('>u2' if is_bigendian else '<u2')
    drive = open_messages(tmp_path, [
        *camera_messages(),
        ('/depth/image', image(STAMPS[0], pixels, '16UC1', is_bigendian=is_bigendian))])
    depth_m = drive.frame(0).depth_m
    assert np.isnan(depth_m[0, 0])
    assert np.isnan(depth_m[3, 4])
    known = np.isfinite(depth_m)
    assert known.sum() == ((millimetres > 0) & (millimetres < 65535)).sum()
    np.testing.assert_allclose(depth_m[known], millimetres[known] / 1000)


def test_float_depth_of_nothing_is_nan(tmp_path: Path) -> None:
    values = depth(0)
    values[0, :4] = (0, -1, np.inf, np.nan)
    drive = open_messages(tmp_path, [*camera_messages(),
                                     ('/depth', image(STAMPS[0], values, '32FC1'))])
    depth_m = drive.frame(0).depth_m
    assert np.isnan(depth_m[0, :4]).all()
    np.testing.assert_array_equal(depth_m[1:], values[1:])


@pytest.mark.parametrize(('topic', 'message'), [
    ('/depth', image(STAMPS[0], depth(0)[:-1], '32FC1')),
    ('/depth', image(STAMPS[0], depth(0), '32FC1', frame_id='depth_optical_frame')),
    ('/hybrid_depth/depth/image', image(STAMPS[0], depth(0), '32FC1')),
], ids=['another size', 'another view', 'our own output'])
def test_what_is_no_truth(tmp_path: Path, topic: str, message: Any) -> None:
    drive = open_messages(tmp_path, [*camera_messages(), (topic, message)])
    assert drive.frame(0).depth_m is None


def moving(*skip: int) -> list[tuple[str, Any]]:
    return [('/odom', odometry(START_NS + (index - 1) * PERIOD_NS, (index - 1.0, 0.0, 0.0)))
            for index in range(6) if index not in skip]


@pytest.mark.parametrize(('extra', 'words'), [
    ([], 'no nav_msgs/Odometry'),
    (moving(), "/tf_static does not connect 'base_link'"),
    ([*moving(), ('/tf_static', transforms(('map', CAMERA_FRAME, (0, 0, 0), OPTICAL)))],
     f"with '{CAMERA_FRAME}'"),
])
def test_poses_left_out_with_the_reason(tmp_path: Path, caplog, extra: list, words: str) -> None:
    caplog.set_level(logging.INFO)
    drive = open_messages(tmp_path, [*camera_messages(), *extra])
    assert [frame.world_T_camera for frame in drive] == [None] * 4
    lines = [record.message for record in caplog.records
             if record.message.startswith('poses are left out')]
    assert len(lines) == 1
    assert words in lines[0]


def test_odometry_of_the_camera_itself_needs_no_mounting(tmp_path: Path) -> None:
    drive = open_messages(tmp_path, [*camera_messages(), *(
        ('/vio', odometry(stamp_ns, (0, 0, float(index)), child='/' + CAMERA_FRAME))
        for index, stamp_ns in enumerate(STAMPS))])
    assert [frame.world_T_camera[2, 3] for frame in drive] == [0, 1, 2, 3]


def test_rotation_is_interpolated_on_the_arc(tmp_path: Path) -> None:
    half = np.sqrt(0.5)
    drive = open_messages(tmp_path, [
        *camera_messages(),
        ('/vio', odometry(STAMPS[0] - PERIOD_NS, (0, 0, 0), (0, 0, 0, 1), CAMERA_FRAME)),
        # 90 degrees about z, with the sign that is the long way round
        ('/vio', odometry(STAMPS[0] + PERIOD_NS, (0, 0, 0), (0, 0, -half, -half), CAMERA_FRAME))])
    np.testing.assert_allclose(drive.frame(0).world_T_camera[:2, :2],
                               [[half, -half], [half, half]], atol=1e-12)


def test_no_pose_outside_the_odometry_or_across_a_jump(tmp_path: Path, caplog) -> None:
    samples = [(-30, 0.0), (70, 0.1), (170, 500.0), (270, 500.1)]  # ms after the first image, m
    drive = open_messages(tmp_path, [*camera_messages(), *(
        ('/vio', odometry(START_NS + ms * 10**6, (x, 0, 0), child=CAMERA_FRAME))
        for ms, x in samples)])
    x = [None if frame.world_T_camera is None else frame.world_T_camera[0, 3] for frame in drive]
    assert x[0] == pytest.approx(0.03)
    assert x[1] is None  # between 70 and 170 ms the odometry jumps
    assert x[2] == pytest.approx(500.03)
    assert x[3] is None  # after its end
    assert 'jumps 1 times' in caplog.text
    assert '2 of 4 frames have no pose' in caplog.text


def test_bad_odometry_costs_only_itself(tmp_path: Path, caplog) -> None:
    never_set = odometry(START_NS + 10, (0, 0, 0), (0, 0, 0, 0), CAMERA_FRAME)
    drive = open_messages(tmp_path, [*camera_messages(), ('/vio', never_set), *(
        ('/vio', odometry(stamp_ns, (1, 0, 0), child=CAMERA_FRAME)) for stamp_ns in STAMPS)])
    assert all(frame.world_T_camera[0, 3] == 1 for frame in drive)
    assert '1 odometry messages hold no pose' in caplog.text


def short_data() -> Any:
    message = image(STAMPS[0], picture(0))
    message.data = message.data[:-1]
    return message


def huge() -> Any:
    message = image(STAMPS[0], picture(0))
    message.height = message.width = 2**31
    return message


INFO_MESSAGE = ('/cam/camera_info', camera_info(STAMPS[0], WIDTH, HEIGHT))


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
    (huge(), 'but step 48 x height 2147483648'),
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
    import sqlite3
    bag = write_bag(tmp_path / 'bag', full_messages())
    with sqlite3.connect(bag / 'bag.db3') as database:
        database.execute('DROP TABLE message_definitions')
        database.execute('UPDATE schema SET schema_version = 3')
    database.close()
    drive = open_drive(bag)
    np.testing.assert_array_equal(drive.frame(1).image_rgb, picture(1))
    assert drive.frame(1).world_T_camera is not None


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
