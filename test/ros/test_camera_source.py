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
"""Which calibration counts for an image: its own where it has one."""
from __future__ import annotations

import threading
import time

import pytest
from ros_messages import camera_info, FRAME, HEIGHT, time_message, WIDTH

from hybrid_depth_ros import camera_source
from hybrid_depth_ros.camera_source import CameraSource

SIZE = (WIDTH, HEIGHT)


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait a minute for a calibration: on a busy machine what is late may be very late."""
    monkeypatch.setattr(camera_source, 'MAX_WAIT_S', 60.0)


def update(source: CameraSource, stamp_ns: int, focal: float) -> bool:
    info = camera_info(focal=focal)
    info.header.stamp = time_message(stamp_ns)
    return source.update(info, '/image')


def focal(source: CameraSource, stamp_ns: int) -> float:
    return source.for_image(SIZE, FRAME, stamp_ns)[1].fx


def test_an_image_has_its_own_calibration_however_late_it_is_taken_up() -> None:
    source = CameraSource('auto')
    for stamp_ns, fx in ((1, 100.0), (2, 150.0), (3, 150.0), (4, 100.0)):
        update(source, stamp_ns, fx)
    assert [focal(source, stamp_ns) for stamp_ns in (2, 1, 4, 3)] == [150.0, 100.0, 100.0, 150.0]
    assert focal(source, 99) == 100.0  # has none: the latest


def test_an_image_that_has_overtaken_its_calibration_waits_for_it(patience: None) -> None:
    source = CameraSource('auto')
    update(source, 1, 100.0)
    assert focal(source, 1) == 100.0
    late = threading.Timer(0.03, update, (source, 2, 150.0))
    late.start()
    assert focal(source, 2) == 150.0
    late.join()


def test_nobody_waits_long_for_what_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    wait_s = 0.3
    monkeypatch.setattr(camera_source, 'MAX_WAIT_S', wait_s)
    source = CameraSource('auto')
    update(source, 1, 100.0)
    focal(source, 1)
    start = time.monotonic()
    assert focal(source, 2) == 100.0
    waited = time.monotonic() - start
    assert waited >= wait_s
    start = time.monotonic()
    for stamp_ns in range(3, 50):
        focal(source, stamp_ns)
    assert time.monotonic() - start < 10 * wait_s  # 47 images: not one wait each


def test_the_same_calibration_is_nothing_new_and_memory_is_bounded() -> None:
    source = CameraSource('auto')
    assert update(source, 0, 100.0)
    state = source.state
    assert not any(update(source, stamp_ns, 100.0) for stamp_ns in range(1, 200))
    assert source.state is state
    assert len(source._by_stamp) <= 16
    assert all(kept is state for kept in source._by_stamp.values())


def test_a_lost_calibration_does_not_end_the_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    source = CameraSource('auto')
    for stamp_ns in range(1, 6):
        update(source, stamp_ns, 100.0)
        focal(source, stamp_ns)
    assert focal(source, 6) == 100.0  # lost on the way
    monkeypatch.setattr(camera_source, 'MAX_WAIT_S', 60.0)
    late = threading.Timer(0.02, update, (source, 7, 150.0))
    late.start()
    assert focal(source, 7) == 150.0
    late.join()
