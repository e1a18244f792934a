# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What is installed, what is missing, what is lost by that, and the command that mends it."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
import os
import platform
import sys

from hybrid_depth.errors import HybridDepthError
from hybrid_depth.models import find_model, shipped_models


@dataclass(frozen=True)
class Need:
    """One thing that the project can use."""

    name: str
    used_for: str
    mend: str  # command
    module: str = ''  # importable name, where it differs
    is_required: bool = False  # for inference without ROS


@dataclass(frozen=True)
class Finding:
    """What was found of one need."""

    name: str
    ok: bool
    is_required: bool
    detail: str  # version, or what is lost
    mend: str  # '' where nothing is to be mended


_ROS = 'source /opt/ros/<distro>/setup.bash, or: sudo apt-get install ros-<distro>-{}'
NEEDS: tuple[Need, ...] = (
    Need('numpy', 'everything', 'pip install numpy', is_required=True),
    Need('opencv', 'everything', 'pip install opencv-python-headless', 'cv2', is_required=True),
    Need('onnxruntime', 'running models on the CPU', 'pip install onnxruntime', is_required=True),
    Need('rosbags', 'reading rosbag2 and MCAP recordings', 'pip install rosbags'),
    Need('rerun', 'writing .rrd viewer files', 'pip install rerun-sdk'),
    Need('rclpy', 'the ROS 2 node', _ROS.format('rclpy')),
    Need('sensor_msgs', 'the ROS 2 node', _ROS.format('sensor-msgs')),
    Need('nav_msgs', 'the ROS 2 node', _ROS.format('nav-msgs')),
    Need('diagnostic_msgs', 'the ROS 2 node', _ROS.format('diagnostic-msgs')),
    Need('tf2_ros', 'where the camera sits, from TF; without it from the parameters extrinsic.*',
         _ROS.format('tf2-ros-py')),
    Need('cv_bridge', 'image encodings outside the own table', _ROS.format('cv-bridge')),
    Need('launch_ros', 'the launch files', _ROS.format('launch-ros')),
    Need('torch', 'training', 'pip install -c constraints.txt -r requirements/train.txt'),
)


def examine() -> list[Finding]:
    """Look at every need, the interpreter and the shipped models."""
    findings = [_python(), *(_package(need) for need in NEEDS), *_models()]
    if find_spec('rclpy') is not None:
        findings.append(_dds_profile())
    return findings


def report(findings: list[Finding]) -> str:
    """Return the findings as a table for the terminal."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        state = 'ok' if finding.ok else 'MISSING' if finding.is_required else 'absent'
        lines.append(f'{finding.name:<{width}}  {state:<7}  {finding.detail}')
        if finding.mend:
            lines.append(f'{"":<{width}}           -> {finding.mend}')
    return '\n'.join(lines)


def as_rows(findings: list[Finding]) -> list[dict[str, object]]:
    """Return the findings as data for JSON."""
    return [asdict(finding) for finding in findings]


def _python() -> Finding:
    ok = sys.version_info >= (3, 10)
    return Finding('python', ok, True, f'{platform.python_version()} at {sys.executable}',
                   '' if ok else 'install Python 3.10 or later')


def _package(need: Need) -> Finding:
    module = need.module or need.name
    if find_spec(module) is None:
        return Finding(need.name, False, need.is_required, f'needed for: {need.used_for}',
                       need.mend)
    try:
        imported = __import__(module)
    except Exception as error:  # whatever a broken installation raises, it is what we look for
        return Finding(need.name, False, need.is_required,
                       f'is there but cannot be imported: {type(error).__name__}: {error}',
                       need.mend)
    return Finding(need.name, True, need.is_required, _version(need.name, imported), '')


def _version(name: str, module: object) -> str:
    version = getattr(module, '__version__', '')
    if isinstance(version, str) and version:
        return version
    for distribution in metadata.packages_distributions().get(name, ()):
        return metadata.version(distribution)
    return 'installed'


def _models() -> list[Finding]:
    names = shipped_models()
    if not names:
        return [Finding('models', False, True, 'no model is shipped with this installation',
                        'install the package again')]
    return [_checked(f'model {name}', lambda name=name: str(find_model(name)))  # type: ignore[misc]
            for name in names]


def _checked(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, True, f'sha256 as its card says: {look()}', '')
    except HybridDepthError as error:
        return Finding(name, False, True, str(error), 'install the package again')


def _dds_profile() -> Finding:
    variables = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')
    profile = next((os.environ[name] for name in variables if os.environ.get(name)), '')
    other = os.environ.get('RMW_IMPLEMENTATION', '')
    if profile or (other and 'fastrtps' not in other):
        return Finding('large messages', True, False, profile or other, '')
    return Finding('large messages', False, False, "Fast DDS' default shared memory of 512 KiB: "
                   'images arrive late, or not at all when best effort',
                   'export FASTDDS_DEFAULT_PROFILES_FILE=<share of hybrid_depth_ros>/config/'
                   'fastdds_shm.xml')
