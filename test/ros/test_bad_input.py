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
"""Each kind of bad input is a counted, diagnosed drop, and the next good frame comes through."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from node_bench import Bench
import numpy as np
import pytest
from ros_messages import camera_info, grey_image, HEIGHT, odometry, WIDTH
from sensor_msgs.msg import CameraInfo, Image

from hybrid_depth.errors import ContractError
from hybrid_depth.pipeline import DepthPipeline

pytestmark = pytest.mark.usefixtures('ros')


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Return a node that is running well."""
    made = Bench()
    made.start('depth/image')
    made.calibrate()
    made.send_and_wait()
    yield made
    made.close()


def changed(**fields: object) -> Callable[[], Image]:
    def make() -> Image:
        image = grey_image(stamp_ns=3 * 10**9)
        for name, value in fields.items():
            setattr(image, name, value)
        return image
    return make


def truncated() -> Image:
    image = grey_image(stamp_ns=3 * 10**9)
    image.data = image.data[:100]
    return image


@pytest.mark.parametrize(('make', 'reason'), [
    (changed(encoding='32FC1'), 'unknown_encoding'),
    (changed(encoding='h264'), 'unknown_encoding'),
    (truncated, 'truncated'),
    (changed(step=3 * WIDTH + 1), 'truncated'),
    (changed(step=3 * WIDTH - 3), 'step_mismatch'),
    (changed(encoding='rgba8'), 'step_mismatch'),
    (lambda: grey_image(width=2 * WIDTH), 'size_mismatch'),
    (lambda: grey_image(frame_id=''), 'no_frame_id'),
])
def test_bad_image_is_dropped_and_the_next_comes_through(
        bench: Bench, make: Callable[[], Image], reason: str) -> None:
    # on a busy machine the warning is out, and over, before the next image is through
    since = len(bench.diagnostics)
    bench.send_bad(make(), reason)
    assert bench.send_and_wait().width == WIDTH
    bench.diagnosed(lambda status, values: status.level == b'\1' and reason in status.message
                    and values[f'drops.{reason}'] == '1', since)
    bench.send_and_wait()
    bench.diagnosed(lambda status, _: status.level == b'\0')


def test_zero_size(bench: Bench) -> None:
    image = Image(encoding='rgb8')
    image.header = grey_image().header
    bench.send_bad(image, 'zero_size')
    bench.send_and_wait()


def uncalibrated(K_is_zero: bool = True, width: int = WIDTH) -> CameraInfo:
    info = camera_info(width)
    if K_is_zero:
        info.k = [0.0] * 9
        info.p = [0.0] * 12
    return info


@pytest.mark.parametrize(('info', 'reason'), [
    (uncalibrated(), 'no_intrinsics'),
    (camera_info(D=[0.1, 0.2]), 'bad_camera_info'),
    (camera_info(D=[0.1] * 5, model='magic'), 'bad_camera_info'),
    (camera_info(focal=float('nan')), 'bad_camera_info'),
    (CameraInfo(), 'bad_camera_info'),
])
def test_bad_camera_info(bench: Bench, info: CameraInfo, reason: str) -> None:
    bench.calibrate(info)
    bench.send_bad(None, reason)
    bench.calibrate()
    bench.send_and_wait()


def test_image_before_any_camera_info() -> None:
    bench = Bench()
    try:
        bench.start('depth/image')
        bench.send_bad(None, 'no_camera_info')
        bench.diagnosed(lambda status, values: status.level == b'\2'
                        and 'no camera_info' in values['camera'])
        bench.calibrate()
        bench.send_and_wait()
    finally:
        bench.close()


def test_changed_resolution_recovers_with_its_camera_info(bench: Bench) -> None:
    large = grey_image(width=2 * WIDTH, height=2 * HEIGHT, stamp_ns=4 * 10**9)
    bench.send_bad(large, 'size_mismatch')
    bench.calibrate(camera_info(2 * WIDTH, 2 * HEIGHT, 200.0))
    assert bench.send_and_wait(large).width == 2 * WIDTH
    bench.calibrate()
    assert bench.send_and_wait().width == WIDTH


def test_model_error_is_dropped(bench: Bench) -> None:
    for error in (RuntimeError('out of memory'), ContractError('no depth')):
        bench.pipeline.error = error
        before = bench.drops().get('model_error', 0)
        bench.send()
        bench.until(lambda before=before: bench.drops().get('model_error', 0) == before + 1)
    bench.pipeline.error = None
    bench.send_and_wait()


def test_time_going_backwards_keeps_going(bench: Bench) -> None:
    bench.tell(odometry(2 * 10**9, 5.0), odometry(2 * 10**9 + 10**8, 5.0))
    bench.send_and_wait(grey_image(stamp_ns=2 * 10**9 + 5 * 10**7))
    assert bench.pipeline.frames[-1].odom_T_camera is not None
    # the recording starts again; its odometry has not come yet
    depth = bench.send_and_wait(grey_image(stamp_ns=5 * 10**8))
    assert depth.header.stamp.sec == 0
    assert bench.pipeline.frames[-1].odom_T_camera is None
    bench.tell(odometry(6 * 10**8, 1.0), odometry(7 * 10**8, 2.0))
    bench.send_and_wait(grey_image(stamp_ns=65 * 10**7))
    np.testing.assert_allclose(bench.pipeline.frames[-1].odom_T_camera[0, 3], 1.5)
    bench.diagnosed(lambda status, values: status.level == b'\0'
                    and values['odometry.image_time_back'] == '1')


@pytest.mark.parametrize(('x', 'w'), [(float('nan'), 1.0), (1.0, 0.0), (float('inf'), 1.0)])
def test_bad_odometry_is_rejected(bench: Bench, x: float, w: float) -> None:
    bench.tell(odometry(2 * 10**9, x, w=w))
    bench.send_and_wait(grey_image(stamp_ns=2 * 10**9))
    assert bench.pipeline.frames[-1].odom_T_camera is None
    bench.tell(odometry(3 * 10**9, 1.0))
    bench.send_and_wait(grey_image(stamp_ns=3 * 10**9))
    assert bench.pipeline.frames[-1].odom_T_camera is not None
    bench.diagnosed(lambda _, values: values['odometry.rejected'] == '1')


def test_odometry_gap_gives_no_pose(bench: Bench) -> None:
    bench.tell(odometry(2 * 10**9, 2.0), odometry(4 * 10**9, 4.0))
    bench.send_and_wait(grey_image(stamp_ns=3 * 10**9))
    assert bench.pipeline.frames[-1].odom_T_camera is None
    bench.diagnosed(lambda _, values: values['odometry.state'].startswith('gap'))


def test_unknown_camera_mounting_gives_no_pose(bench: Bench) -> None:
    bench.tell(odometry(2 * 10**9, 1.0, child='base_link'))
    bench.send_and_wait(grey_image(stamp_ns=2 * 10**9))
    assert bench.pipeline.frames[-1].odom_T_camera is None
    bench.diagnosed(lambda _, values: values['odometry.state'].startswith('no_extrinsic'))


@pytest.mark.parametrize('damage', ['missing', 'truncated', 'not a model'])
def test_bad_model_file_fails_to_configure_and_recovers(tmp_path: Path, tiny_model: Path,
                                                        damage: str) -> None:
    path = tmp_path / 'model.onnx'
    whole = tiny_model.read_bytes()
    if damage == 'truncated':
        path.write_bytes(whole[:len(whole) // 2])
    elif damage == 'not a model':
        path.write_bytes(b'hello')
    bench = Bench(DepthPipeline, model=str(path))
    try:
        assert not bench.node.start()
        assert bench.node.state == 'unconfigured'
        bench.diagnosed(lambda status, _: status.level == b'\2' and 'model.onnx' in status.message)
        path.write_bytes(whole)
        bench.start('depth/image')
        bench.calibrate()
        bench.send_and_wait()
        bench.diagnosed(lambda status, _: status.level == b'\0')
    finally:
        bench.close()
