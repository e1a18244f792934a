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
"""No engine is used whose depth is wrong; what takes its place is said."""
from __future__ import annotations

import logging
from pathlib import Path

from fake_cuda import FakeCuda, install
from fake_engine import FakeEngine, LIES, Workshop, write_golden
from fake_tensorrt import FakeTensorRT
import numpy as np
import pytest
from tiny_model import POSED, tiny_depth, tiny_spec, write_tiny_model, write_tiny_posed_model

from hybrid_depth.errors import BackendUnavailable
from hybrid_depth.runtime import Backend, BackendOptions, ladder, load_backend
from hybrid_depth.runtime.engine_cache import EngineCache
from hybrid_depth.runtime.ladder import open_accepted, Progress
from hybrid_depth.runtime.serving import serve

SIZE = (32, 48)
SPEC = tiny_spec()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / 'model.onnx'
    write_tiny_model(path)
    write_golden(path, SPEC, SIZE, SIZE)
    return path


def walk(shop: Workshop, model: Path, precision: str = 'auto',
         **more: bool) -> tuple[Backend | None, Progress, str]:
    progress = Progress()
    try:
        backend = open_accepted('fake', model, SPEC, SIZE, shop.options(precision),
                                progress=progress, **more)
    except BackendUnavailable as error:
        return None, progress, str(error)
    return backend, progress, ''


def outcomes(progress: Progress) -> list[tuple[str, str]]:
    return [(step.precision, step.outcome) for step in progress.steps]


def depth_is_right(backend: Backend) -> bool:
    image = np.random.default_rng(5).integers(0, 256, (1, *SIZE, 3), np.uint8)
    K = np.array([[[150, 0, 24], [0, 150, 16], [0, 0, 1]]], np.float32)
    depth = backend.infer({'image': image, 'K': K})['depth'][0, 0]
    return np.allclose(depth, tiny_depth(image[0], 150.0), rtol=2e-3)


def test_the_fastest_is_taken_and_found_again(shop: Workshop, model: Path) -> None:
    backend, progress, _ = walk(shop, model)
    assert outcomes(progress) == [('fp16', 'accepted')]
    assert backend is not None
    assert depth_is_right(backend)
    assert progress.steps[0].figures['median'] == pytest.approx(1e-3, rel=1e-2)
    again, progress, _ = walk(shop, model)
    assert again is not None
    assert outcomes(progress) == [('fp16', 'accepted')]  # judged again
    assert shop.builds == ['fp16']
    (entry,) = EngineCache(shop.cache).entries()
    assert entry.report['outcome'] == 'accepted'
    assert entry.report['layers'] == {'HALF': 1.0}
    assert entry.report['log'] == ['the log']
    assert entry.report['figures']['pearson'] == pytest.approx(1)
    assert entry.facts['environment']['tensorrt'] == '1.2.3.4'


@pytest.mark.parametrize('manner', [lie for lie in LIES if lie != 'features'])
def test_a_lying_engine_gives_way(shop: Workshop, model: Path, manner: str,
                                  caplog: pytest.LogCaptureFixture) -> None:
    shop.manners(fp16=manner, fp16_safe=manner)
    backend, progress, _ = walk(shop, model)
    assert outcomes(progress) == [('fp16', 'refused'), ('fp16_safe', 'refused'),
                                  ('fp32', 'accepted')]
    assert backend is not None
    assert depth_is_right(backend)
    assert 'fp16 refused: case' in caplog.text
    assert [engine.is_closed for engine in FakeEngine.opened].count(False) == 1
    # a refused engine is neither kept nor built again
    assert sum(entry.bytes > 0 for entry in EngineCache(shop.cache).entries()) == 1
    _, progress, _ = walk(shop, model)
    assert outcomes(progress) == [('fp16', 'refused'), ('fp16_safe', 'refused'),
                                  ('fp32', 'accepted')]
    assert progress.steps[0].reason.endswith('(found before)')
    assert shop.builds == ['fp16', 'fp16_safe', 'fp32']
    # unless somebody asks for it
    shop.manners()
    _, progress, _ = walk(shop, model, retry=True)
    assert outcomes(progress) == [('fp16', 'accepted')]


def test_features_that_lie(shop: Workshop, tmp_path: Path) -> None:
    path = tmp_path / 'posed.onnx'
    write_tiny_posed_model(path)
    spec = tiny_spec(**POSED)
    write_golden(path, spec, SIZE)
    shop.manners(fp16='features')
    progress = Progress()
    open_accepted('fake', path, spec, SIZE, shop.options(), progress=progress)
    assert outcomes(progress) == [('fp16', 'refused'), ('fp16_safe', 'accepted')]
    assert 'own features' in progress.steps[0].reason


def test_a_lie_that_came_after_the_build(shop: Workshop, model: Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that was right in the builder is judged again where it will run."""
    walk(shop, model)
    real = FakeEngine.__init__
    monkeypatch.setattr(FakeEngine, '__init__', lambda self, path, spec, size, _: real(
        self, path, spec, size, 'wrong'))
    backend, progress, reason = walk(shop, model)
    assert backend is None
    assert {outcome for _, outcome in outcomes(progress)} == {'refused'}
    assert 'no engine whose depth is right' in reason


def test_the_engine_of_a_process_that_was_faster_stays(shop: Workshop, model: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    walk(shop, model)
    cache = EngineCache(shop.cache)
    (entry,) = cache.entries()
    plan = cache.get(entry.key)
    real = FakeEngine.__init__

    def init(self: FakeEngine, *arguments: object) -> None:
        with cache.lock(entry.key):  # another process replaces the engine that is being opened
            cache.put(entry.key, plan + b' ', entry.facts, entry.report)
        real(self, *arguments[:-1], 'wrong')

    monkeypatch.setattr(FakeEngine, '__init__', init)
    backend, progress, _ = walk(shop, model, 'fp16')
    assert (backend, outcomes(progress)) == (None, [('fp16', 'refused')])
    assert cache.get(entry.key) == plan + b' '


def test_what_cannot_be_built_gives_way(shop: Workshop, model: Path,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    shop.manners(fp16='fails')
    _, progress, _ = walk(shop, model)
    assert outcomes(progress) == [('fp16', 'failed'), ('fp16_safe', 'accepted')]
    assert progress.steps[0].reason == 'no kernel for this layer'
    walk(shop, model)  # it failed at once: another time it may not
    assert shop.builds == ['fp16', 'fp16_safe', 'fp16']
    monkeypatch.setattr(ladder, '_RETRY_S', 0.0)  # as if it had taken minutes
    walk(shop, model)
    assert shop.builds == ['fp16', 'fp16_safe', 'fp16', 'fp16']
    _, progress, _ = walk(shop, model)
    assert shop.builds == ['fp16', 'fp16_safe', 'fp16', 'fp16']
    assert outcomes(progress) == [('fp16', 'failed'), ('fp16_safe', 'accepted')]


def test_a_cached_plan_that_cannot_be_opened_is_built_again(shop: Workshop, model: Path) -> None:
    shop.manners(fp16='unopenable')
    _, progress, _ = walk(shop, model)
    assert outcomes(progress) == [('fp16', 'failed'), ('fp16_safe', 'accepted')]
    shop.manners()
    walk(shop, model)
    (name,) = (entry.key for entry in EngineCache(shop.cache).entries()
               if entry.facts['precision'] == 'fp16')
    cache = EngineCache(shop.cache)
    (entry,) = (entry for entry in cache.entries() if entry.key == name)
    with cache.lock(name):
        cache.put(name, b'{"path": "", "manner": "unopenable"}', entry.facts, entry.report)
    count = len(shop.builds)
    _, progress, _ = walk(shop, model)
    assert outcomes(progress) == [('fp16', 'accepted')]
    assert shop.builds[count:] == ['fp16']


def test_a_truncated_plan_is_built_again(shop: Workshop, model: Path) -> None:
    walk(shop, model)
    (plan,) = shop.cache.glob('*.plan')
    plan.write_bytes(plan.read_bytes()[:-3])
    backend, progress, _ = walk(shop, model)
    assert backend is not None
    assert outcomes(progress) == [('fp16', 'accepted')]
    assert shop.builds == ['fp16', 'fp16']


def test_another_gpu_or_model_gets_another_engine(shop: Workshop, model: Path) -> None:
    walk(shop, model)
    other = BackendOptions(1, 'auto', str(shop.cache), gpu=1)
    open_accepted('fake', model, SPEC, SIZE, other)
    open_accepted('fake', model, SPEC, (48, 32), shop.options())
    assert shop.builds == ['fp16'] * 3


def test_a_named_precision_is_that_or_nothing(shop: Workshop, model: Path) -> None:
    shop.manners(fp16='wrong')
    backend, progress, reason = walk(shop, model, 'fp16')
    assert backend is None
    assert shop.builds == ['fp16']
    assert outcomes(progress) == [('fp16', 'refused')]
    assert 'median of depth is 1.9' in reason  # the figure, ln 7
    assert "a precision that is named is not changed: 'auto' would try others" in reason
    for name in ('fake', 'auto'):
        with pytest.raises(BackendUnavailable, match=r'median of depth is 1\.9'):
            load_backend(name, model, SPEC, SIZE, shop.options('fp16'))


def test_at_the_foot_of_the_ladder_is_onnx_runtime_for_auto_alone(
        shop: Workshop, model: Path, caplog: pytest.LogCaptureFixture) -> None:
    shop.manners(fp16='wrong', fp16_safe='nan', fp32='constant')
    backend = load_backend('auto', model, SPEC, SIZE, shop.options())
    assert backend.name == 'ort'
    assert 'trying the next runtime' in caplog.text
    with pytest.raises(BackendUnavailable) as refused:
        load_backend('fake', model, SPEC, SIZE, shop.options())
    for part in ('fp16 refused', 'fp16_safe refused', 'not finite', 'fp32 refused'):
        assert part in str(refused.value)


def test_a_precision_without_engines(shop: Workshop, model: Path) -> None:
    with pytest.raises(BackendUnavailable, match="no engines of precision 'int8_mix'"):
        load_backend('fake', model, SPEC, SIZE, shop.options('int8_mix'))
    assert shop.builds == []


def test_an_unsafe_cache_is_no_cache(shop: Workshop, model: Path) -> None:
    shop.cache.mkdir(mode=0o700)
    shop.cache.chmod(0o777)
    with pytest.raises(BackendUnavailable, match='written by others'):
        load_backend('fake', model, SPEC, SIZE, shop.options())
    assert load_backend('auto', model, SPEC, SIZE, shop.options()).name == 'ort'
    assert shop.builds == []


def test_a_full_disk_is_said(shop: Workshop, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(EngineCache, 'put', full)
    backend, progress, reason = walk(shop, model)
    assert backend is None
    assert 'No space left on device' in reason
    assert len(progress.steps) == 3


def test_progress_says_stage_and_last_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, 'hybrid_depth')  # a node of another test sets its level
    progress = Progress()
    assert progress.text() == '0 s: starting'
    progress.stage('building fp16')
    progress.line('layer 3 of 9')
    assert progress.text() == '0 s: building fp16: layer 3 of 9'
    progress.stage('writing')
    assert progress.text() == '0 s: writing'
    assert 'layer 3 of 9' in caplog.text


def test_tensorrt_where_it_is_not(shop: Workshop, model: Path,
                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """The real runtime 'trt' on a machine without it: refused by name, passed over by 'auto'."""
    from hybrid_depth.runtime import BACKENDS, trt
    reason = trt.available()
    if not reason:
        pytest.skip('TensorRT is on this machine')
    monkeypatch.setattr(ladder, 'BuildProcess', None)  # nothing shall be built
    BACKENDS.clear()
    BACKENDS.update({'trt': trt.__name__, 'ort': 'hybrid_depth.runtime.ort'})
    assert load_backend('auto', model, SPEC, SIZE, shop.options()).name == 'ort'
    served = serve('auto', model, SPEC, SIZE, shop.options())
    assert served.current().name == 'ort'
    assert served.facts()['engine.choice'] == f'ort, the first of auto (trt: {reason})'
    assert served.is_settled
    served.close()
    for open_named in (load_backend, serve):
        with pytest.raises(BackendUnavailable, match=r'no runtime can be used: trt: .*tensorrt'):
            open_named('trt', model, SPEC, SIZE, shop.options())


def test_auto_passes_over_a_runtime_that_does_not_open(
        shop: Workshop, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hybrid_depth.runtime import BACKENDS, ort_cuda

    def refuse(*_: object) -> None:
        raise BackendUnavailable('its depth is wrong')

    monkeypatch.setattr(ort_cuda, 'available', lambda: '')
    monkeypatch.setattr(ort_cuda, 'open_backend', refuse)
    BACKENDS.clear()
    BACKENDS.update({'ort_cuda': ort_cuda.__name__, 'ort': 'hybrid_depth.runtime.ort'})
    assert load_backend('auto', model, SPEC, SIZE, shop.options()).name == 'ort'
    served = serve('auto', model, SPEC, SIZE, shop.options())
    assert served.current().name == 'ort'
    assert 'ort_cuda: its depth is wrong' in served.facts()['engine.choice']
    served.close()
    for open_named in (load_backend, serve):
        with pytest.raises(BackendUnavailable, match='its depth is wrong'):
            open_named('ort_cuda', model, SPEC, SIZE, shop.options())


@pytest.mark.parametrize('version', ['8.6.1', '10.3.0', '11.4.0.106'])
def test_the_runtime_trt_walks_the_ladder(shop: Workshop, tmp_path: Path, version: str,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it but the two libraries of NVIDIA, which are imitations."""
    from hybrid_depth.runtime import BACKENDS, trt
    FakeTensorRT(version, install(monkeypatch, FakeCuda())).install(monkeypatch)
    BACKENDS['trt'] = trt.__name__  # the workshop puts the table back
    path = tmp_path / 'posed.onnx'
    write_tiny_posed_model(path)
    spec = tiny_spec(**POSED)
    write_golden(path, spec, SIZE, SIZE)
    progress = Progress()
    backend = open_accepted('trt', path, spec, SIZE, shop.options(), progress=progress)
    assert progress.steps[-1].outcome == 'accepted', progress.steps
    assert 'TensorRT' in backend.description
    backend.close()
    (entry,) = (entry for entry in EngineCache(shop.cache).entries() if entry.bytes)
    assert entry.facts['environment']['tensorrt'].startswith(version[:4])
    assert entry.facts['settings'] == trt.BUILD_SETTINGS
    again = open_accepted('trt', path, spec, SIZE, shop.options())
    again.close()


def test_without_onnx_runtime_an_engine_is_waited_for(
        shop: Workshop, model: Path, monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture) -> None:
    from hybrid_depth.runtime import ort
    monkeypatch.setattr(ort, 'available', lambda: 'it is not installed')
    monkeypatch.setattr(FakeEngine, '__init__', fake_without_ort)
    served = serve('auto', model, SPEC, SIZE, shop.options())
    assert served.current().name == 'fake'
    assert 'nothing can serve until an engine of fake is there' in caplog.text
    assert shop.builds == ['fp16']
    served.close()


def fake_without_ort(self: FakeEngine, path: Path, spec: object, size: tuple[int, int],
                     manner: str) -> None:
    from hybrid_depth.runtime import ort
    with pytest.MonkeyPatch.context() as patch:  # which here stands for a GPU
        patch.setattr(ort, 'available', lambda: '')
        self._ort = ort.open_backend(path, SPEC, size, BackendOptions(cpu_threads=1))
    self._manner, self._first, self.description = manner, None, 'fake'
