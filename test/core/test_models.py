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
from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from tiny_model import write_tiny_model

from hybrid_depth.contract import read_spec
from hybrid_depth.errors import ContractError
from hybrid_depth.models import find_model, FOLDER, read_card, shipped_models

LARGEST = {'small': 70e6}  # bytes; every clone of the repository fetches the files


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Return a folder of shipped models with one in it, 'tiny'."""
    folder = tmp_path / 'models' / 'tiny'
    folder.mkdir(parents=True)
    write_tiny_model(folder / 'model.onnx')
    digest = hashlib.sha256((folder / 'model.onnx').read_bytes()).hexdigest()
    (folder / 'card.json').write_text(json.dumps({'sha256': digest, 'licence': 'Apache-2.0'}))
    (tmp_path / 'models' / '__pycache__').mkdir()
    return tmp_path / 'models'


def test_a_shipped_model_is_found_by_name(shelf: Path) -> None:
    assert shipped_models(shelf) == ['tiny']
    assert find_model('tiny', shelf) == shelf / 'tiny' / 'model.onnx'
    assert read_card('tiny', shelf)['licence'] == 'Apache-2.0'


def test_a_damaged_shipped_model_names_both_sums(shelf: Path) -> None:
    path = shelf / 'tiny' / 'model.onnx'
    find_model('tiny', shelf)  # the sum of the good file is remembered
    expected = read_card('tiny', shelf)['sha256']
    path.write_bytes(path.read_bytes() + b'\0')
    actual = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ContractError, match=f'{actual}.*{expected}.*install'):
        find_model('tiny', shelf)


def test_the_sum_is_computed_once(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_model('tiny', shelf)

    def fail(*_: object) -> None:
        raise AssertionError('read again')

    monkeypatch.setattr(Path, 'read_bytes', fail)
    assert find_model('tiny', shelf).name == 'model.onnx'


def test_a_missing_file_of_a_shipped_model(shelf: Path) -> None:
    (shelf / 'tiny' / 'model.onnx').unlink()
    with pytest.raises(ContractError, match=r'model\.onnx is missing'):
        find_model('tiny', shelf)


@pytest.mark.parametrize('text', ['', '[1]', '{'])
def test_a_broken_card(shelf: Path, text: str) -> None:
    (shelf / 'tiny' / 'card.json').write_text(text)
    with pytest.raises(ContractError, match='card'):
        find_model('tiny', shelf)


def test_a_path_is_taken_as_it_is(tmp_path: Path, shelf: Path) -> None:
    path = tmp_path / 'own.onnx'
    write_tiny_model(path)
    assert find_model(path, shelf) == path
    assert find_model(str(path), shelf) == path
    assert find_model(shelf / 'tiny', shelf) == shelf / 'tiny' / 'model.onnx'


@pytest.mark.parametrize('name', ['', '.', 'nope', 'nope.onnx', '/nowhere/model.onnx'])
def test_an_unknown_model_lists_the_shipped(shelf: Path, name: str) -> None:
    with pytest.raises(ContractError, match='shipped: tiny'):
        find_model(name, shelf)


@pytest.mark.parametrize('name', shipped_models() or [
    pytest.param('', marks=pytest.mark.skip(reason='no model is shipped yet'))])
def test_what_is_shipped_is_whole(name: str) -> None:
    spec = read_spec(find_model(name))
    card = read_card(name)
    assert spec.name == name
    assert card['licence'] == spec.licence
    for file in ('golden.npz', 'CARD.md'):
        assert (FOLDER / name / file).is_file(), file
    size = (FOLDER / name / 'model.onnx').stat().st_size
    assert size == card['bytes']
    assert size < LARGEST.get(name, 25e6)
