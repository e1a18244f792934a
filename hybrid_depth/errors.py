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
"""Errors of the core: each says the fact, what was expected and the remedy."""


class HybridDepthError(Exception):
    """Base of every error this project raises on purpose."""


class ConfigError(HybridDepthError):
    """A configuration value is unknown, of the wrong type or out of range."""


class ContractError(HybridDepthError):
    """A model file is missing, damaged, or does not hold what its contract says."""


class BackendUnavailable(HybridDepthError):
    """The runtime that was asked for cannot run on this machine."""


class BadFrame(HybridDepthError):
    """
    One input frame cannot be used; the next one may be fine.

    ``reason`` is the short stable key under which the drop is counted: ``no_intrinsics``.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class DriveError(HybridDepthError):
    """A recorded drive on disk cannot be read as any known format."""
