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
"""What diagnostics say about evidence, scale and poses."""
from __future__ import annotations

import math
from typing import Any, get_args

from diagnostic_msgs.msg import DiagnosticStatus
import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth.pose_check import Fault, PoseCheck
from hybrid_depth.scale import ScaleReport
from hybrid_depth.types import DepthResult
from hybrid_depth_ros.diagnostics import FrameStats, Health
from hybrid_depth_ros.findings import Findings, POSE_FAULTS

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
GOOD = ScaleReport(1.02, 0.013, {'network': (1.0, 0.15), 'odometry': (1.02, 0.01)}, True, '')
BAD = ScaleReport(1.4, 0.2, {'network': (1.0, 0.15), 'ground': (1.9, 0.06)}, False,
                  'ground says 1.9; check camera_height_m')


def pose_check(fault: str = '', **more: Any) -> PoseCheck:
    verdict = 'inconsistent' if fault else 'ok'
    return PoseCheck(**{
        'verdict': verdict, 'frame_verdict': verdict, 'error': 0.3, 'error_unmoved': 0.5,
        'error_best': 0.25, 'misfit': 0.2, 'direction_deg': 1.5, 'scale_ratio': math.nan,
        'fault': fault, 'reason': 'swapped' if fault else '', **more})


def result(mode: str = 'posed', fault: str = '', **more: Any) -> DepthResult:
    plane = np.ones((2, 2), np.float32)
    return DepthResult(plane, plane, plane > 2, np.zeros((2, 2, 3), np.uint8),
                       CameraModel(2, 2, 1.0, 1.0, 0.5, 0.5), 0, 'camera', mode,
                       pose_check=pose_check(fault), **more)


def test_nothing_is_claimed_before_the_first_frame() -> None:
    findings = Findings()
    assert findings.complaints() == []
    assert findings.facts()['scale.state'] == 'no estimate'
    assert findings.facts()['posed_share'] == 'none yet'


def test_facts_of_the_latest_frames() -> None:
    findings = Findings()
    for mode in ('single_frame', 'posed', 'posed', 'posed'):
        findings.add(result(mode, sources=2, scale=GOOD))
    assert findings.facts() == {
        'posed_share': '0.75', 'sources': '2', 'pose_check.verdict': 'ok',
        'pose_check.misfit': '0.20', 'pose_check.direction_deg': '1.50',
        'pose_check.scale_ratio': 'unknown', 'scale.value': '1.020',
        'scale.sigma': '0.013', 'scale.state': 'ok',
        'scale.cues': 'network 1.000 +- 15.0 %, odometry 1.020 +- 1.0 %'}
    assert findings.complaints() == []
    for _ in range(200):
        findings.add(result('single_frame'))
    assert findings.facts()['posed_share'] == '0.00'
    assert findings.facts()['scale.value'] == 'unknown'


def test_contradictions_are_complaints_until_they_are_gone() -> None:
    findings = Findings()
    findings.add(result(fault='motion', scale=BAD))
    motion, scale = findings.complaints()
    assert motion == (ERROR, f'swapped. In ROS: {POSE_FAULTS["motion"][1]}')
    assert scale == (WARN, 'metric scale: ground says 1.9; check camera_height_m')
    assert findings.facts()['scale.state'] == BAD.reason
    for remedy in ('extrinsic.rotation', 'odom.time_offset_s', 'camera_info'):
        assert remedy in motion[1]
    findings.add(result(fault='scale'))
    assert [level for level, _ in findings.complaints()] == [WARN]
    findings.add(result(scale=GOOD))
    assert findings.complaints() == []


def test_every_fault_has_its_remedy() -> None:
    assert set(POSE_FAULTS) == set(get_args(Fault)) - {''}


def test_complaints_raise_the_level_while_frames_come() -> None:
    stats, health = FrameStats(), Health()

    def tick(good: int = 0, bad: int = 0, state: str = 'active', failure: str = '',
             complaints: Any = ((WARN, 'scale'),)) -> tuple[bytes, str]:
        for _ in range(good):
            stats.received()
            stats.processed(1.0, 1.0, {}, 'posed')
        for _ in range(bad):
            stats.received()
            stats.dropped('truncated')
        return health.level(stats.snapshot(), state, True, failure, complaints)
    assert tick(good=1) == (WARN, 'scale')
    assert tick(good=1, bad=1) == (WARN, 'dropping frames: truncated 1; scale')
    assert tick(good=1, complaints=[(WARN, 'scale'), (ERROR, 'poses')]) == (ERROR, 'scale; poses')
    assert tick(good=1, complaints=[]) == (OK, 'active')
    assert tick() == (OK, 'active')  # the latest frame is an old one
    assert tick(good=1, state='inactive') == (OK, 'inactive')
    assert tick(good=1, failure='no model') == (ERROR, 'no model')
