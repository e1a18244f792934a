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
"""The command build-engine, as a user types it."""
from __future__ import annotations

import json
from pathlib import Path

from fake_engine import Workshop, write_golden
import pytest
from tiny_model import tiny_spec, write_tiny_model

from hybrid_depth.__main__ import main


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / 'model.onnx'
    write_tiny_model(path)
    write_golden(path, tiny_spec(), (96, 128))
    return path


def build_engine(shop: Workshop, *words: str) -> int:
    return main(['build-engine', *words, '--cache', str(shop.cache)])


def test_an_engine_is_built_listed_and_pruned(shop: Workshop, model: Path,
                                              capsys: pytest.CaptureFixture) -> None:
    assert build_engine(shop, str(model), '--size', '640x480') == 0
    assert capsys.readouterr().out == 'ready: fake engine 128x96\n'
    assert shop.builds == ['fp16']
    assert build_engine(shop, '--list') == 0
    listed = capsys.readouterr().out
    assert '1 entries' in listed
    assert 'fp16      128x96' in listed
    assert 'accepted (median 0.001' in listed
    assert build_engine(shop, '--list', '--json') == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row['facts']['size'] == [96, 128]
    assert row['report']['figures']['pearson'] == pytest.approx(1)
    assert build_engine(shop, '--older-than', '1') == 0
    assert build_engine(shop, '--prune', '1') == 0
    assert capsys.readouterr().out.startswith('0 removed from ')
    assert build_engine(shop, '--prune', '0', '--list') == 0
    removed = capsys.readouterr().out
    assert removed.startswith('1 removed from ')
    assert '0 entries' in removed


def test_what_was_refused_is_tried_again(shop: Workshop, model: Path,
                                         capsys: pytest.CaptureFixture) -> None:
    shop.manners(fp16='wrong')
    words = (str(model), '--size', '640x480', '--precision', 'fp16')
    assert build_engine(shop, *words) == 2
    assert 'fp16 refused: case 1 of 1: the error median of depth is 1.9' \
        in capsys.readouterr().err
    shop.manners()
    assert build_engine(shop, *words) == 0
    assert shop.builds == ['fp16', 'fp16']


@pytest.mark.parametrize(('words', 'reason'), [
    ((), '--size is missing'),
    (('--size', '640'), "the size '640' is none; expected WIDTHxHEIGHT"),
    (('--size', '0x480'), "the size '0x480'"),
    (('--prune', '-1'), '--prune and --older-than are limits: 0 or more'),
    (('--older-than', 'nan'), '--prune and --older-than are limits: 0 or more'),
    (('--size', '640x480', '--backend', 'ort'), 'ort: it builds no engines'),
    (('--size', '640x480', '--backend', 'abacus'), "no runtime 'abacus'"),
])
def test_what_cannot_be_done_is_said(shop: Workshop, model: Path, words: tuple[str, ...],
                                     reason: str, capsys: pytest.CaptureFixture) -> None:
    assert build_engine(shop, str(model), *words) == 2
    assert reason in capsys.readouterr().err
    assert shop.builds == []
