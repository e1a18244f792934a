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
Sentences about the scene for models of kind 'clip_prior', as the features that the graph takes.

A robot needs no text tower: ``prompts.npz`` beside the model holds the features of a vocabulary of
scenes and of the neutral sentence, which stands for '' (nothing is said of the scene).
``python -m hybrid_depth_training embed`` adds sentences where the text tower is installed.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import functools
import json
import os
from pathlib import Path
import shlex
import tokenize
import zipfile
import zlib

import numpy as np

from hybrid_depth.contract import ModelSpec, read_spec
from hybrid_depth.errors import ConfigError, ContractError
from hybrid_depth.models import find_model

TABLE = 'prompts.npz'
_MEMBERS = ('header.npy', 'features.npy')
_LIMITS = (1 << 20, 1 << 28)  # bytes of each, unpacked: 1 MB and 256 MB
# what reading a damaged archive raises; MemoryError: an array that claims to be huge
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, EOFError, SyntaxError,
               RuntimeError, MemoryError, tokenize.TokenError, zipfile.BadZipFile, zlib.error)
_MAX_PROMPT = 300  # characters; the text tower reads 77 tokens


@dataclass(frozen=True)
class PromptTable:
    """The features of known prompts."""

    neutral: str  # one of ``prompts``
    text_model: str  # that made the features, for the command that adds some
    text_weights: str
    tokens: int  # rows of features of each prompt; 0 = one, of the whole sentence
    prompts: tuple[str, ...]
    features: np.ndarray  # (N, text_dim) float32

    def __post_init__(self) -> None:
        words = (self.neutral, self.text_model, self.text_weights, *self.prompts)
        if not all(isinstance(text, str) and 0 < len(text) <= _MAX_PROMPT for text in words):
            raise ContractError(f'the table of prompts holds a text that is empty, longer than '
                                f'{_MAX_PROMPT} characters, or no text')
        if self.neutral not in self.prompts or len(set(self.prompts)) != len(self.prompts):
            raise ContractError('the table of prompts lacks its neutral prompt '
                                f'{self.neutral!r}, or has a prompt twice')
        if type(self.tokens) is not int or self.features.dtype != np.float32 or \
                self.features.ndim != 2 or len(self.features) != len(self.prompts) or \
                not np.isfinite(self.features).all():
            raise ContractError(f'the features of {len(self.prompts)} prompts are '
                                f'{self.features.dtype} {self.features.shape}; expected finite '
                                'float32, one row for each')

    def find(self, prompt: str, folder: str = 'FOLDER') -> np.ndarray:
        """
        Return the features of ``prompt``, (1, text_dim).

        Raises ConfigError with the list, and the command that adds to the table in ``folder``.
        """
        prompt = prompt or self.neutral
        if prompt not in self.prompts:
            raise ConfigError(
                f'scene_prompt is {prompt!r}, which this model has no features of; expected one '
                f"of: '' (nothing is said), {', '.join(map(repr, self.prompts))}. Where "
                'open_clip is installed, add it with: python -m hybrid_depth_training embed '
                f'--model {shlex.quote(folder)} --prompts {shlex.quote(json.dumps([prompt]))}')
        row = self.prompts.index(prompt)
        return self.features[row:row + 1]


def text_inputs(model: Path, spec: ModelSpec, prompt: str) -> dict[str, np.ndarray]:
    """
    Return the graph input ``text`` for ``prompt``; none for a model without language.

    ``model`` is the path of its ONNX file. The table is read again when it was changed. Raises
    ConfigError for a prompt that is unknown, or said to a model without language, ContractError
    where the table is missing, damaged, or of another model.
    """
    if spec.kind != 'clip_prior':
        if prompt:
            raise ConfigError(f'scene_prompt is {prompt!r}, but the model {spec.name} takes no '
                              "words about the scene; leave it '', or use a model of kind "
                              'clip_prior')
        return {}
    path = model.parent / TABLE
    try:
        stat = path.stat()
    except OSError as error:
        raise ContractError(f'{path} is missing: the words of the model {spec.name}; copy it '
                            'from beside the exported model') from error
    table = _known(path, stat.st_mtime_ns, stat.st_size)
    if table.features.shape[1] != spec.text_dim:
        raise ContractError(f'{path} has features of length {table.features.shape[1]}, the model '
                            f'{spec.name} takes {spec.text_dim}; export the model again')
    return {'text': table.find(prompt, str(model.parent))}


def check_prompt(model: str, prompt: str) -> None:
    """
    Raise ConfigError where the model called ``model`` cannot be told ``prompt``.

    A model that cannot be read is none of its business: opening it says what is wrong.
    """
    if not prompt:
        return
    try:
        path = find_model(model)
        spec = read_spec(path)
    except ContractError:
        return
    try:
        text_inputs(path, spec, prompt)
    except ContractError as error:
        raise ConfigError(str(error)) from error


def read_table(path: Path) -> PromptTable:
    """Read a table; nothing in it is executed. Raises ContractError where it is not sound."""
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist()}
        if set(sizes) != set(_MEMBERS):
            raise ContractError(f'{path} holds {sorted(sizes)}; expected {list(_MEMBERS)}')
        for name, limit in zip(_MEMBERS, _LIMITS, strict=True):
            if sizes[name] > limit:
                raise ContractError(f'{name} of {path} is {sizes[name]} bytes unpacked; expected '
                                    f'at most {limit}')
        with np.load(path, allow_pickle=False) as arrays:
            header = json.loads(arrays['header'].tobytes().decode('utf-8'))
            features = arrays['features']
        prompts = tuple(header.pop('prompts'))
        return PromptTable(prompts=prompts, features=features, **header)
    except _UNREADABLE as error:
        raise ContractError(f'{path} cannot be read as a table of prompts: {error}; copy it '
                            'again') from error


def write_table(path: Path, table: PromptTable) -> None:
    """Write a table, whole or not at all: a running node may be about to read it."""
    header = {'neutral': table.neutral, 'text_model': table.text_model,
              'text_weights': table.text_weights, 'tokens': table.tokens,
              'prompts': list(table.prompts)}
    part = path.with_name(f'.{path.name}.{os.getpid()}.part')
    with part.open('wb') as stream:
        np.savez_compressed(stream, header=np.frombuffer(json.dumps(header).encode(), np.uint8),
                            features=table.features)
    part.replace(path)


def with_prompts(table: PromptTable, prompts: Sequence[str], features: np.ndarray) -> PromptTable:
    """Return ``table`` with more prompts; one that it has gets the new features."""
    rows = dict(zip(table.prompts, table.features, strict=True))
    rows.update(zip(prompts, features, strict=True))
    return PromptTable(table.neutral, table.text_model, table.text_weights, table.tokens,
                       tuple(rows), np.stack(list(rows.values())))


@functools.lru_cache(maxsize=4)
def _known(path: Path, changed_ns: int, size: int) -> PromptTable:
    """Read a table once for each of its states."""
    return read_table(path)
