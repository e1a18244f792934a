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
"""Pictures and accuracy of recorded frames, through what the core has for both."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hybrid_depth.drives import DriveFrame
from hybrid_depth.montage import montage, MontageRow
from hybrid_depth.recording import Recording
from hybrid_depth.summary import AccuracyTable

MONTAGE_FRAMES = 4


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
    rows = []
    with Recording(out / 'demo.rrd', title) as recording:
        for item in recorded:
            frame = item.frame
            recording.add(frame.stamp_ns, frame.image_rgb, frame.camera, item.depth_m,
                          frame.world_T_camera, frame.depth_m)
            if frame.depth_m is not None:
                accuracy.add(item.depth_m, frame.depth_m)
            if item.sigma_m is not None:
                rows.append(MontageRow(frame.name, frame.image_rgb, item.depth_m, item.sigma_m,
                                       item.points, frame.depth_m))
    if rows:
        chosen = np.unique(np.linspace(0, len(rows) - 1, MONTAGE_FRAMES).round().astype(int))
        picture = montage([rows[index] for index in chosen], title)
        cv2.imwrite(str(out / 'montage.png'), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return accuracy.result()
