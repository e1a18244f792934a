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
"""The peak of the machine: what is tried, how, and which of it counts."""
from __future__ import annotations

from pathlib import Path
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import onnx
from onnx import TensorProto
import pytest
from tiny_model import write_tiny_model

from hybrid_depth.errors import HybridDepthError
from hybrid_depth_ros.bench import peak


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / 'tiny.onnx'
    write_tiny_model(path)
    return path


def test_the_peak_is_the_best_of_what_was_measured() -> None:
    assert peak.peak({'numpy': 240.0, 'onnxruntime': 470.0}) == (
        470.0, {'numpy': 240.0, 'onnxruntime': 470.0, 'best': 'onnxruntime'})
    assert peak.peak({'numpy': 440.0, 'onnxruntime': 200.0},
                     {'numpy': 300.0, 'onnxruntime': 430.0}) == (
        440.0, {'numpy': 440.0, 'onnxruntime': 430.0, 'best': 'numpy'})


def test_the_product_of_onnx_runtime_is_one_node() -> None:
    model = onnx.load_from_string(peak.MATMUL)
    onnx.checker.check_model(model, full_check=True)
    (node,) = model.graph.node
    assert (node.op_type, list(node.input), list(node.output)) == ('MatMul', ['a', 'b'], ['y'])
    for value in (*model.graph.input, *model.graph.output):
        tensor = value.type.tensor_type
        assert tensor.elem_type == TensorProto.FLOAT
        assert [axis.dim_value for axis in tensor.shape.dim] == [peak.LENGTH] * 2


def test_products_have_the_threads_of_the_sessions_and_the_best_kernels(
        model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('OPENBLAS_CORETYPE', 'Prescott')
    monkeypatch.setenv('OPENBLAS_NUM_THREADS', '7')
    seen: dict[str, Any] = {}

    def run(words: list[str], env: dict[str, str], **_: Any) -> SimpleNamespace:
        seen.update(words=words, env=env)
        return SimpleNamespace(returncode=0, stdout='{"numpy": 1, "onnxruntime": 2.5}')
    monkeypatch.setattr(subprocess, 'run', run)
    assert peak.gemm_gflops(model, 3, 0.1) == {'numpy': 1.0, 'onnxruntime': 2.5}
    assert seen['words'] == [sys.executable, '-m', 'hybrid_depth_ros.bench.peak', str(model), '3',
                             '0.1']
    assert 'OPENBLAS_CORETYPE' not in seen['env']
    assert seen['env']['OPENBLAS_NUM_THREADS'] == seen['env']['OMP_NUM_THREADS'] == '3'


def test_products_that_cannot_be_timed_say_why(tmp_path: Path) -> None:
    with pytest.raises(HybridDepthError, match=r'could not be timed: .*there is no model file'):
        peak.gemm_gflops(tmp_path / 'absent.onnx', 1, 0.0)


def test_both_products_are_timed(model: Path) -> None:
    found = peak.gemm_gflops(model, 1, 0.02)
    assert set(found) == {'numpy', 'onnxruntime'}
    assert min(found.values()) > 0.1
