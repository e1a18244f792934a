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
"""What is wrong with an output, decided by what was sent; and whether every frame is accounted."""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hybrid_depth_ros.soak.scene import depth_of

TOLERANCE = 1e-3  # relative; the next grey level is some 7e-3 away
_REMEMBERED = 4000  # images
_IN_FLIGHT = 2  # one image waits, one is worked on
Stamp = tuple[int, int]  # sec, nanosec


@dataclass
class Sent:
    """An image that was sent, and what may come out for it."""

    frame_id: str
    width: int
    height: int
    image_rgb: np.ndarray | None  # None: nothing may come out
    focals: tuple[float, ...]  # fx of the calibrations that may be meant
    copies: int = 1  # how many outputs it may have


def stamp_of(message: Any) -> Stamp:
    """Return the stamp of a message's header."""
    return int(message.header.stamp.sec), int(message.header.stamp.nanosec)


class Oracle:
    """Knows what was sent; judges what comes out."""

    def __init__(self) -> None:
        self._sent: OrderedDict[Stamp, list[Sent]] = OrderedDict()
        self.judged = 0
        self.wrong: list[str] = []  # one text for each wrong frame

    def expect(self, stamp: Stamp, sent: Sent) -> None:
        """Remember an image before it is sent."""
        self._sent.setdefault(stamp, []).append(sent)
        while len(self._sent) > _REMEMBERED:
            self._sent.popitem(last=False)

    def judge(self, message: Any) -> bool:
        """Judge a depth image of the node; return whether it is right."""
        self.judged += 1
        fault = self._fault(message)
        if fault:
            self.wrong.append(f'stamp {stamp_of(message)}: {fault}')
        return not fault

    def _fault(self, message: Any) -> str:
        candidates = self._sent.get(stamp_of(message), [])
        if not candidates:
            return 'no image had this stamp'
        faults = []
        for sent in candidates:
            fault = _difference(message, sent)
            if not fault:
                sent.copies -= 1
                return ''
            faults.append(fault)
        return '; '.join(faults)


def _difference(message: Any, sent: Sent) -> str:
    if sent.image_rgb is None:
        return 'depth of an image that cannot be understood'
    if sent.copies < 1:
        return 'one more output than images'
    if message.header.frame_id != sent.frame_id:
        return f'frame {message.header.frame_id!r}, the image has {sent.frame_id!r}'
    if (message.width, message.height, message.encoding) != (sent.width, sent.height, '32FC1'):
        return f'{message.width}x{message.height} {message.encoding} of {sent.width}x{sent.height}'
    depth = np.frombuffer(message.data, np.float32).reshape(sent.height, sent.width)
    errors = [float(np.abs(depth / depth_of(sent.image_rgb, fx) - 1).max())
              for fx in sent.focals]
    if min(errors) <= TOLERANCE:
        return ''
    ratio = float(np.median(depth / depth_of(sent.image_rgb, sent.focals[0])))
    return f'depth is off by up to {min(errors):.2g}, its median by a factor of {ratio:.4g}'


@dataclass(frozen=True)
class Account:
    """The node's own count of images, by its diagnostics."""

    received: int
    processed: int
    dropped: int
    lost: int  # never reached the node, as it noticed by the numbers of the messages

    @classmethod
    def of(cls, values: Mapping[str, str]) -> Account:
        """Read the values of a diagnostic status."""
        dropped = sum(int(value) for key, value in values.items() if key.startswith('drops.'))
        return cls(int(values['frames_received']), int(values['frames_processed']), dropped,
                   int(values.get('frames_lost', 0)))

    def problem(self) -> str:
        """Return what does not add up within the node, empty where all does."""
        rest = self.received - self.processed - self.dropped
        if 0 <= rest <= _IN_FLIGHT:
            return ''
        return (f'{self.received} received, {self.processed} processed and {self.dropped} dropped '
                f'leave {rest} images; expected 0 to {_IN_FLIGHT}')


def unaccounted(before: Account, after: Account, sent: int) -> int:
    """
    Return how many of ``sent`` images between two quiet moments nobody accounts for.

    Negative: more were counted than sent.
    """
    processed, dropped, lost = (getattr(after, name) - getattr(before, name)
                                for name in ('processed', 'dropped', 'lost'))
    return sent - processed - dropped - lost
