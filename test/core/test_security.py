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
"""Files are data: no code in this repository runs what a file says; and pinned dependencies."""
from __future__ import annotations

import ast
from pathlib import Path
import re

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ('hybrid_depth', 'hybrid_depth_ros', 'hybrid_depth_training', 'launch')
FORBIDDEN_CALLS = {'eval', 'exec', 'compile', 'os.system', 'os.popen',
                   'yaml.load', 'yaml.unsafe_load', 'yaml.full_load'}
FORBIDDEN_MODULES = {'pickle', 'cPickle', 'dill', 'shelve', 'marshal', 'joblib'}
# call -> the keyword that it must have
REQUIRED = {'np.load': ('allow_pickle', False), 'numpy.load': ('allow_pickle', False),
            'torch.load': ('weights_only', True)}


def _name(function: ast.expr) -> str:
    """Return the dotted name that is called; ast.unparse is slow."""
    if isinstance(function, ast.Attribute):
        return f'{_name(function.value)}.{function.attr}'
    return function.id if isinstance(function, ast.Name) else ''


def dangers(source: str) -> list[str]:
    """Return what in Python source would run what a file says."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names if name.name in FORBIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module in FORBIDDEN_MODULES:
            found.append(node.module)
        elif isinstance(node, ast.Call):
            name = _name(node.func)
            keywords = {word.arg: getattr(word.value, 'value', None) for word in node.keywords}
            if name in FORBIDDEN_CALLS or keywords.get('shell') is True:
                found.append(name)
            elif name in REQUIRED:
                keyword, value = REQUIRED[name]
                if keywords.get(keyword) is not value:
                    found.append(f'{name} without {keyword}={value}')
    return found


@pytest.mark.parametrize('source', [
    'eval(text)', 'import pickle', 'from pickle import loads', 'yaml.load(text)', 'np.load(path)',
    'np.load(path, allow_pickle=True)', 'torch.load(path)', 'subprocess.run(text, shell=True)'])
def test_the_check_sees_dangers(source: str) -> None:
    assert dangers(source)


def test_no_source_runs_what_a_file_says() -> None:
    found = {str(path.relative_to(ROOT)): bad for package in PACKAGES
             for path in sorted((ROOT / package).rglob('*.py'))
             if (bad := dangers(path.read_text()))}
    assert found == {}


def names_in(text: str) -> set[str]:
    return {re.split(r'[<>=!~; \[]', line, maxsplit=1)[0].lower().replace('_', '-')
            for line in text.splitlines() if line[:1].isalpha()}


def test_the_robot_lock_pins_everything_with_hashes() -> None:
    lock = (ROOT / 'requirements' / 'robot.lock').read_text()
    entries = re.split(r'\n(?=[a-z])', lock)
    pinned = [entry for entry in entries if re.match(r'[a-z0-9-]+==', entry)]
    assert len(pinned) >= 6
    for entry in pinned:
        assert re.search(r'--hash=sha256:[0-9a-f]{64}', entry), entry.splitlines()[0]
    wanted = {name for file in ('core.txt', 'cpu.txt')
              for name in names_in((ROOT / 'requirements' / file).read_text())}
    assert wanted <= names_in(lock)
