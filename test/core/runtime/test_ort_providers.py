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
"""
The rows of ONNX Runtime on GPUs: their binding logic on the CPU provider, and what they refuse.

Device 'cpu' stands for the GPU: every buffer is an OrtValue and bound as it would be there.
"""
from __future__ import annotations

import functools
import gc
from pathlib import Path
import stat
import sys
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from tiny_model import POSED, save_model, tiny_graph, tiny_posed_graph, tiny_spec

from hybrid_depth.contract import read_spec
from hybrid_depth.errors import BackendUnavailable, ContractError
from hybrid_depth.models import find_model
from hybrid_depth.runtime import (
    Backend,
    BackendOptions,
    BACKENDS,
    load_backend,
    OPT_IN,
    ort_cuda,
    ort_device,
    ort_tensorrt,
    reference,
    rows_of,
)

SIZE = (32, 48)
SPEC, POSED_SPEC = tiny_spec(), tiny_spec(**POSED)
K = np.array([[[150, 0, 24], [0, 150, 16], [0, 0, 1]]], np.float32)
OPTIONS = BackendOptions(cpu_threads=1, precision='fp32')
ROWS = {'ort_cuda': ort_cuda, 'ort_tensorrt': ort_tensorrt}


@pytest.fixture(scope='module', autouse=True)
def images_rendered_once():
    """Make the tests fast: the images that a model without golden values is judged by."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, '_synthetic_images', functools.cache(reference._synthetic_images))
        yield


def open_on_cpu(path: Path, spec, precision: str = 'fp32',
                providers: tuple = ('CPUExecutionProvider',)) -> Backend:
    return ort_device.open_accepted_session(
        'here', lambda _: list(providers), path, spec, SIZE,
        BackendOptions(cpu_threads=1, precision=precision), 'cpu')


def feed(seed: int, handles: tuple | None = None, valid: tuple = (0, 0)) -> dict:
    image = np.random.default_rng(seed).integers(0, 256, (1, *SIZE, 3), np.uint8)
    inputs = {'image': image, 'K': K}
    if handles is not None:
        motions = np.tile(np.eye(4, dtype=np.float32), (1, 2, 1, 1))
        motions[0, :, 2, 3] = 0.5, -2.0
        inputs |= {'source_features': handles, 'source_T_target': motions,
                   'source_valid': np.array([valid], np.float32)}
    return inputs


@pytest.fixture
def pair(tiny_posed_model: Path):
    """Return the same model by bound buffers and by the CPU row."""
    pair = (open_on_cpu(tiny_posed_model, POSED_SPEC),
            load_backend('ort', tiny_posed_model, POSED_SPEC, SIZE, OPTIONS))
    yield pair
    for backend in pair:
        backend.close()


def same(found: dict, expected: dict) -> None:
    assert set(found) == set(expected)
    for name in set(expected) - {'features'}:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_a_drive_comes_out_as_on_the_cpu(pair) -> None:
    """Sources come, change places, are skipped and outlive many calls."""
    rings: list[list] = [[], []]
    order = ((None, None), (0, None), (1, 0), (0, 1), (None, 2), (0, 0), (5, 1), (0, None))
    for seed, places in enumerate(order):
        valid = tuple(place is not None for place in places)
        outputs = []
        for ring, backend in zip(rings, pair, strict=True):
            handles = tuple(None if place is None else ring[-1 - place] for place in places)
            outputs.append({name: array if name == 'features' else array.copy() for name, array
                            in backend.infer(feed(seed, handles, valid)).items()})
            ring.append(outputs[-1]['features'])
        same(*outputs)
    assert np.abs(outputs[0]['depth']).min() > 0


def test_features_stay_on_the_device_and_their_memory_comes_back(pair) -> None:
    bound, _ = pair
    first = bound.infer(feed(0, (None, None)))['features']
    assert not isinstance(first, np.ndarray)
    second = bound.infer(feed(1, (first, None), (1, 0)))['features']
    assert first.value.data_ptr() != second.value.data_ptr()
    held = {first.value.data_ptr(), second.value.data_ptr()}
    bound.infer(feed(2, (None, None)))
    for seed in range(5):  # nobody keeps these: one buffer serves them all
        pointer = bound.infer(feed(seed, (None, None)))['features'].value.data_ptr()
        gc.collect()
        assert pointer not in held
    assert len(bound._free) <= 2
    address = second.value.data_ptr()
    del second
    gc.collect()
    again = [bound.infer(feed(seed, (None, None)))['features'] for seed in range(3)]
    assert address in {handle.value.data_ptr() for handle in again}


def test_arrays_are_taken_as_sources_too(pair) -> None:
    """The reference outputs by which an engine is judged are arrays."""
    bound, plain = pair
    arrays = tuple(plain.infer(feed(seed, (None, None)))['features'] for seed in (1, 2))
    same(bound.infer(feed(3, arrays, (1, 1))), plain.infer(feed(3, arrays, (1, 1))))


@pytest.mark.parametrize(('changes', 'match'), [
    ({'source_features': (None,)}, 'there are 1 source_features; the model takes 2'),
    ({'source_features': (None, np.zeros((1, 2, 8, 8), np.float32))}, 'source_features 1 is not'),
    ({'source_features': ('features', None)}, 'source_features 0 is not'),
    ({'image': np.zeros((1, 32, 64, 3), np.uint8)}, "'image'.*opened for"),
    ({'K': K.astype(np.float64)}, "'K'.*float64"),
])
def test_a_wrong_input_is_named(pair, changes: dict, match: str) -> None:
    bound, plain = pair
    with pytest.raises(ContractError, match=match):
        bound.infer(feed(0, (None, None)) | changes)
    missing = feed(0, (None, None))
    del missing['source_features']
    with pytest.raises(ContractError, match="'source_features' is missing"):
        bound.infer(missing)
    same(bound.infer(feed(1, (None, None))), plain.infer(feed(1, (None, None))))


def test_half_precision_is_what_the_graph_computes_in(tiny_model: Path) -> None:
    exact, half = (open_on_cpu(tiny_model, SPEC, precision) for precision in ('fp32', 'auto'))
    assert 'fp32' in exact.description
    assert 'fp16' in half.description
    expected, found = (backend.infer(feed(0))['depth'].copy() for backend in (exact, half))
    error = np.abs(found / expected - 1).max()
    assert 1e-5 < error < 2e-3


def test_a_closed_model_says_so(tiny_model: Path) -> None:
    backend = open_on_cpu(tiny_model, SPEC)
    backend.close()
    backend.close()
    with pytest.raises(BackendUnavailable, match='closed'):
        backend.infer(feed(0))


def test_depth_that_is_not_the_models_is_refused(tiny_model: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that computes something else is found out, in every precision."""
    infer = ort_device.OrtDeviceBackend.infer

    def lie(self, inputs):
        outputs = infer(self, inputs)
        return outputs | {'depth': outputs['depth'] * np.float32(1.5)}
    monkeypatch.setattr(ort_device.OrtDeviceBackend, 'infer', lie)
    with pytest.raises(BackendUnavailable, match=r'fp16 .*fp16_safe .*fp32 .*depth'):
        open_on_cpu(tiny_model, SPEC, 'auto')


def test_a_provider_that_does_not_start_is_not_taken_for_granted(tiny_model: Path) -> None:
    with pytest.warns(UserWarning, match='not in available provider names'), \
            pytest.raises(BackendUnavailable, match=r'could not start CUDA.*took CPU'):
        open_on_cpu(tiny_model, SPEC,
                    providers=('CUDAExecutionProvider', 'CPUExecutionProvider'))


@pytest.mark.parametrize('graph', [tiny_graph(squeeze=True), tiny_posed_graph()])
def test_a_graph_that_breaks_the_contract(tmp_path: Path, graph) -> None:
    save_model(tmp_path / 'm.onnx', graph, SPEC)
    with pytest.raises(ContractError, match='the contract says'):
        open_on_cpu(tmp_path / 'm.onnx', SPEC)


@pytest.mark.parametrize('row', ROWS)
def test_a_missing_provider_names_the_build_and_the_remedy(tiny_model: Path, row: str) -> None:
    if not ROWS[row].available():
        pytest.skip(f'{row} can run here')
    with pytest.raises(BackendUnavailable, match=r'onnxruntime-gpu|CUDA device'):
        load_backend(row, tiny_model, SPEC, SIZE, OPTIONS)


@pytest.mark.parametrize('row', ROWS)
def test_a_build_with_the_provider_but_without_a_gpu(row: str,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime would open the model on the CPU and go on; the driver is asked beforehand."""
    monkeypatch.setattr(onnxruntime, 'get_available_providers', lambda: [ROWS[row].PROVIDER])
    assert 'the CUDA device 0 cannot be used' in ROWS[row].available()
    monkeypatch.setattr(onnxruntime, 'OrtValue', SimpleNamespace(
        ortvalue_from_shape_and_type=lambda shape, dtype, device, index: (device, index)))
    assert ROWS[row].available() == ''
    monkeypatch.setitem(sys.modules, 'onnx', None)
    assert 'pip install onnx' in ROWS[row].available()
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    assert 'pip install onnxruntime-gpu' in ROWS[row].available()


@pytest.mark.parametrize('row', ROWS)
@pytest.mark.parametrize('precision', ['int8_mix', 'bf16'])
def test_a_precision_of_no_gpu_is_refused(tiny_model: Path, row: str, precision: str) -> None:
    options = BackendOptions(precision=precision)
    with pytest.raises(BackendUnavailable, match=f'{precision}.*only in auto, fp32, fp16'):
        load_backend(row, tiny_model, SPEC, SIZE, options)
    with pytest.raises(BackendUnavailable, match=precision):
        ROWS[row].open_backend(tiny_model, SPEC, SIZE, options)


@pytest.mark.parametrize('precision', ['fp16', 'fp16_safe', 'bf16'])
def test_a_precision_of_no_cpu_is_refused(tiny_model: Path, precision: str) -> None:
    options = BackendOptions(precision=precision)
    for row in ('ort', 'openvino'):
        with pytest.raises(BackendUnavailable, match=f'{row}: .*{precision}'):
            load_backend(row, tiny_model, SPEC, SIZE, options)


def test_provider_options() -> None:
    (name, settings), last = ort_cuda.providers('fp32', 1)
    assert (name, settings['device_id'], settings['use_tf32']) == ('CUDAExecutionProvider', 1, '0')
    assert last == 'CPUExecutionProvider'
    (name, settings), *rest = ort_tensorrt.providers('fp16', 1, Path('/cache'), 'one')
    assert (name, settings['device_id']) == ('TensorrtExecutionProvider', 1)
    assert settings['trt_engine_cache_path'] == settings['trt_timing_cache_path'] == '/cache'
    # the types of the graph decide; the flag would let the builder choose again
    assert 'trt_fp16_enable' not in settings
    # what a graph has captured it would read for ever, where the sources are others each time
    assert 'trt_cuda_graph_enable' not in settings
    assert 'enable_cuda_graph' not in rest[0][1]
    assert rest == ort_cuda.providers('fp16', 1)


def test_engines_of_other_weights_and_sizes_have_other_names(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider's own name for an engine tells neither."""
    prefixes = []

    def note(name: str, providers_for, *_: object) -> None:
        for precision in ('fp16', 'fp32'):
            (_, settings), *_ = providers_for(precision)
            prefixes.append(settings['trt_engine_cache_prefix'])

    monkeypatch.setattr(ort_tensorrt, 'provider_missing', lambda *_: '')
    monkeypatch.setattr(ort_tensorrt, 'open_accepted_session', note)
    options = BackendOptions(engine_cache=str(tmp_path / 'cache'))
    for index, size in enumerate((SIZE, (48, 32), SIZE)):
        path = tmp_path / f'{index}.onnx'
        save_model(path, tiny_graph(), tiny_spec(licence='MIT' if index == 2 else 'Apache-2.0'))
        ort_tensorrt.open_backend(path, SPEC, size, options)
    assert len(set(prefixes)) == 6, prefixes
    assert stat.S_IMODE((tmp_path / 'cache' / 'onnxruntime').stat().st_mode) == 0o700


def session_of(assigned: dict[str, list[tuple[str, str]]]) -> SimpleNamespace:
    """Return what ONNX Runtime says of provider -> nodes (name, operator)."""
    parts = [SimpleNamespace(ep_name=provider, get_nodes=lambda nodes=nodes: [
        SimpleNamespace(name=name, op_type=kind) for name, kind in nodes])
        for provider, nodes in assigned.items()]
    return SimpleNamespace(get_provider_graph_assignment_info=lambda: parts)


def test_layers_that_fell_back_to_the_cpu_are_found() -> None:
    """ONNX Runtime puts what a provider has no kernel for on the CPU without a word."""
    found = ort_device.layers_on_cpu(session_of({
        'CUDAExecutionProvider': [('c1', 'Conv'), ('m1', 'MatMul')],
        'CPUExecutionProvider': [('shape', 'Gather'), ('m2', 'MatMul')]}))
    assert found == ['m2']
    assert ort_device.layers_on_cpu(SimpleNamespace()) == []  # an older one cannot tell


@pytest.mark.skipif(not hasattr(onnxruntime.InferenceSession,
                                'get_provider_graph_assignment_info'),
                    reason='ONNX Runtime tells where its nodes are from 1.24 on')
def test_a_gpu_that_leaves_layers_to_the_cpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    provider, real = 'CUDAExecutionProvider', ort_device.open_session

    class Session:

        def __init__(self, session: onnxruntime.InferenceSession) -> None:
            self._session = session

        def get_providers(self) -> list[str]:
            return [provider]

        def __getattr__(self, name: str) -> object:
            return getattr(self._session, name)

    monkeypatch.setattr(ort_device, 'open_session', lambda model, path, settings, _: Session(
        real(model, path, settings, ['CPUExecutionProvider'])))
    path = find_model('compact')
    with pytest.raises(BackendUnavailable, match=r'no kernel of CUDA.* for \d\d+ matrix layers'):
        ort_device.OrtDeviceBackend('here', [provider], path, read_spec(path), (64, 96), OPTIONS,
                                    'fp32', 'cpu')


def test_auto_never_takes_what_has_to_be_asked_for() -> None:
    assert set(OPT_IN) < set(BACKENDS)
    assert not set(rows_of('auto')) & set(OPT_IN)
    assert rows_of('openvino') == ('openvino',)
