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
from __future__ import annotations

from pathlib import Path
import subprocess
import sys
from typing import Any

import numpy as np
from onnx import TensorProto
import onnxruntime
import pytest
from tiny_model import (
    MATCH_WEIGHT,
    POSED,
    save_model,
    tiny_depth,
    tiny_graph,
    tiny_matched_depth,
    tiny_posed_depth,
    tiny_posed_graph,
    tiny_spec,
)

from hybrid_depth.contract import ModelSpec
from hybrid_depth.errors import BackendUnavailable, ContractError
from hybrid_depth.runtime import Backend, BackendOptions, BACKENDS, load_backend, ort, why_not

SIZE = (32, 48)
SPEC = tiny_spec()
POSED_SPEC = tiny_spec(**POSED)


def inputs(**changes: np.ndarray) -> dict[str, np.ndarray]:
    image = np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), np.uint8)
    K = np.array([[[150, 0, 24], [0, 150, 16], [0, 0, 1]]], np.float32)
    return {'image': image, 'K': K, **changes}


def open_or_skip(name: str, path: Path, spec: ModelSpec) -> Backend:
    options = BackendOptions(cpu_threads=1)
    reason = '' if name == 'auto' else why_not(name, options)
    if reason:
        pytest.skip(f'{name}: {reason}')
    return load_backend(name, path, spec, SIZE, options)


@pytest.fixture(params=[*BACKENDS, 'auto'])
def backend(request: pytest.FixtureRequest, tiny_model: Path):
    made = open_or_skip(request.param, tiny_model, SPEC)
    yield made
    made.close()


def test_threads_are_few_and_still_between_frames() -> None:
    options = ort.session_options(SPEC, SIZE, 3)
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)
    assert options.get_session_config_entry('session.intra_op.allow_spinning') == '0'


def test_every_runtime_gives_the_models_depth(backend: Backend) -> None:
    feed = inputs()
    outputs = backend.infer(feed)
    assert set(outputs) == {'depth', 'sigma'}
    assert outputs['depth'].shape == outputs['sigma'].shape == (1, 1, *SIZE)
    assert outputs['depth'].dtype == outputs['sigma'].dtype == np.float32
    np.testing.assert_allclose(outputs['depth'][0, 0], tiny_depth(feed['image'][0], 150.0),
                               rtol=1e-5)
    np.testing.assert_allclose(outputs['sigma'], 0.1 * outputs['depth'], rtol=1e-5)
    assert backend.name in BACKENDS
    assert '48x32' in backend.description


def test_a_strided_input_is_taken(backend: Backend) -> None:
    feed = inputs()
    flipped = feed['image'][:, :, ::-1]
    depth = backend.infer({**feed, 'image': flipped})['depth']
    np.testing.assert_allclose(depth[0, 0], tiny_depth(flipped[0], 150.0), rtol=1e-5)


@pytest.mark.parametrize(('changes', 'match'), [
    ({'image': np.zeros((1, 32, 64, 3), np.uint8)}, "'image'.*opened for"),
    ({'image': np.zeros((1, 3, *SIZE), np.uint8)}, "'image'"),
    ({'image': np.zeros((1, *SIZE, 3), np.float32)}, "'image'.*float32"),
    ({'K': np.eye(3, dtype=np.float32)}, "'K'"),
    ({'K': np.eye(3)[None]}, "'K'.*float64"),
])
def test_a_wrong_input_is_named(backend: Backend, changes: dict, match: str) -> None:
    with pytest.raises(ContractError, match=match):
        backend.infer(inputs(**changes))
    with pytest.raises(ContractError, match="'K' is missing"):
        backend.infer({'image': inputs()['image']})
    assert np.isfinite(backend.infer(inputs())['depth']).all()


@pytest.fixture(params=[*BACKENDS, 'auto'])
def posed(request: pytest.FixtureRequest, tiny_posed_model: Path):
    made = open_or_skip(request.param, tiny_posed_model, POSED_SPEC)
    yield made
    made.close()


def posed_inputs(handles: tuple = (None, None), valid: tuple = (0, 0), seed: int = 0,
                 **changes: np.ndarray) -> dict:
    motions = np.tile(np.eye(4, dtype=np.float32), (1, 2, 1, 1))
    motions[0, :, 2, 3] = 0.5, -2.0
    image = np.random.default_rng(seed).integers(0, 256, (1, *SIZE, 3), np.uint8)
    return {**inputs(image=image), 'source_features': handles, 'source_T_target': motions,
            'source_valid': np.array([valid], np.float32), **changes}


def small_grey(image: np.ndarray) -> np.ndarray:
    """Return the first channel of the tiny posed model's features."""
    grey = image.mean(axis=-1) / 255
    return grey.reshape(grey.shape[0] // 4, 4, grey.shape[1] // 4, 4).mean(axis=(1, 3))


def test_without_a_source_a_posed_model_sees_a_single_frame(posed: Backend) -> None:
    feed = posed_inputs()
    outputs = posed.infer(feed)
    assert set(outputs) == {'depth', 'sigma', 'features', 'single_depth', 'matched_depth',
                            'match_weight'}
    np.testing.assert_allclose(outputs['depth'][0, 0], tiny_depth(feed['image'][0], 150.0),
                               rtol=1e-5)
    assert outputs['single_depth'].shape == outputs['match_weight'].shape == (1, 1, 8, 12)
    assert (outputs['match_weight'] == 0).all()
    # what lies in the sources does not matter where they are not valid
    handle = posed.infer(posed_inputs(seed=1))['features']
    again = posed.infer(posed_inputs((handle, handle)))
    for name in ('depth', 'sigma', 'single_depth', 'matched_depth', 'match_weight'):
        np.testing.assert_array_equal(again[name], outputs[name])


@pytest.mark.parametrize(('valid', 'used'), [((1, 0), (0,)), ((0, 1), (1,)), ((1, 1), (0, 1))])
def test_features_of_earlier_frames_come_back_in_order(posed: Backend, valid: tuple,
                                                       used: tuple) -> None:
    greys, handles = [], []
    for seed in (1, 2):
        feed = posed_inputs(seed=seed)
        handles.append(posed.infer(feed)['features'])
        greys.append(small_grey(feed['image'][0]))
    for _ in range(5):  # a handle outlives later calls
        posed.infer(posed_inputs(seed=9))
    feed = posed_inputs(tuple(handles), valid)
    outputs = posed.infer(feed)
    matched = tiny_matched_depth([(greys[i], (0.5, -2.0)[i]) for i in used])
    np.testing.assert_allclose(outputs['matched_depth'][0, 0], matched, rtol=1e-5)
    np.testing.assert_allclose(
        outputs['depth'][0, 0],
        tiny_posed_depth(tiny_depth(feed['image'][0], 150.0), matched), rtol=1e-5)
    np.testing.assert_allclose(outputs['match_weight'], MATCH_WEIGHT)


def test_sources_that_change_places_or_go_are_not_remembered(posed: Backend) -> None:
    first, second = (posed.infer(posed_inputs(seed=seed))['features'] for seed in (1, 2))

    def matched(*handles: object) -> np.ndarray:
        return posed.infer(posed_inputs(handles, (1, 1)))['matched_depth'].copy()
    before = matched(first, second)
    other = matched(second, first)
    nothing = matched(None, first)
    assert np.abs(other - matched(second, None)).max() > 0.1
    assert np.abs(nothing - other).max() > 0.1
    np.testing.assert_array_equal(matched(first, second), before)


@pytest.mark.parametrize(('changes', 'match'), [
    ({'source_features': (None,)}, 'there are 1 source_features; the model takes 2'),
    ({'source_features': (None, np.zeros((1, 2, 8, 8), np.float32))}, 'source_features 1 is not'),
    ({'source_features': (None, 'features')}, 'source_features 1 is not'),
    ({'source_valid': np.zeros(2, np.float32)}, "'source_valid'"),
    ({'source_T_target': np.zeros((1, 2, 4, 4))}, "'source_T_target'.*float64"),
])
def test_a_wrong_source_is_named(posed: Backend, changes: dict, match: str) -> None:
    with pytest.raises(ContractError, match=match):
        posed.infer(posed_inputs(**changes))
    missing = posed_inputs()
    del missing['source_features']
    with pytest.raises(ContractError, match="'source_features' is missing"):
        posed.infer(missing)
    assert np.isfinite(posed.infer(posed_inputs())['depth']).all()


@pytest.mark.parametrize(('changes', 'match'), [
    ({'sources': 3}, 'is fixed to source_features of'),
    ({'feature_channels': 5}, 'is fixed to source_features of'),
    ({'feature_stride': 8}, 'cannot load'),
])
def test_a_posed_graph_that_breaks_the_contract(tmp_path: Path, changes: dict,
                                                match: str) -> None:
    spec = tiny_spec(**{**POSED, **changes})
    save_model(tmp_path / 'm.onnx', tiny_posed_graph(), spec)
    with pytest.raises(ContractError, match=match):
        load_backend('ort', tmp_path / 'm.onnx', spec, SIZE, BackendOptions(cpu_threads=1))


def test_a_graph_of_the_other_kind_breaks_the_contract(tiny_model: Path,
                                                       tiny_posed_model: Path) -> None:
    for path, spec in ((tiny_model, POSED_SPEC), (tiny_posed_model, SPEC)):
        with pytest.raises(ContractError, match='inputs'):
            load_backend('ort', path, spec, SIZE, BackendOptions(cpu_threads=1))


def test_a_closed_runtime_says_so(tiny_model: Path) -> None:
    backend = load_backend('ort', tiny_model, SPEC, SIZE, BackendOptions(cpu_threads=1))
    backend.close()
    backend.close()
    with pytest.raises(BackendUnavailable, match='closed'):
        backend.infer(inputs())


@pytest.mark.parametrize(('graph', 'match'), [
    ({'depth_name': 'disparity'}, 'outputs.*disparity'),
    ({'squeeze': True}, 'outputs'),
    ({'image_type': TensorProto.FLOAT}, r'inputs.*tensor\(float\)'),
    ({'size': (64, 64)}, 'fixed to images of'),
])
def test_a_graph_that_breaks_the_contract(tmp_path: Path, graph: dict, match: str) -> None:
    save_model(tmp_path / 'm.onnx', tiny_graph(**graph), SPEC)
    with pytest.raises(ContractError, match=match):
        load_backend('ort', tmp_path / 'm.onnx', SPEC, SIZE, BackendOptions(cpu_threads=1))


def test_a_graph_of_exactly_this_size_is_fine(tmp_path: Path) -> None:
    save_model(tmp_path / 'm.onnx', tiny_graph(size=SIZE), SPEC)
    backend = load_backend('ort', tmp_path / 'm.onnx', SPEC, SIZE, BackendOptions(cpu_threads=1))
    assert backend.infer(inputs())['depth'].shape == (1, 1, *SIZE)


@pytest.mark.parametrize('content', [b'', b'not a model', b'\x08\x08\x3a\x02\x0a\x00'])
def test_a_file_that_cannot_be_loaded(tmp_path: Path, content: bytes) -> None:
    (tmp_path / 'm.onnx').write_bytes(content)
    with pytest.raises(ContractError, match=r'm\.onnx'):
        load_backend('ort', tmp_path / 'm.onnx', SPEC, SIZE, BackendOptions(cpu_threads=1))


def test_an_unknown_runtime_lists_the_known(tiny_model: Path) -> None:
    with pytest.raises(BackendUnavailable, match=r"'abacus'; known: auto, .*ort"):
        load_backend('abacus', tiny_model, SPEC, SIZE, BackendOptions(cpu_threads=1))


@pytest.mark.parametrize('name', ['ort', 'auto'])
def test_a_missing_onnxruntime_names_the_remedy(tiny_model: Path, name: str,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)  # makes its import fail
    assert 'pip install' in ort.available()
    with pytest.raises(BackendUnavailable, match=r'onnxruntime.*pip install'):
        load_backend(name, tiny_model, SPEC, SIZE, BackendOptions(cpu_threads=1))
    with pytest.raises(BackendUnavailable, match='pip install'):
        ort.open_backend(tiny_model, SPEC, SIZE, BackendOptions(cpu_threads=1))


def test_the_core_loads_without_a_runtime_ros_or_torch() -> None:
    code = ('import sys, hybrid_depth.pipeline, hybrid_depth.cloud, hybrid_depth.poses\n'
            'print(sorted({"onnxruntime", "onnx", "rclpy", "torch"} & set(sys.modules)))')
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, '-c', code], cwd=root, capture_output=True, text=True,
                          check=True)
    assert done.stdout.strip() == '[]'


def test_workers_do_not_spin_between_frames(tiny_model: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    class Session(onnxruntime.InferenceSession):

        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            opened.append(self)

    monkeypatch.setattr(onnxruntime, 'InferenceSession', Session)
    load_backend('ort', tiny_model, SPEC, SIZE, BackendOptions(cpu_threads=2))
    (session,) = opened
    options = session.get_session_options()
    assert options.get_session_config_entry('session.intra_op.allow_spinning') == '0'
    assert options.intra_op_num_threads == 2
    assert options.inter_op_num_threads == 1


@pytest.mark.parametrize(('answer', 'match'), [
    (RuntimeError('no kernel'), 'failed while running: no kernel'),
    ([np.zeros((1, 1, 8, 8), np.float32)] * 2, r"'depth' is \(1, 1, 8, 8\)"),
])
def test_a_run_that_goes_wrong_is_our_error(tiny_model: Path, answer: object, match: str,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    class Session(onnxruntime.InferenceSession):

        def run(self, *_: object) -> object:
            if isinstance(answer, Exception):
                raise answer
            return answer

    monkeypatch.setattr(onnxruntime, 'InferenceSession', Session)
    backend = load_backend('ort', tiny_model, SPEC, SIZE, BackendOptions(cpu_threads=1))
    with pytest.raises(ContractError, match=match):
        backend.infer(inputs())
