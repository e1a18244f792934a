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
"""Messages that were sent and never reached a callback, by the numbers that they carry."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_PUBLISHERS = 32  # that are remembered; a driver that starts again is a new one


class MessageGaps:
    """
    Counts what the middleware drops without a word: unreadable bytes, and what was overwritten.

    A subscription that keeps one message, as that of the images, loses all but the newest of those
    that come while a callback runs.
    """

    def __init__(self) -> None:
        self._newest: dict[bytes, int] = {}  # publisher -> number of its newest message

    def before(self, info: Mapping[str, Any]) -> int:
        """
        Return how many messages are missing between this one and its publisher's one before.

        ``info`` is what rclpy passes to a callback beside the message. Distributions and
        middlewares that do not number messages give 0.
        """
        number, publisher = info.get('publication_sequence_number'), info.get('publisher_gid')
        if number is None or publisher is None:
            return 0
        key = bytes(publisher['data'])
        newest = self._newest.pop(key, None)
        if newest is None and len(self._newest) == _PUBLISHERS:
            del self._newest[next(iter(self._newest))]  # the one that was silent longest
        self._newest[key] = number if newest is None else max(number, newest)
        return 0 if newest is None else max(0, number - newest - 1)
