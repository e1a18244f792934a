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
"""TensorRT and CUDA themselves: ``make test-gpu``. Not part of ``make test``."""
from __future__ import annotations

import gc
from pathlib import Path
import threading

import numpy as np
import pytest
from tiny_model import POSED, tiny_spec

from hybrid_depth.contract import read_spec
from hybrid_depth.models import find_model, shipped_models
from hybrid_depth.runtime import BackendOptions, ort, trt
from hybrid_depth.runtime.acceptance import accept
from hybrid_depth.runtime.ladder import open_accepted
from hybrid_depth.runtime.reference import find_reference
from hybrid_depth.runtime.trt.adapter import Engine, inspected_share
from hybrid_depth.runtime.trt.cuda import Cuda

_REASON = trt.available()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(_REASON), reason=_REASON)]
SIZE = (32, 48)


def options_in(folder: Path, precision: str) -> BackendOptions:
    return BackendOptions(precision=precision, engine_cache=str(folder))


@pytest.fixture(scope='module')
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('engines')


def frame(seed: int, sources: tuple) -> dict:
    generator = np.random.default_rng(seed)
    return {'image': generator.integers(0, 256, (1, *SIZE, 3), np.uint8),
            'K': np.array([[[150, 0, 24], [0, 150, 16], [0, 0, 1]]], np.float32),
            'source_features': sources,
            'source_T_target': np.tile(np.eye(4, dtype=np.float32), (1, 2, 1, 1)),
            'source_valid': np.array([[source is not None for source in sources]], np.float32)}


def test_memory_copies_and_waiting() -> None:
    cuda = Cuda(0)
    pages, back = (cuda.staging((1000,), 'float32') for _ in range(2))
    pages.array[:] = np.arange(1000)
    device = cuda.allocate(4000)
    cuda.copy(device, pages.host, 4000)
    cuda.copy(back.host, device, 4000)
    cuda.wait()
    np.testing.assert_array_equal(back.array, pages.array)
    cuda.capture(lambda: cuda.copy(back.host, device, 4000))
    back.array[:] = 0
    cuda.launch()
    cuda.wait()
    np.testing.assert_array_equal(back.array, pages.array)
    cuda.clear(device, 4000)
    cuda.launch()
    cuda.wait()
    assert not back.array.any()
    cuda.close()
    cuda.close()


@pytest.mark.parametrize('precision', ['fp32', 'fp16', 'fp16_safe'])
def test_frames_with_sources_as_on_the_cpu(tiny_posed_model: Path, engines: Path,
                                           precision: str) -> None:
    spec, options = tiny_spec(**POSED), options_in(engines, precision)
    plan = trt.build_engine(tiny_posed_model, spec, SIZE, options)
    gpu = trt.open_engine(plan, spec, SIZE, options)
    cpu = ort.open_backend(tiny_posed_model, spec, SIZE, BackendOptions(cpu_threads=1))
    kept: list[tuple] = [(None, None)]
    assert ', CUDA graph' in gpu.description
    for number in range(12):
        chosen = kept[-1], kept[number // 2]
        outputs = [backend.infer(frame(number, tuple(pair[which] for pair in chosen)))
                   for which, backend in enumerate((gpu, cpu))]
        for name in set(outputs[1]) - {'features'}:
            np.testing.assert_allclose(outputs[0][name], outputs[1][name], rtol=5e-3,
                                       err_msg=f'{name} of frame {number}')
        kept.append((outputs[0]['features'], outputs[1]['features']))
    gpu.close()


def test_frames_may_come_from_another_thread(tiny_posed_model: Path, engines: Path) -> None:
    spec, options = tiny_spec(**POSED), options_in(engines, 'fp32')
    gpu = trt.open_engine(trt.build_engine(tiny_posed_model, spec, SIZE, options), spec, SIZE,
                          options)
    found: list = []
    worker = threading.Thread(target=lambda: found.append(gpu.infer(frame(1, (None, None)))))
    worker.start()
    worker.join()
    assert np.isfinite(found[0]['depth']).all()
    gpu.close()


def test_memory_is_given_back(tiny_posed_model: Path, engines: Path) -> None:
    spec, options = tiny_spec(**POSED), options_in(engines, 'fp32')
    plan = trt.build_engine(tiny_posed_model, spec, SIZE, options)
    from cuda.bindings import runtime
    free = []
    for _ in range(4):
        backend = trt.open_engine(plan, spec, SIZE, options)
        kept = [backend.infer(frame(seed, (None, None))) for seed in range(16)]
        backend.close()
        del kept, backend
        gc.collect()
        free.append(runtime.cudaMemGetInfo()[1])
    assert max(free[1:]) - min(free[1:]) < 1 << 24  # the first opening loads libraries


@pytest.mark.slow
def test_what_the_inspector_says_is_understood(engines: Path) -> None:
    path = find_model('compact')
    plan = trt.build_engine(path, read_spec(path), (160, 544), options_in(engines, 'fp16'))
    cuda = Cuda(0)
    engine = Engine(plan)
    layers = engine.layers()
    share = inspected_share(layers, ())
    engine.close()
    cuda.close()
    # what to send to the authors where it is not
    print(f'{len(layers)} layers, {share} in half precision; {layers[len(layers) // 2:][:1]}')
    assert share is not None
    assert share > 0.7  # of all, those that are meant to be in single precision as well


@pytest.mark.slow
@pytest.mark.parametrize('name', shipped_models())
@pytest.mark.parametrize('precision', ['fp16', 'fp16_safe', 'fp32'])
def test_shipped_models_are_accepted(name: str, precision: str, engines: Path) -> None:
    path = find_model(name)
    spec = read_spec(path)
    size = (192, 640)
    options = options_in(engines, precision)
    backend = open_accepted('trt', path, spec, size, options)  # builds in a process of its own
    reference = find_reference(path, spec, size, options)
    verdict = accept(backend, spec, reference, precision)
    assert verdict.ok, verdict.text()
    errors = []
    for case in reference.cases:
        feed = dict(case.inputs)
        if spec.kind == 'posed':
            feed['source_features'] = tuple(np.ascontiguousarray(features[None]) for features
                                            in case.inputs['source_features'][0])
        depth = backend.infer(feed)['depth']
        errors.append(np.abs(depth / case.expected['depth'] - 1).mean())
    backend.close()
    print(f'{name} {precision}: AbsRel to the reference {max(errors):.3%}, layers '
          f'{backend.layers}; {backend.description}')
    assert max(errors) < 0.005
