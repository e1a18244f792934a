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
"""Learning works, goes on where it stopped, and refuses a run that cannot be."""
import itertools
import json
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import time

import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from batches import assert_all_same  # noqa: E402
from lightning_fabric import Fabric  # noqa: E402
from lightning_fabric.plugins.precision import MixedPrecision  # noqa: E402

from hybrid_depth.errors import ConfigError  # noqa: E402
from hybrid_depth_training import checkpoint  # noqa: E402
from hybrid_depth_training.config import GroupConfig, SourceConfig  # noqa: E402
from hybrid_depth_training.objectives import OBJECTIVES  # noqa: E402
from hybrid_depth_training.train import (  # noqa: E402
    batches_from,
    build,
    make_fabric,
    train,
    train_step,
)
from hybrid_depth_training.views import DataMix  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


def stepper(config):
    """Return what train_step takes: fabric, objective, optimizer."""
    torch.manual_seed(0)
    fabric = make_fabric(config)
    objective = build(config)
    optimizer = torch.optim.AdamW(objective.parameter_groups(), lr=config.lr)
    objective, optimizer = fabric.setup(objective, optimizer)
    objective.mark_forward_method('loss')
    return fabric, objective, optimizer


def test_thirty_steps_on_one_batch_lower_the_loss(tiny_config):
    config = tiny_config(options={}, steps=30)
    parts = stepper(config)
    batch = DataMix(config, overfit=True).batch(0)
    terms = [train_step(*parts, [batch], step)[0] for step in range(config.steps)]
    assert terms[-1]['l1'] < 0.4 * terms[0]['l1']
    assert terms[-1]['nll'] < terms[0]['nll'] - 0.5


def test_run_leaves_metrics_config_and_checkpoint_and_goes_on(tiny_config, tmp_path):
    whole = train(tiny_config(), tmp_path / 'whole')
    rows = [json.loads(line) for line in
            (tmp_path / 'whole' / 'metrics.jsonl').read_text().splitlines()]
    assert {'step', 'nll', 'l1', 'gradient'} <= set(rows[0])
    (validation,) = [row for row in rows if 'validation' in row]
    assert validation['frames'] == 2
    _, _, trainer = checkpoint.load(whole)
    assert trainer['initial_weights'] == {'network.encoder': 'random'}
    # stopped after 2 of 4 steps and started again: the same weights in the end
    parted = tmp_path / 'parted'
    first = train(tiny_config(), tmp_path / 'first')
    assert first.name == whole.name == 'step_000004'
    parted.mkdir()
    (tmp_path / 'first' / 'step_000002').rename(parted / 'step_000002')
    again = train(tiny_config(), parted)
    _, expected, _ = checkpoint.load(whole)
    _, weights, _ = checkpoint.load(again)
    for key, value in expected.items():
        torch.testing.assert_close(weights[key], value, msg=key)


@pytest.fixture
def toy_config(tiny_config, monkeypatch):
    """Return a function that makes a configuration of an objective of a few weights."""
    monkeypatch.setitem(OBJECTIVES, 'toy', 'toy_objective:Toy')

    def make(**changes):
        return tiny_config(**{'objective': 'toy', 'options': {}, 'steps': 6, **changes})
    return make


def rows_of(run):
    return [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]


def test_stopped_run_ends_as_the_whole_one_to_the_last_bit(toy_config, tmp_path):
    whole = train(toy_config(), tmp_path / 'whole')
    parted = tmp_path / 'parted'
    train(toy_config(steps=4), parted)  # has another schedule
    for name in ('step_000004', 'step_000002'):
        shutil.rmtree(parted / name)
    train(toy_config(), parted, overfit=False)
    shutil.rmtree(parted / 'step_000006')  # goes on from step 4
    again = train(toy_config(), parted)
    expected, weights = (checkpoint.load(folder)[1] for folder in (whole, again))
    assert all(torch.equal(weights[key], expected[key]) for key in expected)
    assert not torch.equal(expected['network.0.weight'],
                           checkpoint.load(parted / 'step_000004')[1]['network.0.weight'])
    # the rows of the steps that were taken twice are there once
    assert [row['step'] for row in rows_of(parted)] == [4, 6, 6]
    assert rows_of(parted)[-2:] == rows_of(tmp_path / 'whole')[-2:]


def test_run_leaves_its_configuration_beside_every_checkpoint(toy_config, tmp_path, caplog):
    train(toy_config(steps=4), tmp_path)
    for name in ('step_000002', 'step_000004'):
        assert checkpoint.read_config(tmp_path / name)['steps'] == 4
    assert list(tmp_path.glob('events.out.tfevents.*'))
    train(toy_config(steps=6), tmp_path)
    assert 'steps was 4 up to step 4 and is 6 now' in caplog.text
    assert 'objective was' not in caplog.text
    assert train(toy_config(steps=6), tmp_path).name == 'step_000006'  # nothing to do


def test_no_progress_bar_where_there_is_no_terminal(toy_config, tmp_path, capfd):
    train(toy_config(), tmp_path)
    assert capfd.readouterr().err == ''


def test_overfit_validates_on_the_batch_it_learns(toy_config, tmp_path):
    train(toy_config(), tmp_path, overfit=True)
    validations = [row for row in rows_of(tmp_path) if 'validation' in row]
    assert [(row['validation'], row['frames']) for row in validations] == [('overfit', 2)] * 2


def test_workers_change_neither_order_nor_content(toy_config):
    loaded = {}
    for workers in (0, 2):
        config = toy_config(workers=workers, accumulate=2)
        loaded[workers] = list(batches_from(DataMix(config), 2, config, make_fabric(config)))
    assert [len(batches) for batches in loaded[2]] == [2] * 4
    assert_all_same(loaded[0], loaded[2])
    direct = DataMix(toy_config())
    assert_all_same([loaded[2][1]], [[direct.batch(3), direct.batch(3, 1)]])


def test_workers_read_a_bag_each_on_its_own(toy_config, tmp_path):
    pytest.importorskip('rosbags')
    import tiny_bags
    messages = list(tiny_bags.camera_messages())
    path = tiny_bags.write_bag(tmp_path / 'bag', messages, 'sqlite3')
    source = SourceConfig('drive', str(path), 'plane', all_frames=True, hold_out=0.0)
    loaded = {}
    for workers in (0, 2):
        config = toy_config(workers=workers, sources=[source])
        loaded[workers] = list(batches_from(DataMix(config), 0, config, make_fabric(config)))
    assert_all_same(loaded[0], loaded[2])


def test_passes_of_one_step_differ_and_are_averaged(toy_config):
    mix = DataMix(toy_config())
    first, second = mix.batch(0), mix.batch(0, 1)
    assert not torch.equal(first['image'], second['image'])
    gradients = []
    for batches in ([first, first], [first], [second], [first, second]):
        fabric, objective, optimizer = stepper(toy_config())
        objective.network[1].p = 0.0
        train_step(fabric, objective, optimizer, batches, 0, clip_norm=1e9)
        gradients.append(objective.network[0].weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1])
    torch.testing.assert_close(gradients[3], (gradients[1] + gradients[2]) / 2)


def test_gradient_is_clipped_and_its_norm_told(toy_config):
    fabric, objective, optimizer = stepper(toy_config())
    batch = DataMix(toy_config()).batch(0)
    terms, is_good = train_step(fabric, objective, optimizer, [batch], 0, clip_norm=1e-3)
    norms = [p.grad.norm() for p in objective.network.parameters()]
    assert is_good
    assert torch.stack(norms).norm() == pytest.approx(1e-3, rel=1e-3)
    assert terms['gradient_norm'] > 0.01


def test_step_without_a_finite_gradient_is_left_out(toy_config, caplog):
    config = toy_config(options={'bad_from': 0})
    fabric, objective, optimizer = stepper(config)
    before = objective.network[0].weight.clone()
    _, is_good = train_step(fabric, objective, optimizer, [DataMix(config).batch(0)], 0)
    assert not is_good
    assert torch.equal(objective.network[0].weight, before)
    assert 'step 0 is left out' in caplog.text


def test_run_without_finite_gradients_is_given_up(toy_config, tmp_path):
    train(toy_config(options={'bad_from': 2, 'bad_until': 21}, steps=24), tmp_path / 'recovers')
    with pytest.raises(ConfigError, match='not finite for 20 steps'):
        train(toy_config(options={'bad_from': 2}, steps=40), tmp_path / 'does_not')


def test_mixed_precision_on_a_cpu(toy_config, tmp_path):
    train(toy_config(precision='bf16-mixed'), tmp_path)
    _, weights, _ = checkpoint.load(checkpoint.newest(tmp_path))
    assert weights['network.0.weight'].dtype is torch.float32
    with pytest.raises(ConfigError, match='16-mixed on a CPU'):
        train(toy_config(precision='16-mixed'), tmp_path / 'other')


def test_loss_scaling_skips_what_overflowed_and_goes_on_where_it_was(toy_config, monkeypatch,
                                                                     tmp_path):
    # as on a GPU, with the scaler that torch has for CPUs
    def with_scaler(_):
        scaler = torch.amp.GradScaler('cpu', init_scale=1024.0)
        return Fabric(accelerator='cpu', devices=1,
                      plugins=MixedPrecision('16-mixed', 'cpu', scaler=scaler))
    monkeypatch.setitem(globals(), 'make_fabric', with_scaler)
    config = toy_config(options={'bad_from': 1, 'bad_until': 2})
    fabric, objective, optimizer = stepper(config)
    batch = DataMix(config).batch(0)
    weights = [objective.network[0].weight.clone()]
    for step in range(3):
        train_step(fabric, objective, optimizer, [batch], step)
        weights.append(objective.network[0].weight.clone())
    assert [torch.equal(*pair) for pair in itertools.pairwise(weights)] == [False, True, False]
    assert fabric.strategy.precision.state_dict()['scale'] == 512.0
    monkeypatch.setattr('hybrid_depth_training.train.make_fabric', with_scaler)
    for steps in (4, 6):
        folder = train(toy_config(options=config.options, steps=steps), tmp_path)
        assert checkpoint.load(folder)[2]['precision']['scale'] == 512.0


def test_first_weights_come_from_another_run_as_far_as_they_fit(toy_config, tmp_path):
    folder = train(toy_config(), tmp_path / 'first')
    weights = checkpoint.load(folder)[1]
    same = build(toy_config(init_from=str(tmp_path / 'first')))
    assert torch.equal(same.network[0].weight, weights['network.0.weight'])
    wider = build(toy_config(init_from=str(tmp_path / 'first'), options={'channels': 8}))
    assert torch.equal(wider.network[2].bias, weights['network.2.bias'])
    with pytest.raises(ConfigError, match='no sound checkpoint'):
        build(toy_config(init_from=str(tmp_path / 'absent')))
    with pytest.raises(ConfigError, match='no weight of'):
        build(tiny_supervised(toy_config, tmp_path / 'first'))


def tiny_supervised(make, init_from):
    return make(objective='supervised', options={'weights': 'random'}, init_from=str(init_from))


@pytest.mark.slow
def test_several_processes_train_one_model(tiny_drive, tmp_path):
    yaml = tmp_path / 'run.yaml'
    yaml.write_text(
        'name: tiny\nlicence: Apache-2.0\noptions: {weights: random}\nbatch: 1\nsteps: 2\n'
        'threads: 1\ndevices: 2\ngroups: {plane: {height: 32, width: 32}}\n'
        f'sources: [{{dataset: drive, path: {tiny_drive}, group: plane}}]\n')
    ended = subprocess.run(
        [sys.executable, '-m', 'hybrid_depth_training', 'train', '--run', str(yaml), '--out',
         str(tmp_path / 'run')], cwd=ROOT, capture_output=True, text=True, timeout=120,
        check=False, env={**os.environ, 'CUDA_VISIBLE_DEVICES': ''})
    assert ended.returncode == 0, ended.stderr
    assert checkpoint.load(tmp_path / 'run' / 'step_000002')[0] == 2
    assert [row['step'] for row in rows_of(tmp_path / 'run') if 'validation' not in row] == [2]


def test_killed_run_goes_on_from_its_last_checkpoint(tiny_config, tiny_drive, tmp_path):
    yaml = tmp_path / 'run.yaml'
    yaml.write_text(
        'name: tiny\nlicence: Apache-2.0\noptions: {weights: random}\nbatch: 2\nsteps: 100000\n'
        'threads: 1\ncheckpoint_every: 2\nvalidate_every: 100000\n'
        'groups: {plane: {height: 64, width: 96}}\n'
        f'sources: [{{dataset: drive, path: {tiny_drive}, group: plane}}]\n')
    run = tmp_path / 'run'
    process = subprocess.Popen(
        [sys.executable, '-m', 'hybrid_depth_training', 'train', '--run', str(yaml), '--out',
         str(run)], cwd=ROOT, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    try:
        while checkpoint.newest(run) is None and time.monotonic() < deadline:
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.2)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    last = checkpoint.newest(run)
    assert last is not None
    step, _, _ = checkpoint.load(last)
    config = tiny_config(steps=step + 2)
    assert train(config, run).name == f'step_{step + 2:06d}'


@pytest.mark.parametrize(('changes', 'message'), [
    ({'steps': 0}, 'steps'),
    ({'groups': {}}, 'groups'),
    ({'schedule': 'linear'}, 'onecycle'),
    ({'precision': 'fp8'}, 'bf16-mixed'),
    ({'devices': 0}, 'devices'),
    ({'workers': -1}, 'workers'),
    ({'clip_norm': 0.0}, 'clip_norm'),
])
def test_impossible_runs_are_refused(tiny_config, changes, message):
    with pytest.raises(ConfigError, match=message):
        tiny_config(**changes)


def test_network_size_must_fit_the_encoder(tiny_config):
    with pytest.raises(ConfigError, match='multiples of 32'):
        tiny_config(groups={'plane': GroupConfig(60, 96)})


def test_unknown_key_is_an_error(tmp_path, capsys):
    from hybrid_depth_training.__main__ import main
    with pytest.raises(SystemExit) as stop:
        main(['train', '--run', str(ROOT / 'config' / 'training' / 'compact.yaml'),
              '--run.stepz', '3', '--out', str(tmp_path)])
    assert stop.value.code == 2
    assert 'stepz' in capsys.readouterr().err
