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
"""The command line without ROS, as a user types it."""
import json
from pathlib import Path

import cv2
import numpy as np
from planes import plane_depth
import pytest
from tiny_model import TINY_PROMPTS, write_tiny_clip_prior_model

from hybrid_depth.__main__ import main
from hybrid_depth.camera import CameraModel
from hybrid_depth.contract import read_spec

CAMERA = CameraModel(160, 96, 120.0, 120.0, 80.0, 40.0)


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    folder = tmp_path / 'drive'
    (folder / 'images').mkdir(parents=True)
    (folder / 'depth').mkdir()
    np.savetxt(folder / 'K.txt', CAMERA.K)
    (folder / 'depth_scale.txt').write_text('256\n')
    rng = np.random.default_rng(0)
    for name in ('a', 'b', 'c'):
        cv2.imwrite(str(folder / 'images' / f'{name}.png'),
                    rng.integers(0, 255, (96, 160, 3), dtype=np.uint8))
    depth = plane_depth(CAMERA, (0.0, 0.2, 1.0), 6.0)
    cv2.imwrite(str(folder / 'depth' / 'b.png'), np.round(depth * 256).astype(np.uint16))
    return folder


def infer(drive: Path, out: Path, model: Path, *more: str) -> int:
    return main(['infer', str(drive), '--out', str(out), '--model', str(model), *more])


def test_infer_writes_depth_sigma_preview_and_summary(drive, tiny_model, tmp_path, capsys):
    out = tmp_path / 'out'
    assert infer(drive, out, tiny_model) == 0
    for name in ('a', 'b', 'c'):
        depth = np.load(out / 'depth' / f'{name}.npy')
        sigma = np.load(out / 'sigma' / f'{name}.npy')
        assert depth.shape == sigma.shape == (96, 160)
        assert depth.dtype == sigma.dtype == np.float32
        assert np.isfinite(depth).any()
        assert cv2.imread(str(out / 'preview' / f'{name}.png')) is not None
    summary = json.loads((out / 'summary.json').read_text())
    assert summary['frames'] == summary['frames_processed'] == 3
    assert summary['drops'] == {}
    assert set(summary['latency_ms']) == {'p50', 'p95', 'p99'}
    assert set(summary['accuracy']['metric']) == {
        'abs_rel', 'sq_rel', 'rmse', 'rmse_log', 'd1', 'd2', 'd3'}
    assert summary['model'] == read_spec(tiny_model).name
    assert 'AbsRel' in capsys.readouterr().out
    assert list(out.rglob('*.part')) == []


def test_infer_accuracy_is_that_of_the_files_it_wrote(drive, tiny_model, tmp_path):
    from hybrid_depth.metrics import depth_metrics
    out = tmp_path / 'out'
    infer(drive, out, tiny_model)
    truth = cv2.imread(str(drive / 'depth' / 'b.png'), cv2.IMREAD_UNCHANGED) / np.float32(256)
    expected = depth_metrics(np.load(out / 'depth' / 'b.npy'), truth)
    summary = json.loads((out / 'summary.json').read_text())
    assert summary['accuracy']['metric']['abs_rel'] == pytest.approx(expected['abs_rel'])


def test_limit_and_network_resolution(drive, tiny_model, tmp_path):
    out = tmp_path / 'out'
    assert infer(drive, out, tiny_model, '--limit', '2', '--resolution', 'network') == 0
    files = sorted((out / 'depth').iterdir())
    assert [file.stem for file in files] == ['a', 'b']
    assert np.load(files[0]).shape != (96, 160)


def test_infer_is_told_of_the_scene(drive, tmp_path, capsys):
    model = tmp_path / 'model' / 'model.onnx'
    model.parent.mkdir()
    write_tiny_clip_prior_model(model)
    depths = []
    for prompt in ('', 'a street'):
        assert infer(drive, tmp_path / 'out', model, '--scene-prompt', prompt) == 0
        depths.append(np.load(tmp_path / 'out' / 'depth' / 'b.npy'))
    seen = np.isfinite(depths[1])
    np.testing.assert_allclose(depths[1][seen], TINY_PROMPTS['a street'] * depths[0][seen],
                               rtol=1e-5)
    assert infer(drive, tmp_path / 'out', model, '--scene-prompt', 'a cave') == 2
    assert 'hybrid_depth_training embed' in capsys.readouterr().err


def test_files_of_others_stay(drive, tiny_model, tmp_path):
    out = tmp_path / 'out'
    (out / 'depth').mkdir(parents=True)
    (out / 'depth' / 'mine.npy').write_bytes(b'keep')
    assert infer(drive, out, tiny_model) == 0
    assert (out / 'depth' / 'mine.npy').read_bytes() == b'keep'


@pytest.mark.parametrize(('change', 'message'), [
    (lambda arguments, drive: ['infer', str(drive / 'nowhere'), *arguments[2:]], 'no drive'),
    (lambda arguments, drive: [*arguments, '--model', 'no_such_model'], 'no model'),
    (lambda arguments, drive: [*arguments, '--backend', 'abacus'], 'no runtime'),
    (lambda arguments, drive: [*arguments, '--precision', 'int8_mix'], 'quantise'),
    (lambda arguments, drive: [*arguments, '--limit', '-1'], '--limit'),
    (lambda arguments, drive: [*arguments, '--threads', '0'], 'cpu_threads'),
    (lambda arguments, drive: [*arguments, '--out', str(drive / 'images')], 'inside the drive'),
    (lambda arguments, drive: [*arguments, '--out', str(drive / 'K.txt' / 'x')], ''),
])
def test_what_cannot_be_done_is_one_line_and_status_2(drive, tiny_model, tmp_path, capsys, change,
                                                      message):
    arguments = ['infer', str(drive), '--out', str(tmp_path / 'out'), '--model', str(tiny_model)]
    before = sorted(drive.rglob('*'))
    assert main(change(arguments, drive)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    errors = [line for line in lines if line.startswith('error: ')]
    assert len(errors) == 1
    assert message in errors[0]
    assert sorted(drive.rglob('*')) == before


def test_inspect_prints_the_contract(tiny_model, capsys):
    assert main(['inspect', str(tiny_model)]) == 0
    text = capsys.readouterr().out
    spec = read_spec(tiny_model)
    for word in (spec.name, spec.licence, 'float32 metres', 'uint8 RGB'):
        assert word in text
    assert main(['inspect', str(tiny_model), '--json']) == 0
    fields = json.loads(capsys.readouterr().out)
    assert fields['max_depth_m'] == spec.max_depth_m
    assert fields['card'] is None


def test_inspect_of_a_file_that_is_no_model(tmp_path, capsys):
    path = tmp_path / 'x.onnx'
    path.write_bytes(b'not a model')
    assert main(['inspect', str(path)]) == 2
    assert str(path) in capsys.readouterr().err
