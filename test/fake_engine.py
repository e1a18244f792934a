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
A runtime that builds engines, without a GPU: ONNX Runtime behind a plan, as false as a test asks.

What it does is in the environment, which builders inherit: FAKE_ENGINE is JSON of precision ->
manner, and FAKE_ENGINE_LOG a file that gets a line per build.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
import io
import json
import os
from pathlib import Path
import signal
import sys
import time
from typing import Any

import numpy as np
import pytest

from hybrid_depth.contract import ModelSpec, read_spec
from hybrid_depth.errors import BackendUnavailable, ContractError
from hybrid_depth.runtime import BackendOptions, BACKENDS, builder, ort
from hybrid_depth.runtime.build_process import BuildRequest, BuildResult

MARK = np.float32(1.001)  # times depth: tells an honest engine from the CPU, and is accepted
LIE = np.float32(7)  # times depth
# what a manner does to the depth of the n-th image that an engine sees
LIES = ('wrong', 'nan', 'constant', 'mirrored', 'second', 'features', 'raises', 'sigma')


def available() -> str:
    return ''


def environment_facts(gpu: int) -> dict[str, Any]:
    return {'tensorrt': '1.2.3.4', 'gpu_name': f'fake {gpu}', 'compute_capability': '0.0'}


def build_engine(path: Path, spec: ModelSpec, size: tuple[int, int],
                 options: BackendOptions) -> bytes:
    manner = json.loads(os.environ.get('FAKE_ENGINE', '{}')).get(options.precision, 'right')
    with Path(os.environ['FAKE_ENGINE_LOG']).open('a') as log:
        log.write(f'{options.precision} {os.getpid()}\n')
    print(f'fake: building {options.precision}, {manner}', flush=True)
    if manner == 'killed':
        os.kill(os.getpid(), signal.SIGKILL)
    if manner == 'crashes':
        os.kill(os.getpid(), signal.SIGSEGV)
    if manner == 'hangs':
        time.sleep(60)
    if manner == 'fails':
        raise RuntimeError('no kernel for this layer')
    while (gate := os.environ.get('FAKE_ENGINE_GATE')) and not Path(gate).exists():
        time.sleep(0.02)
    return json.dumps({'path': str(path), 'manner': manner}).encode()


def open_engine(plan: bytes, spec: ModelSpec, size: tuple[int, int],
                options: BackendOptions) -> FakeEngine:
    told = json.loads(plan)
    if told['manner'] == 'unopenable':
        raise RuntimeError('the plan is of another version')
    return FakeEngine(Path(told['path']), spec, size, told['manner'])


class _Handle:
    """Features as a device would keep them."""

    def __init__(self, owner: FakeEngine, array: np.ndarray) -> None:
        self.owner, self.array = owner, array


class FakeEngine:
    """The model, by its own features only, and depth by its manner."""

    name = 'fake'
    layers: Mapping[str, float] = {'HALF': 1.0}
    opened: list[FakeEngine] = []  # noqa: RUF012 - all of this process

    def __init__(self, path: Path, spec: ModelSpec, size: tuple[int, int], manner: str) -> None:
        self._ort = ort.open_backend(path, spec, size, BackendOptions(cpu_threads=1))
        self._manner = manner
        self._first: np.ndarray | None = None
        self.description = f'fake engine {size[1]}x{size[0]}'
        self.is_closed = False
        FakeEngine.opened.append(self)

    def infer(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        image = inputs['image']
        is_first = self._first is None or np.array_equal(image, self._first)
        if self._first is None:
            self._first = np.array(image)
        feed = dict(inputs)
        if 'source_features' in feed:
            feed['source_features'] = tuple(self._own(source) for source in
                                            feed['source_features'])
        outputs = {name: np.array(array) for name, array in self._ort.infer(feed).items()}
        depth = outputs['depth']
        if self._manner == 'raises':
            raise RuntimeError('illegal memory access')
        if self._manner == 'nan':
            depth[..., 0] = np.nan
        elif self._manner == 'constant':
            depth[:] = np.median(depth)
        elif self._manner == 'mirrored':
            depth[:] = depth[..., ::-1].copy()
        elif self._manner == 'sigma':
            outputs['sigma'] *= LIE
        elif self._manner == 'wrong' or (self._manner == 'second' and not is_first):
            depth *= LIE
        else:
            depth *= MARK
        if 'features' in outputs:
            factor = 0 if self._manner == 'features' else 1
            outputs['features'] = _Handle(self, outputs['features'] * factor)
        return outputs

    def close(self) -> None:
        self.is_closed = True
        self._ort.close()

    def _own(self, source: Any) -> np.ndarray | None:
        if isinstance(source, _Handle):
            if source.owner is not self:
                raise ContractError('features of another engine')
            return source.array
        return source


class InThisProcess:
    """A BuildProcess that saves starting one."""

    is_closed = False

    def build(self, request: BuildRequest) -> BuildResult:
        try:
            with redirect_stdout(io.StringIO()):
                status = builder.build(sys.modules[request.module], request.path,
                                       read_spec(request.path), request.size,
                                       request.options)
        except (BackendUnavailable, RuntimeError, OSError) as error:
            return BuildResult(builder.FAILED, str(error), ('the log',))
        return BuildResult(status, '', ('the log',))


class Workshop:
    """The fake as a row of BACKENDS, with its cache and its log of builds."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.cache = folder / 'cache'
        self.gate = folder / 'gate'
        self._log = folder / 'builds'
        self._log.touch()
        self._patch = patch
        BACKENDS.clear()  # 'auto' asks the fake first
        BACKENDS.update({'fake': __name__, 'ort': 'hybrid_depth.runtime.ort'})
        patch.setenv('PYTHONPATH', str(Path(__file__).parent))
        patch.setenv('FAKE_ENGINE_LOG', str(self._log))
        FakeEngine.opened.clear()

    def manners(self, **by_precision: str) -> None:
        """Let engines be false; a precision that is not named is honest."""
        self._patch.setenv('FAKE_ENGINE', json.dumps(by_precision))

    def hold(self) -> None:
        """Let builders wait until ``release``."""
        self._patch.setenv('FAKE_ENGINE_GATE', str(self.gate))

    def release(self) -> None:
        self.gate.touch()

    def options(self, precision: str = 'auto') -> BackendOptions:
        return BackendOptions(1, precision, str(self.cache))

    @property
    def builds(self) -> list[str]:
        """Precisions that were built, in order."""
        return [line.split()[0] for line in self._log.read_text().splitlines()]

    @property
    def builders(self) -> list[int]:
        """Process numbers of the builders."""
        return [int(line.split()[1]) for line in self._log.read_text().splitlines()]


@contextmanager
def workshop(folder: Path) -> Iterator[Workshop]:
    """Give a workshop, and put everything back as it was."""
    before = dict(BACKENDS)
    with pytest.MonkeyPatch.context() as patch:
        yield Workshop(folder, patch)
    BACKENDS.clear()
    BACKENDS.update(before)


def write_golden(model: Path, spec: ModelSpec, *sizes: tuple[int, int]) -> Path:
    """Write golden.npz beside ``model``: noise and what ONNX Runtime makes of it."""
    arrays = {}
    for index, size in enumerate(sizes):
        rng = np.random.default_rng(index)
        inputs: dict[str, Any] = {
            'image': rng.integers(0, 256, (1, *size, 3), np.uint8),
            'K': np.array([[[150, 0, 24], [0, 150, 16], [0, 0, 1]]], np.float32)}
        if spec.kind == 'posed':
            shape = spec.inputs(size)['source_features'][1]
            motions = np.tile(np.eye(4, dtype=np.float32), (1, spec.sources, 1, 1))
            motions[0, :, 2, 3] = 0.5
            inputs |= {'source_features': rng.random(shape, np.float32),
                       'source_T_target': motions,
                       'source_valid': np.ones((1, spec.sources), np.float32)}
        feed = dict(inputs)
        if spec.kind == 'posed':
            feed['source_features'] = tuple(part[None] for part in inputs['source_features'][0])
        backend = ort.open_backend(model, spec, size, BackendOptions(cpu_threads=1))
        for name, array in {**inputs, **backend.infer(feed)}.items():
            arrays[f'{index}_{name}'] = array
        backend.close()
    path = model.with_name('golden.npz')
    np.savez(path, **arrays)
    return path
