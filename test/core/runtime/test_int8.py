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
"""int8_mix: a file of its own, made by a command, never a surprise."""
from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import helper, numpy_helper, TensorProto
import pytest
from tiny_model import save_model, tiny_spec, write_tiny_model

from hybrid_depth.__main__ import main
from hybrid_depth.contract import read_spec
from hybrid_depth.errors import BackendUnavailable, ConfigError
from hybrid_depth.runtime import BackendOptions, load_backend, openvino
from hybrid_depth.runtime import quantise as module
from hybrid_depth.runtime.int8 import file_for, int8_path
from hybrid_depth.runtime.quantisable import candidates, gain_of, groups_of
from hybrid_depth.runtime.quantise import quantise

SPEC = tiny_spec(pixels=64 * 96)
SIZE = (64, 96)
CHANNELS = 32
INT8 = BackendOptions(cpu_threads=1, precision='int8_mix')


def network(scale: float = 1.0) -> onnx.GraphProto:
    """Build first, two middle layers, one multiplication by a matrix, depthwise and last."""
    rng = np.random.default_rng(0)

    def weight(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
    weights = {
        'w_first': weight(CHANNELS, 3, 3, 3) / 100, 'w_a': weight(CHANNELS, CHANNELS, 3, 3),
        'w_b': weight(CHANNELS, CHANNELS, 3, 3), 'w_each': weight(CHANNELS, 1, 3, 3),
        'w_last': weight(1, CHANNELS, 3, 3) * scale, 'w_matrix': weight(96, 96),
        'tenth': np.array(0.1, np.float32)}
    same = {'pads': [1, 1, 1, 1], 'kernel_shape': [3, 3]}
    node = helper.make_node
    nodes = [
        node('Cast', ['image'], ['bytes'], to=TensorProto.FLOAT, name='cast'),
        node('Transpose', ['bytes'], ['x'], perm=[0, 3, 1, 2], name='transpose'),
        node('Conv', ['x', 'w_first'], ['c0'], name='first', **same),
        node('Relu', ['c0'], ['r0'], name='relu0'),
        node('Conv', ['r0', 'w_a'], ['c1'], name='a', **same),
        node('Relu', ['c1'], ['r1'], name='relu1'),
        node('MatMul', ['r1', 'w_matrix'], ['m'], name='matrix'),
        node('Conv', ['m', 'w_each'], ['d'], name='each', group=CHANNELS, **same),
        node('Conv', ['d', 'w_b'], ['c2'], name='b', **same),
        node('Relu', ['c2'], ['r2'], name='relu2'),
        node('Conv', ['r2', 'w_last'], ['log'], name='last', **same),
        node('Exp', ['log'], ['depth'], name='exp'),
        node('Mul', ['depth', 'tenth'], ['sigma'], name='sigma_of'),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 'height', 'width'])
              for name in ('depth', 'sigma')]
    return helper.make_graph(
        nodes, 'convolutions',
        [helper.make_tensor_value_info('image', TensorProto.UINT8, [1, 'height', 'width', 3]),
         helper.make_tensor_value_info('K', TensorProto.FLOAT, [1, 3, 3])], values,
        [numpy_helper.from_array(value, name) for name, value in weights.items()])


@pytest.fixture(scope='module')
def drive(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp('drive')
    (folder / 'images').mkdir()
    np.savetxt(folder / 'K.txt', [[80.0, 0, 48], [0, 80.0, 32], [0, 0, 1]])
    rng = np.random.default_rng(0)
    for index in range(13):
        blobs = cv2.resize(rng.integers(0, 255, (4, 6, 3), dtype=np.uint8), (96, 64))
        cv2.imwrite(str(folder / 'images' / f'{index:02d}.png'), blobs)
    return str(folder)


@pytest.fixture(scope='module')
def made(tmp_path_factory: pytest.TempPathFactory, drive: str):
    """Return a model and what quantising it gave."""
    path = tmp_path_factory.mktemp('model') / 'model.onnx'
    save_model(path, network(), SPEC)
    return path, quantise(path, drives=[drive], frames=2, limit=0.05)


def test_layers_that_may_be_quantised() -> None:
    """Not the first, not the last, not depthwise, nothing small."""
    model = helper.make_model(network())
    assert candidates(model) == ['a', 'matrix', 'b']


def test_layers_are_not_last_for_giving_a_shape() -> None:
    """The output depends on 'a' by its shape alone: still, 'c' is the last of that way."""
    graph = network()
    node = helper.make_node
    graph.node.extend([
        node('Conv', ['r1', 'w_c'], ['c3'], name='c', kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node('Shape', ['c3'], ['size'], name='shape'),
        node('Expand', ['depth', 'size'], ['expanded'], name='expand')])
    graph.initializer.append(numpy_helper.from_array(
        np.zeros((1, CHANNELS, 3, 3), np.float32), 'w_c'))
    graph.output.append(helper.make_tensor_value_info('expanded', TensorProto.FLOAT, None))
    assert candidates(helper.make_model(graph)) == ['a', 'matrix', 'b', 'c']


def test_layers_that_do_little_work_are_left_out(tmp_path: Path, drive: str) -> None:
    """A product of one row in 96 x 96, while the convolutions work on 64 x 96 places."""
    graph = network()
    graph.node.extend([
        helper.make_node('MatMul', ['row', 'w_matrix'], ['few'], name='few'),
        helper.make_node('MatMul', ['few', 'w_matrix'], ['fewer'], name='fewer'),
        helper.make_node('ReduceMean', ['fewer'], ['nothing'], keepdims=0, name='mean'),
        helper.make_node('Mul', ['depth', 'nothing'], ['other'], name='other_sigma')])
    graph.initializer.append(numpy_helper.from_array(np.zeros((1, 96), np.float32), 'row'))
    path = tmp_path / 'model.onnx'
    save_model(path, graph, SPEC)
    assert quantise(path, drives=[drive], frames=1, limit=0.05).candidates == 3


def test_the_file_lies_beside_the_model_and_computes_in_8_bits(made) -> None:
    path, found = made
    assert found.path == int8_path(path) == path.parent / 'model.int8.onnx'
    assert found.layers == found.candidates == 3
    assert 1e-5 < found.abs_rel < 0.05
    assert found.frames == 2
    model = onnx.load(found.path)
    counts = Counter(node.op_type for node in model.graph.node)
    assert counts['MatMulInteger'] == 1
    assert counts['MatMul'] == 0
    types = {weight.name: weight.data_type for weight in model.graph.initializer}
    assert [types[name] for name in ('a_int8_weight', 'b_int8_weight', 'matrix_int8_weight')] \
        == [TensorProto.INT8] * 3
    assert not {'w_a', 'w_b', 'w_matrix'} & set(types)
    assert types['w_first'] == types['w_last'] == types['w_each'] == TensorProto.FLOAT
    assert read_spec(found.path) == SPEC
    assert sorted(file.name for file in path.parent.iterdir()) == ['model.int8.onnx', 'model.onnx']


def test_it_is_loaded_for_int8_mix_and_near_fp32(made) -> None:
    path, _ = made
    image = cv2.resize(np.random.default_rng(5).integers(0, 255, (4, 6, 3), dtype=np.uint8),
                       (96, 64))
    feed = {'image': image[None], 'K': np.eye(3, dtype=np.float32)[None]}
    names = ['ort', *([] if openvino.available() else ['openvino'])]
    for name in names:
        exact = load_backend(name, path, SPEC, SIZE, BackendOptions(cpu_threads=1))
        quantised = load_backend(name, path, SPEC, SIZE, INT8)
        assert 'int8_mix' in quantised.description
        assert 'int8_mix' not in exact.description
        error = np.abs(quantised.infer(feed)['depth'] / exact.infer(feed)['depth'] - 1)
        assert 1e-5 < error.mean() < 0.05
    # the first of 'auto' that can: no runtime of a GPU
    assert load_backend('auto', path, SPEC, SIZE, INT8).name == 'ort'


def test_an_absent_file_names_the_command(tmp_path: Path) -> None:
    path = tmp_path / 'model.onnx'
    write_tiny_model(path)
    with pytest.raises(BackendUnavailable,
                       match=rf'absent; make it with: python -m hybrid_depth quantise {path}'):
        load_backend('ort', path, read_spec(path), SIZE, INT8)


def test_a_file_of_another_model_is_refused(made, tmp_path: Path) -> None:
    path = tmp_path / 'model.onnx'
    save_model(path, network(scale=0.9), SPEC)
    int8_path(path).write_bytes(made[1].path.read_bytes())
    with pytest.raises(BackendUnavailable, match='another file'):
        load_backend('ort', path, SPEC, SIZE, INT8)


def test_a_quantised_file_may_be_the_model_but_not_in_fp32(made) -> None:
    quantised = made[1].path
    for precision in ('auto', 'int8_mix'):
        assert file_for(quantised, precision) == quantised
    with pytest.raises(BackendUnavailable, match='quantised'):
        load_backend('ort', quantised, SPEC, SIZE, BackendOptions(precision='fp32'))


def test_layers_that_depth_does_not_bear_are_left_out(tmp_path: Path, drive: str) -> None:
    """The last layer multiplies all errors by 20: no 8 bits are good enough."""
    path = tmp_path / 'model.onnx'
    save_model(path, network(scale=20.0), SPEC)
    with pytest.raises(BackendUnavailable, match=r'no group of layers.*within 0\.1%'):
        quantise(path, drives=[drive], frames=1, limit=0.001)
    assert [file.name for file in tmp_path.iterdir()] == ['model.onnx']


def test_another_drive_judges_than_those_that_ranges_are_of(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, '_feeds', lambda path, spec, drive, count:
                        [f'{drive}{index}' for index in range(count)])
    assert module._frames_of(Path(), SPEC, ['a', 'b', 'c'], 2) == (
        ['a0', 'a1', 'b0', 'b1'], ['c0', 'c1'])  # type: ignore[comparison-overlap]
    assert module._frames_of(Path(), SPEC, ['a'], 2) == (
        ['a0', 'a1'], ['a2', 'a3'])  # type: ignore[comparison-overlap]


def test_a_fusion_that_changes_depth_is_not_taken(
        tmp_path: Path, drive: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: onnx.ModelProto) -> int:
        last, = (one for one in model.graph.initializer if one.name == 'w_last')
        last.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(last), 'w_last'))
        return 1
    path = tmp_path / 'model.onnx'
    save_model(path, network(), SPEC)
    monkeypatch.setattr(module, 'fuse_attention', wrong)
    assert quantise(path, drives=[drive], frames=1, limit=0.05).abs_rel < 0.05


def test_command(tmp_path: Path, drive: str, capsys: pytest.CaptureFixture) -> None:
    path, out = tmp_path / 'model.onnx', tmp_path / 'other.onnx'
    save_model(path, network(), SPEC)
    arguments = ['quantise', str(path), '--out', str(out), '--drives', drive, '--frames', '1']
    assert main([*arguments, '--limit', '0.05']) == 0
    assert 'other.onnx: 3 of 3 layers in 8 bits, depth' in capsys.readouterr().out
    assert file_for(out, 'int8_mix') == out
    assert main([*arguments, '--frames', '0']) == 2
    assert 'number of frames' in capsys.readouterr().err


def test_a_model_without_such_layers(tiny_model: Path, drive: str) -> None:
    with pytest.raises(BackendUnavailable, match='no layers that 8 bits are worth while for'):
        quantise(tiny_model, drives=[drive], frames=1)
    with pytest.raises(ConfigError, match='frames'):
        quantise(tiny_model, frames=0)


def test_groups_hold_one_kind_and_every_layer_once() -> None:
    kinds = {f'c{index}': 'Conv' for index in range(5)} | \
        {f'm{index}': 'MatMul' for index in range(16)}
    layers = ['c0', 'm0', 'c1', *list(kinds)[6:], 'c2', 'c3', 'c4']
    groups = groups_of(layers, kinds, {'c0': 'c2', 'c2': 'c3'})
    assert groups == [[f'm{index}' for index in range(start, start + 4)]
                      for start in (0, 4, 8, 12)] + [['c0', 'c2', 'c3'], ['c1'], ['c4']]
    assert groups_of(['c0', 'c1'], kinds, {}) == [['c0'], ['c1']]
    assert groups_of([], kinds, {}) == []


def test_what_8_bits_gain() -> None:
    """The same work on more values gains a convolution less, and at last nothing."""
    conv = helper.make_node('Conv', ['x', 'w'], ['y'])
    product = helper.make_node('MatMul', ['x', 'w'], ['y'])
    wide, narrow = np.zeros((1, 96, 10, 10)), np.zeros((1, 16, 60, 10))
    assert gain_of(conv, (96, 96, 1, 1), wide, wide) \
        == 96 * 96 * 100 - 70 * 2 * 9600 < 0 < gain_of(conv, (96, 96, 3, 3), wide, wide)
    assert gain_of(conv, (16, 16, 3, 3), narrow, narrow) < 16 * 16 * 9 * 600
    rows = np.zeros((1, 100, 96))
    assert gain_of(product, (96, 96), rows, rows) == 96 * 96 * 100 - 10 * 2 * 9600 > 0
