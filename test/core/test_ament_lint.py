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
ament's linters, where they are installed; elsewhere ruff stands for the first two of them.

The test-suite installs ament_pep257. ament_flake8 takes some 20 s of a core, and of what it finds
ruff lacks one rule alone: a blank line between a class and its first method (CNL100).
"""
from __future__ import annotations

from pathlib import Path
import shutil

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ('hybrid_depth', 'hybrid_depth_ros', 'hybrid_depth_training', 'launch', 'test',
           'setup.py')


@pytest.mark.slow
def test_ament_flake8(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> None:
    main = pytest.importorskip('ament_flake8.main', reason='ament_flake8 is not installed')
    monkeypatch.chdir(ROOT)
    status, errors = main.main_with_errors(['--config', 'test/ament_flake8.ini', *SOURCES])
    assert (status, errors) == (0, []), capfd.readouterr().out[-3000:]


@pytest.mark.slow
def test_ament_pep257(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> None:
    main = pytest.importorskip('ament_pep257.main', reason='ament_pep257 is not installed')
    monkeypatch.chdir(ROOT)
    status = main.main(list(SOURCES))
    assert status == 0, capfd.readouterr().err[-3000:]


@pytest.mark.slow
def test_ament_copyright(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> None:
    main = pytest.importorskip('ament_copyright.main', reason='ament_copyright is not installed: '
                               'see test_copyright.py')
    monkeypatch.chdir(ROOT)
    status = main.main(list(SOURCES))
    assert status == 0, capfd.readouterr().err[-3000:]


def test_ament_xmllint(capfd: pytest.CaptureFixture) -> None:
    main = pytest.importorskip('ament_xmllint.main', reason='ament_xmllint is not installed')
    if shutil.which('xmllint') is None:
        pytest.skip('xmllint is not installed')
    files = [str(ROOT / 'package.xml'), str(ROOT / 'config/fastdds_shm.xml'),
             str(ROOT / 'config/sros2/policy.xml')]
    status = main.main(files)
    said = capfd.readouterr()
    if 'failed to load external entity' in said.err:
        pytest.skip('the schema of package.xml is on the network, which is not there')
    assert status == 0, said.err
