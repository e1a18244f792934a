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
"""The model card says what a model may be used for, what it does and how good it is."""
import json

import pytest

from hybrid_depth_training.deploy import card as card_module

ROW = {'drive': 'a street', 'frames': 7, 'abs_rel': 0.1234, 'rmse': 3.456, 'd1': 0.789,
       'within_1_sigma': 0.654}


def card(**changes):
    return {
        'name': 'net', 'kind': 'posed', 'file': 'model.onnx', 'sha256': 'f00d',
        'bytes': 12_340_000, 'licence': 'Apache-2.0',
        'trained_on': ['synthetic clips', 'drive of my own'], 'encoder': 'small (random)',
        'parameters_m': 4.2, 'steps': 900,
        'sigma_scale': {'single_frame': 1.7, 'posed': 1.2}, 'sigma_from': 'a far city',
        'parity': 2e-4, 'torch': '2.0', 'opset': 17, 'commands': ['make one', 'make two'],
        'held_out': [{'validation': 'a room', 'frames': 5, 'abs_rel': 0.111, 'd1': 0.222,
                      'within_1_sigma': 0.33}],
        'evaluations': [ROW], **changes}


def test_facts_are_on_the_card():
    text = card_module.render(card())
    for fact in ('# Model card: net', 'small (random), 4.2 M parameters, 900 steps',
                 '12.3 MB, opset 17', '`f00d`', 'torch 2.0', '2e-04', '| a room | 5 | 0.111 | ',
                 '| a street | 7 | 0.123 | 3.46 | 0.789 | 0.65 |',
                 '1.7 (single frame) and 1.2 (posed)', 'a far city', 'make one\nmake two'):
        assert fact in text, fact
    assert '- synthetic clips: ' in text
    assert '- drive of my own: described by whoever trained it' in text


def test_kinds_say_what_they_do():
    posed, single = (card_module.render(card(kind=kind)) for kind in ('posed', 'single_frame'))
    assert 'camera motion' in posed
    assert 'odometry does not enter it' in single
    assert 'odometry does not enter it' not in posed


def test_non_commercial_weights_say_so_first():
    text = card_module.render(card(licence=card_module.NON_COMMERCIAL))
    assert text.splitlines()[2].startswith('**Non-commercial use only**')
    assert 'Non-commercial' not in card_module.render(card(trained_on=[]))


@pytest.mark.parametrize(('entry', 'origin'), [
    ('drive 2011_09_26_drive_unknown_sync', 'KITTI raw'), ('kitti_odometry 01', 'KITTI odometry'),
    ('sevenscenes x', '7-Scenes'), ('drive hololens_rgbd', 'HoloLens'),
    ('synthetic_clips x', "this project's")])
def test_data_come_with_their_origin(entry, origin):
    (line,) = [line for line in card_module.render(card(trained_on=[entry])).splitlines()
               if line.startswith(f'- {entry}: ')]
    assert origin in line


def test_an_evaluation_takes_the_place_of_the_one_of_its_drive(tmp_path):
    card_module.write_card(tmp_path, card(evaluations=[ROW, {**ROW, 'drive': 'a room'}]))
    card_module.add_evaluation(tmp_path, {**ROW, 'abs_rel': 0.05})
    rows = json.loads((tmp_path / 'card.json').read_text())['evaluations']
    assert len(rows) == 2
    assert {row['drive']: row['abs_rel'] for row in rows} == {'a street': 0.05, 'a room': 0.1234}
    assert '| a street | 7 | 0.050 |' in (tmp_path / 'CARD.md').read_text()
    assert sorted(file.name for file in tmp_path.iterdir()) == ['CARD.md', 'card.json']


def test_validation_rows_are_the_last_of_their_step(tmp_path):
    rows = [{'step': 4, 'loss': 1.0}, {'step': 4, 'validation': 'a', 'd1': 0.1},
            {'step': 8, 'validation': 'a', 'd1': 0.2}, {'step': 8, 'validation': 'b', 'd1': 0.3},
            {'step': 8, 'validation': 'a', 'd1': 0.4}]  # went on from a checkpoint
    (tmp_path / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    found = card_module.validation_rows(tmp_path, 8)
    assert {row['validation']: row['d1'] for row in found} == {'a': 0.4, 'b': 0.3}
    assert card_module.validation_rows(tmp_path, 5) == []
