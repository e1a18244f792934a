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
"""The doctor names what is missing, what is lost and what mends it."""
from __future__ import annotations

from importlib.util import find_spec
import json
import os
from pathlib import Path
import subprocess
import sys
from types import SimpleNamespace

import pytest

from hybrid_depth import doctor, machine
from hybrid_depth.__main__ import main
from hybrid_depth.doctor import FAIL, Finding, OK, WARN
from hybrid_depth.errors import ContractError
from hybrid_depth.models import shipped_models
from hybrid_depth.runtime import BACKENDS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Look for no torch, which takes seconds to import, and use a cache of the test's own."""
    monkeypatch.setattr(doctor, 'NEEDS', [need for need in doctor.NEEDS if need.name != 'torch'])
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))


def by_name() -> dict[str, Finding]:
    return {finding.name: finding for finding in doctor.examine()}


def test_what_this_test_needs_is_found_with_its_version():
    import cv2
    import numpy as np
    found = by_name()
    assert found['numpy'] == Finding('numpy', OK, np.__version__)
    assert found['opencv'].detail == cv2.__version__
    assert found['python'].level == OK


def test_every_runtime_and_model_has_a_line():
    found = by_name()
    for row in BACKENDS:
        finding = found[f'runtime {row}']
        assert (finding.level == OK) == (finding.mend == ''), finding
    for name in shipped_models():
        assert 'sha256' in found[f'model {name}'].detail
    assert 'takes ort, ONNX Runtime' in found["runtime 'auto'"].detail
    assert 'CPUExecutionProvider' in found["runtime 'auto'"].detail


@pytest.mark.parametrize(('module', 'level'), [('onnxruntime', FAIL), ('rosbags', WARN)])
def test_missing_package_is_named_with_its_remedy(monkeypatch, module, level):
    monkeypatch.setattr(doctor, 'find_spec', lambda wanted: None if wanted == module else object())
    finding = by_name()[module]
    assert finding.level == level
    assert f'pip install {module}' in finding.mend
    text = doctor.report([finding])
    assert text.startswith(level)
    assert finding.mend in text


def test_package_that_cannot_be_imported_is_not_ok(monkeypatch):
    monkeypatch.setitem(sys.modules, 'rosbags', None)  # makes the import statement raise
    monkeypatch.setattr(doctor, 'find_spec', lambda wanted: object())
    finding = by_name()['rosbags']
    assert finding.level == WARN
    assert 'cannot be imported' in finding.detail


def test_no_runtime_at_all_fails(monkeypatch):
    def broken(row: str, _: object) -> str:
        if row == 'ort':
            raise RuntimeError('a symbol is missing')
        return 'no GPU; buy one'
    monkeypatch.setattr(doctor, 'why_not', broken)
    found = by_name()
    assert found['runtime ort_cuda'] == Finding('runtime ort_cuda', WARN, 'no GPU', 'buy one')
    assert 'a symbol is missing' in found['runtime ort'].detail
    assert found["runtime 'auto'"].level == FAIL


def test_exit_status_says_whether_depth_is_possible(monkeypatch, capsys):
    good, optional = Finding('numpy', OK, '2'), Finding('torch', WARN, 'lost', 'pip install torch')
    bad = Finding('onnxruntime', FAIL, 'lost', 'pip install onnxruntime')
    monkeypatch.setattr(doctor, 'examine', lambda: [good, optional])
    assert main(['doctor']) == 0
    assert 'WARN  torch' in capsys.readouterr().out
    monkeypatch.setattr(doctor, 'examine', lambda: [good, bad])
    assert main(['doctor', '--json']) == 1
    assert json.loads(capsys.readouterr().out)[1] == {
        'name': 'onnxruntime', 'level': FAIL, 'detail': 'lost', 'mend': 'pip install onnxruntime'}


def test_damaged_shipped_model_is_found(monkeypatch):
    def damaged(name: str) -> str:
        raise ContractError(f'{name} is damaged')
    monkeypatch.setattr(doctor, 'shipped_models', lambda: ['compact'])
    monkeypatch.setattr(doctor, 'find_model', damaged)
    finding = by_name()['model compact']
    assert finding.level == FAIL
    assert 'damaged' in finding.detail


def test_a_cache_that_others_can_write_is_a_warning(tmp_path):
    assert by_name()['engine cache'].detail == f'{tmp_path / "hybrid_depth"}: 0 engines, 0 MiB'
    (tmp_path / 'hybrid_depth').chmod(0o777)
    finding = by_name()['engine cache']
    assert finding.level == WARN
    assert 'engine_cache' in finding.mend


@pytest.mark.parametrize(('governor', 'driver', 'level'), [
    ('powersave', 'acpi-cpufreq', WARN), ('powersave', 'intel_pstate', OK),
    ('performance', 'acpi-cpufreq', OK), ('schedutil', 'tegra194', OK)])
def test_a_governor_that_saves_power_is_a_warning(monkeypatch, governor, driver, level):
    monkeypatch.setattr(machine, 'governors', lambda: (governor,))
    monkeypatch.setattr(machine, 'frequency_driver', lambda: driver)
    finding = by_name()['cpu']
    assert finding.level == level
    assert governor in finding.detail
    assert bool(finding.mend) == (level == WARN)


def test_heat_and_gpus_are_named(monkeypatch):
    monkeypatch.setattr(machine, 'hottest', lambda: machine.Heat('cpu-thermal', 99.0, 95.0))
    monkeypatch.setattr(machine, 'gpus', lambda: (machine.Gpu('A GPU', 1.0, 2.0, None),))
    found = by_name()
    assert found['temperature'].level == WARN
    assert '95' in found['temperature'].detail
    assert 'A GPU' in found['gpu'].detail


def test_without_ros_the_core_is_well(monkeypatch):
    monkeypatch.setattr(doctor, 'find_spec',
                        lambda wanted: None if wanted == 'rclpy' else find_spec(wanted))
    assert by_name()['ROS 2'].level == WARN


def test_it_imports_no_ros():
    code = ('import sys; from hybrid_depth import doctor\n'
            'doctor.NEEDS = doctor.NEEDS[:1]; doctor.examine()\n'
            "sys.exit(any(name.startswith(('rclpy', 'hybrid_depth_ros')) "
            'for name in sys.modules))')
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT, env=dict(os.environ),
                   stdout=subprocess.DEVNULL)


def test_a_namespace_package_has_no_version():
    assert doctor._version('no_such_distribution', SimpleNamespace()) == 'installed'
