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
"""One adapter for five versions of TensorRT, held against what each of them really has."""
from __future__ import annotations

import json
from pathlib import Path
import sys
from types import ModuleType

from fake_cuda import FakeCuda, install
from fake_tensorrt import API, FakeTensorRT, VERSIONS
import numpy as np
from onnx import helper, numpy_helper, TensorProto
import pytest
from tiny_model import save_model, tiny_spec

from hybrid_depth.errors import BackendUnavailable
from hybrid_depth.runtime import BackendOptions, trt
from hybrid_depth.runtime.trt import adapter

SIZE = (32, 48)
SPEC = tiny_spec()


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return install(monkeypatch, FakeCuda())


@pytest.fixture(params=VERSIONS)
def tensorrt(request: pytest.FixtureRequest, cuda: FakeCuda,
             monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    return FakeTensorRT(request.param, cuda).install(monkeypatch)


@pytest.fixture
def conv_model(tmp_path: Path) -> Path:
    """Return a model with a convolution, whose depth is 1 + half the mean of R, G and B."""
    node, float32 = helper.make_node, TensorProto.FLOAT
    weights = {'kernel': np.full((1, 3, 1, 1), 0.5 / 3, np.float32),
               'bias': np.ones(1, np.float32), 'relative': np.array(0.1, np.float32),
               'scale': np.array(1 / 255, np.float32)}
    image = helper.make_tensor_value_info('image', TensorProto.UINT8, [1, 'height', 'width', 3])
    K = helper.make_tensor_value_info('K', float32, [1, 3, 3])
    outputs = [helper.make_tensor_value_info(name, float32, [1, 1, 'height', 'width'])
               for name in ('depth', 'sigma')]
    graph = helper.make_graph([
        node('Transpose', ['image'], ['chw'], 'move', perm=[0, 3, 1, 2]),
        node('Cast', ['chw'], ['number'], 'cast', to=float32),
        node('Mul', ['number', 'scale'], ['scaled'], 'to_one'),
        node('Conv', ['scaled', 'kernel', 'bias'], ['depth'], 'conv'),
        node('Mul', ['depth', 'relative'], ['sigma'], 'sigma_of'),
    ], 'conv', [image, K], outputs, [numpy_helper.from_array(value, name)
                                     for name, value in weights.items()])
    save_model(tmp_path / 'conv.onnx', graph, SPEC)
    return tmp_path / 'conv.onnx'


def options_in(folder: Path, precision: str = 'fp16') -> BackendOptions:
    return BackendOptions(precision=precision, engine_cache=str(folder / 'engines'))


@pytest.mark.parametrize('precision', ['fp32', 'fp16', 'fp16_safe'])
def test_every_version_builds_and_runs(tensorrt: FakeTensorRT, conv_model: Path, tmp_path: Path,
                                       precision: str) -> None:
    options = options_in(tmp_path, precision)
    backend = trt.open_engine(trt.build_engine(conv_model, SPEC, SIZE, options), SPEC, SIZE,
                              options)
    image = np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), np.uint8)
    depth = backend.infer({'image': image, 'K': np.eye(3, dtype=np.float32)[None]})['depth']
    np.testing.assert_allclose(depth[0, 0], 1 + image[0].mean(-1) / 510, rtol=2e-3)
    assert tensorrt.version in backend.description
    assert precision in backend.description
    assert backend.layers == {'half': float(precision == 'fp16'),  # its one layer is the last
                              'float': float(precision != 'fp16')}
    assert 'TF32' not in tensorrt.flags
    assert tensorrt.told == {'WORKSPACE': trt.BUILD_SETTINGS['workspace'], 'verbosity': 'DETAILED',
                             'level': trt.BUILD_SETTINGS['optimization_level']}
    is_weak = tensorrt.version.startswith('8') and precision != 'fp32'
    assert tensorrt.flags == ({'FP16', 'OBEY_PRECISION_CONSTRAINTS'} if is_weak else set())
    assert bool(tensorrt.pinned) == is_weak
    if is_weak:
        assert tensorrt.pinned['conv'] == ('HALF' if precision == 'fp16' else 'FLOAT')
    backend.close()


@pytest.mark.parametrize(('version', 'flags', 'typed'), [
    ('8.6.1', 0b01, False), ('10.0.1', 0b10, True), ('10.3.0', 0b10, True),
    ('10.16.1.11', 0b10, True), ('11.4.0.106', 0, True)])
def test_network_flags_by_version(cuda: FakeCuda, version: str, flags: int, typed: bool) -> None:
    module = FakeTensorRT(version, cuda).module
    assert adapter.network_flags(module) == flags
    assert adapter.is_strongly_typed(module) is typed


@pytest.mark.parametrize('version', VERSIONS)
def test_the_imitation_lacks_what_the_version_lacks(cuda: FakeCuda, version: str) -> None:
    fake = FakeTensorRT(version, cuda)
    module = fake.module
    with pytest.raises(AttributeError, match=r'no BuilderFlag\.BLINK'):
        module.BuilderFlag.BLINK  # noqa: B018 - what is looked at is what raises
    config = module.IBuilderConfig()
    with pytest.raises(AttributeError, match=r'no IBuilderConfig\.max_workspace'):
        config.max_workspace = 1
    assert hasattr(module.BuilderFlag, 'FP16') is not version.startswith('11')
    assert hasattr(module.ICudaEngine, 'device_memory_size')  # the imitation itself has all
    assert ('device_memory_size' in API[version]['ICudaEngine']) is not version.startswith('11')


def test_memory_of_an_execution(tensorrt: FakeTensorRT, conv_model: Path, tmp_path: Path) -> None:
    plan = trt.build_engine(conv_model, SPEC, SIZE, options_in(tmp_path))
    engine = adapter.Engine(plan)
    assert engine.device_memory == 1000
    engine.close()
    engine.close()


@pytest.mark.parametrize('text', ['', 'null', '{}', '{"Layers": ["names", "only"]}', '["name"]',
                                  '[{"LayerType": "CaskConvolution", "Name": "conv"}]'])
def test_an_inspector_that_says_nothing(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch,
                                        conv_model: Path, tmp_path: Path, text: str) -> None:
    for version, refused in (('10.3.0', False), ('8.6.1', True)):
        fake = FakeTensorRT(version, cuda).install(monkeypatch)
        fake.inspector_text = text
        if refused:  # weak types, and nobody vouches for them
            with pytest.raises(BackendUnavailable, match='does not say what its layers'):
                trt.build_engine(conv_model, SPEC, SIZE, options_in(tmp_path))
        else:
            assert trt.build_engine(conv_model, SPEC, SIZE, options_in(tmp_path))


def test_fp16_that_is_none_is_refused(tensorrt: FakeTensorRT, conv_model: Path,
                                      tmp_path: Path) -> None:
    tensorrt.computes_in_float = True
    for tensorrt.inspector_text in (None, ''):  # the network says it, before minutes are spent
        tensorrt.told = {}
        with pytest.raises(BackendUnavailable, match=r'the network .* only 0% of its matrix'):
            trt.build_engine(conv_model, SPEC, SIZE, options_in(tmp_path))
        assert tensorrt.told == {}
    assert trt.build_engine(conv_model, SPEC, SIZE, options_in(tmp_path, 'fp32'))


def test_an_engine_that_dropped_its_types_is_refused(tensorrt: FakeTensorRT, conv_model: Path,
                                                     tmp_path: Path) -> None:
    layer = {'Name': 'conv', 'LayerType': 'CaskConvolution', 'Inputs': [],
             'Outputs': [{'Name': 'x', 'Format/Datatype': 'Row major linear FP32'}]}
    tensorrt.inspector_text = json.dumps({'Layers': [layer]})
    with pytest.raises(BackendUnavailable, match='the engine was to be fp16'):
        trt.build_engine(conv_model, SPEC, SIZE, options_in(tmp_path))


def test_geometry_and_other_layers_do_not_count() -> None:
    def layer(name: str, kind: str, format: str, **more: object) -> dict:
        return {'Name': name, 'LayerType': kind, 'Inputs': [],
                'Outputs': [{'Name': 'o', 'Format/Datatype': format}], **more}
    layers = [
        layer('__myl_Fc_0', 'gemm', 'Half', Metadata='[ONNX Layer: block/attn]'),
        layer('__myl_Fc_1', 'gemm', 'Float', Metadata='[ONNX Layer: K_times_R]'),
        layer('pointwise', 'kgen', 'Float'),
        layer('conv1', 'CaskConvolution', 'Channel major FP16 format where channel % 8 == 0'),
        layer('gemm', 'Myelin', 'Float', TacticName='sm80_xmma_gemm_f32'),
    ]
    assert adapter.inspected_share(layers, {'K_times_R'}) == pytest.approx(2 / 3)
    assert adapter.inspected_share(layers, ()) == pytest.approx(1 / 2)
    assert adapter.inspected_share(layers[2:3], ()) is None


@pytest.mark.parametrize('types', [{'Datatype': 'Half', 'Format': 'N/A'}, {'DataType': 'Half'},
                                   {'Format': 'Row major linear FP16 format (kLINEAR)'}])
def test_types_are_found_however_they_are_told(types: dict) -> None:
    layer = {'Name': 'fc_myl0_1', 'LayerType': 'gemm', 'Metadata': '[ONNX Layer: block/fc]',
             'Inputs': [{'Name': 'alpha', **types}], 'Outputs': None}
    single = {**layer, 'Inputs': [{'Name': 'x', **dict.fromkeys(types, 'Float')}]}
    assert adapter.inspected_share([layer, single, layer, layer], ()) == 0.75
    # a version that spells it otherwise again says nothing, not float32
    assert adapter.inspected_share([{**layer, 'Inputs': [{'Name': 'x', 'Kind': 'Half'}]}],
                                   ()) is None


def test_nothing_is_known_where_names_are_not_told() -> None:
    def layer(kind: str, **more: str) -> dict:
        return {'LayerType': 'gemm', 'Outputs': [{'Format/Datatype': kind}], **more}
    layers = [layer('Half', Name='fused_0'), layer('Float', Name='fused_1')]
    assert adapter.inspected_share(layers, {'K_times_R'}) is None  # which of them was meant so?
    assert adapter.inspected_share(layers, ()) == 0.5
    # geometry may end up in a layer of another kind
    point = {'Name': 'p', 'LayerType': 'kgen', 'Metadata': '[ONNX Layer: a]\x1e[ONNX Layer: K_R]'}
    assert adapter.inspected_share([*layers, point], {'K_R'}) == 0.5


def test_there_is_one_log_for_all(tensorrt: FakeTensorRT) -> None:
    log = adapter.make_log(tensorrt.module)
    assert adapter.make_log(tensorrt.module) is log
    severity = tensorrt.module.ILogger.Severity
    for text in ('first', 'second'):
        log.log(severity.ERROR, text)
    log.log(severity.WARNING, 'third')
    assert log.said() == 'first; second'
    assert log.said() == 'it gives no reason'  # what was said is not said again of another fault


def test_the_parsers_words_are_handed_on(tensorrt: FakeTensorRT) -> None:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in 'ab']
    graph = helper.make_graph([helper.make_node('NonZero', ['a'], ['z'], 'looks'),
                               helper.make_node('Abs', ['a'], ['b'], 'abs')], 'g',
                              value[:1], value[1:])
    model = helper.make_model(graph).SerializeToString()
    with pytest.raises(BackendUnavailable, match=r'cannot read the model: .*NonZero is not supp'):
        adapter.build(tensorrt.module, model, adapter.BuildOrder('fp32', 1 << 20, 3))


def test_the_builders_words_are_handed_on(tensorrt: FakeTensorRT, conv_model: Path,
                                          tmp_path: Path) -> None:
    tensorrt.builds_nothing = True
    with pytest.raises(BackendUnavailable, match='cannot build the engine: out of memory'):
        trt.build_engine(conv_model, SPEC, SIZE, options_in(tmp_path))
    tensorrt.has_gpu = False
    with pytest.raises(BackendUnavailable, match=r'cannot start.*nullptr.*nvidia-smi'):
        trt.build_engine(conv_model, SPEC, SIZE, options_in(tmp_path))


def test_the_timing_cache_is_kept_and_an_unfit_one_replaced(
        cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, conv_model: Path, tmp_path: Path) -> None:
    FakeTensorRT('10.3.0', cuda).install(monkeypatch)
    trt.build_engine(conv_model, SPEC, SIZE, options_in(tmp_path))
    (kept,) = (tmp_path / 'engines').glob('timing-*.cache')
    assert kept.read_bytes() == b'times of 10.3.0'
    kept.write_bytes(b'times of 9.9')
    trt.build_engine(conv_model, SPEC, SIZE, options_in(tmp_path))
    assert kept.read_bytes() == b'times of 10.3.0'
    FakeTensorRT('11.4.0.106', cuda).install(monkeypatch)
    trt.build_engine(conv_model, SPEC, SIZE, options_in(tmp_path))
    assert len(list((tmp_path / 'engines').glob('timing-*.cache'))) == 2


def test_environment_facts(tensorrt: FakeTensorRT) -> None:
    assert trt.environment_facts(0) == {
        'tensorrt': tensorrt.version, 'cuda_runtime': 12060, 'gpu_name': 'Fake GPU',
        'compute_capability': '8.7', 'multiprocessors': 16, 'memory_gib': 8}
    with pytest.raises(BackendUnavailable, match='parameter gpu'):
        trt.environment_facts(1)


def test_reasons_why_not_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'cuda.bindings', None)  # makes imports fail
    monkeypatch.setitem(sys.modules, 'tensorrt', None)
    assert 'TensorRT is not installed' in trt.available()
    assert 'pip install tensorrt' in trt.available()

    broken = ModuleType('tensorrt')
    monkeypatch.setitem(sys.modules, 'tensorrt', broken)
    assert 'but not its libraries' in trt.available()
    broken.__version__ = '8.5.2'  # type: ignore[attr-defined]
    assert '8.6 or later is needed' in trt.available()
    broken.__version__ = '10.3.0'  # type: ignore[attr-defined]
    assert 'pip install cuda-bindings' in trt.available()

    # up to 12.8 cuda-bindings does not return an error where there is no driver
    cuda = install(monkeypatch, FakeCuda())
    cuda.fail['cudaGetDeviceCount'] = RuntimeError('Failed to dlopen libcuda.so.1')
    assert 'Failed to dlopen libcuda.so.1' in trt.available()
    assert 'install an NVIDIA driver' in trt.available()
    cuda.fail['cudaGetDeviceCount'] = KeyError(9999)
    assert 'cannot call cudaGetDeviceCount (9999)' in trt.available()

    install(monkeypatch, FakeCuda(gpus=0))
    assert 'cudaErrorNoDevice' in trt.available()
    assert 'nvidia-smi lists a GPU' in trt.available()
    install(monkeypatch, FakeCuda())
    assert trt.available() == ''
    monkeypatch.setitem(sys.modules, 'onnx', None)
    monkeypatch.setattr(trt, 'find_spec', lambda name: None)
    assert 'pip install onnx' in trt.available()


def test_libraries_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch,
                                              tmp_path: Path) -> None:
    package = tmp_path / 'tensorrt'
    package.mkdir()
    (package / '__init__.py').write_text(
        "raise ImportError('libnvinfer.so.10: cannot open shared object file')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'tensorrt', raising=False)
    assert 'libnvinfer.so.10' in trt.available()
    with pytest.raises(BackendUnavailable, match='not its libraries'):
        adapter.load()
