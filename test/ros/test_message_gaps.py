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
"""Images that never reach a callback are counted."""
from __future__ import annotations

from typing import Any

from node_bench import Bench
from rclpy.serialization import serialize_message
from ros_messages import grey_image

from hybrid_depth_ros.message_gaps import MessageGaps


def info(number: int | None, publisher: bytes = b'a') -> dict[str, Any]:
    return {'publication_sequence_number': number, 'publisher_gid': {'data': publisher}}


def test_gaps_are_counted_for_each_publisher() -> None:
    gaps = MessageGaps()
    assert [gaps.before(info(number)) for number in (7, 8, 11, 11, 9, 12)] == [0, 0, 2, 0, 0, 0]
    assert gaps.before(info(100, b'b')) == 0
    assert gaps.before(info(13)) == 0
    assert gaps.before(info(103, b'b')) == 2


def test_without_numbers_nothing_is_counted() -> None:
    gaps = MessageGaps()
    assert gaps.before({}) == 0
    assert gaps.before(info(None)) == 0
    assert gaps.before({'publication_sequence_number': 9}) == 0


def test_publishers_are_forgotten_in_the_order_of_their_silence() -> None:
    gaps = MessageGaps()
    for number in range(100):
        gaps.before(info(1, bytes([number])))
        gaps.before(info(1 + number, b'kept'))
    assert len(gaps._newest) <= 32
    assert gaps.before(info(103, b'kept')) == 2


def test_unreadable_and_overwritten_images_are_diagnosed_as_lost(bench: Bench) -> None:
    bench.start('depth/image')
    bench.calibrate()
    bench.send_and_wait()
    assert _lost(bench) == 0
    data = serialize_message(grey_image(stamp_ns=5))
    bench.images.publish(data[:-1000])  # the middleware cannot read it
    bench.spin(0.2)
    bench.send_and_wait()
    assert _lost(bench) == 1
    for stamp_ns in range(4):  # the subscription keeps one
        bench.images.publish(grey_image(stamp_ns=10 + stamp_ns))
    bench.spin(0.2)
    bench.send_and_wait()
    snapshot = bench.node._resources.cameras[0].stats.snapshot()
    assert snapshot.lost + snapshot.received == 8
    bench.diagnosed(lambda _, values: values['frames_lost'] == str(snapshot.lost))


def _lost(bench: Bench) -> int:
    return bench.node._resources.cameras[0].stats.snapshot().lost
