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
"""Graphs that some runtime cannot take are found before a robot finds them."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
import pytest
from tiny_model import POSED, save_model, tiny_graph, tiny_spec

from hybrid_depth.__main__ import main
from hybrid_depth.contract import METADATA_KEY, read_spec
from hybrid_depth.errors import ContractError
from hybrid_depth.models import find_model, shipped_models
from hybrid_depth.runtime.graph_lint import check, lint

SIZE = (32, 48)
SPEC = tiny_spec()


def with_nodes(path: Path, *nodes: onnx.NodeProto, opset: int = 17,
               **weights: np.ndarray) -> Path:
    """Write the tiny model with ``nodes`` more at its end."""
    graph = tiny_graph()
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(value, name)
                             for name, value in weights.items())
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', opset)], ir_version=8)
    helper.set_model_props(model, {METADATA_KEY: SPEC.to_json()})
    onnx.save(model, str(path))
    return path


def test_the_tiny_models_are_fine(tiny_model: Path, tiny_posed_model: Path) -> None:
    for path, spec in ((tiny_model, SPEC), (tiny_posed_model, tiny_spec(**POSED))):
        found = check(path, spec, SIZE)
        assert (found.findings, found.opset) == ((), 17)
        assert found.operators['Mul'] > 2
        assert 'none is amiss' in found.text()


@pytest.mark.parametrize(('nodes', 'weights', 'match'), [
    ([helper.make_node('NonZero', ['depth'], ['x'])], {}, 'NonZero.*depends on the data'),
    ([helper.make_node('ScatterND', ['depth', 'i', 'u'], ['x'])],
     {'i': np.zeros((1, 4), np.int64), 'u': np.zeros(1, np.float32)}, 'ScatterND.*order'),
    ([helper.make_node('Hardmax', ['depth'], ['x'])], {}, 'Hardmax.*not on the list'),
    ([helper.make_node('Relu', ['depth'], ['x'], domain='mine')], {}, "domain 'mine'.*Relu"),
    ([helper.make_node('Transpose', ['image'], ['x'], perm=[0, 3, 1, 2])], {},
     'Transpose.*bytes.*Cast'),
])
def test_what_some_runtime_cannot_take_is_named(tmp_path: Path, nodes: list, weights: dict,
                                                match: str) -> None:
    graph = tiny_graph()
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(value, name)
                             for name, value in weights.items())
    model = helper.make_model(graph, opset_imports=[
        helper.make_opsetid('', 17), helper.make_opsetid('mine', 1)], ir_version=8)
    helper.set_model_props(model, {METADATA_KEY: SPEC.to_json()})
    path = tmp_path / 'm.onnx'
    onnx.save(model, str(path))
    (finding,) = lint(path, SPEC, SIZE).findings
    with pytest.raises(ContractError, match=match):
        check(path, SPEC, SIZE)
    assert finding in lint(path, SPEC, SIZE).text()


def test_antialias_and_a_newer_opset(tmp_path: Path) -> None:
    resize = helper.make_node('Resize', ['depth', '', 'scales'], ['x'], mode='linear', antialias=1)
    scales = np.array([1, 1, 0.5, 0.5], np.float32)
    path = with_nodes(tmp_path / 'a.onnx', resize, opset=18, scales=scales)
    assert any('antialias' in text for text in lint(path, SPEC, SIZE).findings)
    path = with_nodes(tmp_path / 'b.onnx', opset=19)
    assert any('opset 19' in text for text in lint(path, SPEC, SIZE).findings)


def test_a_shape_that_depends_on_values_is_found(tmp_path: Path) -> None:
    """The length of a Range that ends at the focal length is known only when K is."""
    nodes = [helper.make_node('Squeeze', ['fx'], ['end']),
             helper.make_node('Range', ['zero', 'end', 'step'], ['x'])]
    path = with_nodes(tmp_path / 'm.onnx', *nodes, zero=np.array(0, np.float32),
                      step=np.array(1, np.float32))
    (finding,) = lint(path, SPEC, SIZE).findings
    assert 'x of Range' in finding
    # the same from the size of the image is known beforehand
    nodes = [helper.make_node('Shape', ['image'], ['sizes']),
             helper.make_node('Gather', ['sizes', 'one'], ['end'], axis=0),
             helper.make_node('Range', ['zero', 'end', 'step'], ['x'])]
    path = with_nodes(tmp_path / 'n.onnx', *nodes, zero=np.array(0), one=np.array(1),
                      step=np.array(1))
    assert lint(path, SPEC, SIZE).findings == ()


def test_a_file_that_is_no_graph(tmp_path: Path) -> None:
    (tmp_path / 'm.onnx').write_bytes(b'\x08\x08\xff')
    with pytest.raises(ContractError, match=r'm\.onnx'):
        lint(tmp_path / 'm.onnx', SPEC, SIZE)


def test_inspect_shows_it(tmp_path: Path, tiny_model: Path,
                          capsys: pytest.CaptureFixture) -> None:
    assert main(['inspect', str(tiny_model)]) == 0
    assert 'none is amiss' in capsys.readouterr().out
    assert main(['inspect', str(tiny_model), '--json']) == 0
    assert json.loads(capsys.readouterr().out)['graph']['findings'] == []
    path = with_nodes(tmp_path / 'm.onnx', helper.make_node('NonZero', ['depth'], ['x']))
    assert main(['inspect', str(path)]) == 0
    assert 'NonZero' in capsys.readouterr().out


@pytest.mark.parametrize('name', shipped_models())
def test_what_is_shipped_is_fit_for_every_runtime(name: str) -> None:
    path = find_model(name)
    spec = read_spec(path)
    check(path, spec, spec.network_size(1280, 720))


def test_a_graph_of_fixed_size_can_be_checked(tmp_path: Path) -> None:
    save_model(tmp_path / 'm.onnx', tiny_graph(size=SIZE), SPEC)
    assert lint(tmp_path / 'm.onnx', SPEC, SIZE).findings == ()
