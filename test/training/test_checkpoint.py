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
"""A checkpoint is whole or refused, and the one before is used."""
import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from hybrid_depth.errors import ContractError  # noqa: E402
from hybrid_depth_training import checkpoint  # noqa: E402


def save(run, step):
    return checkpoint.save(run, step, {'w': torch.full((3,), float(step))}, {'optimizer': {}},
                           {'name': 'tiny', 'lr': 0.25})


def test_round_trip_and_pruning(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, step)
    assert [f.name for f in sorted(tmp_path.iterdir())] == ['step_000002', 'step_000003']
    step, model, trainer = checkpoint.load(checkpoint.newest(tmp_path))
    assert (step, trainer) == (3, {'optimizer': {}})
    assert torch.equal(model['w'], torch.full((3,), 3.0))


def test_the_configuration_is_beside_the_weights(tmp_path):
    assert checkpoint.read_config(save(tmp_path, 1)) == {'name': 'tiny', 'lr': 0.25}


def test_weights_that_share_memory_are_each_written(tmp_path):
    tied = torch.arange(6.0)
    folder = checkpoint.save(tmp_path, 1, {'a': tied, 'b': tied, 'c': tied.view(2, 3).T}, {}, {})
    _, model, _ = checkpoint.load(folder)
    assert torch.equal(model['b'], tied)
    assert torch.equal(model['c'], tied.view(2, 3).T)


def test_steps_are_numbers_beyond_a_million_too(tmp_path):
    for step in (999_999, 1_000_000):
        save(tmp_path, step)
    assert checkpoint.load(checkpoint.newest(tmp_path))[0] == 1_000_000


def test_checkpoint_of_before_there_was_a_configuration_in_it(tmp_path):
    import json
    folder = save(tmp_path, 1)
    (folder / 'config.yaml').unlink()
    sums = json.loads((folder / 'complete').read_text())
    del sums['config.yaml']
    (folder / 'complete').write_text(json.dumps(sums))
    assert checkpoint.load(folder)[0] == 1
    assert checkpoint.read_config(folder) == {}


@pytest.mark.parametrize('name', ['model.safetensors', 'trainer.pt', 'config.yaml', 'complete'])
def test_truncated_is_refused_and_the_one_before_used(tmp_path, name):
    save(tmp_path, 1)
    last = save(tmp_path, 2)
    data = (last / name).read_bytes()
    (last / name).write_bytes(data[:len(data) // 2])
    assert checkpoint.newest(tmp_path).name == 'step_000001'
    with pytest.raises(ContractError, match='use the one before'):
        checkpoint.load(last)


def test_a_killed_write_is_not_a_checkpoint(tmp_path):
    save(tmp_path, 1)
    (tmp_path / '.part_000002').mkdir()
    assert checkpoint.newest(tmp_path).name == 'step_000001'
    assert checkpoint.newest(tmp_path / 'absent') is None
