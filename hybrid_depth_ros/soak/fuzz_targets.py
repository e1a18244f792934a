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
What the fuzzer mutates. Adding a target: a function of a random generator, and a row.

A target makes one input and lets the project read it. It may raise HybridDepthError, nothing else.
"""
from __future__ import annotations

from collections.abc import Callable
import io
import json
import math
from pathlib import Path
import random
from typing import Any

import cv2
from nav_msgs.msg import Odometry
import numpy as np
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from hybrid_depth.camera_info import camera_from_info, is_rectified
from hybrid_depth.compressed import compressed_size
from hybrid_depth.config import PipelineConfig
from hybrid_depth.contract import ModelSpec, read_spec
from hybrid_depth.drives import open_drive
from hybrid_depth.models import read_card
from hybrid_depth.poses import PoseBuffer
from hybrid_depth.preprocess import network_view
from hybrid_depth.runtime import BackendOptions, ort
from hybrid_depth.runtime.reference import read_golden
from hybrid_depth_ros.conversions import calibration_key, fill_camera_info, odometry_sample
from hybrid_depth_ros.drive_messages import camera_info_message, image_message, odometry_message
from hybrid_depth_ros.encodings import decode_image, ENCODINGS
from hybrid_depth_ros.parameters import make_settings, PARAMETERS
from hybrid_depth_ros.soak import scene
from hybrid_depth_ros.soak.stream_faults import mutated

Target = Callable[[random.Random], None]
NUMBERS = (0, 1, -1, 2, 5, 16, 255, 65535, 2**31 - 1, 2**32 - 1, 0.0, -0.0, 1e-300, 1e300,
           math.nan, math.inf, -math.inf, 0.5)
VALUES: tuple[Any, ...] = (
    *NUMBERS, '', 'auto', 'nan', '../../etc/passwd', '\0', 'x' * 1000, True, None, [], {},
    [1.0] * 3, [''], *([number] * 4 for number in NUMBERS))
UNSIGNED = (0, 1, 2, 3, 63, 64, 127, 128, 4096, 32768, 65535, 2**31, 2**32 - 1)
WORDS = ('0', '-1', '1e400', 'nan', 'inf', '', '#', ',', '1.5', '9' * 40, '\u0661', '0x10', '\0')
_LONGEST_SIDE = 256  # of cameras whose tables are made: larger ones only take time
_START = scene.image_of(21, scene.CAMERAS['front'])


def image(rng: random.Random) -> None:
    """Read an image whose fields contradict each other."""
    message = image_message(_START, 10**9)
    for _ in range(rng.randint(1, 3)):
        field = rng.choice(('width', 'height', 'step', 'encoding', 'data', 'is_bigendian'))
        if field == 'encoding':
            message.encoding = rng.choice([*ENCODINGS, '', 'h264', '32FC1', 'rgb8 '])
        elif field == 'data':
            message.data = bytes(rng.choice((0, 1, 100, 128 * 96, 128 * 96 * 2, 128 * 96 * 4)))
        elif field == 'is_bigendian':
            message.is_bigendian = rng.randrange(256)
        else:
            setattr(message, field, rng.choice(UNSIGNED))
    decoded = decode_image(message)
    if decoded.shape != (message.height, message.width, 3) or decoded.dtype != np.uint8:
        raise AssertionError(f'{message.encoding} decodes to {decoded.dtype} {decoded.shape}')


def compressed(rng: random.Random) -> None:
    """Read a damaged JPEG or PNG."""
    kind = rng.choice(('.png', '.jpg'))
    data = cv2.imencode(kind, _START[:32, :48])[1].tobytes()
    message = CompressedImage(format=rng.choice(('jpeg', 'png', 'rgb8; jpeg compressed bgr8',
                                                 'bayer_rggb8; png compressed', '')))
    message.data = mutated(data, rng)
    width, height = compressed_size(message.data)
    if width * height <= 1 << 20:  # as the node: only what has the size of its camera
        decode_image(message)


def camera_info(rng: random.Random) -> None:
    """Make a camera of a calibration that cannot be."""
    info = camera_info_message(scene.CAMERAS['front'], 10**9)
    for _ in range(rng.randint(1, 4)):
        field = rng.choice(('width', 'height', 'binning_x', 'binning_y', 'roi', 'k', 'p', 'd',
                            'model'))
        if field == 'roi':
            setattr(info.roi, rng.choice(('x_offset', 'y_offset', 'width', 'height')),
                    rng.choice(UNSIGNED))
        elif field in 'kp':
            getattr(info, field)[rng.randrange(9)] = float(rng.choice(NUMBERS))
        elif field == 'd':
            info.d = [float(rng.choice((*NUMBERS, 0.1))) for _ in range(rng.randint(0, 15))]
        elif field == 'model':
            info.distortion_model = rng.choice(('equidistant', 'rational_polynomial', 'magic', ''))
        else:
            setattr(info, field, rng.choice(UNSIGNED))
    calibration_key(info)
    camera = camera_from_info(info, is_rectified(info, 'auto', '/image')[0])
    size = scene.model_spec().network_size(camera.width, camera.height)
    if size[0] * size[1] > 1 << 24:
        raise AssertionError(f'a network of {size} for {camera}')
    if max(camera.width, camera.height) <= _LONGEST_SIDE:
        with np.errstate(all='ignore'):
            network_view(camera, size)
            camera.rays()
            fill_camera_info(CameraInfo(), camera, info, False)


def odometry(rng: random.Random) -> None:
    """Insert odometry of any numbers and look poses up."""
    buffer = PoseBuffer()
    stamp = 10**9
    for _ in range(4):
        message = odometry_message(np.eye(4), np.zeros(6), 10**9)
        pose, twist = message.pose.pose, message.twist.twist
        part = rng.choice((pose.position, pose.orientation, twist.linear, twist.angular))
        setattr(part, rng.choice('xyz'), float(rng.choice(NUMBERS)))
        _, *sample = odometry_sample(message)
        stamp += rng.choice((0, 1, -1, 10**7, 10**8, -10**9, 10**18))
        buffer.insert(stamp, *sample)
        found = buffer.lookup(stamp + rng.choice((0, 10**6, -10**6, 10**12))).odom_T_base
        if found is not None and not np.isfinite(found).all():
            raise AssertionError('a pose that is not finite')


def serialised(rng: random.Random) -> None:
    """Read messages of damaged bytes, as far as the middleware lets them through."""
    kind, message = rng.choice((
        (Image, image_message(_START[:8, :8], 10**9)),
        (CameraInfo, camera_info_message(scene.CAMERAS['front'], 10**9)),
        (Odometry, odometry_message(np.eye(4), np.zeros(6), 10**9))))
    data = mutated(serialize_message(message), rng)
    if len(data) < 12:
        return  # Fast CDR itself crashes at some of these
    try:
        understood = deserialize_message(data, kind)
    except Exception:  # of the middleware's own kind
        return
    if kind is Image:
        decode_image(understood)
    elif kind is CameraInfo:
        camera_from_info(understood, is_rectified(understood, 'auto', '/image')[0])
    else:
        stamp, *sample = odometry_sample(understood)
        PoseBuffer().insert(stamp, *sample)


def config(rng: random.Random) -> None:
    """Build a configuration of any keys and values."""
    keys = [*PipelineConfig.__dataclass_fields__, 'unknown', '', '__class__']
    PipelineConfig.from_mapping({rng.choice(keys): rng.choice(VALUES)
                                 for _ in range(rng.randint(1, 3))})


def parameters(rng: random.Random) -> None:
    """Set parameters to other values of the type that ROS holds them to."""
    values: dict[str, Any] = {row.name: row.default for row in PARAMETERS}
    for row in rng.sample(PARAMETERS, 3):
        kind = type(row.default)
        if kind is list:
            values[row.name] = [rng.choice(('', '../x', 'a b')) if row.default and
                                isinstance(row.default[0], str) else float(rng.choice(NUMBERS))
                                for _ in range(rng.choice((0, 3, 4)))]
        elif kind is int:
            values[row.name] = int(rng.choice(UNSIGNED)) * rng.choice((1, -1))
        elif kind is float:
            values[row.name] = float(rng.choice(NUMBERS))
        elif kind is str:
            values[row.name] = rng.choice(('', 'auto', '\0', '../../x', 'x' * 1000))
    make_settings(values)


def model_spec(rng: random.Random) -> None:
    """Read a contract with damaged text or other values."""
    text = scene.model_spec().to_json()
    if rng.random() < 0.5:
        fields = json.loads(text)
        fields[rng.choice([*fields, 'unknown'])] = rng.choice(VALUES)
        text = json.dumps(fields)
    else:
        text = mutated(text.encode(), rng).decode(errors='replace')
    ModelSpec.from_json(text)


def _model_file(folder: Path) -> Target:
    path = folder / 'model.onnx'
    scene.write_model(path)
    whole = path.read_bytes()

    def read(rng: random.Random) -> None:
        """Open a damaged model file and run it where it can be opened."""
        path.write_bytes(_mutated_anywhere(whole, rng))
        spec = read_spec(path)
        backend = ort.open_backend(path, spec, (16, 16), BackendOptions(cpu_threads=1))
        backend.close()
    return read


def _golden(folder: Path) -> Target:
    path = folder / 'golden.npz'
    spec = scene.model_spec()
    stored = io.BytesIO()
    arrays: dict[str, Any] = {
        f'0_{name}': np.zeros(shape, dtype)
        for tensors in (spec.inputs((16, 16)), spec.outputs((16, 16)))
        for name, (dtype, shape) in tensors.items()}
    np.savez(stored, **arrays)
    whole = stored.getvalue()

    def read(rng: random.Random) -> None:
        """Read damaged reference outputs."""
        path.write_bytes(_mutated_anywhere(whole, rng))
        read_golden(path, spec)
    return read


def _card(folder: Path) -> Target:
    (folder / 'some').mkdir()
    whole = json.dumps({'sha256': 'a' * 64, 'name': 'some'}).encode()

    def read(rng: random.Random) -> None:
        """Read a damaged model card."""
        (folder / 'some' / 'card.json').write_bytes(mutated(whole, rng))
        read_card('some', folder)
    return read


def _drive(folder: Path) -> Target:
    """Return a target that reads a folder of images with damaged text files."""
    drive = folder / 'drive'
    (drive / 'images').mkdir(parents=True)
    for index in range(2):
        cv2.imwrite(str(drive / 'images' / f'{index}.png'), _START[:16, :16])
    texts = {'K.txt': '100 0 8\n0 100 8\n0 0 1\n', 'stamps.txt': '1.0\n2.0\n',
             'poses.txt': '1 0 0 0 0 1 0 0 0 0 1 0\n1 0 0 1 0 1 0 0 0 0 1 0\n'}

    def read(rng: random.Random) -> None:
        """Read a drive one of whose files is damaged."""
        damaged = rng.choice(list(texts))
        for name, text in texts.items():
            content = text.encode()
            if name == damaged:
                words = text.split(' ')
                words[rng.randrange(len(words))] = rng.choice(WORDS)
                content = ' '.join(words).encode() if rng.random() < 0.5 else \
                    mutated(content, rng)
            (drive / name).write_bytes(content)
        open_drive(str(drive)).frame(1)
    return read


def _mutated_anywhere(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + mutated(data[at:], rng)


def make_targets(folder: Path) -> dict[str, Target]:
    """Return all targets by name; their files go into ``folder``."""
    return {'image': image, 'compressed': compressed, 'camera_info': camera_info,
            'odometry': odometry, 'serialised': serialised, 'config': config,
            'parameters': parameters, 'model_spec': model_spec,
            'model_file': _model_file(folder), 'golden': _golden(folder), 'card': _card(folder),
            'drive': _drive(folder)}
