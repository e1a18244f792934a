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
Initial weights: by name, from a file, or random; never one for another in silence.

A name is fetched over the network (and kept in the cache of huggingface_hub) or comes with an
installed package. A file is .safetensors, a state dict of torch.save, a checkpoint that holds one
as ``state_dict`` (in which open_clip's releases come), or the TorchScript archive in which OpenAI
publishes CLIP.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
import hashlib
from pathlib import Path

from safetensors.torch import load_file
import torch
from torch import nn

from hybrid_depth.errors import ConfigError, ContractError

RANDOM = 'random'
_PARALLEL = 'module.'  # what training on several GPUs puts before all names
State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class HubFile:
    """A file of a public repository on huggingface.co."""

    repository: str
    name: str

    def __call__(self) -> Path:
        """Return its place on this disk, fetching it first. Raises ContractError without it."""
        from huggingface_hub import hf_hub_download
        try:
            return Path(hf_hub_download(self.repository, self.name))
        except (OSError, ValueError) as error:  # no network, no such file, no right to read it
            raise ContractError(
                f'the weights {self.repository}/{self.name} are not on this machine and cannot be '
                f'fetched ({type(error).__name__}); on a machine with a network run\n'
                f'  hf download {self.repository} {self.name} --local-dir weights\n'
                f'and give the file here instead of a name: weights/{self.name}. Without '
                f'pretraining, say {RANDOM}') from error


def load_weights(network: nn.Module, weights: str, names: Mapping[str, Callable[[], Path]],
                 select: Callable[[State], State] | None = None) -> str:
    """
    Fill ``network`` with the ``weights`` and return their provenance, for checkpoints and cards.

    What it takes:
        network: filled strictly: every parameter is in the weights, and nothing else is
        weights: 'random' (the network stays as it was made), a key of ``names``, or a file
        names: what gives the file of a name
        select: from what the file holds to what the network takes

    On torch's meta device a network has no values and gets none. Raises ConfigError where
    ``weights`` is none of these, ContractError where the file cannot be had or holds something
    else.
    """
    if weights == RANDOM:
        return RANDOM
    if is_without_values():
        return 'none'
    path = find_weights(weights, names)
    state = _read(path)
    try:
        network.load_state_dict(select(state) if select else state, strict=True)
    except RuntimeError as error:
        raise ContractError(f'{path} does not hold the weights of {type(network).__name__}; '
                            f'expected a file of the same architecture: {error}') from error
    return f'{"" if weights in names else "file "}{_label(weights, path)}'


def is_without_values() -> bool:
    """Say whether networks are being made on torch's meta device, only to be counted."""
    return torch.get_default_device().type == 'meta'


def find_weights(weights: str, names: Mapping[str, Callable[[], Path]]) -> Path:
    """Return the file of ``weights``, a key of ``names`` or a path; raises as load_weights."""
    if weights in names:
        return names[weights]()
    path = Path(weights)
    if not path.is_file():
        raise ConfigError(f'weights {weights!r} are neither a file nor known by that name; '
                          f'expected a file, {RANDOM}, or one of {list(names)}')
    return path


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _label(weights: str, path: Path) -> str:
    return f'{Path(weights).name} (sha256 {digest(path)[:12]})'


def _read(path: Path) -> State:
    try:
        if path.suffix == '.safetensors':
            return load_file(path)
        return _read_pickle(path)
    except Exception as error:  # each format has its own for a damaged file
        raise ContractError(
            f'{path} cannot be read as weights: {error}; fetch it again') from error


def _read_pickle(path: Path) -> State:
    try:
        state = torch.load(path, map_location='cpu', weights_only=True)
    except RuntimeError as error:
        if 'TorchScript' not in str(error):
            raise
        state = torch.jit.load(path, map_location='cpu').state_dict()
    state = dict(state.get('state_dict', state))
    if all(key.startswith(_PARALLEL) for key in state):
        state = {key.removeprefix(_PARALLEL): value for key, value in state.items()}
    return state
