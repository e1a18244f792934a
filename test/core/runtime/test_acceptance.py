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

from dataclasses import astuple
from pathlib import Path
import pickle

from fake_engine import FakeEngine, LIES, write_golden
import numpy as np
import pytest
from tiny_model import POSED, save_model, tiny_graph, tiny_posed_graph, tiny_spec

from hybrid_depth.contract import ModelSpec
from hybrid_depth.errors import BackendUnavailable, ContractError
from hybrid_depth.runtime import BackendOptions, ort
from hybrid_depth.runtime.acceptance import accept, Acceptance, TOLERANCES
from hybrid_depth.runtime.reference import find_reference, read_golden

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
    case = 'case 2 of 2' if manner == 'second' else 'case 1 of 2'
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


@pytest.mark.parametrize(('factor', 'is_accepted'), [(1.06, True), (2.0, False)])
def test_a_few_pixels_may_differ_where_frames_are_matched(model: tuple[Path, ModelSpec],
                                                          factor: float,
                                                          is_accepted: bool) -> None:
    """Every 80th pixel by 6 %: more than 99 % bear, not the mean. By a factor of two: neither."""
    path, spec = model
    reference = find_reference(path, spec, SIZE, OPTIONS)
    backend = ort.open_backend(path, spec, SIZE, OPTIONS)

    class Few:
        name = description = 'few'

        def infer(self, inputs: dict) -> dict:
            outputs = dict(backend.infer(inputs))
            depth = np.array(outputs['depth'])
            depth.reshape(-1)[::80] *= np.float32(factor)
            return outputs | {'depth': depth}

        def close(self) -> None:
            pass

    verdict = accept(Few(), spec, reference, 'fp16')
    assert verdict.ok == (is_accepted and spec.kind == 'posed'), verdict.reason
    if spec.kind == 'posed' and not is_accepted:
        assert 'mean of depth is 0.009' in verdict.reason


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
    assert len(reference.cases) == 2
    for case in reference.cases:
        assert {name: (array.dtype.name, array.shape) for name, array in case.inputs.items()} \
            == spec.inputs(SIZE)
        assert {name: (array.dtype.name, array.shape) for name, array in case.expected.items()} \
            == spec.outputs(SIZE)
        if spec.kind == 'posed':  # matching is part of the question
            assert (case.expected['match_weight'] > 0).all()
    assert reference.cases[0].inputs['K'][0, 0, 0] == 150 * 48 / 32
    assert not np.array_equal(*(case.expected['depth'] for case in reference.cases))
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
    from hybrid_depth.contract import read_spec
    from hybrid_depth.models import find_model, shipped_models
    for name in shipped_models():
        path = find_model(name)
        assert len(read_golden(path.with_name('golden.npz'), read_spec(path))) >= 2


def test_the_documentation_has_the_limits() -> None:
    text = (Path(__file__).resolve().parents[3] / 'docs' / 'runtimes.md').read_text()
    for precision, limits in TOLERANCES.items():
        numbers = ' | '.join(f'{value:g}' for value in astuple(limits))
        assert f'| `{precision}` | {numbers} |' in text
