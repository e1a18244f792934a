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
"""OpenVINO gives what ONNX Runtime gives; what it cannot do it refuses."""
from __future__ import annotations

from pathlib import Path
import sys

import numpy as np
from onnx import TensorProto
import pytest
from tiny_model import POSED, save_model, tiny_depth, tiny_graph, tiny_posed_graph, tiny_spec

from hybrid_depth.contract import read_spec
from hybrid_depth.errors import BackendUnavailable, ContractError
from hybrid_depth.models import find_model
from hybrid_depth.runtime import BackendOptions, load_backend, openvino
from hybrid_depth.runtime.acceptance import accept
from hybrid_depth.runtime.reference import read_golden, Reference

SIZE = (32, 48)
SPEC, POSED_SPEC = tiny_spec(), tiny_spec(**POSED)
OPTIONS = BackendOptions(cpu_threads=1)
K = np.array([[[150, 0, 24], [0, 150, 16], [0, 0, 1]]], np.float32)
needs_openvino = pytest.mark.skipif(bool(openvino.available()), reason=openvino.available())


def test_a_missing_package_names_the_remedy(tiny_model: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'openvino', None)  # makes its import fail
    with pytest.raises(BackendUnavailable, match='pip install openvino'):
        load_backend('openvino', tiny_model, SPEC, SIZE, OPTIONS)
    with pytest.raises(BackendUnavailable, match='pip install openvino'):
        openvino.open_backend(tiny_model, SPEC, SIZE, OPTIONS)


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (1, *SIZE, 3), np.uint8)


@needs_openvino
def test_depth_is_the_models(tiny_model: Path) -> None:
    backend = load_backend('openvino', tiny_model, SPEC, SIZE, OPTIONS)
    assert '1 threads, 48x32' in backend.description
    for seed in range(2):
        image = picture(seed)[:, :, ::-1]  # strided, as a flipped camera's
        outputs = backend.infer({'image': image, 'K': K})
        np.testing.assert_allclose(outputs['depth'][0, 0], tiny_depth(image[0], 150.0), rtol=1e-5)
        assert outputs['depth'].dtype == np.float32
    with pytest.raises(ContractError, match="'image' is missing"):
        backend.infer({'K': K})
    backend.close()
    backend.close()
    with pytest.raises(BackendUnavailable, match='closed'):
        backend.infer({'image': picture(), 'K': K})


@needs_openvino
def test_features_outlive_later_calls(tiny_posed_model: Path) -> None:
    backends = [load_backend(name, tiny_posed_model, POSED_SPEC, SIZE, OPTIONS)
                for name in ('openvino', 'ort')]
    motions = np.tile(np.eye(4, dtype=np.float32), (1, 2, 1, 1))
    motions[0, :, 2, 3] = 0.5, -2.0
    handles: list[tuple] = [(None, None), (None, None)]
    for seed in range(5):
        valid = np.array([[handle is not None for handle in handles[0]]], np.float32)
        outputs = [backend.infer({'image': picture(seed), 'K': K, 'source_features': own,
                                  'source_T_target': motions, 'source_valid': valid})
                   for backend, own in zip(backends, handles, strict=True)]
        for name in set(outputs[1]) - {'features'}:
            np.testing.assert_allclose(outputs[0][name], outputs[1][name], rtol=1e-5, atol=1e-6)
        handles = [(own['features'], before[0])
                   for own, before in zip(outputs, handles, strict=True)]


@needs_openvino
def test_the_shipped_model_is_accepted_by_its_golden_outputs() -> None:
    path = find_model('compact')
    spec = read_spec(path)
    (case, *_) = read_golden(path.with_name('golden.npz'), spec)
    size = case.inputs['image'].shape[1:3]
    backend = load_backend('openvino', path, spec, size, OPTIONS)
    verdict = accept(backend, spec, Reference((case,), 'golden'), 'fp32')
    assert verdict.ok, verdict.text()


@needs_openvino
@pytest.mark.parametrize(('graph', 'match'), [
    (tiny_graph(depth_name='disparity'), 'outputs.*disparity'),
    (tiny_graph(image_type=TensorProto.FLOAT), 'inputs.*float32'),
    (tiny_graph(squeeze=True), 'gives'),
    (tiny_posed_graph(), 'inputs'),
])
def test_a_graph_that_breaks_the_contract(tmp_path: Path, graph, match: str) -> None:
    save_model(tmp_path / 'm.onnx', graph, SPEC)
    with pytest.raises(ContractError, match=match):
        load_backend('openvino', tmp_path / 'm.onnx', SPEC, SIZE, OPTIONS)


@needs_openvino
def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / 'm.onnx').write_bytes(b'\x08\x08\x3a\x02\x0a\x00')
    with pytest.raises(ContractError, match=r'm\.onnx'):
        load_backend('openvino', tmp_path / 'm.onnx', SPEC, SIZE, OPTIONS)
