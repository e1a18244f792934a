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
"""What describe prints: the paper's figures for the paper's network, and sums that add up."""
import json
from pathlib import Path

import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from hybrid_depth.errors import ConfigError  # noqa: E402
from hybrid_depth_training.__main__ import main  # noqa: E402
from hybrid_depth_training.evaluation.describe import describe_file  # noqa: E402

RECIPES = Path(__file__).resolve().parents[3] / 'config' / 'training'


def test_hybrid_base_has_the_size_and_cost_of_the_paper(capsys):
    assert main(['describe', str(RECIPES / 'hybrid_base.yaml')]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found['height'], found['width']) == (224, 672)
    assert found['parameters_m'] == pytest.approx(141.5, abs=0.5)
    assert found['gmac'] == pytest.approx(178, abs=0.5)
    rows = {row['module']: row for row in found['modules']}
    for module, millions, gmac in (('dino', 86.6, 77), ('clip', 23.5, 16),
                                   ('aggregation', 0.9, 0.7), ('decoder', 30.5, 84)):
        assert rows[module]['parameters_m'] == pytest.approx(millions, abs=0.1)
        assert rows[module]['gmac'] == pytest.approx(gmac, rel=0.02)
    # attention: two products of 769 x 769 x 768 in each of 12 blocks are 10.9 of DINO's
    linear = 12 * 769 * 12 * 768**2 + 768 * 3 * 14**2 * 768
    assert rows['dino']['gmac'] == pytest.approx((linear + 24 * 769**2 * 768) / 1e9, abs=0.01)
    # comparing 768 cells with 256 words of 1024 numbers, at four levels
    assert rows['(itself)']['gmac'] == pytest.approx(4 * 768 * 256 * 1024 / 1e9, abs=0.001)
    training = {row['module']: row for row in found['training_only']}
    assert training['text']['parameters_m'] == pytest.approx(63.7, abs=0.1)


def test_rows_add_up():
    found = describe_file(RECIPES / 'compact.yaml')
    assert sum(row['gmac'] for row in found['modules']) == pytest.approx(found['gmac'], abs=0.02)
    assert sum(row['parameters_m'] for row in found['modules']) == pytest.approx(
        found['parameters_m'], abs=0.02)


@pytest.mark.parametrize('recipe', ['coarse_small.yaml', 'monodepth2_resnet18.yaml'])
def test_other_objectives_are_described_too(recipe):
    assert describe_file(RECIPES / recipe)['gmac'] > 0


def test_file_that_is_no_recipe_is_refused(tmp_path, capsys):
    with pytest.raises(ConfigError, match='cannot be read'):
        describe_file(tmp_path / 'nowhere.yaml')
    (tmp_path / 'other.yaml').write_text('encoder: resnet18\n')
    assert main(['describe', str(tmp_path / 'other.yaml')]) == 2
    assert 'configuration of a training run' in capsys.readouterr().err
