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
"""The ablation grid: what a variant is, that it goes on, and what its table says."""
import json
from pathlib import Path
import shutil

import pytest
import yaml

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from hybrid_depth.errors import ConfigError  # noqa: E402
from hybrid_depth_training import checkpoint  # noqa: E402
from hybrid_depth_training.evaluation import ablation  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def grid(tiny_drive, tmp_path) -> Path:
    """Return a grid file: two stages of two steps on the tiny drive."""
    stage = {
        'name': 'tiny', 'licence': 'Apache-2.0', 'objective': 'supervised', 'steps': 2, 'batch': 1,
        'options': {'weights': 'random'}, 'threads': 1, 'validate_every': 1, 'augment': {
            'zoom': 1.0, 'roll_deg': 0.0, 'flip': 0.0, 'grey': 0.0, 'jitter': 0.0},
        'groups': {'plane': {'height': 32, 'width': 64}}, 'checkpoint_every': 1,
        'sources': [{'dataset': 'drive', 'path': str(tiny_drive), 'group': 'plane',
                     'hold_out': 0.34}]}
    path = tmp_path / 'grid.yaml'
    path.write_text(yaml.safe_dump({
        'stages': {'first': stage, 'second': {**stage, 'steps': 1}},
        'variants': {'full': {}, 'no_first': {'first': None},
                     'other': {'first': 'full', 'second': {'options': {'l1_weight': 0.0}}}}}))
    return path


def test_variants_are_trained_once_and_compared(grid, tmp_path):
    runs, out = tmp_path / 'runs', tmp_path / 'out' / 'ablation.json'
    rows = ablation.ablate(grid, runs, out)
    assert json.loads(out.read_text()) == rows
    assert [row['name'] for row in rows] == ['full', 'no_first', 'other']
    full, no_first, other = rows
    assert full['steps'] == {'first': 2, 'second': 1}
    assert no_first['steps'] == {'second': 1}
    assert other['changes'] == {'first': 'full', 'second': {'options': {'l1_weight': 0.0}}}
    assert not (runs / 'other' / 'first').exists()
    assert 0 < full['abs_rel'] < 2
    assert full['photometric'] is None  # this objective has none
    assert 1 < full['parameters_m'] == no_first['parameters_m'] < 10
    # the second stage of both starts where the one first stage ended
    starts = [yaml.safe_load((runs / name / 'second' / 'config.yaml').read_text())['init_from']
              for name in ('full', 'no_first', 'other')]
    assert starts == [str(runs / 'full' / 'first'), '', str(runs / 'full' / 'first')]

    # again, with one variant gone and another cut off: only these are trained
    shutil.rmtree(runs / 'no_first')
    (runs / 'other' / 'second' / 'done.json').unlink()
    trained = {name: (runs / name / 'second' / 'metrics.jsonl') for name in ('full', 'other')}
    before = trained['full'].stat().st_mtime_ns
    again = ablation.ablate(grid, runs, out)
    assert trained['full'].stat().st_mtime_ns == before
    assert again[0] == rows[0]
    for key in ('seconds', 'cpu_seconds'):  # of what was interrupted the time is not known
        assert again[2][key] == {'first': rows[0][key]['first'], 'second': None}
    assert checkpoint.newest(runs / 'no_first' / 'second') is not None

    lines = ablation.table(again).splitlines()
    assert len(lines) == 2 + 3
    assert len({line.count('|') for line in lines}) == 1
    assert lines[4].startswith('| other | ')
    assert lines[4].endswith('+ ? |')


def test_changed_grid_does_not_pass_off_old_runs(grid, tmp_path):
    content = yaml.safe_load(grid.read_text())
    grid.write_text(yaml.safe_dump({**content, 'variants': {'full': {'first': None}}}))
    ablation.ablate(grid, tmp_path / 'runs', tmp_path / 'rows.json')
    content['stages']['second']['seed'] = 5
    grid.write_text(yaml.safe_dump({**content, 'variants': {'full': {'first': None}}}))
    with pytest.raises(ConfigError, match='other settings'):
        ablation.ablate(grid, tmp_path / 'runs', tmp_path / 'rows.json')


def test_merging_goes_into_mappings_only():
    base = {'a': {'b': 1, 'c': [1, 2]}, 'd': 4}
    assert ablation.merge(base, {'a': {'c': [3]}, 'd': {'e': 5}}) == {
        'a': {'b': 1, 'c': [3]}, 'd': {'e': 5}}
    assert base == {'a': {'b': 1, 'c': [1, 2]}, 'd': 4}


def test_last_validation_is_averaged_over_frames(tmp_path):
    rows = [{'step': 1, 'validation': 'a', 'frames': 1, 'abs_rel': 9.0},
            {'step': 2, 'loss': 1.0},
            {'step': 2, 'validation': 'a', 'frames': 1, 'abs_rel': 1.0, 'photometric': 0.5},
            {'step': 2, 'validation': 'b', 'frames': 3, 'abs_rel': 2.0,
             'photometric': float('nan')}]
    metrics = tmp_path / 'metrics.jsonl'
    metrics.write_text('\n'.join(json.dumps(row) for row in rows))
    assert ablation.last_figures(metrics) == {'abs_rel': 1.75, 'photometric': 0.5}


@pytest.mark.parametrize(('variants', 'message'), [
    ({'full': {}, 'x': {'third': {}}}, 'third'),
    ({'full': {}, 'x': {'first': 'absent'}}, 'absent'),
    ({'full': {'first': None}, 'x': {'first': 'full'}}, 'no such stage'),
    ({'x': {'first': {'stepz': 1}}}, 'x, stage first.*stepz'),
])
def test_impossible_grids_are_refused(grid, tmp_path, variants, message):
    content = yaml.safe_load(grid.read_text())
    grid.write_text(yaml.safe_dump({**content, 'variants': variants}))
    with pytest.raises(ConfigError, match=message):
        ablation.ablate(grid, tmp_path / 'runs', tmp_path / 'rows.json')
    assert not (tmp_path / 'runs').exists()


def test_grid_without_variants_is_refused(tmp_path):
    path = tmp_path / 'grid.yaml'
    path.write_text('stages: {}\n')
    with pytest.raises(ConfigError, match='variants'):
        ablation.read_grid(path)


def test_shipped_grid_is_sound():
    stages, variants = ablation.read_grid(ROOT / 'config' / 'training' / 'ablation_small.yaml')
    assert {'full', 'no_clip', 'no_dino', 'no_language', 'no_pose'} <= set(variants)
    resolved = {name: ablation.resolve(name, stages, variants) for name in variants}
    assert len({config.seed for own in resolved.values() for _, config in own.values()}) == 1
    assert 'coarse' not in resolved['no_language']
