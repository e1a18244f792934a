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
Checkpoints that survive being killed: written whole or not at all, and checked when read.

A checkpoint is a folder ``step_000123`` with ``model.safetensors``, ``trainer.pt`` (state of the
optimizer and of the loss scaling, loaded with weights_only), the resolved ``config.yaml`` and
``complete``, which is written last and holds the checksum of every file.
"""
from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
import shutil
from typing import Any

from safetensors.torch import load_file, save_file
import torch
import yaml

from hybrid_depth.errors import ContractError

_log = logging.getLogger(__name__)
_KEEP = 2
_FILES = ('model.safetensors', 'trainer.pt')
CONFIG = 'config.yaml'


def save(run: Path, step: int, model: dict[str, torch.Tensor], trainer: dict[str, Any],
         config: dict[str, Any]) -> Path:
    """Write the checkpoint of ``step`` into the folder ``run`` and prune all but the newest 2."""
    final = run / folder_name(step)
    part = run / f'.part_{step:06d}'
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    # copies, because safetensors refuses tensors that share memory, as tied weights do
    save_file({key: value.detach().clone(memory_format=torch.contiguous_format)
               for key, value in model.items()}, part / 'model.safetensors')
    torch.save(trainer, part / 'trainer.pt')
    (part / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False))
    sums = {name: _sha256(part / name) for name in (*_FILES, CONFIG)}
    (part / 'complete').write_text(json.dumps(sums))
    shutil.rmtree(final, ignore_errors=True)
    os.replace(part, final)
    for old in _folders(run)[:-_KEEP]:
        shutil.rmtree(old)
    return final


def folder_name(step: int) -> str:
    """Return the name of the checkpoint of ``step`` in the folder of its run."""
    return f'step_{step:06d}'


def newest(run: Path) -> Path | None:
    """Return the newest sound checkpoint of ``run``, None where there is none."""
    for folder in reversed(_folders(run)):
        reason = damage(folder)
        if not reason:
            return folder
        _log.warning('checkpoint %s is refused (%s); trying the one before', folder, reason)
    return None


def damage(folder: Path) -> str:
    """Say what is wrong with a checkpoint folder; empty where it is sound."""
    try:
        sums = dict(json.loads((folder / 'complete').read_text()))
    except (OSError, TypeError, ValueError) as error:
        return f'its list of checksums cannot be read: {error}'
    for name in dict.fromkeys((*_FILES, *sums)):
        path = folder / name
        if not path.is_file() or _sha256(path) != sums.get(name):
            return f'{name} is missing or damaged'
    return ''


def load(folder: Path) -> tuple[int, dict[str, torch.Tensor], dict[str, Any]]:
    """Read a checkpoint: step, model, trainer. Raises ContractError where it is damaged."""
    reason = damage(folder)
    if reason:
        raise ContractError(f'checkpoint {folder}: {reason}; use the one before')
    trainer = torch.load(folder / 'trainer.pt', weights_only=True)
    return _step(folder), load_file(folder / 'model.safetensors'), trainer


def read_config(folder: Path) -> dict[str, Any]:
    """Return the resolved configuration that a checkpoint was made with."""
    path = folder / CONFIG
    return yaml.safe_load(path.read_text()) if path.is_file() else {}


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix('step_'))


def _folders(run: Path) -> list[Path]:
    return sorted(run.glob('step_[0-9]*'), key=_step)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
