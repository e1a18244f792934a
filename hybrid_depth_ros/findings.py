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
"""What the depth tells about its own inputs: evidence, scale, whether the poses can be right."""
from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
import math
import threading

from diagnostic_msgs.msg import DiagnosticStatus

from hybrid_depth.pose_check import PoseCheck
from hybrid_depth.scale import ScaleReport
from hybrid_depth.types import DepthResult

_WINDOW = 200  # frames over which the share of modes is taken
# fault of a PoseCheck -> level, and where in ROS to mend it
POSE_FAULTS = {
    # without the odometry, depth comes from single images
    'motion': (DiagnosticStatus.ERROR, 'TF from the child frame of the odometry to the frame of '
               'the image, else extrinsic.rotation and extrinsic.translation; '
               'odom.time_offset_s; the topics odom, image and camera_info, which must be those '
               'of one robot and one camera. Until it is mended, odometry is not used'),
    'direction': (DiagnosticStatus.WARN, 'the angles of the mounting of the camera: TF from the '
                  'child frame of the odometry to the frame of the image, else '
                  'extrinsic.rotation; odom.time_offset_s. Odometry is used meanwhile'),
    'scale': (DiagnosticStatus.WARN, 'the topic odom, whose pose must be in metres; camera_info, '
              'which must be that of this camera; camera_height_m adds a word on which of '
              'the two is wrong'),
}


@dataclass(frozen=True)
class _Latest:
    """What is kept of a result: not its images."""

    sources: int
    pose_check: PoseCheck | None
    scale: ScaleReport | None


class Findings:
    """The latest results; ``add`` is called by the inference thread, the rest by the executor."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._modes: deque[str] = deque(maxlen=_WINDOW)
        self._latest: _Latest | None = None

    def add(self, result: DepthResult) -> None:
        """Take the result of a frame."""
        with self._lock:
            self._modes.append(result.mode)
            self._latest = _Latest(result.sources, result.pose_check, result.scale)

    def facts(self) -> dict[str, str]:
        """Return what diagnostics say."""
        with self._lock:
            latest, modes = self._latest, list(self._modes)
        scale = latest.scale if latest else None
        check = latest.pose_check if latest else None
        return {
            'posed_share': f'{modes.count("posed") / len(modes):.2f}' if modes else 'none yet',
            'sources': str(latest.sources) if latest else 'none yet',
            'pose_check.verdict': check.verdict if check else 'unknown',
            'pose_check.misfit': _number(check.misfit if check else math.nan),
            'pose_check.direction_deg': _number(check.direction_deg if check else math.nan),
            'pose_check.scale_ratio': _number(check.scale_ratio if check else math.nan),
            'scale.value': f'{scale.scale:.3f}' if scale else 'unknown',
            'scale.sigma': f'{scale.sigma:.3f}' if scale else 'unknown',
            'scale.cues': _cues(scale.cues) if scale else 'none',
            'scale.state': scale.reason or 'ok' if scale else 'no estimate'}

    def complaints(self) -> list[tuple[bytes, str]]:
        """Return level and text of what is wrong with the latest frame."""
        with self._lock:
            latest = self._latest
        found = []
        check = latest.pose_check if latest else None
        if check and check.fault:
            level, remedy = POSE_FAULTS[check.fault]
            found.append((level, f'{check.reason}. In ROS: {remedy}'))
        if latest and latest.scale and not latest.scale.agrees:
            found.append((DiagnosticStatus.WARN, f'metric scale: {latest.scale.reason}'))
        return found


def _number(value: float) -> str:
    return f'{value:.2f}' if math.isfinite(value) else 'unknown'


def _cues(cues: Mapping[str, tuple[float, float]]) -> str:
    return ', '.join(f'{name} {scale:.3f} +- {100 * sigma:.1f} %'
                     for name, (scale, sigma) in cues.items())
