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
"""The benchmark: its statistics on made-up numbers, and a short run through real processes."""
from __future__ import annotations

import os
from pathlib import Path
import subprocess
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, TensorProto
import pytest
from tiny_model import POSED, tiny_graph, tiny_spec, write_tiny_model

from hybrid_depth.runtime.int8 import SOURCE_KEY
from hybrid_depth.runtime.quantise import Quantised
from hybrid_depth.types import DepthResult
from hybrid_depth_ros.bench import __main__ as command
from hybrid_depth_ros.bench import gflop, messages, runtimes, stages, statistics
from hybrid_depth_ros.bench.end_to_end import frame_times
from hybrid_depth_ros.bench.frames import camera
from hybrid_depth_ros.bench.machine import ProcessMeter
from hybrid_depth_ros.bench.plan import Plan
from hybrid_depth_ros.bench.report import _backends, _goals, _int8, markdown, table
from hybrid_depth_ros.bench.statistics import (
    Arrival,
    highest_rate,
    loss,
    MAX_LOSS,
    percentiles,
    ratio,
    stream_figures,
    times_ms,
)


@pytest.fixture(scope='module')
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('model') / 'tiny.onnx'
    write_tiny_model(path)
    return path


@pytest.fixture
def peaks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, int]]:
    """Stand in for the measured peaks: 10, 20, 30 ... GFLOP/s; says what was asked for."""
    asked: list[tuple[Path, int]] = []

    def gemm_gflops(path: Path, cpu_threads: int, seconds: float) -> dict[str, float]:
        asked.append((path, cpu_threads))
        return {'numpy': 5.0, 'onnxruntime': 10.0 * len(asked)}
    monkeypatch.setattr(runtimes, 'gemm_gflops', gemm_gflops)
    monkeypatch.setattr(command, 'gemm_gflops', gemm_gflops)
    return asked


def test_percentiles_are_those_of_the_values() -> None:
    assert percentiles(range(101)) == {'p50': 50.0, 'p95': 95.0, 'p99': 99.0}
    assert percentiles([]) == {'p50': None, 'p95': None, 'p99': None}


def test_a_stream_is_judged_by_its_own_images() -> None:
    sent = [10**9 * n for n in range(10)]
    late = [20_000_000] * 4 + [30_000_000] * 4
    arrivals = [Arrival(stamp, stamp + delay)
                for stamp, delay in zip(sent[:8], late, strict=True)]
    figures = stream_figures(sent, [*reversed(arrivals), Arrival(5, 10**12)], 10.0)
    assert (figures['sent'], figures['received'], figures['loss']) == (10, 8, 0.2)
    assert (figures['sent_hz'], figures['received_hz']) == (1.0, 0.8)
    assert figures['latency_ms']['p50'] == 25.0
    assert figures['latency_growth'] == 1.5
    # seven intervals of 1 s, one of them 10 ms longer
    assert figures['jitter_ms'] == pytest.approx(np.std([0] * 6 + [10]), abs=1e-3)


def test_a_stream_without_arrivals_has_no_latency() -> None:
    figures = stream_figures([1, 2], [], 1.0)
    assert figures['loss'] == 1.0
    assert figures['latency_ms']['p50'] is figures['jitter_ms'] is None
    assert loss(0, 0) == 0.0


@pytest.mark.parametrize('limit', [12.0, 47.0, 99.0])
def test_the_highest_rate_is_found(limit: float) -> None:
    tried = []

    def loss_at(hz: float) -> float:
        tried.append(hz)
        return 0.0 if hz <= limit else MAX_LOSS + 0.01

    found = highest_rate(loss_at, 10.0, 100.0, 8)
    assert found is not None
    assert found <= limit < found * 1.01 * 10 ** (1 / 2**8)
    assert len(tried) == 9


def test_a_node_that_keeps_up_with_nothing_has_no_rate() -> None:
    assert highest_rate(lambda hz: 1.0, 1.0, 10.0, 3) is None


def test_ratios_and_times() -> None:
    assert ratio(3.0, 2.0) == 1.5
    assert ratio(None, 2.0) is ratio(1.0, None) is ratio(1.0, 0.0) is None
    calls = []
    assert len(times_ms(lambda: calls.append(1), 0.0, least=4)) == 4
    assert len(calls) == 5


def test_overhead_is_all_but_inference() -> None:
    frames = [{'take_ms': 2.0, 'work_ms': 110.0,
               'stages': {'inference': 100.0, 'publish': 7.0, 'total': 103.0}}] * 3
    found = frame_times(frames)
    assert found['overhead_ms']['p50'] == 12.0
    assert set(found['stages_ms']) == {'inference', 'publish'}
    unknown = frame_times([{**frames[0], 'take_ms': None}])
    assert unknown['take_ms']['p50'] is None
    assert unknown['overhead_ms']['p50'] == 10.0


@pytest.mark.parametrize('stride', [1, 2])
def test_the_naive_ways_give_the_same(stride: int) -> None:
    view = camera((64, 48))
    rng = np.random.default_rng(0)
    depth_m = rng.uniform(1, 9, (48, 64)).astype(np.float32)
    image = rng.integers(0, 256, (48, 64, 3), np.uint8)
    result = DepthResult(depth_m, depth_m, np.zeros(depth_m.shape, bool), image, view, 0, 'c',
                         'single_frame')
    naive = np.frombuffer(messages.naive_cloud(result, stride).data, np.float32).reshape(-1, 4)
    ours = np.frombuffer(messages.CloudPacker(stride).pack(result).data,
                         np.float32).reshape(-1, 4)
    np.testing.assert_allclose(naive[:, :3], ours[:, :3], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(naive[:, 3].view(np.uint32), ours[:, 3].view(np.uint32))
    found = messages.conversions(image, depth_m, 0.0)
    assert found['bgr8_to_rgb']['ms'] > 0  # type: ignore[index]
    incoming = messages.image_message(image[..., ::-1].copy(), 0)
    incoming.encoding = 'bgr8'
    np.testing.assert_array_equal(messages.naive_decode(incoming), image)
    np.testing.assert_array_equal(
        np.frombuffer(messages.naive_image(depth_m).data, np.float32), depth_m.ravel())


def test_multiply_adds_are_counted(tmp_path: Path) -> None:
    spec = tiny_spec()
    graph = tiny_graph()
    node = helper.make_node
    weights = {'kernel': np.zeros((8, 3, 3, 3), np.float32), 'wide': np.zeros((8, 5), np.float32)}
    graph.node.extend([
        node('Cast', ['image'], ['count_float'], to=TensorProto.FLOAT),
        node('Transpose', ['count_float'], ['count_chw'], perm=[0, 3, 1, 2]),
        node('Conv', ['count_chw', 'kernel'], ['count_conv'], pads=[1, 1, 1, 1]),
        node('GlobalAveragePool', ['count_conv'], ['count_mean']),
        node('Flatten', ['count_mean'], ['count_flat']),
        node('Gemm', ['count_flat', 'wide'], ['count_gemm'])])
    graph.initializer.extend(numpy_helper.from_array(value, name)
                             for name, value in weights.items())
    graph.output.append(helper.make_tensor_value_info('count_gemm', TensorProto.FLOAT, [1, 5]))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    path = tmp_path / 'count.onnx'
    onnx.save(model, path)
    plain = tmp_path / 'plain.onnx'
    write_tiny_model(plain)
    added = 2e-9 * (96 * 128 * 8 * 3 * 9 + 8 * 5)  # of a convolution and a product
    assert gflop.count_gflop(path, spec, (96, 128)) - gflop.count_gflop(
        plain, spec, (96, 128)) == pytest.approx(added, abs=2e-4)


def test_runtimes_say_what_they_did(model: Path, peaks: list[tuple[Path, int]],
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, 'count_gflop', lambda *_: 0.5)
    monkeypatch.setattr(runtimes, 'BACKENDS', ('ort',))
    found = runtimes.runtimes(str(model), (128, 96), 1, 0.0, ('fp32', 'fp16'))
    rows: Any = found['rows']
    row = rows['ort/fp32']
    assert peaks == [(model, 1)] * 2  # before and after; none for what cannot run
    assert row['gemm'] == {'numpy': 5.0, 'onnxruntime': 20.0, 'best': 'onnxruntime'}
    assert row['gemm_gflop_per_s'] == 20.0
    assert row['share_of_peak'] == pytest.approx(500 / row['ms'] / 20, abs=1e-3)
    text = _backends(found)
    assert f"| 5.0 | 20.0 | 20.0 (onnxruntime) | {row['share_of_peak']} |" in text
    assert 'product of numpy (GFLOP/s) | product of onnxruntime (GFLOP/s) | peak' in text
    assert str(rows['ort/fp16']).startswith('not run: ')
    cameras = runtimes.growth_with_cameras(str(model), 'ort', 1, np.zeros((96, 128, 3), np.uint8),
                                           (1, 2), 0.0)
    assert set(cameras['cameras']) == {'1', '2'}  # type: ignore[call-overload]
    assert 'not run' in runtimes.growth_with_sources(str(model), (128, 96), 1, 0.0)


def test_int8_is_timed_against_fp32(model: Path, tmp_path: Path,
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """The quantised file is a copy here: what is tested is who is compared with whom."""
    asked = []

    def quantise(path: Path, out: Path, frames: int) -> Quantised:
        asked.append((path, frames))
        copy = onnx.load(path)
        properties = {entry.key: entry.value for entry in copy.metadata_props}
        onnx.helper.set_model_props(copy, properties | {SOURCE_KEY: 'it'})
        onnx.save(copy, out)
        return Quantised(out, 3, 4, 0.0123, 0.02, 8)
    monkeypatch.setattr(runtimes, 'quantise', quantise)
    monkeypatch.setattr(statistics, 'PAUSE_S', 0.0)
    found = runtimes.int8_mix(str(model), (128, 96), 1, 0.0, tmp_path / 'int8', 5)
    assert asked == [(model, 5)]
    assert isinstance(found, dict)
    assert (found['layers'], found['candidates'], found['frames']) == (3, 4, 8)
    assert found['depth_from_fp32'] == 0.0123
    rows = found['rows']
    assert 'int8_mix' in rows['ort/int8_mix']['description']  # type: ignore[index]
    assert 'int8_mix' not in rows['ort/fp32']['description']  # type: ignore[index]
    base = rows['openvino/fp32']  # type: ignore[index]
    if isinstance(base, str):
        assert base.startswith('not run: ')
        assert found['over_openvino_fp32'] is None
    else:
        assert base['over_openvino_fp32'] == 1
        assert found['over_openvino_fp32'] \
            == rows['ort/int8_mix']['over_openvino_fp32'] > 0  # type: ignore[index]
    text = _int8(found)
    assert '3 of 4 layers; depth is 1.23 % from fp32 on 8 frames of a drive' in text
    assert '| ort/int8_mix | ONNX Runtime' in text


def test_a_model_that_cannot_be_quantised_says_why(model: Path, tmp_path: Path) -> None:
    found = runtimes.int8_mix(str(model), (128, 96), 1, 0.0, tmp_path, 1)
    assert str(found).startswith('not run: tiny.onnx has no layers that 8 bits')


def test_goals_name_the_share_of_each_model() -> None:
    timed = {'model': 'one', 'rows': {'ort/fp32': {'share_of_peak': 0.61}}}
    failed = {'model': 'two', 'rows': {'ort/fp32': 'not run: no'}}
    shares = command.shares_of_peak(timed, failed)
    assert shares == {'one': 0.61, 'two': None}
    text = _goals({
        'config': {'main_size': (8, 4)}, 'node_overhead_ms': {'8x4': {'p50': 1.0}},
        'stages_alone': {'8x4': {'preprocess': 0.1}}, 'idle_cpu_percent': 1.0,
        'end_to_end': {'model': {'sizes': {'8x4': {}}}}, 'int8_mix_over_openvino_fp32': 0.7,
        'overload_latency_ratio': 1.0, 'ort_fp32_share_of_peak': shares})
    assert "| ONNX Runtime fp32 of the machine's GEMM peak, `one` | >= 0.8 | 0.61 |" in text
    assert 'GEMM peak, `two` | >= 0.8 | - |' in text


def test_an_untrained_network_is_timed_and_its_graph_removed(
        tmp_path: Path, peaks: list[tuple[Path, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    def write(arguments: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        Path(arguments[-1]).parent.mkdir()
        write_tiny_model(Path(arguments[-1]))
        return subprocess.CompletedProcess(arguments, 0)
    monkeypatch.setattr(runtimes.subprocess, 'run', write)
    monkeypatch.setattr(runtimes, 'count_gflop', lambda *_: 0.5)
    monkeypatch.setattr(runtimes, 'BACKENDS', ('ort',))
    found = runtimes.untrained('some/wide.yaml', (128, 96), 1, 0.0, tmp_path / 'wide')
    assert found['model'] == 'wide'
    assert found['rows']['ort/fp32']['ms'] > 0
    assert not list((tmp_path / 'wide').iterdir())


def test_an_untrained_network_that_cannot_be_made_says_why(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes.subprocess, 'run', lambda command, **_: (
        subprocess.CompletedProcess(command, 2, '', 'first\nerror: there is no torch\n')))
    assert runtimes.untrained('wide.yaml', (128, 96), 1, 0.0, tmp_path) == \
        'not run: error: there is no torch'


def test_growth_with_sources(tmp_path: Path) -> None:
    path = tmp_path / 'posed.onnx'
    from tiny_model import save_model, tiny_posed_graph
    save_model(path, tiny_posed_graph(), tiny_spec(**POSED))
    found = runtimes.growth_with_sources(str(path), (128, 96), 1, 0.0)
    assert set(found['ms']) == {'0', '1', '2'}  # type: ignore[index]


def test_the_meter_sees_this_process() -> None:
    meter = ProcessMeter(os.getpid())
    times_ms(lambda: sum(range(1000)), 0.1)
    assert meter.cpu_percent() > 5
    assert meter.rss_mib() > 20


def test_a_short_run_has_every_figure(model: Path, tmp_path: Path,
                                      peaks: list[tuple[Path, int]],
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('AMENT_PREFIX_PATH', 'FASTDDS_DEFAULT_PROFILES_FILE', 'ROS_DOMAIN_ID',
                 'ROS_AUTOMATIC_DISCOVERY_RANGE', 'PYTHONPATH', 'PYTHONUNBUFFERED'):
        monkeypatch.setenv(name, os.environ.get(name, ''))  # the command sets them: undo that
    monkeypatch.setattr(stages, 'pipeline_times', lambda *_: {'inference': 1.0})
    monkeypatch.setattr(command, 'street_views',
                        lambda: [np.full((48, 64, 3), 90, np.uint8)] * 2)
    plan = Plan(str(model), 'ort', 1, is_quick=True, sizes=((64, 48), (128, 96)),
                main_size=(128, 96), work_s=0.0, backend_s=0.0, frames=4, frames_s=0.5,
                rates_hz=(20.0,), stream_s=0.3, search_s=0.3, search_steps=1, least_images=4,
                load_s=0.3, idle_s=0.3, cameras=(1,), precisions=('fp32',),
                all_sizes_streamed=False, large_model=str(model), wide_recipe='absent.yaml')
    found = command.bench(plan, tmp_path)
    assert set(found['node_overhead_ms']) == {'64x48', '128x96'}
    assert all(0 < row['p50'] <= row['p95'] for row in found['node_overhead_ms'].values())
    assert found['idle_cpu_percent'] < 60
    main = found['end_to_end']['model']['sizes']['128x96']
    if main['highest_hz'] is None:  # of a machine that is too busy to keep up with any
        assert found['overload_latency_ratio'] is None
    else:
        assert found['overload_latency_ratio'] > 0
    (stages_of,) = found['stages'].values()
    assert set(stages_of) == {'ort', 'null'}
    assert {'take', 'preprocess', 'inference', 'postprocess', 'publish'} <= set(
        stages_of['ort']['128x96'])
    assert stages_of['ort']['128x96']['take'] > 0
    fixed = found['end_to_end']['null']['sizes']['128x96']['fixed_hz']['20']
    assert fixed['received'] > 0
    assert {'versions', 'device', 'commit', 'config'} <= set(found)
    assert {'GPU', 'growth with earlier frames', 'in 8 bits',
            'the network of the publication'} <= set(found['not_run'])
    assert found['int8_mix_over_openvino_fp32'] is None
    # the best of the whole run, which the stand-in gives last
    assert found['gemm_gflop_per_s'] == found['gemm']['onnxruntime'] == 10.0 * len(peaks)
    assert found['ort_fp32_share_of_peak'] == {
        str(model): found['backends_large']['rows']['ort/fp32']['share_of_peak']}
    text = markdown(found)
    assert '| 128x96 | fixed 20 Hz |' in text
    assert '| GPU | not run' in text
    assert text.count('| ort/fp32 |') == 2  # of both models


def test_tables_hold_any_text() -> None:
    assert table(['a'], [['x|y\nz'], [None]]).splitlines()[2:] == ['| x\\|y z |', '| - |']
