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
"""Comparing batches, which hold tensors and texts."""
from __future__ import annotations

from typing import Any

import torch


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Fail unless both batches have the same names, texts, and tensors (NaN equal to NaN)."""
    assert set(found) == set(expected)
    for key, value in expected.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(found[key], value, equal_nan=True, msg=key)
        else:
            assert found[key] == value, key


def assert_all_same(found: list[list[dict[str, Any]]],
                    expected: list[list[dict[str, Any]]]) -> None:
    """Fail unless the batches of every step are the same."""
    for step, wanted in zip(found, expected, strict=True):
        for batch, other in zip(step, wanted, strict=True):
            assert_same(batch, other)
