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
The adapter against NVIDIA's own Python packages of TensorRT, without its libraries or a GPU.

The packages ``tensorrt_bindings`` (8.6), ``tensorrt_cu12_bindings`` and ``tensorrt_cu13_bindings``
are small and need a library only to be loaded: an empty one, compiled here, will do. Set
TENSORRT_BINDINGS to folders with one unpacked package each, separated by ':', to test several.

Likewise NVIDIA's cuda-bindings, and CUDA_BINDINGS: without a GPU they refuse every call, but not
before they have looked at its arguments.
"""
from __future__ import annotations

from importlib.util import find_spec
import json
import os
from pathlib import Path
import shutil
import subprocess
import sys

from fake_cuda import FakeCuda, install
from fake_tensorrt import FakeTensorRT, VERSIONS
import pytest
from tiny_model import tiny_spec

from hybrid_depth.runtime import BackendOptions, trt
from hybrid_depth.runtime.trt import adapter

_FOLDERS = [folder for folder in os.environ.get('TENSORRT_BINDINGS', '').split(':') if folder]
_LIBRARIES = ('nvinfer', 'nvonnxparser', 'nvinfer_plugin', 'nvparsers')
# the symbols that they leave to the libraries; those with C++ names are of 8.6 alone
_STUB = '\n'.join(f'void *{name}(void) {{ return 0; }}' for name in (
    'createInferBuilder_INTERNAL', 'createInferRuntime_INTERNAL', 'createInferRefitter_INTERNAL',
    'createNvOnnxParser_INTERNAL', 'createNvOnnxParserRefitter_INTERNAL', 'getPluginRegistry',
    'getBuilderPluginRegistry', 'initLibNvInferPlugins', 'getNvOnnxParserVersion',
    '_ZN14nvcaffeparser117createCaffeParserEv', '_ZN14nvcaffeparser123shutdownProtobufLibraryEv',
    '_ZN11nvuffparser15createUffParserEv', '_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi'))
# imports the package as `tensorrt`, and prints what of it the adapter sees and misses
_LOOK = """
import json, sys
import tensorrt_bindings
sys.modules['tensorrt'] = tensorrt_bindings
from hybrid_depth.errors import BackendUnavailable
from hybrid_depth.runtime.trt import adapter
trt = adapter.load()
missing = []
for name, attribute in json.loads(sys.argv[1]):
    thing = trt
    for part in (*name.split('.'), attribute):
        thing = getattr(thing, part, None)
        if thing is None:
            missing.append([name, attribute])
            break
log = adapter.make_log(trt)
log.log(trt.ILogger.Severity.ERROR, 'broken')
try:
    adapter.build(trt, b'', adapter.BuildOrder('fp32', 1, 3))
    start = ''
except BackendUnavailable as error:
    start = str(error)
print(json.dumps({'version': trt.__version__, 'flags': adapter.network_flags(trt), 'start': start,
                  'typed': adapter.is_strongly_typed(trt), 'missing': missing,
                  'said': log.said()}))
"""
# makes every call that a frame makes, of the real package and of the imitation
_CALL = """
import sys
from types import ModuleType
from fake_cuda import FakeCuda
import numpy as np
from cuda.bindings import runtime as real
fake = FakeCuda(integrated=sys.argv[1] == 'integrated')
imitation = fake.module()
calls = {}

def both(name):
    def call(*arguments):
        try:
            error = getattr(real, name)(*arguments)[0]
        except RuntimeError:  # without a driver
            error = None
        assert name in ('cudaRuntimeGetVersion', 'cudaGetErrorString') \\
            or error != real.cudaError_t.cudaSuccess, 'there is a GPU'
        calls[name] = len(arguments)
        ours = [argument.name.removeprefix('cudaDevAttr')
                if isinstance(argument, real.cudaDeviceAttr) else argument
                for argument in arguments]
        return getattr(imitation, name)(*ours)
    return call

class Both(ModuleType):
    def __getattr__(self, name):
        if name == 'cudaError_t':
            return imitation.cudaError_t
        return both(name) if hasattr(real, name) and callable(getattr(imitation, name, None)) \\
            else getattr(real, name)

import cuda.bindings
cuda.bindings.runtime = Both('both')
from hybrid_depth.runtime.trt.cuda import Cuda, device_count, facts
device_count()
facts(0)
gpu = Cuda(0)
pages, memory = gpu.staging((4,), 'float32'), gpu.allocate(16)
pages.array[:] = 7
gpu.capture(lambda: gpu.copy(memory, pages.host, 16))
gpu.launch()
gpu.clear(memory, 16)
gpu.copy(pages.host, memory, 16)
gpu.wait()
assert not pages.array.any()
gpu.close()
del pages
print(len(calls))
"""


def folders() -> list[str]:
    """Return where packages are to be looked for; '' = where all packages are."""
    return _FOLDERS or ([''] if find_spec('tensorrt_bindings') else [])


@pytest.fixture(scope='module')
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which('gcc') or shutil.which('cc')
    if compiler is None:
        pytest.skip('no C compiler: the libraries of TensorRT cannot be stood in for')
    folder = tmp_path_factory.mktemp('stubs')
    (folder / 'stub.c').write_text(_STUB)
    for major in (8, 10, 11):
        for name in _LIBRARIES:
            file = f'lib{name}.so.{major}'
            subprocess.run([compiler, '-shared', '-fPIC', f'-Wl,-soname,{file}', '-o',
                            folder / file, folder / 'stub.c'], check=True)
    return folder


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch, tiny_model: Path, tmp_path: Path) -> dict:
    """Return version -> everything of TensorRT that building and running touches."""
    found = {}
    cuda = install(monkeypatch, FakeCuda())
    options = BackendOptions(precision='fp16', engine_cache=str(tmp_path))
    for version in VERSIONS:
        fake = FakeTensorRT(version, cuda).install(monkeypatch)
        plan = trt.build_engine(tiny_model, tiny_spec(), (32, 48), options)
        trt.open_engine(plan, tiny_spec(), (32, 48), options).close()
        _ = adapter.Engine(plan).device_memory
        found[version] = sorted(fake.used)
    return found


@pytest.mark.skipif(not folders(), reason="none of NVIDIA's packages tensorrt_bindings is "
                    'installed, and TENSORRT_BINDINGS names none')
@pytest.mark.parametrize('folder', folders())
def test_the_real_package_has_what_the_adapter_uses(stubs: Path, used: dict, folder: str) -> None:
    root = Path(__file__).resolve().parents[3]
    environment = {**os.environ, 'LD_LIBRARY_PATH': str(stubs), 'TRT_LIBPATH': str(stubs),
                   'PYTHONPATH': os.pathsep.join(filter(None, (folder, str(root))))}
    # what a version of the same major number uses; the nearest recorded one
    probe = subprocess.run(
        [sys.executable, '-c', 'import tensorrt_bindings; print(tensorrt_bindings.__version__)'],
        env=environment, capture_output=True, text=True)
    assert probe.returncode == 0, probe.stderr
    version = probe.stdout.split()[-1]
    recorded = version if version in used else next(
        name for name in reversed(VERSIONS) if name.split('.')[0] == version.split('.')[0])
    done = subprocess.run([sys.executable, '-c', _LOOK, json.dumps(used[recorded])],
                          env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found['missing'] == []
    assert found['version'] == version
    assert found['said'] == 'broken'
    flags = {'8': 0b01, '10': 0b10, '11': 0}[version.split('.')[0]]
    assert found['flags'] == flags
    assert found['typed'] is not version.startswith('8')
    # what a machine without a GPU makes of it
    assert 'TensorRT cannot start' in found['start']


_CUDA = [folder for folder in os.environ.get('CUDA_BINDINGS', '').split(':') if folder] or (
    [''] if find_spec('cuda') and find_spec('cuda.bindings') else [])


@pytest.mark.skipif(not _CUDA, reason='cuda-bindings is not installed, and CUDA_BINDINGS names '
                    'no folder with it')
@pytest.mark.parametrize('folder', _CUDA)
@pytest.mark.parametrize('gpu', ['card', 'integrated'])
def test_the_real_cuda_bindings_take_the_calls(folder: str, gpu: str) -> None:
    here = Path(__file__).resolve()
    environment = {**os.environ, 'CUDA_VISIBLE_DEVICES': '-1', 'PYTHONPATH': os.pathsep.join(
        filter(None, (folder, str(here.parents[3]), str(here.parents[2]))))}
    done = subprocess.run([sys.executable, '-c', _CALL, gpu], env=environment,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20


def test_enough_is_touched_to_mean_something(used: dict) -> None:
    for version, touched in used.items():
        assert len(touched) > 40, version
        assert ['IExecutionContext', 'execute_async_v3'] in [list(pair) for pair in touched]
