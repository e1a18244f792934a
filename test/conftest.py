# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures for all tests; helper modules beside this file can be imported by name."""
from __future__ import annotations

from pathlib import Path
import sys

import pytest

ROOT = Path(__file__).resolve().parents[1]
for folder in (ROOT, Path(__file__).resolve().parent):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@pytest.fixture(scope='session')
def shared_data() -> Path:
    """Folder of real recordings beside the repository; skips where it is absent."""
    folder = ROOT.parent / 'shared' / 'data'
    if not folder.is_dir():
        pytest.skip('the real recordings in ../shared/data are not on this machine')
    return folder


@pytest.fixture(scope='session')
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a tiny model file that meets the contract (see tiny_model.py)."""
    from tiny_model import write_tiny_model
    path = tmp_path_factory.mktemp('tiny') / 'tiny.onnx'
    write_tiny_model(path)
    return path


@pytest.fixture(scope='session')
def tiny_posed_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a tiny recurrent model file that meets the contract (see tiny_model.py)."""
    from tiny_model import write_tiny_posed_model
    path = tmp_path_factory.mktemp('tiny_posed') / 'tiny_posed.onnx'
    write_tiny_posed_model(path)
    return path
