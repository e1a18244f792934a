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
"""The whole TensorRT runtime but for the two libraries, which are imitations."""
from __future__ import annotations

from dataclasses import replace
import gc
from pathlib import Path
import threading

from fake_cuda import Error, FakeCuda, install
from fake_tensorrt import FakeTensorRT
import numpy as np
import pytest
from tiny_model import POSED, tiny_spec

from hybrid_depth.errors import BackendUnavailable, ContractError
from hybrid_depth.runtime import BackendOptions, ort, trt
from hybrid_depth.runtime.acceptance import accept
from hybrid_depth.runtime.reference import find_reference
from hybrid_depth.runtime.trt import session

SIZE = (32, 48)
SPEC, POSED_SPEC = tiny_spec(), tiny_spec(**POSED)


@pytest.fixture(params=[False, True], ids=['card', 'integrated'])
def cuda(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return install(monkeypatch, FakeCuda(integrated=request.param))


@pytest.fixture
def tensorrt(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    return FakeTensorRT('10.3.0', cuda).install(monkeypatch)


@pytest.fixture
def options(tmp_path: Path) -> BackendOptions:
    return BackendOptions(cpu_threads=1, precision='fp32', engine_cache=str(tmp_path / 'engines'))


@pytest.fixture
def single(tensorrt: FakeTensorRT, tiny_model: Path, options: BackendOptions):
    backend = trt.open_engine(trt.build_engine(tiny_model, SPEC, SIZE, options), SPEC, SIZE,
                              options)
    yield backend
    backend.close()


@pytest.fixture
def posed(tensorrt: FakeTensorRT, tiny_posed_model: Path, options: BackendOptions):
    plan = trt.build_engine(tiny_posed_model, POSED_SPEC, SIZE, options)
    backend = trt.open_engine(plan, POSED_SPEC, SIZE, options)
    yield backend
    backend.close()


def frame(seed: int = 0, sources: tuple = (None, None), **changes: np.ndarray) -> dict:
    generator = np.random.default_rng(seed)
    motions = np.tile(np.eye(4, dtype=np.float32), (1, 2, 1, 1))
    motions[0, :, 2, 3] = generator.uniform(-2, 2, 2)
    return {'image': generator.integers(0, 256, (1, *SIZE, 3), np.uint8),
            'K': np.array([[[150 + seed, 0, 24], [0, 150, 16], [0, 0, 1]]], np.float32),
            'source_features': sources, 'source_T_target': motions,
            'source_valid': np.array([[source is not None for source in sources]], np.float32),
            **changes}


def test_a_sequence_of_frames_as_the_cpu_runtime_gives_it(posed: session.TrtBackend,
                                                          tiny_posed_model: Path) -> None:
    cpu = ort.open_backend(tiny_posed_model, POSED_SPEC, SIZE, BackendOptions(cpu_threads=1))
    kept: list[tuple] = []  # features of both runtimes
    generator = np.random.default_rng(1)
    for number in range(24):
        chosen = [kept[index] if index < len(kept) else (None, None)
                  for index in generator.integers(0, 8, 2)]
        outputs = [backend.infer(frame(number, tuple(pair[which] for pair in chosen)))
                   for which, backend in enumerate((posed, cpu))]
        assert set(outputs[0]) == set(outputs[1])
        for name in set(outputs[1]) - {'features'}:
            np.testing.assert_allclose(outputs[0][name], outputs[1][name], rtol=1e-5,
                                       err_msg=f'{name} of frame {number}')
        kept.append((outputs[0]['features'], outputs[1]['features']))
        if len(kept) > 6:  # so memory is used again
            del kept[int(generator.integers(6))]


def test_frames_are_replayed_as_one_graph(posed: session.TrtBackend, cuda: FakeCuda,
                                          tensorrt: FakeTensorRT) -> None:
    assert 'CUDA graph' in posed.description
    assert '48x32' in posed.description
    assert '10.3.0' in posed.description
    before = cuda.allocations, tensorrt.runs
    for number in range(3):
        posed.infer(frame(number))
    assert tensorrt.runs == before[1] + 3
    assert cuda.allocations == before[0] + 1  # for the features of one frame at a time


def test_what_does_not_change_is_not_copied_again(posed: session.TrtBackend,
                                                  cuda: FakeCuda) -> None:
    first, second = (posed.infer(frame(seed))['features'] for seed in (1, 2))
    size = 2 * 8 * 12 * 4  # bytes of the features of one frame

    def copied(*sources: object) -> int:
        cuda.copies.clear()
        outputs = posed.infer(frame(3, sources))
        assert outputs['depth'].all()
        return cuda.copies.count(size) - 1  # those of this frame itself
    assert copied(first, second) == 2
    assert copied(first, second) == 0
    assert copied(second, second) == 1
    if cuda.integrated:
        assert len(cuda.copies) == 2  # the CPU's arrays are where the GPU reads and writes them


def test_features_are_good_until_close_and_their_memory_is_used_again(
        posed: session.TrtBackend, cuda: FakeCuda) -> None:
    start = cuda.allocations
    kept = [posed.infer(frame(seed))['features'] for seed in range(16)]
    assert cuda.allocations == start + 16
    expected = posed.infer(frame(99, (kept[3], kept[11])))['matched_depth'].copy()
    others = [posed.infer(frame(seed))['features'] for seed in range(20, 24)]
    np.testing.assert_array_equal(
        posed.infer(frame(99, (kept[3], kept[11])))['matched_depth'], expected)
    most = cuda.allocations
    del others
    kept[:] = kept[8:]
    gc.collect()
    kept += [posed.infer(frame(seed))['features'] for seed in range(30, 38)]
    assert cuda.allocations == most


def test_a_source_is_a_snapshot_that_no_later_frame_changes(posed: session.TrtBackend) -> None:
    handle = posed.infer(frame(1))['features']
    expected = posed.infer(frame(5, (handle, None)))['matched_depth'].copy()
    for seed in range(10, 14):
        posed.infer(frame(seed, (posed.infer(frame(seed + 50))['features'], handle)))
    found = posed.infer(frame(5, (handle, None)))['matched_depth']
    np.testing.assert_array_equal(found, expected)


def test_reference_features_from_outside_are_taken(posed: session.TrtBackend,
                                                   tiny_posed_model: Path) -> None:
    cpu = ort.open_backend(tiny_posed_model, POSED_SPEC, SIZE, BackendOptions(cpu_threads=1))
    features = np.random.default_rng(0).random((1, 2, 8, 12), np.float32)
    for _ in range(2):  # the same array with other values: it is not remembered
        feed = frame(1, (features, None))
        np.testing.assert_allclose(posed.infer(feed)['depth'], cpu.infer(frame(
            1, (features.copy(), None)))['depth'], rtol=1e-5)
        features += 0.5


def test_no_source_is_a_source_of_zeros(posed: session.TrtBackend, tiny_posed_model: Path) -> None:
    """Asked for by saying that it is valid: what is there must not be of an earlier frame."""
    cpu = ort.open_backend(tiny_posed_model, POSED_SPEC, SIZE, BackendOptions(cpu_threads=1))
    zeros, given = np.zeros((2, 1, 2, 8, 12), np.float32), np.ones((1, 2), np.float32)
    expected = cpu.infer(frame(1, tuple(zeros), source_valid=given))['matched_depth'].copy()
    own = posed.infer(frame(2))['features']
    for before in (None, own, np.full((1, 2, 8, 12), 3, np.float32)):
        posed.infer(frame(3, (before, None)))
        found = posed.infer(frame(1, (None, None), source_valid=given))['matched_depth']
        np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=str(type(before)))


@pytest.mark.parametrize('gpu', [0, 1])
def test_everything_happens_on_the_gpu_that_was_named(
        monkeypatch: pytest.MonkeyPatch, tiny_model: Path, options: BackendOptions,
        gpu: int) -> None:
    cuda = install(monkeypatch, FakeCuda(gpus=2))
    tensorrt = FakeTensorRT('10.3.0', cuda).install(monkeypatch)
    options = replace(options, gpu=gpu)
    here = threading.get_ident()
    seen = []

    def note(name: str) -> None:
        owner, attribute = (session.Engine, 'close') if name == 'close' \
            else (tensorrt.module, name)
        real = getattr(owner, attribute)
        monkeypatch.setattr(owner, attribute, lambda *arguments: (
            seen.append(cuda.current[threading.get_ident()]), real(*arguments))[1])

    for name in ('Builder', 'Runtime', 'close'):
        note(name)
    backend = trt.open_engine(trt.build_engine(tiny_model, SPEC, SIZE, options), SPEC, SIZE,
                              options)
    cuda.current[here] = 1 - gpu  # another library had its turn
    backend.infer({name: frame()[name] for name in ('image', 'K')})
    assert cuda.current[here] == gpu
    cuda.current[here] = 1 - gpu
    backend.close()
    assert seen == [gpu] * 5  # built, looked at, let go; opened, closed
    assert not cuda.handles


@pytest.mark.parametrize(('changes', 'match'), [
    ({'image': np.zeros((1, 32, 64, 3), np.uint8)}, "'image'.*opened for"),
    ({'K': np.eye(3)[None]}, "'K'.*float64"),
    ({'source_features': (None,)}, 'there are 1 source_features; the model takes 2'),
    ({'source_features': (None, 'features')}, 'source_features 1 is not'),
    ({'source_features': (None, np.zeros((1, 2, 8, 8), np.float32))}, 'source_features 1 is not'),
])
def test_a_wrong_input_is_named(posed: session.TrtBackend, changes: dict, match: str) -> None:
    with pytest.raises(ContractError, match=match):
        posed.infer(frame(**changes))
    missing = frame()
    del missing['source_valid']
    with pytest.raises(ContractError, match="'source_valid' is missing"):
        posed.infer(missing)
    assert np.isfinite(posed.infer(frame())['depth']).all()


def test_its_outputs_are_accepted(posed: session.TrtBackend, tiny_posed_model: Path,
                                  options: BackendOptions) -> None:
    reference = find_reference(tiny_posed_model, POSED_SPEC, SIZE, options)
    verdict = accept(posed, POSED_SPEC, reference, 'fp32')
    assert verdict.ok, verdict.text()


def test_features_of_another_engine_are_refused(posed: session.TrtBackend, tiny_posed_model: Path,
                                                options: BackendOptions) -> None:
    plan = trt.build_engine(tiny_posed_model, POSED_SPEC, SIZE, options)
    other = trt.open_engine(plan, POSED_SPEC, SIZE, options)
    handle = other.infer(frame())['features']
    with pytest.raises(ContractError, match='source_features 0 is not'):
        posed.infer(frame(1, (handle, None)))
    other.close()


def test_close_gives_everything_back(tensorrt: FakeTensorRT, cuda: FakeCuda,
                                     tiny_posed_model: Path, options: BackendOptions) -> None:
    plan = trt.build_engine(tiny_posed_model, POSED_SPEC, SIZE, options)
    assert not cuda.handles
    backend = trt.open_engine(plan, POSED_SPEC, SIZE, options)
    outputs = backend.infer(frame())
    depth, handle = outputs['depth'], outputs['features']
    expected = depth.copy()
    backend.close()
    backend.close()
    assert not cuda.device
    assert not cuda.handles
    np.testing.assert_array_equal(depth, expected)  # who still looks at it is not cut off
    with pytest.raises(BackendUnavailable, match='closed'):
        backend.infer(frame(1, (handle, None)))
    del outputs, depth, handle, backend
    gc.collect()
    assert not cuda.host


@pytest.mark.parametrize('who', ['CUDA', 'TensorRT'])
def test_an_engine_that_cannot_be_recorded_runs_and_says_so(
        tensorrt: FakeTensorRT, cuda: FakeCuda, tiny_model: Path, options: BackendOptions,
        caplog: pytest.LogCaptureFixture, who: str) -> None:
    plan = trt.build_engine(tiny_model, SPEC, SIZE, options)
    if who == 'CUDA':
        cuda.fail['cudaGraphInstantiate'] = Error.cudaErrorStreamCaptureUnsupported
    tensorrt.refuses_capture = who == 'TensorRT'
    backend = trt.open_engine(plan, SPEC, SIZE, options)
    assert 'without CUDA graph' in backend.description
    assert who in caplog.text
    cpu = ort.open_backend(tiny_model, SPEC, SIZE, BackendOptions(cpu_threads=1))
    for seed in range(2):
        feed = {name: frame(seed)[name] for name in ('image', 'K')}
        np.testing.assert_allclose(backend.infer(feed)['depth'], cpu.infer(feed)['depth'],
                                   rtol=1e-5)
    backend.close()
    assert not cuda.handles


def test_what_still_runs_ends_before_the_engine_goes(
        posed: session.TrtBackend, cuda: FakeCuda, tensorrt: FakeTensorRT,
        monkeypatch: pytest.MonkeyPatch) -> None:
    runs, seen = tensorrt.runs, []
    real = session.Engine.close

    def close(engine: session.Engine) -> None:
        seen.append((tensorrt.runs, 'exec' in cuda.handles.values(), bool(cuda.device)))
        real(engine)

    monkeypatch.setattr(session.Engine, 'close', close)
    cuda.fail['cudaEventRecord'] = Error.cudaErrorInvalidValue
    with pytest.raises(BackendUnavailable):  # when the frame was on its way already
        posed.infer(frame())
    assert tensorrt.runs == runs
    posed.close()
    assert seen == [(runs + 1, False, True)]


@pytest.mark.parametrize(('call', 'match'), [
    ('cudaMalloc', 'meaning of 2.*cudaErrorMemoryAllocation.*end other programs'),
    ('cudaHostAlloc', 'cudaErrorMemoryAllocation'),
    ('cudaStreamCreateWithFlags', 'cudaErrorMemoryAllocation'),
    ('cudaEventCreateWithFlags', 'cudaErrorMemoryAllocation'),
])
def test_a_failure_while_opening_names_the_remedy_and_leaks_nothing(
        tensorrt: FakeTensorRT, cuda: FakeCuda, tiny_posed_model: Path, options: BackendOptions,
        call: str, match: str) -> None:
    plan = trt.build_engine(tiny_posed_model, POSED_SPEC, SIZE, options)
    cuda.fail[call] = Error.cudaErrorMemoryAllocation
    with pytest.raises(BackendUnavailable, match=match):
        trt.open_engine(plan, POSED_SPEC, SIZE, options)
    gc.collect()
    assert not cuda.device
    assert not cuda.host
    assert not cuda.handles


def test_a_failure_while_running_is_our_error(single: session.TrtBackend,
                                              cuda: FakeCuda) -> None:
    cuda.fail['cudaGraphLaunch'] = Error.cudaErrorInvalidValue
    with pytest.raises(BackendUnavailable, match=r'cudaErrorInvalidValue.*dmesg'):
        single.infer({name: frame()[name] for name in ('image', 'K')})


def test_an_engine_of_another_model_or_size_is_refused(
        tensorrt: FakeTensorRT, cuda: FakeCuda, tiny_model: Path,
        options: BackendOptions) -> None:
    plan = trt.build_engine(tiny_model, SPEC, SIZE, options)
    for spec, size in ((SPEC, (48, 48)), (POSED_SPEC, SIZE)):
        with pytest.raises(ContractError, match='the contract of tiny'):
            trt.open_engine(plan, spec, size, options)
    with pytest.raises(BackendUnavailable, match=r'Version tag.*build it again'):
        trt.open_engine(b'8.5.2\nplan', SPEC, SIZE, options)
    with pytest.raises(BackendUnavailable, match=r'cudaErrorInvalidDevice.*parameter gpu'):
        trt.open_engine(plan, SPEC, SIZE, BackendOptions(gpu=3))
    gc.collect()
    assert not cuda.device
    assert not cuda.handles
