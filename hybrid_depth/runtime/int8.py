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
"""Which file a precision is computed from: int8_mix has one of its own, made beforehand."""
from __future__ import annotations

import hashlib
from pathlib import Path

from hybrid_depth.contract import read_metadata
from hybrid_depth.errors import BackendUnavailable

SOURCE_KEY = 'hybrid_depth.quantised_from'  # metadata: sha256 of the file it was made from


def int8_path(path: Path) -> Path:
    """Return where the int8_mix file of the model at ``path`` lies: beside it."""
    return path.with_name(f'{path.stem}.int8.onnx')


def file_for(path: Path, precision: str) -> Path:
    """
    Return the file to load for the model at ``path`` in ``precision``.

    A quantised file may be named as the model itself. Raises BackendUnavailable where int8_mix is
    asked for and there is no such file, or it was made from another model; and where fp32 is asked
    of a quantised file.
    """
    is_quantised = SOURCE_KEY in read_metadata(path) if path.is_file() else False
    if precision == 'fp32' and is_quantised:
        raise BackendUnavailable(f'{path} is quantised and does not compute in fp32; name the '
                                 'model that it was made from')
    if precision != 'int8_mix' or is_quantised:
        return path
    remedy = f'make it with: python -m hybrid_depth quantise {path}'
    quantised = int8_path(path)
    if not quantised.is_file():
        raise BackendUnavailable(f'int8_mix needs {quantised}, which is absent; {remedy}')
    if read_metadata(quantised).get(SOURCE_KEY) != sha256_of(path):
        raise BackendUnavailable(f'{quantised} was made from another file than {path}; {remedy}')
    return quantised


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
