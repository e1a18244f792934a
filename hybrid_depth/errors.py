# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
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

    Attributes
        reason: short stable key under which the drop is counted, such as ``no_intrinsics``.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class DriveError(HybridDepthError):
    """A recorded drive on disk cannot be read as any known format."""
