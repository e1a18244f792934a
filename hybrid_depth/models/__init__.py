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
The models that are shipped, one folder each, and how to find one.

A folder holds model.onnx, golden.npz (inputs and outputs to accept a runtime by), card.json
(facts, among them ``sha256`` of model.onnx) and CARD.md (the same for people).
"""
from __future__ import annotations

from contextlib import suppress
import hashlib
import json
from pathlib import Path
from typing import Any

from hybrid_depth.errors import ContractError

FOLDER = Path(__file__).resolve().parent
_verified: dict[tuple[Path, int, int], str] = {}  # (path, mtime, size) -> sha256


def shipped_models(folder: Path = FOLDER) -> list[str]:
    """Return the names of the shipped models, sorted."""
    return sorted(card.parent.name for card in folder.glob('*/card.json'))


def read_card(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """Return the facts of a shipped model. Raises ContractError where there is no such card."""
    path = folder / name / 'card.json'
    try:
        card = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise ContractError(f'the model card {path} cannot be read: {error}; install the package '
                            'again') from error
    if not isinstance(card, dict):
        raise ContractError(f'the model card {path} is not a JSON object; install the package '
                            'again')
    return card


def find_model(name_or_path: str | Path, folder: Path = FOLDER) -> Path:
    """
    Return the path of model.onnx for a shipped name, an .onnx file, or a folder that holds one.

    The sha256 of a shipped model is checked against its card, once per process and file state.
    Raises ContractError where there is no such model or the sum differs.
    """
    name = str(name_or_path)
    if name in shipped_models(folder):
        path = folder / name / 'model.onnx'
        _verify(path, read_card(name, folder))
        return path
    with suppress(OSError, RuntimeError):  # a name that can be no path, or ~ of nobody
        path = Path(name).expanduser()
        if path.is_dir() and (path / 'model.onnx').is_file():
            return path / 'model.onnx'
        if path.suffix == '.onnx' and path.is_file():
            return path
    shipped = ', '.join(shipped_models(folder)) or 'none'
    raise ContractError(f'there is no model {name!r}: it is neither a shipped model (shipped: '
                        f'{shipped}), nor an .onnx file, nor a folder with model.onnx')


def _verify(path: Path, card: dict[str, Any]) -> None:
    expected = card.get('sha256')
    if not path.is_file():
        raise ContractError(f'the shipped model {path} is missing; install the package again')
    stat = path.stat()
    key = (path, stat.st_mtime_ns, stat.st_size)
    if key not in _verified:
        _verified[key] = hashlib.sha256(path.read_bytes()).hexdigest()
    if _verified[key] != expected:
        raise ContractError(f'{path} has sha256 {_verified[key]}, its card.json says {expected}; '
                            'the file is damaged or was replaced: install the package again, or '
                            'name your own model by its path')
