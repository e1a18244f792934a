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
"""Fixtures for all tests; helper modules beside this file can be imported by name."""
from __future__ import annotations

import logging
from pathlib import Path
import sys

import pytest

ROOT = Path(__file__).resolve().parents[1]
for folder in (ROOT, Path(__file__).resolve().parent):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

# On a machine with launch_testing its pytest plugin has every logger made from here on keep its
# records to itself, where caplog does not see them.
logging.setLoggerClass(logging.Logger)


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
