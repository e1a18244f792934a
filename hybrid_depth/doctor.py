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
"""
What is here to compute depth with: each thing is OK, WARN or FAIL, and has a remedy.

FAIL = no depth without it; WARN = something is lost. ``hybrid_depth_ros.doctor`` adds what the ROS
node needs.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module, metadata
from importlib.util import find_spec
import json
import os
import platform
import sys

from hybrid_depth import machine
from hybrid_depth.contract import read_spec
from hybrid_depth.errors import HybridDepthError
from hybrid_depth.models import find_model, shipped_models
from hybrid_depth.runtime import BackendOptions, BACKENDS, OPT_IN, why_not
from hybrid_depth.runtime.engine_cache import EngineCache

OK, WARN, FAIL = 'OK', 'WARN', 'FAIL'
# these drivers choose the clock rate themselves, whatever 'powersave' sounds like
_CLEVER_DRIVERS = ('intel_pstate', 'amd-pstate-epp')


@dataclass(frozen=True)
class Need:
    """One package that the project can use."""

    name: str
    loss: str  # what does not work without it
    mend: str  # command
    module: str = ''  # importable name, where it differs
    is_required: bool = False


@dataclass(frozen=True)
class Finding:
    """What was found of one thing."""

    name: str
    level: str  # OK, WARN or FAIL
    detail: str  # version, or what is lost
    mend: str = ''  # '' where nothing is to be mended


NEEDS: tuple[Need, ...] = (
    Need('numpy', 'nothing works', 'pip install numpy', is_required=True),
    Need('opencv', 'nothing works', 'pip install opencv-python-headless', 'cv2', is_required=True),
    Need('onnxruntime', 'no model runs', 'pip install onnxruntime', is_required=True),
    Need('onnx', 'models are neither checked nor quantised, and GPUs compute in single precision',
         'pip install onnx'),
    Need('rosbags', 'rosbag2 and MCAP recordings cannot be read', 'pip install rosbags'),
    Need('rerun', 'no rerun viewer and no .rrd files', 'pip install rerun-sdk'),
    Need('torch', 'no training', 'pip install -c constraints.txt -r requirements/train.txt'),
)


def examine() -> list[Finding]:
    """Look at the interpreter, packages, runtimes, models, the engine cache and the machine."""
    return [_python(), *(package(need) for need in NEEDS), *_runtimes(), *_models(), _cache(),
            _cpu(), *_heat(), _gpus(), _ros()]


def report(findings: Sequence[Finding]) -> str:
    """Return the findings as a table for the terminal."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f'{finding.level:<4}  {finding.name:<{width}}  {finding.detail}')
        if finding.mend:
            lines.append(f'{"":<{width + 8}}-> {finding.mend}')
    return '\n'.join(lines)


def tell(findings: Sequence[Finding], as_json: bool) -> int:
    """Print the findings; return the exit status: 1 where something fails, else 0."""
    print(json.dumps([asdict(finding) for finding in findings], indent=2) if as_json
          else report(findings))
    return int(any(finding.level == FAIL for finding in findings))


def package(need: Need) -> Finding:
    """Look whether a package can be imported."""
    level = FAIL if need.is_required else WARN
    name = need.module or need.name
    if find_spec(name) is None:
        return Finding(need.name, level, f'not installed: {need.loss}', need.mend)
    try:
        module = import_module(name)
    except Exception as error:  # whatever a broken installation raises, it is what we look for
        return Finding(need.name, level, f'is there but cannot be imported: '
                       f'{type(error).__name__}: {error}; so {need.loss}', need.mend)
    return Finding(need.name, OK, _version(need.name, module))


def _python() -> Finding:
    # an older one than we are written for does not get here: it cannot read these files
    return Finding('python', OK, f'{platform.python_version()} at {sys.executable}')


def _version(name: str, module: object) -> str:
    version = getattr(module, '__version__', '')
    if isinstance(version, str) and version:
        return version
    for distribution in _distributions().get(name, ()):
        return metadata.version(distribution)
    return 'installed'


@cache  # reads the records of every installed package
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def _runtimes() -> list[Finding]:
    """Look at every row of BACKENDS, and at which of them 'auto' takes."""
    reasons = {row: _why_not(row) for row in BACKENDS}
    findings = []
    for row, reason in reasons.items():
        how = "only by backend: '" + row + "'" if row in OPT_IN else "in the order of 'auto'"
        why, _, remedy = reason.partition('; ')
        findings.append(Finding(f'runtime {row}', WARN, why, remedy) if reason
                        else Finding(f'runtime {row}', OK, f'can be used, {how}'))
    first = next((row for row, reason in reasons.items() if not reason and row not in OPT_IN), '')
    if first:
        return [*findings, Finding("runtime 'auto'", OK, f'takes {first}{_providers(first)}')]
    return [*findings, Finding("runtime 'auto'", FAIL, 'no runtime can be used',
                               'mend one of those above, first of all: pip install onnxruntime')]


def _why_not(row: str) -> str:
    try:
        return why_not(row, BackendOptions())
    except Exception as error:  # a broken installation of the runtime's own library
        return f'{type(error).__name__}: {error}; install its library again'


def _providers(row: str) -> str:
    if not row.startswith('ort'):
        return ''
    runtime = import_module('onnxruntime')
    return f', ONNX Runtime {runtime.__version__} with ' \
           + ', '.join(runtime.get_available_providers())


def _models() -> list[Finding]:
    names = shipped_models()
    if not names:
        return [Finding('models', FAIL, 'no model is shipped with this installation',
                        'install the package again')]
    return [_checked(f'model {name}', lambda name=name: _model(name))  # type: ignore[misc]
            for name in names]


def _model(name: str) -> str:
    path = find_model(name)
    return f'{read_spec(path).kind}, sha256 as its card says: {path}'


def _checked(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(name, OK, look())
    except HybridDepthError as error:
        return Finding(name, FAIL, str(error), 'install the package again')


def _cache() -> Finding:
    try:
        cache = EngineCache()
        entries = cache.entries()
    except (HybridDepthError, OSError) as error:
        return Finding('engine cache', WARN, f'{error}; engines of GPUs would be built at every '
                       'start', 'name a folder of your own with the parameter engine_cache')
    if not os.access(cache.folder, os.W_OK | os.X_OK):
        return Finding('engine cache', WARN, f'{cache.folder} cannot be written',
                       'name a folder of your own with the parameter engine_cache')
    size = sum(entry.bytes for entry in entries) / 2 ** 20
    return Finding('engine cache', OK, f'{cache.folder}: {len(entries)} engines, {size:.0f} MiB')


def _cpu() -> Finding:
    governors, memory = machine.governors(), machine.available_mib()
    detail = ', '.join([
        f'{machine.usable_cpus()} of {os.cpu_count()} CPUs usable',
        f'governor {" and ".join(governors)}' if governors else 'clock rate not set from here',
        f'{memory:.0f} MiB of memory available' if memory is not None else 'memory unknown'])
    if 'powersave' in governors and machine.frequency_driver() not in _CLEVER_DRIVERS:
        return Finding('cpu', WARN, f'{detail}: it stays at its lowest clock rate',
                       'sudo cpupower frequency-set -g performance (Jetson: sudo nvpmodel -m 0, '
                       'then sudo jetson_clocks)')
    return Finding('cpu', OK, detail)


def _heat() -> list[Finding]:
    heat = machine.hottest()
    if heat is None:
        return []
    limit = heat.limit_celsius
    detail = f'{heat.zone} {heat.celsius:.0f} degrees C' \
        + (f', slowed down from {limit:.0f} on' if limit is not None else '')
    if limit is not None and heat.celsius >= limit:
        return [Finding('temperature', WARN, detail, 'cool it, or give it less to do')]
    return [Finding('temperature', OK, detail)]


def _gpus() -> Finding:
    found = machine.gpus()
    return Finding('gpu', OK, '; '.join(
        f'{gpu.name}, {gpu.used_mib:.0f} of {gpu.total_mib:.0f} MiB in use' for gpu in found)
        or "none by NVIDIA's management library, which a Jetson lacks: see the runtimes")


def _ros() -> Finding:
    if find_spec('rclpy') is None:
        return Finding('ROS 2', WARN, 'rclpy is not installed: no node',
                       'source /opt/ros/<distro>/setup.bash')
    return Finding('ROS 2', OK, 'rclpy is there; for more: python3 -m hybrid_depth_ros.doctor')
