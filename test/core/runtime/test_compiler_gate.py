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
"""NVIDIA's own parser and compiler take what is shipped, in half precision, without a GPU."""
from __future__ import annotations

import json
from pathlib import Path
import subprocess
import sys

import onnx
from onnx import helper
import pytest
from tiny_model import POSED, save_model, tiny_graph, tiny_spec

from hybrid_depth.contract import read_spec
from hybrid_depth.errors import BackendUnavailable, ContractError
from hybrid_depth.models import find_model, shipped_models
from hybrid_depth.runtime.precision import FP16_SHARE
from hybrid_depth_training.deploy import compiler_gate
from hybrid_depth_training.deploy.compiler_gate import compiled

SIZE = (32, 48)
SPEC = tiny_spec()
needs_compiler = pytest.mark.skipif(bool(compiler_gate.unavailable()),
                                    reason=compiler_gate.unavailable())


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize('name', shipped_models())
@pytest.mark.parametrize('precision', ['fp16', 'fp16_safe'])
def test_what_is_shipped_compiles_in_half_precision(name: str, precision: str) -> None:
    path = find_model(name)
    spec = read_spec(path)
    made = compiled(path, spec.network_size(1242, 375), precision)
    assert made.engine_bytes > 1e6
    assert made.matrix_layers > 50
    assert 0 < made.half_share <= 1
    if precision == 'fp16':
        assert made.half_share >= FP16_SHARE


@needs_compiler
def test_the_tiny_models_compile(tiny_model: Path, tiny_posed_model: Path) -> None:
    for path in (tiny_model, tiny_posed_model):
        made = compiled(path, SIZE, 'fp32')
        assert made.matrix_layers == 0
        assert not any('HALF' in name for name in made.layers)
        assert made.layers
        assert any('HALF' in name for name in compiled(path, SIZE).layers)


@needs_compiler
def test_what_the_compiler_refuses_is_said_with_the_operator(tmp_path: Path) -> None:
    graph = tiny_graph()
    graph.node.append(helper.make_node('Det', ['K'], ['determinant'], name='unheard_of'))
    save_model(tmp_path / 'm.onnx', graph, SPEC)
    with pytest.raises(ContractError, match=r'refuses.*unheard_of'):
        compiled(tmp_path / 'm.onnx', SIZE, 'fp32')


def answer(code: str):
    """Return a stand-in for subprocess.run whose process runs ``code``."""
    run = subprocess.run
    return lambda command, **options: run([sys.executable, '-c', code], **options)


@pytest.mark.parametrize(('code', 'match'), [
    ('import os, signal; os.kill(os.getpid(), signal.SIGSEGV)', 'crashed.*SIGSEGV'),
    ('import time; time.sleep(60)', 'did not finish'),
    ('import sys; sys.exit("node 7 is bad")', 'refuses.*node 7 is bad'),
])
def test_a_compiler_that_crashes_or_hangs_is_an_error(tiny_model: Path, code: str, match: str,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler_gate, 'unavailable', lambda: '')
    monkeypatch.setattr(subprocess, 'run', answer(code))
    with pytest.raises(ContractError, match=match):
        compiled(tiny_model, SIZE, timeout_s=2.0)


def test_the_answer_of_the_other_process_is_read(tiny_model: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {'layers': {'CONVOLUTION HALF': 3}, 'matrix_layers': 3, 'half_share': 1.0,
              'engine_bytes': 9, 'parse_s': 0.1, 'compile_s': 0.2}
    monkeypatch.setattr(compiler_gate, 'unavailable', lambda: '')
    monkeypatch.setattr(subprocess, 'run',
                        answer(f'print("noise"); print({json.dumps(fields)!r})'))
    assert compiled(tiny_model, SIZE) == compiler_gate.Compiled(**fields)


def test_without_the_wheels_it_says_how_to_get_them(tiny_model: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler_gate, 'find_spec', lambda name: None)
    with pytest.raises(BackendUnavailable, match='make compiler-gate'):
        compiled(tiny_model, SIZE)


def test_sizes_are_fixed_by_name(tiny_posed_model: Path) -> None:
    from hybrid_depth.runtime.ort import lengths
    model = onnx.load(tiny_posed_model)
    compiler_gate._fix_sizes(model, lengths(tiny_spec(**POSED), SIZE))
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
              for value in (*model.graph.input, *model.graph.output)}
    spec = tiny_spec(**POSED)
    assert shapes == {name: list(shape) for name, (_, shape)
                      in (spec.inputs(SIZE) | spec.outputs(SIZE)).items()}
