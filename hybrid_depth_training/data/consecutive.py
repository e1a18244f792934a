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
"""Numbered images as recordings: where a number is missing, another recording begins."""
from __future__ import annotations

from collections.abc import Sequence


def runs(numbers: Sequence[int]) -> list[range]:
    """
    Return the ranges of positions in ``numbers`` (ascending) over which they go up by one.

    Within such a run the next frame in the list is the next in time, at the recording's rate.
    """
    starts = [i for i in range(len(numbers)) if i == 0 or numbers[i] != numbers[i - 1] + 1]
    ends = [*starts, len(numbers)][1:]
    return [range(start, end) for start, end in zip(starts, ends, strict=False)]
