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
What can be wrong with the messages that a robot sends.

Each fault is a generator: it sends what it wants and yields until the next image is due. It leaves
the robot in order behind it.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
import math
import random
from typing import Any

import numpy as np
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image

from hybrid_depth_ros.drive_messages import image_message
from hybrid_depth_ros.soak import scene
from hybrid_depth_ros.soak.driver import Driver, Shot
from hybrid_depth_ros.soak.oracle import Sent, stamp_of

FRAMES = 8  # of most faults
NANOSECONDS = 10**9


def frame_loss(driver: Driver, rng: random.Random) -> Iterator[None]:
    """Leave out images; their calibration and odometry come."""
    for _ in range(FRAMES):
        driver.send(driver.shot(), image=rng.random() < 0.4)
        yield


def duplicates(driver: Driver, rng: random.Random) -> Iterator[None]:
    """Send every message two or three times."""
    for _ in range(FRAMES):
        shot = driver.shot()
        for _ in range(rng.randint(2, 3)):
            driver.send(shot)
        yield


def reordering(driver: Driver, rng: random.Random) -> Iterator[None]:
    """Hold four images back, then send them in another order."""
    for _ in range(2):
        shots = []
        for _ in range(4):
            shots.append(driver.shot())
            yield
        rng.shuffle(shots)
        for shot in shots:
            driver.send(shot)
            driver.spin(0.01)


def jitter(driver: Driver, rng: random.Random) -> Iterator[None]:
    """Send at uneven times, as much as two periods late."""
    for _ in range(FRAMES):
        shot = driver.shot()
        driver.spin(rng.uniform(0.0, 0.1))
        driver.send(shot)
        yield


def clock_jump(driver: Driver, rng: random.Random) -> Iterator[None]:
    """Set the robot's clock, or the camera's alone, forward or back, and after a while right."""
    offset_ns = rng.choice((-1, 1)) * round(rng.choice((0.3, 3.0, 3600.0)) * NANOSECONDS)
    is_of_all = rng.random() < 0.5
    for _ in range(FRAMES):
        driver.clock_offset_ns = offset_ns if is_of_all else 0
        shot = driver.shot()
        if not is_of_all:
            stamp = shot.image.header.stamp
            driver.restamp(replace(shot, odometry=[]),
                           stamp.sec * NANOSECONDS + stamp.nanosec + offset_ns)
        driver.send(shot)
        driver.clock_offset_ns = 0
        yield


def resolution_switch(driver: Driver, rng: random.Random) -> Iterator[None]:
    """Go over to images of another size."""
    yield from _with_camera(driver, 'wide')


def camera_swap(driver: Driver, rng: random.Random) -> Iterator[None]:
    """Go over to a camera of the same size and another focal length."""
    yield from _with_camera(driver, 'tele')


def _with_camera(driver: Driver, name: str) -> Iterator[None]:
    for _ in range(2):
        for camera in (scene.CAMERAS[name], scene.CAMERAS['front']):
            driver.camera = camera
            for _ in range(FRAMES // 2):
                driver.good()
                yield


def odometry_stall(driver: Driver, rng: random.Random) -> Iterator[None]:
    """Let the odometry pause."""
    for _ in range(rng.choice((4, 12, 30))):
        driver.send(driver.shot(), odometry=False)
        yield


def odometry_jump(driver: Driver, rng: random.Random) -> Iterator[None]:
    """Move the robot where it cannot have gone, between two messages, and back after a while."""
    shift_m = rng.choice((2.4, 2.9, 30.0, 1e4, 1e15)) * rng.choice((-1, 1))
    for count in range(FRAMES):
        shot = driver.shot()
        # Half a period lies between the two, however late this image is: a robot can move by as
        # much in a second, and nothing would be wrong with that.
        for index, message in enumerate(shot.odometry):
            if (count, index) not in ((0, 0), (FRAMES - 1, 1)):
                message.pose.pose.position.z += shift_m
        driver.send(shot)
        yield


def odometry_nan(driver: Driver, rng: random.Random) -> Iterator[None]:
    """Send odometry whose numbers are none, or no rotation."""
    for _ in range(FRAMES):
        shot = driver.shot()
        for message in shot.odometry:
            pose, twist = message.pose.pose, message.twist.twist
            part = rng.choice((pose.position, pose.orientation, twist.linear, twist.angular))
            setattr(part, rng.choice('xyz'), rng.choice((math.nan, math.inf, -math.inf, 1e300)))
        driver.send(shot)
        yield


def odometry_wrong_frame(driver: Driver, rng: random.Random) -> Iterator[None]:
    """Let a second source speak of another world, in turns with the right one."""
    for count in range(FRAMES):
        shot = driver.shot()
        if count % 2:
            for message in shot.odometry:
                message.header.frame_id = 'map'
                message.pose.pose.position.z += 2.6
        driver.send(shot)
        yield


def tf_gap(driver: Driver, rng: random.Random) -> Iterator[None]:
    """Send odometry of a frame that no transform connects with the camera."""
    for _ in range(FRAMES):
        shot = driver.shot()
        for message in shot.odometry:
            message.child_frame_id = 'base_link'
            message.pose.pose.position.z += 2.6
        driver.send(shot)
        yield


def _set(**fields: Any) -> Callable[[Shot], None]:
    def change(shot: Shot) -> None:
        for name, value in fields.items():
            setattr(shot.image, name, value)
    return change


def _set_info(**fields: Any) -> Callable[[Shot], None]:
    def change(shot: Shot) -> None:
        for name, value in fields.items():
            setattr(shot.info, name, value)
    return change


def _cut(shot: Shot) -> None:
    shot.image.data = shot.image.data[:-100]


def _without_frame(shot: Shot) -> None:
    shot.image.header.frame_id = ''


BAD_IMAGES = (
    _set(encoding='h264'), _set(encoding='32FC1'), _set(encoding='\U0001f4a5'), _set(step=0),
    _set(step=2**32 - 1), _set(width=0), _set(height=0), _set(width=2**32 - 1),
    _set(height=2**32 - 1), _set(width=64), _set(data=b''), _cut, _without_frame,
)
_K = [100.0, 0.0, 64.0, 0.0, 100.0, 48.0, 0.0, 0.0, 1.0]
BAD_INFOS = (
    _set_info(width=0), _set_info(width=2**32 - 1, height=2**32 - 1),
    _set_info(width=65535, height=65535), _set_info(width=2**30, height=16),
    _set_info(k=[0.0] * 9, p=[0.0] * 12), _set_info(k=[math.nan, *_K[1:]]),
    _set_info(k=[-100.0, *_K[1:]]), _set_info(k=[1e300, *_K[1:]]), _set_info(k=[1e-300, *_K[1:]]),
    _set_info(d=[0.1] * 3), _set_info(d=[0.1] * 5, distortion_model='magic'),
    _set_info(d=[math.inf] * 5), _set_info(binning_x=2**32 - 1), _set_info(binning_x=200),
)


def corrupt_fields(driver: Driver, rng: random.Random) -> Iterator[None]:
    """Send images and calibrations that contradict themselves."""
    for change in rng.sample(BAD_IMAGES, len(BAD_IMAGES)):
        shot = driver.shot()
        change(shot)
        driver.send(shot, sent=_nothing(shot))
        yield
    for change in rng.sample(BAD_INFOS, len(BAD_INFOS)):
        shot = driver.shot()
        change(shot)
        driver.send(shot, image=False)  # alone, so that it is known which images it spoils
        yield
        after = driver.shot()
        driver.send(after, info=False, sent=_nothing(after))
        yield


def corrupt_cdr(driver: Driver, rng: random.Random) -> Iterator[None]:
    """Send bytes that are no messages, or others than they were."""
    for _ in range(FRAMES):
        shot = driver.shot()
        data = mutated(serialize_message(shot.image), rng)
        understood = _understood(data)
        stamp = stamp_of(understood) if understood else stamp_of(shot.image)
        driver.oracle.expect(stamp, _sent(understood, shot))
        driver.images.publish(data)
        driver.sent += 1
        driver.infos.publish(_mutated_beyond_header(serialize_message(shot.info), rng))
        driver.odometry.publish(mutated(serialize_message(shot.odometry[-1]), rng))
        yield


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return serialised bytes with one to four changes in their first 200."""
    result = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(min(len(result), 200)) if result else 0
        kind = rng.randrange(5)
        if kind == 0:
            result[at:at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            result[at:at + 4] = b'\xff\xff\xff\xff'
        elif kind == 2:
            del result[at:]
        elif kind == 3:
            result += rng.randbytes(rng.randint(1, 50))
        else:
            result[at:at + 4] = rng.randbytes(4)
    return bytes(result)


def _mutated_beyond_header(data: bytes, rng: random.Random) -> bytes:
    """Cut a calibration short: one that can be read but says otherwise would be believed."""
    return data[:rng.randrange(len(data) - 8)]


def _understood(data: bytes) -> Image | None:
    """Return the message that bytes hold, None where they hold none."""
    if len(data) < 12:
        return None  # Fast CDR crashes at some of these when asked directly
    try:
        return deserialize_message(data, Image)
    except Exception:  # of the middleware's own kind
        return None


def _sent(understood: Image | None, shot: Shot) -> Sent:
    """Return what may come out for a message that was understood, or not."""
    if understood is None or understood.encoding != 'rgb8' or not understood.header.frame_id:
        return _nothing(shot)
    height, width = shot.image.height, shot.image.width
    size = (understood.height, understood.width, understood.step)
    if size != (height, width, 3 * width) or len(understood.data) != 3 * width * height:
        return _nothing(shot)
    pixels = np.frombuffer(understood.data, np.uint8).reshape(height, width, 3)
    return Sent(understood.header.frame_id, width, height, pixels, (shot.info.k[0],))


def _nothing(shot: Shot) -> Sent:
    return Sent(shot.image.header.frame_id, shot.image.width, shot.image.height, None, ())


def out_of_memory(driver: Driver, rng: random.Random) -> Iterator[None]:
    """Send images at which the model's runtime cannot get its memory."""
    for _ in range(4):
        shot = driver.shot()
        shot.image_rgb[0, 0] = scene.POISON
        header = shot.image.header
        shot.image = image_message(shot.image_rgb, 0)
        shot.image.header = header
        driver.send(shot, sent=_nothing(shot))
        yield
