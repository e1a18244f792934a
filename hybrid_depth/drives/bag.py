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
ROS 2 bags, sqlite3 and MCAP: one camera with its camera_info, odometry, /tf_static and depth.

Taken is the image topic that has a ``camera_info`` beside it; of several, one in colour, then the
one with most messages. Times are those of the message headers. Frames are read when asked for.
"""
from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
import logging
from pathlib import Path
import threading
from typing import Any
import weakref

import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth.camera_info import camera_from_info, is_rectified
from hybrid_depth.drives import DEFAULT_PERIOD_NS, Drive, DriveFrame
from hybrid_depth.drives.bag_images import DEPTH_ENCODINGS, read_depth_m, read_rgb
from hybrid_depth.drives.bag_poses import find_mounting, frame_name, poses_at, stamp_to_ns
from hybrid_depth.encodings import ENCODINGS
from hybrid_depth.errors import BadFrame, DriveError, HybridDepthError

SUFFIXES = ('.db3', '.mcap')
IMAGE, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
INFO, ODOMETRY = 'sensor_msgs/msg/CameraInfo', 'nav_msgs/msg/Odometry'
TRANSFORMS = 'tf2_msgs/msg/TFMessage'
TYPES = (IMAGE, COMPRESSED, INFO, ODOMETRY, TRANSFORMS)
GREY_ENCODINGS = ('mono8', 'mono16', '8UC1')
OWN_NODE = 'hybrid_depth'  # what this node has published is no truth to measure it by

log = logging.getLogger(__name__)


def matches(path: Path) -> str:
    """Return '' for a rosbag2 folder or a single recording, else what is not there."""
    if path.is_file():
        return '' if path.suffix in SUFFIXES else 'no .db3 or .mcap file'
    if (path / 'metadata.yaml').is_file():
        return ''
    inside = sorted(file.name for file in path.glob('*') if file.suffix in SUFFIXES)
    if inside:
        return f'no metadata.yaml (the recording was not ended; name its file {inside[0]} itself)'
    return 'no metadata.yaml'


def open_drive(path: Path) -> Drive:
    """
    Open the bag ``path``.

    Raises DriveError where rosbags is not installed, where the bag cannot be read, or where it
    holds no camera with calibrated images.
    """
    bag = _Bag(path)
    source = _choose_images(bag)
    images = _index(bag, source.topic)
    stamps_ns = tuple(entry.stamp_ns for entry in images)
    cameras = _cameras(bag, source, stamps_ns)
    poses = _poses(bag, source, stamps_ns)
    truth = _truth(bag, source, cameras[0], stamps_ns)

    def load(index: int) -> DriveFrame:
        where = f'{path}: {source.topic}, frame {index}'
        camera, entry = cameras[index], truth[index]
        image_rgb = read_rgb(bag.at(source.topic, images[index]), camera, where)
        depth_m = None
        if entry is not None:
            depth_m = read_depth_m(bag.at(entry.topic, entry), camera, f'{path}: {entry.topic}')
        return DriveFrame(f'{index:010d}', stamps_ns[index], image_rgb, camera, poses[index],
                          depth_m)

    name = path.resolve().stem if path.is_file() else path.resolve().name
    return Drive(name, cameras[0], stamps_ns, load, path)


@dataclass(frozen=True)
class _Entry:
    """Where in the bag one message is."""

    stamp_ns: int  # of its header
    received_ns: int  # by which the bag is indexed
    topic: str


@dataclass(frozen=True)
class _Source:
    """The images that were chosen."""

    topic: str
    info_topic: str
    frame: str  # optical frame
    encoding: str
    count: int


class _Bag:
    """An open recording. Safe to read from several threads, one at a time."""

    def __init__(self, path: Path) -> None:
        try:
            from rosbags.rosbag2 import Reader
        except ImportError as error:
            raise DriveError(f'{path} is a ROS 2 bag and rosbags is not installed; '
                             'pip install rosbags') from error
        self._path = path
        self._lock = threading.Lock()  # a reader has one position in its file
        with self._readable():
            self._reader = Reader(path)
            self._reader.open()
            weakref.finalize(self, self._reader.close)
            self._connections: dict[str, list[Any]] = {}
            for connection in self._reader.connections:
                if connection.msgtype in TYPES:
                    self._connections.setdefault(connection.topic, []).append(connection)
            self._types = _typestore(self._connections)

    def topics(self, *kinds: str) -> list[str]:
        """Return the topics of message types ``kinds`` that hold messages, in the bag's order."""
        return [topic for topic, connections in self._connections.items()
                if connections[0].msgtype in kinds and self.count(topic)]

    def count(self, topic: str) -> int:
        return sum(connection.msgcount for connection in self._connections[topic])

    def read(self, topic: str, start: int | None = None, stop: int | None = None
             ) -> Generator[tuple[int, Any], None, None]:
        """Yield (receive time, message) of a topic, of receive times from start to stop - 1."""
        with self._lock, self._readable():
            for connection, received_ns, data in self._reader.messages(
                    self._connections[topic], start, stop):
                yield received_ns, self._types.deserialize_cdr(data, connection.msgtype)

    def first(self, topic: str) -> Any:
        """Return the first message of a topic that holds messages."""
        with closing(self.read(topic)) as messages:
            for _, message in messages:
                return message
        raise DriveError(f'{self._path}: there are no messages of {topic} though the metadata '
                         'counts some; ros2 bag reindex corrects it')

    def at(self, topic: str, entry: _Entry) -> Any:
        """Return the message of an index entry."""
        with closing(self.read(topic, entry.received_ns, entry.received_ns + 1)) as messages:
            for _, message in messages:
                if stamp_to_ns(message.header.stamp) == entry.stamp_ns:
                    return message
        raise DriveError(f'{self._path}: the message of {topic} at {entry.stamp_ns} ns is gone; '
                         'the bag was changed while it was read')

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except HybridDepthError:
            raise
        except Exception as error:  # of rosbags, its storages and decompressors, or the disk
            raise DriveError(f'{self._path} cannot be read as a ROS 2 bag '
                             f'({type(error).__name__}: {error}); copy it again, or repair it '
                             'with ros2 bag reindex or mcap recover') from error


def _typestore(connections: dict[str, list[Any]]) -> Any:
    """Return the bag's own message definitions, or the stock ones where it holds none."""
    from rosbags.interfaces import MessageDefinitionFormat
    from rosbags.typesys import get_types_from_msg, get_typestore, Stores
    every = [connection for group in connections.values() for connection in group]
    if not every or any(connection.msgdef.format != MessageDefinitionFormat.MSG
                        for connection in every):
        return get_typestore(Stores.LATEST)
    types: dict[str, Any] = {}
    for connection in every:
        types.update(get_types_from_msg(connection.msgdef.data, connection.msgtype))
    store = get_typestore(Stores.EMPTY)
    store.register(types)
    return store


def _choose_images(bag: _Bag) -> _Source:
    infos = bag.topics(INFO)
    found = []
    for topic in bag.topics(IMAGE, COMPRESSED):
        plain = topic.removesuffix('/compressed')
        info_topic = next((info for info in (_beside(plain), _beside(topic)) if info in infos), '')
        if not info_topic or topic.endswith('/compressedDepth'):
            continue
        first = bag.first(topic)
        encoding = getattr(first, 'encoding', 'compressed')
        if encoding not in DEPTH_ENCODINGS:
            frame = first.header.frame_id or bag.first(info_topic).header.frame_id
            found.append(_Source(topic, info_topic, frame_name(frame), encoding,
                                 bag.count(topic)))
    if not found:
        raise DriveError('the bag has no image topic with a camera_info beside it; it has the '
                         f'image topics {bag.topics(IMAGE, COMPRESSED)} and camera_info topics '
                         f'{infos}; record both of one camera')
    best = max(found, key=lambda one: (one.encoding in (*ENCODINGS, 'compressed'),
                                       one.encoding not in GREY_ENCODINGS, one.count))
    log.info('images from %s (%s, %d messages), calibration from %s; other cameras: %s',
             best.topic, best.encoding, best.count, best.info_topic,
             ', '.join(one.topic for one in found if one is not best) or 'none')
    if best.encoding not in (*ENCODINGS, 'compressed'):
        raise DriveError(f'{best.topic} is encoded as {best.encoding!r}; expected one of '
                         f'{", ".join(ENCODINGS)}')
    return best


def _beside(topic: str) -> str:
    return topic.rpartition('/')[0] + '/camera_info'


def _index(bag: _Bag, topic: str) -> list[_Entry]:
    """Return where the messages of a topic are, by header stamp; of equal stamps the first."""
    entries: dict[int, _Entry] = {}
    for received_ns, message in bag.read(topic):
        stamp_ns = stamp_to_ns(message.header.stamp)
        entries.setdefault(stamp_ns, _Entry(stamp_ns, received_ns, topic))
    if set(entries) == {0}:
        raise DriveError(f'the messages of {topic} carry no time stamp in their header; correct '
                         'the driver that sends them')
    if len(entries) < bag.count(topic):
        log.warning('%s: %d of %d messages repeat a time stamp and are left out', topic,
                    bag.count(topic) - len(entries), bag.count(topic))
    return [entries[stamp_ns] for stamp_ns in sorted(entries)]


def _nearest(stamps_ns: np.ndarray, wanted_ns: int) -> int:
    return int(np.abs(stamps_ns - wanted_ns).argmin())


def _cameras(bag: _Bag, source: _Source, stamps_ns: tuple[int, ...]) -> list[CameraModel]:
    """Return the camera of each image: that of the camera_info nearest in time."""
    info_stamps, cameras = [], []
    same: dict[CameraModel, CameraModel] = {}  # thousands of messages, one calibration
    for _, info in bag.read(source.info_topic):
        rectified, reason = is_rectified(info, 'auto', source.topic)
        try:
            camera = camera_from_info(info, rectified)
        except BadFrame as error:
            raise DriveError(f'{source.info_topic}: {error}') from error
        if not same:
            log.info('%s: %s', source.info_topic, reason)
        info_stamps.append(stamp_to_ns(info.header.stamp))
        cameras.append(same.setdefault(camera, camera))
    times = np.array(info_stamps)
    return [cameras[_nearest(times, stamp_ns)] for stamp_ns in stamps_ns]


def _poses(bag: _Bag, source: _Source, stamps_ns: tuple[int, ...]) -> list[np.ndarray | None]:
    topics = bag.topics(ODOMETRY)
    if not topics:
        log.info('poses are left out: the bag has no nav_msgs/Odometry')
        return [None] * len(stamps_ns)
    base = frame_name(bag.first(topics[0]).child_frame_id)
    transforms = [transform for topic in bag.topics(TRANSFORMS) if topic.endswith('tf_static')
                  for _, message in bag.read(topic) for transform in message.transforms]
    base_T_camera = find_mounting(transforms, base, source.frame)
    if base_T_camera is None:
        log.warning('poses are left out: /tf_static does not connect %r (child frame of %s) with '
                    '%r (frame of %s)', base, topics[0], source.frame, source.topic)
        return [None] * len(stamps_ns)
    log.info('poses from %s; other odometry: %s', topics[0], ', '.join(topics[1:]) or 'none')
    return poses_at(stamps_ns, (message for _, message in bag.read(topics[0])), base_T_camera)


def _truth(bag: _Bag, source: _Source, camera: CameraModel,
           stamps_ns: tuple[int, ...]) -> list[_Entry | None]:
    """Return for each image the depth image within half a period, of the same view."""
    none: list[_Entry | None] = [None] * len(stamps_ns)
    for topic in bag.topics(IMAGE):
        first = bag.first(topic)
        if first.encoding not in DEPTH_ENCODINGS or OWN_NODE in topic.split('/'):
            continue
        view = (first.width, first.height, frame_name(first.header.frame_id))
        if view != (camera.width, camera.height, source.frame):
            log.info('%s is not taken as truth: it is %dx%d in frame %r, the images are %dx%d in '
                     '%r', topic, *view, camera.width, camera.height, source.frame)
            continue
        entries = _index(bag, topic)
        times = np.array([entry.stamp_ns for entry in entries])
        period_ns = np.median(np.diff(stamps_ns)) if len(stamps_ns) > 1 else DEFAULT_PERIOD_NS
        near = [entries[_nearest(times, stamp_ns)] for stamp_ns in stamps_ns]
        log.info('truth from %s', topic)
        return [entry if abs(entry.stamp_ns - stamp_ns) <= period_ns / 2 else None
                for entry, stamp_ns in zip(near, stamps_ns, strict=True)]
    return none
