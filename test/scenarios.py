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
What a running node must do, seen from outside: a function of the driver for each scenario.

Whoever starts the node, launch or this project's own processes, runs the same ones.
"""
from __future__ import annotations

from collections.abc import Callable

from lifecycle_msgs.msg import Transition

from hybrid_depth_ros.soak import scene
from hybrid_depth_ros.soak.driver import Driver
from hybrid_depth_ros.soak.oracle import Sent, Stamp

ANSWER_S = 20.0  # a busy machine answers slowly


def answered(driver: Driver, stamp: Stamp) -> bool:
    return driver.until(lambda: stamp in driver.right, ANSWER_S)


def ready(driver: Driver) -> None:
    """Wait until the node is active and takes images; ask for it where it is not."""
    assert driver.until(lambda: driver.status.get('state') == 'active', 60.0), driver.status
    assert driver.until(lambda: bool(driver.image_readers()), ANSWER_S)
    assert any(answered(driver, driver.good()) for _ in range(3))


def one_output_for_each_image(driver: Driver) -> None:
    ready(driver)
    judged = driver.oracle.judged
    for _ in range(5):
        assert answered(driver, driver.good())
    assert driver.oracle.judged == judged + 5
    assert driver.oracle.wrong == []


def another_camera_is_seen_with_its_own_intrinsics(driver: Driver) -> None:
    ready(driver)
    for name in ('tele', 'wide', 'front'):
        driver.camera = scene.CAMERAS[name]
        assert any(answered(driver, driver.good()) for _ in range(3)), name
    assert driver.oracle.wrong == []


def a_bad_image_is_a_counted_drop(driver: Driver) -> None:
    ready(driver)
    before = driver.account()
    shot = driver.shot()
    shot.image.encoding = 'h264'
    driver.send(shot, sent=Sent('', 0, 0, None, ()))
    assert driver.until(lambda: int(driver.status.get('drops.unknown_encoding', 0)) > 0, ANSWER_S)
    after = driver.account()
    assert before is not None
    assert after is not None
    assert after.dropped == before.dropped + 1
    assert answered(driver, driver.good())


def transitions_by_service(driver: Driver) -> None:
    ready(driver)
    for transition, state in ((Transition.TRANSITION_DEACTIVATE, 'inactive'),
                              (Transition.TRANSITION_CLEANUP, 'unconfigured'),
                              (Transition.TRANSITION_CONFIGURE, 'inactive'),
                              (Transition.TRANSITION_ACTIVATE, 'active')):
        assert driver.change_state(transition, ANSWER_S) is True
        assert driver.until(lambda state=state: driver.status['state'] == state, ANSWER_S)
    assert driver.change_state(Transition.TRANSITION_CONFIGURE, ANSWER_S) is False
    ready(driver)


SCENARIOS: tuple[Callable[[Driver], None], ...] = (
    one_output_for_each_image, another_camera_is_seen_with_its_own_intrinsics,
    a_bad_image_is_a_counted_drop, transitions_by_service)
