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
"""What is handed to the builder: one network size, everything of known shape."""
from __future__ import annotations

from pathlib import Path

from fake_cuda import FakeCuda, install
from fake_tensorrt import FakeTensorRT
import onnx
import pytest
from tiny_model import POSED, save_model, tiny_graph, tiny_posed_graph, tiny_spec

from hybrid_depth.errors import BackendUnavailable, ContractError
from hybrid_depth.runtime import BackendOptions, builds_engines, load_backend, trt
from hybrid_depth.runtime.engine_cache import EngineCache
from hybrid_depth.runtime.trt.build import with_static_shapes

SIZE = (32, 48)
SPEC, POSED_SPEC = tiny_spec(), tiny_spec(**POSED)


def shapes(graph: onnx.GraphProto) -> dict[str, list]:
    return {value.name: [dim.dim_value if dim.HasField('dim_value') else dim.dim_param
                         for dim in value.type.tensor_type.shape.dim]
            for value in (*graph.input, *graph.output, *graph.value_info)}


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    cuda = install(monkeypatch, FakeCuda())
    return FakeTensorRT('10.16.1.11', cuda).install(monkeypatch)


def test_every_tensor_gets_its_shape(tiny_posed_model: Path) -> None:
    model = onnx.load(tiny_posed_model)
    before = model.SerializeToString()
    found = shapes(with_static_shapes(model, POSED_SPEC, SIZE).graph)
    assert found['image'] == [1, 32, 48, 3]
    assert found['source_features'] == [1, 2, 2, 8, 12]
    assert found['depth'] == [1, 1, 32, 48]
    assert found['grey_small'] == [1, 1, 8, 12]  # within
    assert all(isinstance(length, int) and length > 0
               for name, shape in found.items() if name != 'no_roi' for length in shape)
    assert model.SerializeToString() == before


@pytest.mark.parametrize(('graph', 'spec', 'match'), [
    (tiny_graph(size=(64, 64)), SPEC, r"'image' of tiny is fixed to \[1, 64, 64, 3\]"),
    (tiny_graph(depth_name='disparity'), SPEC, 'disparity'),
    (tiny_graph(squeeze=True), SPEC, "output 'depth' of tiny is fixed to"),
    (tiny_graph(), POSED_SPEC, 'contract says'),
    (tiny_posed_graph(), tiny_spec(**{**POSED, 'sources': 3}), "'source_features'.*fixed"),
    (tiny_posed_graph(), tiny_spec(**{**POSED, 'feature_stride': 8}), 'does not fit network size'),
])
def test_a_graph_that_breaks_the_contract(tmp_path: Path, graph: onnx.GraphProto, spec: object,
                                          match: str) -> None:
    save_model(tmp_path / 'm.onnx', graph, None)
    with pytest.raises(ContractError, match=match):
        with_static_shapes(onnx.load(tmp_path / 'm.onnx'), spec, SIZE)  # type: ignore[arg-type]


@pytest.mark.parametrize('content', [b'not a model', None])
def test_a_file_that_cannot_be_loaded(tensorrt: FakeTensorRT, tmp_path: Path,
                                      content: bytes | None) -> None:
    if content is not None:
        (tmp_path / 'm.onnx').write_bytes(content)
    with pytest.raises(ContractError, match=r'm\.onnx cannot be loaded'):
        trt.build_engine(tmp_path / 'm.onnx', SPEC, SIZE, BackendOptions())


@pytest.mark.parametrize('precision', ['int8_mix', 'bf16'])
def test_a_precision_that_gpus_have_no_use_for(tensorrt: FakeTensorRT, tiny_model: Path,
                                               precision: str) -> None:
    with pytest.raises(BackendUnavailable, match='fp16'):
        trt.build_engine(tiny_model, SPEC, SIZE, BackendOptions(precision=precision))


def test_a_timing_cache_that_cannot_be_written_costs_nothing_else(
        tensorrt: FakeTensorRT, tiny_model: Path, tmp_path: Path,
        caplog: pytest.LogCaptureFixture) -> None:
    options = BackendOptions(precision='fp32', engine_cache=str(tmp_path))
    EngineCache(tmp_path).keep_times(trt.environment_facts(0), b'')
    (path,) = tmp_path.glob('timing-*.cache')
    path.unlink()
    path.mkdir()
    assert trt.build_engine(tiny_model, SPEC, SIZE, options)
    assert 'cannot be written' in caplog.text


def test_the_row_of_the_table(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    assert builds_engines(trt)
    monkeypatch.setitem(__import__('sys').modules, 'tensorrt', None)
    with pytest.raises(BackendUnavailable, match='trt: TensorRT is not installed'):
        load_backend('trt', tiny_model, SPEC, SIZE, BackendOptions())
