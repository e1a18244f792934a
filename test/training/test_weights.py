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
"""Weights are what was asked for, or an error that says how to get them."""
import hashlib

import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from safetensors.torch import save_file  # noqa: E402

from hybrid_depth.errors import ConfigError, ContractError  # noqa: E402
from hybrid_depth_training.weights import HubFile, load_weights  # noqa: E402

HUB = HubFile('someone/model', 'model.safetensors')


@pytest.fixture
def no_network(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def download(repository, name):
        raise LocalEntryNotFoundError('no network')

    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', download)


def test_random_leaves_the_network_as_it_was_made():
    network = torch.nn.Linear(2, 3)
    before = network.weight.clone()
    assert load_weights(network, 'random', {}) == 'random'
    assert torch.equal(network.weight, before)


def test_name_is_fetched_and_its_hash_is_part_of_the_provenance(tmp_path):
    path = tmp_path / 'model.safetensors'
    source = torch.nn.Linear(2, 3)
    save_file(source.state_dict(), path)
    network = torch.nn.Linear(2, 3)
    provenance = load_weights(network, 'imagenet', {'imagenet': lambda: path})
    assert torch.equal(network.weight, source.weight)
    assert provenance == f'imagenet (sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:12]})'


@pytest.mark.parametrize('kind', ['safetensors', 'pth', 'torchscript'])
def test_file_of_each_format_is_read_and_named(tmp_path, kind):
    source = torch.nn.Linear(2, 3)
    path = tmp_path / f'w.{kind}'
    if kind == 'safetensors':
        save_file(source.state_dict(), path)
    elif kind == 'pth':
        torch.save(source.state_dict(), path)
    else:
        torch.jit.save(torch.jit.script(source), path)
    network = torch.nn.Linear(2, 3)
    assert load_weights(network, str(path), {}).startswith(f'file w.{kind} (sha256 ')
    assert torch.equal(network.weight, source.weight)


def test_absent_weights_name_the_command_and_the_file_option(no_network):
    with pytest.raises(ContractError) as error:
        load_weights(torch.nn.Linear(2, 3), 'imagenet', {'imagenet': HUB})
    text = str(error.value)
    assert 'hf download someone/model model.safetensors --local-dir weights' in text
    assert 'weights/model.safetensors' in text
    assert 'random' in text


def test_what_is_neither_file_nor_name_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"'imagnet' are neither a file.*\['imagenet'\]"):
        load_weights(torch.nn.Linear(2, 3), 'imagnet', {'imagenet': HUB})


@pytest.mark.parametrize('state', [{'weight': torch.zeros(3, 2)},
                                   {'weight': torch.zeros(3, 2), 'bias': torch.zeros(4)},
                                   {'weight': torch.zeros(3, 2), 'bias': torch.zeros(3),
                                    'more': torch.zeros(1)}])
def test_weights_of_another_architecture_are_refused(tmp_path, state):
    path = tmp_path / 'w.safetensors'
    save_file(state, path)
    with pytest.raises(ContractError, match='same architecture'):
        load_weights(torch.nn.Linear(2, 3), str(path), {})


@pytest.mark.parametrize('name', ['w.safetensors', 'w.pth'])
def test_damaged_file_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b'damaged')
    with pytest.raises(ContractError, match='cannot be read'):
        load_weights(torch.nn.Linear(2, 3), str(tmp_path / name), {})
