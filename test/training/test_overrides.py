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
"""Settings within settings on the command line change these alone, and with their type."""
from dataclasses import dataclass
from pathlib import Path

import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from hybrid_depth.errors import ConfigError  # noqa: E402
from hybrid_depth_training import __main__ as command  # noqa: E402
from hybrid_depth_training.objectives import read_options  # noqa: E402
from hybrid_depth_training.overrides import put_deep, take_deep  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


def test_settings_within_an_option_change_alone(monkeypatch, tmp_path):
    """The commands of config/training/clip_prior_nyu.yaml and hybrid_base.yaml."""
    seen = []
    monkeypatch.setitem(command.COMMANDS, 'train', lambda options: seen.append(options.run))
    recipe = ROOT / 'config' / 'training' / 'clip_prior_small.yaml'
    assert command.main([
        'train', '--run', str(recipe), '--run.options.clip_prior.trca', 'none',
        '--run.options.clip_prior.tbcp=false', '--run.options.clip_prior.max_depth_m', '2.5e1',
        '--run.options.cut_depth', '0.5', '--out', str(tmp_path)]) == 0
    options = seen[0].options
    network = options['clip_prior']
    assert (network['trca'], network['tbcp'], network['max_depth_m']) == ('none', False, 25.0)
    assert (network['backbone'], network['width']) == ('efficientnet_lite0', 16)  # as they were
    assert (options['cut_depth'], options['hold_encoder']) == (0.5, True)


def test_arguments_are_parted_and_put_in():
    rest, changes = take_deep(['train', '--run.options.a.b.c', '[1, 2]', '--run.options.x', '3',
                               '--run.options.hybrid.clip_weights=w=1.pt'])
    assert rest == ['train', '--run.options.x', '3']
    assert changes == {('a', 'b', 'c'): [1, 2], ('hybrid', 'clip_weights'): 'w=1.pt'}
    options = {'a': {'b': {'d': 1}}, 'x': 3}
    assert put_deep(options, changes) == {'a': {'b': {'c': [1, 2], 'd': 1}}, 'x': 3,
                                          'hybrid': {'clip_weights': 'w=1.pt'}}
    assert options == {'a': {'b': {'d': 1}}, 'x': 3}
    with pytest.raises(ConfigError, match='has no settings in it'):
        put_deep({'x': 3}, {('x', 'y'): 1})
    for arguments in (['--run.options.a.b'], ['--run.options.a.b', '--out']):
        with pytest.raises(ConfigError, match='has no value'):
            take_deep(arguments)


def test_error_in_an_argument_is_one_line(capsys):
    assert command.main(['train', '--run.options.a.b']) == 2
    assert capsys.readouterr().err.startswith('error: --run.options.a.b has no value')


def test_text_is_no_truth_value():
    @dataclass(frozen=True)
    class Settings:
        tbcp: 'bool' = True
        name: 'str' = ''
    assert read_options(Settings, {'tbcp': False}) == Settings(False)
    for value in ('false', 0):
        with pytest.raises(ConfigError, match=r'tbcp is .*expected true or false'):
            read_options(Settings, {'tbcp': value})
