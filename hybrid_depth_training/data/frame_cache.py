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
"""Frames that were read stay in memory, the ones used last, as many as fit."""
from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from hybrid_depth_training.data import DepthSample, Recording


class FrameCache:
    """Keeps up to ``max_bytes`` of the frames of all recordings that were passed to ``over``."""

    def __init__(self, max_bytes: float) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._frames: OrderedDict[tuple[int, int], DepthSample] = OrderedDict()
        self._recordings: list[Recording] = []

    def over(self, recording: Recording) -> Recording:
        """Return ``recording`` with its frames read through this cache."""
        number = len(self._recordings)
        self._recordings.append(recording)

        def read(index: int) -> DepthSample:
            key = (number, index)
            sample = self._frames.get(key)
            if sample is not None:
                self._frames.move_to_end(key)
                return sample
            sample = recording.read(index)
            self._frames[key] = sample
            self.bytes += _size(sample)
            while self.bytes > self.max_bytes:
                _, old = self._frames.popitem(last=False)
                self.bytes -= _size(old)
            return sample
        return replace(recording, read=read)


def _size(sample: DepthSample) -> int:
    return int(sample.image_rgb.nbytes + sample.depth_m.nbytes)
