# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The doctor names what is missing, what is lost and what mends it."""
import sys

import pytest

from hybrid_depth import doctor
from hybrid_depth.__main__ import main


def by_name() -> dict[str, doctor.Finding]:
    return {finding.name: finding for finding in doctor.examine()}


def test_what_this_test_needs_is_found_with_its_version():
    import cv2
    import numpy as np
    found = by_name()
    assert found['numpy'].detail == np.__version__
    assert found['opencv'].detail == cv2.__version__
    assert found['python'].ok
    assert found['numpy'].mend == ''


@pytest.mark.parametrize(('module', 'name', 'is_required'), [
    ('onnxruntime', 'onnxruntime', True), ('rosbags', 'rosbags', False)])
def test_broken_package_is_named_with_its_remedy(monkeypatch, module, name, is_required):
    monkeypatch.setattr(doctor, 'find_spec', lambda wanted: None if wanted == module else object())
    finding = by_name()[name]
    assert not finding.ok
    assert finding.is_required == is_required
    assert f'pip install {module}' in finding.mend
    text = doctor.report([finding])
    assert ('MISSING' if is_required else 'absent') in text
    assert finding.mend in text


def test_package_that_cannot_be_imported_is_not_ok(monkeypatch):
    monkeypatch.setitem(sys.modules, 'rosbags', None)  # makes the import statement raise
    monkeypatch.setattr(doctor, 'find_spec', lambda wanted: object())
    finding = by_name()['rosbags']
    assert not finding.ok
    assert 'cannot be imported' in finding.detail


def test_exit_status_says_whether_inference_is_possible(monkeypatch, capsys):
    good = doctor.Finding('numpy', True, True, '2', '')
    optional = doctor.Finding('torch', False, False, 'training', 'pip install torch')
    bad = doctor.Finding('onnxruntime', False, True, 'models', 'pip install onnxruntime')
    monkeypatch.setattr(doctor, 'examine', lambda: [good, optional])
    assert main(['doctor']) == 0
    monkeypatch.setattr(doctor, 'examine', lambda: [good, bad])
    assert main(['doctor', '--json']) == 1
    assert '"mend": "pip install onnxruntime"' in capsys.readouterr().out


def test_damaged_shipped_model_is_found(monkeypatch):
    from hybrid_depth.errors import ContractError

    def damaged(name: str) -> str:
        raise ContractError(f'{name} is damaged')
    monkeypatch.setattr(doctor, 'shipped_models', lambda: ['compact'])
    monkeypatch.setattr(doctor, 'find_model', damaged)
    finding = by_name()['model compact']
    assert not finding.ok
    assert finding.is_required
    assert 'damaged' in finding.detail
