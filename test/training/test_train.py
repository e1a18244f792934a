# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Learning works, goes on where it stopped, and refuses a run that cannot be."""
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from hybrid_depth.errors import ConfigError  # noqa: E402
from hybrid_depth_training import checkpoint  # noqa: E402
from hybrid_depth_training.train import (  # noqa: E402
    DataMix,
    learning_rate_factor,
    make_optimizer,
    train,
    train_step,
)

ROOT = Path(__file__).resolve().parents[2]


def test_thirty_steps_on_one_batch_lower_the_loss(tiny_config):
    from hybrid_depth_training.models.compact import CompactDepth
    torch.manual_seed(0)
    config = tiny_config(weights='imagenet', steps=30)
    model = CompactDepth(config.encoder, config.weights)
    optimizer = make_optimizer(model, config)
    batch = DataMix(config, overfit=True).batch(0)
    terms = [train_step(model, optimizer, batch, config) for _ in range(config.steps)]
    assert terms[-1]['l1'] < 0.4 * terms[0]['l1']
    assert terms[-1]['nll'] < terms[0]['nll'] - 0.5


def test_run_leaves_metrics_config_and_checkpoint_and_goes_on(tiny_config, tmp_path):
    whole = train(tiny_config(), tmp_path / 'whole')
    rows = [json.loads(line) for line in
            (tmp_path / 'whole' / 'metrics.jsonl').read_text().splitlines()]
    assert {'step', 'nll', 'l1', 'gradient'} <= set(rows[0])
    (validation,) = [row for row in rows if 'validation' in row]
    assert validation['frames'] == 2
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


def test_batches_depend_on_seed_and_step_only(tiny_config):
    first, second = DataMix(tiny_config()), DataMix(tiny_config())
    second.batch(0)
    torch.testing.assert_close(first.batch(5), second.batch(5), equal_nan=True)
    assert not torch.equal(first.batch(5)['image'], first.batch(6)['image'])


def test_held_out_frames_are_never_drawn(tiny_config):
    ((_, samples),) = DataMix(tiny_config()).training
    assert [s.name for s in samples] == ['0000', '0001', '0002', '0003']


def test_killed_run_goes_on_from_its_last_checkpoint(tiny_config, tiny_drive, tmp_path):
    yaml = tmp_path / 'run.yaml'
    yaml.write_text(
        'name: tiny\nlicence: Apache-2.0\nweights: random\nbatch: 2\nsteps: 100000\nthreads: 1\n'
        'checkpoint_every: 2\nvalidate_every: 100000\ngroups: {plane: {height: 64, width: 96}}\n'
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


def test_learning_rate_rises_then_falls_to_zero(tiny_config):
    config = tiny_config(steps=100, warmup_steps=10)
    factors = [learning_rate_factor(step, config) for step in range(101)]
    assert factors[9] == max(factors) == pytest.approx(1.0)
    assert factors[0] == pytest.approx(0.1)
    assert factors[100] == pytest.approx(0.0)


@pytest.mark.parametrize(('changes', 'message'), [
    ({'steps': 0}, 'steps'),
    ({'groups': {}}, 'groups'),
])
def test_impossible_runs_are_refused(tiny_config, changes, message):
    with pytest.raises(ConfigError, match=message):
        tiny_config(**changes)


def test_network_size_must_fit_the_encoder(tiny_config):
    from hybrid_depth_training.config import GroupConfig
    with pytest.raises(ConfigError, match='multiples of 32'):
        tiny_config(groups={'plane': GroupConfig(60, 96)})


def test_unknown_dataset_is_named(tiny_config, tiny_drive):
    from hybrid_depth_training.config import SourceConfig
    config = tiny_config(sources=[SourceConfig('nuscenes', str(tiny_drive), 'plane')])
    with pytest.raises(ConfigError, match='nuscenes'):
        DataMix(config)


def test_shipped_configurations_parse():
    from hybrid_depth_training.__main__ import _train_parser
    files = sorted((ROOT / 'config' / 'training').glob('*.yaml'))
    assert files
    for file in files:
        parser = _train_parser()
        options = parser.instantiate(parser.parse_args(['--run', str(file), '--out', 'runs/x']))
        assert options.run.name == file.stem


def test_unknown_key_is_an_error(tmp_path, capsys):
    from hybrid_depth_training.__main__ import main
    with pytest.raises(SystemExit) as stop:
        main(['train', '--run', str(ROOT / 'config' / 'training' / 'compact.yaml'),
              '--run.stepz', '3', '--out', str(tmp_path)])
    assert stop.value.code == 2
    assert 'stepz' in capsys.readouterr().err
