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
"""A runtime is accepted for the depth it gives, and for nothing else."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
import pickle

from fake_engine import FakeEngine, LIES, write_golden
from half_arithmetic import open_rounded
import numpy as np
import onnx
import pytest
from tiny_model import POSED, save_model, tiny_graph, tiny_posed_graph, tiny_spec

from hybrid_depth.contract import ModelSpec, read_spec
from hybrid_depth.errors import BackendUnavailable, ContractError
from hybrid_depth.models import find_model, shipped_models
from hybrid_depth.runtime import BackendOptions, ort, precision
from hybrid_depth.runtime.acceptance import accept, Acceptance, TOLERANCES
from hybrid_depth.runtime.precision import typed
from hybrid_depth.runtime.reference import find_reference, read_golden
from hybrid_depth.runtime.trt.build import with_static_shapes

SIZE = (32, 48)
OPTIONS = BackendOptions(cpu_threads=1)


@pytest.fixture(params=['single_frame', 'posed'])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, ModelSpec]:
    path = tmp_path / 'model.onnx'
    is_posed = request.param == 'posed'
    spec = tiny_spec(**(POSED if is_posed else {}))
    save_model(path, tiny_posed_graph() if is_posed else tiny_graph(), spec)
    return path, spec


def judged(path: Path, spec: ModelSpec, manner: str, precision: str = 'fp16') -> Acceptance:
    backend = FakeEngine(path, spec, SIZE, manner)
    verdict = accept(backend, spec, find_reference(path, spec, SIZE, OPTIONS), precision)
    backend.close()
    return verdict


def test_what_is_right_is_accepted_with_figures(model: tuple[Path, ModelSpec]) -> None:
    path, spec = model
    write_golden(path, spec, SIZE, SIZE)
    verdict = judged(path, spec, 'right')
    assert verdict.ok
    assert verdict.figures['median'] == pytest.approx(1e-3, rel=1e-2)  # the fake's mark
    assert verdict.figures['pearson'] == pytest.approx(1, abs=1e-5)
    assert verdict.source == 'golden outputs at 48x32'
    assert 'median 0.001' in verdict.text()


@pytest.mark.parametrize('manner', LIES)
@pytest.mark.parametrize('has_golden', [True, False])
def test_a_lie_is_refused_with_the_figure(model: tuple[Path, ModelSpec], manner: str,
                                          has_golden: bool) -> None:
    path, spec = model
    if manner == 'features' and spec.kind != 'posed':
        pytest.skip('a single-frame model has no features')
    if has_golden:
        write_golden(path, spec, SIZE, SIZE)
    verdict = judged(path, spec, manner)
    assert not verdict.ok
    # without golden outputs, frames of a drive: as many as the model matches
    count = 3 if spec.kind == 'posed' and not has_golden else 2
    case = f'case {2 if manner == "second" else 1} of {count}'
    expected = {'wrong': 'median of depth is 1.9', 'second': 'median of depth is 1.9',
                'nan': 'depth is not finite', 'constant': 'median of depth',
                'mirrored': 'median of depth', 'raises': 'RuntimeError: illegal memory access',
                'features': 'with its own features as source: ',
                'sigma': 'sigma_median of sigma is 1.9'}[manner]
    assert case in verdict.reason
    assert expected in verdict.reason


def test_each_precision_has_its_tolerance(model: tuple[Path, ModelSpec]) -> None:
    path, spec = model
    write_golden(path, spec, SIZE)
    reference = find_reference(path, spec, SIZE, OPTIONS)

    class Off:
        """Depth is wrong by 0.5 % everywhere, in every output."""

        name = description = 'off'

        def __init__(self) -> None:
            self.backend = ort.open_backend(path, spec, SIZE, OPTIONS)

        def infer(self, inputs: dict) -> dict:
            names = ('depth', 'single_depth', 'matched_depth')
            return {name: np.asarray(array) * np.float32(1.005 if name in names else 1)
                    for name, array in self.backend.infer(inputs).items()}

        def close(self) -> None:
            self.backend.close()

    verdicts = {precision: accept(Off(), spec, reference, precision).ok
                for precision in TOLERANCES}
    assert verdicts == {'fp32': False, 'fp16': True, 'fp16_safe': True, 'int8_mix': True}
    assert TOLERANCES['fp16'].median == 0.01
    assert TOLERANCES['fp16'].mean == TOLERANCES['fp16_safe'].mean == 0.005
    assert TOLERANCES['fp16'].p99 == 0.05
    assert TOLERANCES['fp16'].pearson == 0.999


@pytest.mark.parametrize(('share', 'factor', 'refusal'), [
    (80, 1.06, ''), (80, 2.0, 'mean of depth is 0.009'), (60, 1.3, 'matched_p99 of depth is 0.2')])
def test_a_few_pixels_may_differ_where_frames_are_matched(
        model: tuple[Path, ModelSpec], share: int, factor: float, refusal: str) -> None:
    """Every 80th pixel by 6 %: the mean bears it. By a factor of two: no. By 30 %: too much."""
    path, spec = model
    reference = find_reference(path, spec, SIZE, OPTIONS)
    backend = ort.open_backend(path, spec, SIZE, OPTIONS)

    class Few:
        name = description = 'few'

        def infer(self, inputs: dict) -> dict:
            outputs = dict(backend.infer(inputs))
            depth = np.array(outputs['depth'])
            depth.reshape(-1)[::share] *= np.float32(factor)
            return outputs | {'depth': depth}

        def close(self) -> None:
            pass

    verdict = accept(Few(), spec, reference, 'fp16')
    assert verdict.ok == (not refusal and spec.kind == 'posed'), verdict.reason
    if spec.kind == 'posed':
        assert refusal in verdict.reason


class Rounded:
    """The shipped model in half precision, as a GPU would compute it."""

    name = description = 'rounded'

    def __init__(self, model: onnx.ModelProto) -> None:
        self.run = open_rounded(model)

    def infer(self, inputs: dict) -> dict:
        return self.run(inputs | {
            'source_features': np.stack(inputs['source_features'], axis=1)})

    def close(self) -> None:
        pass


@pytest.mark.parametrize('size', [(192, 640), pytest.param((256, 480), marks=pytest.mark.slow)])
def test_half_precision_as_it_should_be_is_accepted(size: tuple[int, int]) -> None:
    """Golden outputs at the first size, ONNX Runtime on frames of a drive at the second."""
    path = find_model('compact')
    spec = read_spec(path)
    graph = with_static_shapes(onnx.load(path), spec, size)
    verdict = accept(Rounded(typed(graph, 'fp16_safe')), spec,
                     find_reference(path, spec, size, OPTIONS), 'fp16_safe')
    assert verdict.ok, verdict.text()
    assert 0.01 < verdict.figures['matched_p99'] < 0.1  # a bound of twice that tells something


def test_half_precision_in_the_geometry_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    path = find_model('compact')
    spec = read_spec(path)
    size = (192, 640)
    monkeypatch.setattr(precision, '_geometry', lambda *_: set())
    graph = typed(with_static_shapes(onnx.load(path), spec, size), 'fp16')
    verdict = accept(Rounded(graph), spec, find_reference(path, spec, size, OPTIONS), 'fp16')
    assert not verdict.ok
    assert verdict.figures['median'] > 0.05


def swapped(feed: dict) -> dict:
    return {'source_features': feed['source_features'][::-1]}


def inverted(feed: dict) -> dict:
    return {'source_T_target': np.linalg.inv(feed['source_T_target'])}


def last_ignored(feed: dict) -> dict:
    return {'source_valid': feed['source_valid'] * np.array([[1, 0]], np.float32)}


def aside(feed: dict) -> dict:
    """Everything a quarter of a pixel to the right."""
    return {'K': feed['K'] + np.array([[0, 0, 0.25], [0, 0, 0], [0, 0, 0]], np.float32)}


@pytest.mark.parametrize('fault', [swapped, inverted, last_ignored, aside])
def test_a_shipped_model_that_matches_wrongly_is_refused(fault: Callable[[dict], dict]) -> None:
    path = find_model('compact')
    spec = read_spec(path)
    size = (192, 640)
    backend = ort.open_backend(path, spec, size, OPTIONS)

    class Faulty:
        name = description = 'faulty'

        def infer(self, inputs: dict) -> dict:
            return backend.infer(inputs | fault(inputs))

        def close(self) -> None:
            backend.close()

    reference = find_reference(path, spec, size, OPTIONS)
    for level in ('fp32', 'fp16', 'fp16_safe'):
        verdict = accept(Faulty(), spec, reference, level)
        assert not verdict.ok
        assert 'depth' in verdict.reason
    backend.close()


def test_features_are_judged_where_they_match(model: tuple[Path, ModelSpec]) -> None:
    """An image against itself with the camera's true motion has no match: the last bit decides."""
    path, spec = model
    if spec.kind != 'posed':
        pytest.skip('a single-frame model has no features')
    reference = find_reference(path, spec, SIZE, OPTIONS)
    backend = ort.open_backend(path, spec, SIZE, OPTIONS)
    asked: list[dict] = []

    class Watched:
        name = description = 'watched'

        def infer(self, inputs: dict) -> dict:
            asked.append(inputs)
            return backend.infer(inputs)

        def close(self) -> None:
            pass

    assert accept(Watched(), spec, reference, 'fp32').ok
    first, given, own = asked[:3]
    image, moved = first['image'][0], given['image'][0]
    np.testing.assert_array_equal(moved[:, :-8], image[:, 8:])
    motion = given['source_T_target'][0, 0]
    np.testing.assert_array_equal(motion[:3, :3], np.eye(3))
    depth_m = np.median(reference.cases[0].expected['depth'])
    # a point in column u of what was moved is in column u + 8 of the source
    assert first['K'][0, 0, 0] * motion[0, 3] / depth_m == pytest.approx(8)
    assert given['source_valid'].all()
    for name in set(given) - {'source_features'}:
        np.testing.assert_array_equal(given[name], own[name])
    backend.close()


@pytest.mark.parametrize('change', [{'depth': None}, {'depth': np.ones((1, 1, 8, 8), np.float32)},
                                    {'depth': -np.ones((1, 1, *SIZE), np.float32)}])
def test_outputs_that_are_none(model: tuple[Path, ModelSpec], change: dict) -> None:
    path, spec = model
    backend = ort.open_backend(path, spec, SIZE, OPTIONS)
    reference = find_reference(path, spec, SIZE, OPTIONS)

    class Broken:
        name = description = 'broken'

        def infer(self, inputs: dict) -> dict:
            outputs = {**backend.infer(inputs), **change}
            return {name: array for name, array in outputs.items() if array is not None}

        def close(self) -> None:
            pass

    verdict = accept(Broken(), spec, reference, 'fp16')
    assert not verdict.ok
    assert 'depth is ' in verdict.reason


def test_at_another_size_the_cpu_is_the_reference_and_says_so(
        model: tuple[Path, ModelSpec]) -> None:
    path, spec = model
    write_golden(path, spec, (64, 32), (32, 64))
    reference = find_reference(path, spec, SIZE, OPTIONS)
    assert reference.source == 'ONNX Runtime on the CPU at 48x32 (itself right on the golden ' \
                               'outputs at 32x64)'
    assert len(reference.cases) == (3 if spec.kind == 'posed' else 2)
    for case in reference.cases:
        assert {name: (array.dtype.name, array.shape) for name, array in case.inputs.items()} \
            == spec.inputs(SIZE)
        assert {name: (array.dtype.name, array.shape) for name, array in case.expected.items()} \
            == spec.outputs(SIZE)
        if spec.kind == 'posed':  # matching is part of the question
            assert (case.expected['match_weight'] > 0).all()
    first, second, *_ = reference.cases
    assert not np.array_equal(first.expected['depth'], second.expected['depth'])
    if spec.kind == 'posed':  # of one drive, so that there is something to match
        found = [case.inputs['source_T_target'][0, 0] for case in (first, second)]
        assert found[0][2, 3] == pytest.approx(1.6, abs=0.1)  # m: two frames before, ahead of it
        assert found[1][2, 3] == pytest.approx(1.6, abs=0.1)
        np.testing.assert_array_equal(first.inputs['source_features'][0, 0],
                                      second.expected['features'][0])
    else:
        assert first.inputs['K'][0, 0, 0] == 150 * 48 / 32
    assert judged(path, spec, 'right').ok


def test_without_golden_outputs_that_is_said(model: tuple[Path, ModelSpec]) -> None:
    path, spec = model
    verdict = judged(path, spec, 'right')
    assert verdict.ok
    assert 'there is no golden.npz beside the model' in verdict.source


def test_a_cpu_that_is_wrong_itself_is_no_reference(model: tuple[Path, ModelSpec]) -> None:
    path, spec = model
    golden = write_golden(path, spec, (64, 32))
    arrays = dict(np.load(golden))
    arrays['0_depth'] = arrays['0_depth'] * 2
    np.savez(golden, **arrays)
    with pytest.raises(BackendUnavailable, match=r'cannot serve as reference.*another version'):
        find_reference(path, spec, SIZE, OPTIONS)


def test_damaged_golden_outputs(model: tuple[Path, ModelSpec]) -> None:
    path, spec = model
    golden = write_golden(path, spec, SIZE)
    data = golden.read_bytes()
    golden.write_bytes(data[:len(data) // 2])
    with pytest.raises(ContractError, match=r'golden\.npz cannot be read.*export'):
        read_golden(golden, spec)
    np.savez(golden, **{'0_image': np.zeros((1, *SIZE, 3), np.uint8)})
    with pytest.raises(ContractError, match=r"holds for 'K' of its case 0 nothing"):
        read_golden(golden, spec)
    golden.write_bytes(pickle.dumps({'0_image': 1}))
    with pytest.raises(ContractError, match=r'golden\.npz cannot be read'):
        read_golden(golden, spec)


def test_golden_outputs_are_never_unpickled(model: tuple[Path, ModelSpec]) -> None:
    path, spec = model
    golden = path.with_name('golden.npz')
    np.savez(golden, **{'0_image': np.array([{'an': 'object'}], dtype=object)})
    with pytest.raises(ContractError, match='cannot be read'):
        read_golden(golden, spec)


def test_the_shipped_golden_outputs_can_be_read() -> None:
    for name in shipped_models():
        path = find_model(name)
        assert len(read_golden(path.with_name('golden.npz'), read_spec(path))) >= 2


def test_the_documentation_has_the_limits() -> None:
    text = (Path(__file__).resolve().parents[3] / 'docs' / 'runtimes.md').read_text()
    for name, limits in TOLERANCES.items():
        numbers = ' | '.join(f'{value:g}' for value in astuple(limits))
        assert f'| `{name}` | {numbers} |' in text
