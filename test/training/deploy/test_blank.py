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
"""Graphs of recipes that nobody trained."""
from __future__ import annotations

from pathlib import Path
import sys

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
sys.path.insert(0, str(Path(__file__).parents[1]))
from short_encoders import take_short  # noqa: E402

from hybrid_depth.contract import read_spec  # noqa: E402
from hybrid_depth.runtime import BackendOptions  # noqa: E402
from hybrid_depth.runtime.ort import open_backend  # noqa: E402
from hybrid_depth_training.deploy import blank  # noqa: E402

RECIPES = Path(__file__).resolve().parents[3] / 'config' / 'training'


@pytest.mark.slow
def test_a_network_that_learns_disparity_runs_untrained(tmp_path: Path, capsys,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    take_short(monkeypatch)  # fewer blocks in its encoders
    recipe = tmp_path / 'recipe.yaml'
    text = (RECIPES / 'hybrid_base.yaml').read_text().replace('language: true', 'language: false')
    text = text.replace('height: 224, width: 672', 'height: 64, width: 96')
    recipe.write_text(text.replace('dinov2_vitb14', 'dinov2_vits14'))
    path = tmp_path / 'deep' / 'hybrid_base.onnx'
    assert blank.main([str(recipe), str(path)]) == 0
    assert capsys.readouterr().out.strip() == str(path)
    assert [found.name for found in path.parent.iterdir()] == [path.name]
    spec = read_spec(path)
    assert (spec.name, spec.kind, spec.trained_on) == ('hybrid_base', 'single_frame', ())
    assert spec.network_size(960, 640) == (64, 96)
    backend = open_backend(path, spec, (64, 96), BackendOptions(cpu_threads=2))
    depth = {}
    for focal in (50.0, 100.0):
        K = np.array([[[focal, 0, 48], [0, focal, 32], [0, 0, 1]]], np.float32)
        depth[focal] = backend.infer({'image': np.full((1, 64, 96, 3), 90, np.uint8),
                                      'K': K})['depth']
    assert depth[50.0].shape == (1, 1, 64, 96)
    np.testing.assert_allclose(depth[100.0], 2 * depth[50.0], rtol=1e-4)


def test_networks_that_need_more_than_an_image_are_for_export(tmp_path: Path, capsys) -> None:
    assert blank.main([str(RECIPES / 'compact.yaml'), str(tmp_path / 'x.onnx')]) == 2
    assert 'takes more than an image and its K; train it' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
