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
"""Depth goes on while an engine is built in another process, whatever becomes of that process."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
import gc
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

from fake_cuda import Error, FakeCuda, install
from fake_engine import InThisProcess, MARK, Workshop, workshop, write_golden
from fake_tensorrt import FakeTensorRT
import numpy as np
import pytest
from tiny_model import POSED, tiny_depth, tiny_spec, write_tiny_model, write_tiny_posed_model

from hybrid_depth.camera import CameraModel
from hybrid_depth.config import PipelineConfig
from hybrid_depth.errors import BackendUnavailable
from hybrid_depth.pipeline import DepthPipeline
from hybrid_depth.preprocess import network_view
from hybrid_depth.runtime import BACKENDS, build_process, builder, serving, trt
from hybrid_depth.runtime.build_process import BuildProcess, BuildRequest, BuildResult
from hybrid_depth.runtime.engine_cache import EngineCache
from hybrid_depth.types import Frame

SIZE = (32, 48)
SPEC = tiny_spec(pixels=32 * 48)
CAMERA = CameraModel(48, 32, 60.0, 60.0, 24.0, 16.0)
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Workshop]:
    with workshop(tmp_path) as made:
        yield made


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / 'model.onnx'
    write_tiny_model(path, pixels=SPEC.pixels)
    write_golden(path, SPEC, SIZE, SIZE)
    return path


def until(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, 'waited in vain'
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0] != 'Z'
    except OSError:
        return False


class Lines:
    """A BuildProcess and what it was told."""

    def __init__(self, timeout_s: float = 60.0) -> None:
        self.stages: list[str] = []
        self.lines: list[str] = []
        self.process = BuildProcess(self.stages.append, self.lines.append, timeout_s)

    def build(self, shop: Workshop, model: Path, precision: str = 'fp16') -> BuildResult:
        return self.process.build(BuildRequest('fake_engine', model, SIZE,
                                               shop.options(precision), shop.cache))


def test_a_builder_fills_the_cache_and_tells_what_it_does(shop: Workshop, model: Path) -> None:
    told = Lines()
    result = told.build(shop, model)
    assert (result.status, result.reason) == (builder.ACCEPTED, '')
    assert told.stages == ['waiting for other builders', 'building fp16',
                           'looking for reference outputs',
                           'comparing with the reference outputs', 'writing']
    assert told.lines == ['fake: building fp16, right']
    assert result.log == ('fake: building fp16, right',)
    (entry,) = EngineCache(shop.cache).entries()
    assert entry.report['outcome'] == 'accepted'
    assert entry.bytes > 0


@pytest.mark.parametrize(('manner', 'reason'), [
    ('killed', 'killed (SIGKILL), most likely for want of memory; it said last: fake: building'),
    ('crashes', 'the builder crashed (SIGSEGV)'),
    ('fails', 'RuntimeError: no kernel for this layer'),
    ('hangs', 'not done after 1 s'),
])
def test_a_builder_that_comes_to_grief(shop: Workshop, model: Path, manner: str,
                                       reason: str) -> None:
    shop.manners(fp16=manner)
    told = Lines(1.0 if manner == 'hangs' else 60.0)
    result = told.build(shop, model)
    assert result.status == builder.FAILED
    assert reason in result.reason
    assert EngineCache(shop.cache).entries() == []
    assert list(shop.cache.glob('*.plan*')) == []
    with EngineCache(shop.cache).lock('building', wait=False) as is_ours:
        assert is_ours  # what dies holds no lock


def test_closing_kills_the_builder_and_its_children(shop: Workshop, model: Path) -> None:
    shop.hold()
    told = Lines()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(told.build, shop, model)
        until(lambda: shop.builds)
        (pid,) = shop.builders
        assert is_alive(pid)
        assert os.getpgid(pid) == pid != os.getpgid(0)
        told.process.close()
        assert future.result(10).reason == 'stopped'
    assert not is_alive(pid)
    assert told.build(shop, model).reason == 'stopped'
    assert len(shop.builds) == 1


def test_a_builder_looks_for_modules_where_its_parent_does(
        shop: Workshop, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / 'home'
    folder.mkdir()
    for name in ('argparse', 'onnx', 'numpy'):  # somebody's, where the node happens to be started
        (folder / f'{name}.py').write_text('raise SystemExit(9)\n')
    monkeypatch.chdir(folder)
    monkeypatch.delenv('PYTHONPATH')
    result = Lines().build(shop, Path(os.path.relpath(model)))
    assert (result.status, result.reason) == (builder.ACCEPTED, '')


PARENT = """
import os, sys
from pathlib import Path
from hybrid_depth.runtime import BackendOptions
from hybrid_depth.runtime.build_process import BuildProcess, BuildRequest
model, cache = map(Path, sys.argv[1:])
BuildProcess(print, print).build(BuildRequest(
    'fake_engine', model, (32, 48), BackendOptions(1, 'fp16', str(cache)), cache))
"""


def test_a_builder_does_not_outlive_a_node_that_is_killed(shop: Workshop, model: Path) -> None:
    shop.hold()
    parent = subprocess.Popen([sys.executable, '-c', PARENT, str(model), str(shop.cache)],
                              cwd=ROOT, stdout=subprocess.DEVNULL)
    until(lambda: shop.builds)
    (pid,) = shop.builders
    parent.kill()
    parent.wait()
    until(lambda: not is_alive(pid), 5)


def test_two_builders_at_once_build_once(shop: Workshop, model: Path) -> None:
    shop.hold()
    with ThreadPoolExecutor(2) as pool:
        both = [Lines(), Lines()]
        futures = [pool.submit(told.build, shop, model) for told in both]
        until(lambda: shop.builds)
        until(lambda: all('waiting for other builders' in told.stages for told in both))
        shop.release()
        assert [future.result(60).status for future in futures] == [builder.ACCEPTED] * 2
    assert shop.builds == ['fp16']


def test_one_engine_is_built_at_a_time(shop: Workshop, model: Path) -> None:
    shop.hold()
    with ThreadPoolExecutor(2) as pool:
        both = {'fp16': Lines(), 'fp32': Lines()}
        futures = [pool.submit(told.build, shop, model, name) for name, told in both.items()]
        until(lambda: shop.builds)
        until(lambda: all('waiting for other builders' in told.stages for told in both.values()))
        time.sleep(0.3)  # more than the other one would need
        assert len(shop.builds) == 1
        shop.release()
        assert [future.result(60).status for future in futures] == [builder.ACCEPTED] * 2
    assert sorted(shop.builds) == ['fp16', 'fp32']


def frame(grey: int, number: int, pose: np.ndarray | None = None) -> Frame:
    image = np.full((CAMERA.height, CAMERA.width, 3), grey, np.uint8)
    return Frame(image, number * 100_000_000, 'c', CAMERA, pose)


def config(shop: Workshop, model: Path, **more: str) -> PipelineConfig:
    return PipelineConfig(model=str(model), cpu_threads=1, engine_cache=str(shop.cache),
                          resolution='network', **more)


def truth(grey: int) -> float:
    fx = network_view(CAMERA, SIZE).K[0, 0, 0]
    return float(tiny_depth(np.full((1, 1, 3), grey, np.uint8), fx)[0, 0])


def drive(pipeline: DepthPipeline, done: Callable[[], bool], first: int = 0) -> list[float]:
    """Run frames until ``done``; return depth / truth of each."""
    ratios: list[float] = []
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end, 'waited in vain'
        grey = 20 + len(ratios) % 200
        depth = pipeline.run(frame(grey, first + len(ratios))).depth_m
        assert np.isfinite(depth).all()
        assert np.ptp(depth) < 1e-3 * depth.mean()
        ratios.append(float(np.median(depth)) / truth(grey))
        time.sleep(0.01)
    return ratios


def test_depth_goes_on_and_changes_over(shop: Workshop, model: Path) -> None:
    shop.hold()
    pipeline = DepthPipeline(config(shop, model), is_live=True)
    try:
        before = drive(pipeline, lambda: bool(shop.builds))
        before += drive(pipeline, lambda: 'fake: building' in
                        pipeline.backend_facts()['engine.state'])
        assert 'ONNX Runtime' in pipeline.backend_description
        assert before == pytest.approx([1.0] * len(before), rel=1e-5)
        state = pipeline.backend_facts()['engine.state']
        assert state.startswith('on its way, ')
        assert 's: building fp16: fake: building fp16, right' in state
        shop.release()
        after = drive(pipeline, lambda: pipeline.backend_facts()['engine.state'] == 'in use')
        after += drive(pipeline, iter([False] * 3 + [True]).__next__)
        assert set(np.round(after, 5)) <= {1.0, round(float(MARK), 5)}
        assert sorted(after) == pytest.approx(after, rel=1e-5)  # once, and for good
        assert after[-3:] == pytest.approx([MARK] * 3, rel=1e-5)
        assert pipeline.backend_description == 'fake engine 48x32'
        assert pipeline.backend_facts()['engine.choice'] == 'fake, the first of auto'
        assert 'fp16 accepted: golden outputs at 48x32' \
            in pipeline.backend_facts()['engine.steps']
        assert pipeline.backend_complaint() == ''
    finally:
        pipeline.close()


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build in this process, where it does not matter in which."""
    class Process(InThisProcess):

        def __init__(self, *_: object) -> None:
            pass

        def close(self) -> None:
            pass

    monkeypatch.setattr(build_process, 'BuildProcess', Process)


@pytest.mark.parametrize('manner', ['wrong', 'nan', 'constant', 'second', 'fails', 'raises'])
def test_no_frame_is_from_an_engine_that_lies(shop: Workshop, model: Path, manner: str,
                                              inside: None) -> None:
    shop.manners(fp16=manner, fp16_safe=manner, fp32=manner)
    pipeline = DepthPipeline(config(shop, model), is_live=True)
    try:
        ratios = drive(pipeline, lambda: bool(pipeline.backend_complaint()))
        ratios += drive(pipeline, iter([False] * 3 + [True]).__next__)
        assert ratios == pytest.approx([1.0] * len(ratios), rel=1e-5)  # of the CPU, all of them
        complaint = pipeline.backend_complaint()
        assert 'fp16 ' in complaint
        assert 'fp32 ' in complaint
        assert 'depth is by ONNX Runtime' in complaint
        assert pipeline.backend_facts()['engine.state'].startswith('none: fake has no engine')
    finally:
        pipeline.close()


@pytest.mark.parametrize('named', [{'backend': 'fake'}, {'precision': 'fp16'}])
def test_what_was_named_is_not_replaced(shop: Workshop, model: Path, named: dict,
                                        inside: None) -> None:
    shop.manners(fp16='wrong', fp16_safe='wrong', fp32='wrong')
    pipeline = DepthPipeline(config(shop, model, **named), is_live=True)
    try:
        until(pipeline.backend_complaint)
        with pytest.raises(BackendUnavailable, match=r'median of depth is 1\.9'):
            pipeline.run(frame(50, 0))
        assert 'there is no depth' in pipeline.backend_complaint()
    finally:
        pipeline.close()


def test_features_do_not_cross_over(shop: Workshop, tmp_path: Path, inside: None) -> None:
    path = tmp_path / 'posed.onnx'
    spec = write_tiny_posed_model(path, pixels=SPEC.pixels)
    assert spec == tiny_spec(**POSED, pixels=SPEC.pixels)
    write_golden(path, spec, SIZE)
    shop.hold()
    pipeline = DepthPipeline(config(shop, path), is_live=True)

    def run(number: int) -> int:
        pose = np.eye(4)
        pose[2, 3] = 0.3 * number
        result = pipeline.run(frame(50, number, pose))
        assert np.isfinite(result.depth_m).all()
        return result.sources

    try:
        assert [run(number) for number in range(3)][-1] > 0
        shop.release()
        until(lambda: 'takes over' in pipeline.backend_facts()['engine.state'])
        # a source of the CPU would be refused by the fake as another's
        assert run(3) == 0
        assert pipeline.backend_description.startswith('fake')
        assert run(4) > 0
    finally:
        pipeline.close()


def test_resting_and_going_on_again_leaks_nothing(
        shop: Workshop, tmp_path: Path, inside: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What deactivating does, with TensorRT but for its two libraries."""
    cuda = install(monkeypatch, FakeCuda())
    tensorrt = FakeTensorRT('10.3.0', cuda).install(monkeypatch)
    BACKENDS.clear()
    BACKENDS.update({'trt': trt.__name__, 'ort': 'hybrid_depth.runtime.ort'})
    path = tmp_path / 'posed.onnx'
    spec = write_tiny_posed_model(path, pixels=SPEC.pixels)
    write_golden(path, spec, SIZE)
    pipeline = DepthPipeline(config(shop, path, precision='fp32'), is_live=True)
    held, runs, number = [], 0, 0
    for _ in range(20):
        in_use = 0
        end = time.monotonic() + 20
        while in_use < 3:
            assert time.monotonic() < end, pipeline.backend_facts()
            pose = np.eye(4)
            pose[2, 3] = 0.3 * (number := number + 1)
            assert np.isfinite(pipeline.run(frame(50, number, pose)).depth_m).all()
            in_use += pipeline.backend_facts()['engine.state'] == 'in use'
            time.sleep(0.001)
        held.append((sum(map(len, cuda.device.values())), len(cuda.handles)))
        assert tensorrt.runs > runs
        runs = tensorrt.runs
        pipeline.free()
        gc.collect()
        assert (cuda.device, cuda.host, cuda.handles) == ({}, {}, {})
    assert len(set(held)) == 1
    pipeline.close()


@pytest.mark.parametrize(('backend', 'soon_s'), [('auto', 60.0), ('auto', 0.0), ('trt', 60.0)])
def test_a_gpu_that_drops_out(shop: Workshop, model: Path, inside: None, backend: str,
                              soon_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, '_SOON_S', soon_s)
    gives_up = backend == 'auto' and soon_s > 0
    cuda = install(monkeypatch, FakeCuda())
    tensorrt = FakeTensorRT('11.4.0.106', cuda).install(monkeypatch)
    BACKENDS.clear()
    BACKENDS.update({'trt': trt.__name__, 'ort': 'hybrid_depth.runtime.ort'})
    pipeline = DepthPipeline(config(shop, model, backend=backend), is_live=True)
    try:
        drive(pipeline, lambda: pipeline.backend_facts()['engine.state'] == 'in use')
        runs = tensorrt.runs
        cuda.fail['cudaGraphLaunch'] = Error.cudaErrorInvalidValue
        with pytest.raises(BackendUnavailable, match='cudaErrorInvalidValue'):
            pipeline.run(frame(50, 0))
        cuda.fail.clear()
        drive(pipeline, iter([False, True]).__next__)  # a single failure is no reason
        assert tensorrt.runs > runs
        assert pipeline.backend_complaint() == ''
        cuda.fail.update(dict.fromkeys(
            ('cudaSetDevice', 'cudaGraphLaunch', 'cudaMalloc', 'cudaStreamSynchronize',
             'cudaFree'), Error.cudaErrorNoDevice))
        for number in range(2 if gives_up else 6):
            with pytest.raises(BackendUnavailable, match='check that nvidia-smi lists a GPU'):
                pipeline.run(frame(50, number))
        if gives_up:
            ratios = drive(pipeline, iter([False] * 3 + [True]).__next__, 10)
            assert ratios == pytest.approx([1.0] * 3, rel=1e-5)
            complaint = pipeline.backend_complaint()
            assert 'the engine was given up' in complaint
            assert 'depth is by ONNX Runtime' in complaint
            assert 'given up' in pipeline.backend_facts()['engine.state']
            assert not cuda.handles
    finally:
        pipeline.close()


def test_another_camera_in_the_middle_of_a_build(shop: Workshop, model: Path) -> None:
    shop.hold()
    pipeline = DepthPipeline(config(shop, model), is_live=True)
    try:
        until(lambda: shop.builds)
        # twice the pixels of the model: another network size
        camera = CameraModel(96, 32, 60.0, 60.0, 48.0, 16.0)
        image = np.full((32, 96, 3), 50, np.uint8)
        assert np.isfinite(pipeline.run(Frame(image, 1, 'c', camera, None)).depth_m).all()
        assert not is_alive(shop.builders[0])
        until(lambda: len(shop.builds) == 2)
        shop.release()
        until(lambda: 'takes over' in pipeline.backend_facts()['engine.state'])
        assert np.isfinite(pipeline.run(Frame(image, 2, 'c', camera, None)).depth_m).all()
        assert pipeline.backend_description.startswith('fake engine ')
        assert pipeline.backend_description != 'fake engine 48x32'
    finally:
        pipeline.close()


@pytest.mark.parametrize('folder', ['file', '~nobody-at-all', 'shared'])
def test_a_bad_cache_folder_costs_the_engine_alone(shop: Workshop, model: Path, tmp_path: Path,
                                                   folder: str) -> None:
    where = folder if folder.startswith('~') else tmp_path / folder
    if folder == 'file':
        (tmp_path / folder).touch()
    elif folder == 'shared':
        (tmp_path / folder).mkdir()
        (tmp_path / folder).chmod(0o777)
    settings = replace(config(shop, model), engine_cache=str(where))
    pipeline = DepthPipeline(settings, is_live=True)
    try:
        ratios = drive(pipeline, lambda: bool(pipeline.backend_complaint()))
        assert ratios == pytest.approx([1.0] * len(ratios), rel=1e-5)
        assert f'the engine cache {where}' in pipeline.backend_complaint()
        assert 'engine_cache' in pipeline.backend_complaint()
        assert shop.builds == []
    finally:
        pipeline.close()


def test_closing_in_the_middle_of_a_build(shop: Workshop, model: Path) -> None:
    shop.hold()
    pipeline = DepthPipeline(config(shop, model), is_live=True)
    until(lambda: shop.builds)
    start = time.monotonic()
    pipeline.close()
    pipeline.close()
    assert time.monotonic() - start < 5
    assert not any(map(is_alive, shop.builders))


def test_a_builder_killed_from_outside_leaves_depth(shop: Workshop, model: Path) -> None:
    shop.hold()
    pipeline = DepthPipeline(config(shop, model), is_live=True)
    try:
        ratios = drive(pipeline, lambda: bool(shop.builds))
        os.kill(shop.builders[0], signal.SIGKILL)
        ratios += drive(pipeline, lambda: len(shop.builds) == 2)  # the next precision
        assert 'fp16 failed: the builder was killed (SIGKILL)' \
            in pipeline.backend_facts()['engine.steps']
        assert ratios == pytest.approx([1.0] * len(ratios), rel=1e-5)
    finally:
        pipeline.close()
