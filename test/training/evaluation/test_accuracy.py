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
"""The one command that measures, and the table that it left in docs/accuracy.md."""
import json
from pathlib import Path
import re

import numpy as np
import pytest
import yaml

from hybrid_depth.errors import DriveError
from hybrid_depth.models import shipped_models
from hybrid_depth_training.evaluation.accuracy import accuracy
from hybrid_depth_training.evaluation.accuracy_text import markdown
from hybrid_depth_training.evaluation.predictors import model_entries

ROOT = Path(__file__).resolve().parents[3]
DRIVE_0013 = '2011_09_26_drive_0013_sync'


def tables(text):
    """Return {(drive, method): cells of the main table}, all as text."""
    rows = {}
    for section in re.split(r'^## ', text, flags=re.MULTILINE)[1:]:
        name = section.splitlines()[0]
        for line in section.splitlines():
            cells = [cell.strip() for cell in line.strip('|').split('|')]
            if len(cells) == 14 and cells[1][:1].isdigit():
                rows[name, cells[0]] = cells
    return rows


def test_what_is_absent_is_said_and_nothing_is_overwritten(tiny_drive, tiny_model, tmp_path,
                                                           capsys):
    table = tmp_path / 'a.md'
    table.write_text('as it was')
    rows = accuracy(str(tmp_path / 'nowhere'), str(tiny_drive), [str(tiny_model)], None,
                    tmp_path / 'a.json', table)
    assert f'absent: {tmp_path / "nowhere"}' in capsys.readouterr().out
    assert [row['name'] for row in rows] == ['tiny']
    assert rows[0]['frames'] == 1  # the last tenth of six, rounded
    assert json.loads((tmp_path / 'a.json').read_text()) == rows
    assert table.read_text() == 'as it was'


def test_without_any_drive_the_remedy_is_named(tmp_path):
    with pytest.raises(DriveError, match='ACCURACY_STREET'):
        accuracy(str(tmp_path / 'a'), str(tmp_path / 'b'))


def test_both_drives_make_the_whole_text(tiny_drive, tiny_model, tmp_path, capsys):
    config = tmp_path / 'prior.yaml'
    config.write_text(yaml.safe_dump({'sources': [
        {'dataset': 'drive', 'path': str(tiny_drive), 'group': group}
        for group in ('street', 'room')]}))
    rows = accuracy(str(tiny_drive), str(tiny_drive), [str(tiny_model)], config,
                    tmp_path / 'a.json', tmp_path / 'a.md')
    names = [row['name'] for row in rows]
    assert names == ['flat ground (1.65 m)', 'position only', 'tiny', 'position only', 'tiny']
    assert markdown(json.loads((tmp_path / 'a.json').read_text())) == (
        tmp_path / 'a.md').read_text()
    assert {'name', 'drive', 'frames', 'abs_rel', 'sq_rel', 'rmse', 'rmse_log', 'd1', 'd2', 'd3',
            'scale_median', 'scale_std', 'coverage_1sigma', 'coverage', 'seconds_per_frame',
            'temporal_flicker', 'bins', 'by_motion', 'by_epipole', 'focal'} <= set(rows[2])


def test_committed_table_has_every_row_of_every_shipped_model():
    rows = tables((ROOT / 'docs' / 'accuracy.md').read_text())
    expected = {'flat ground (1.65 m)', 'position only', 'plane sweep', 'plane sweep, where sure'}
    for name in shipped_models():
        expected |= {row for entry in model_entries(name) for row in entry.names}
    for drive in {name for name, _ in rows}:
        found = {method for name, method in rows if name == drive}
        assert expected - {'flat ground (1.65 m)'} <= found
    assert expected == {method for name, method in rows if name == DRIVE_0013}


def test_shipped_models_beat_what_needs_no_image_on_the_real_drive():
    rows = tables((ROOT / 'docs' / 'accuracy.md').read_text())
    on_drive = {method: float(cells[1]) for (name, method), cells in rows.items()
                if name == DRIVE_0013}
    bar = min(on_drive['flat ground (1.65 m)'], on_drive['position only'])
    for name in shipped_models():
        assert on_drive[name] < bar


def test_cards_say_what_the_table_says():
    rows = tables((ROOT / 'docs' / 'accuracy.md').read_text())
    for name in shipped_models():
        card = json.loads((ROOT / 'hybrid_depth' / 'models' / name / 'card.json').read_text())
        figures = {row['drive']: row for row in card['evaluations']}
        assert figures
        for drive, row in figures.items():
            cells = rows[drive, name]
            assert np.isclose(row['abs_rel'], float(cells[1]), atol=6e-4)
            assert np.isclose(row['d1'], float(cells[5]), atol=6e-4)
