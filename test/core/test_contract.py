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
from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest
from tiny_model import (
    POSED,
    save_model,
    tiny_graph,
    tiny_spec,
    write_tiny_model,
    write_tiny_posed_model,
)

from hybrid_depth.contract import ModelSpec, read_spec, SCHEMA
from hybrid_depth.errors import ContractError


def test_the_contract_survives_the_file(tmp_path: Path) -> None:
    spec = write_tiny_model(tmp_path / 'm.onnx', name='other', trained_on=('a', 'b'))
    assert read_spec(tmp_path / 'm.onnx') == spec
    assert spec.trained_on == ('a', 'b')


def test_the_contract_of_a_posed_model_survives_the_file(tmp_path: Path) -> None:
    spec = write_tiny_posed_model(tmp_path / 'm.onnx')
    assert read_spec(tmp_path / 'm.onnx') == spec
    assert (spec.kind, spec.sources, spec.feature_channels, spec.feature_stride) == \
        ('posed', 2, 2, 4)


def test_the_contract_of_older_files_is_still_read() -> None:
    fields = json.loads(tiny_spec().to_json())
    del fields['text_dim']
    assert ModelSpec.from_json(json.dumps({**fields, 'schema': 2})) == tiny_spec()
    posed = json.loads(tiny_spec(**POSED).to_json())
    del posed['text_dim']
    assert ModelSpec.from_json(json.dumps({**posed, 'schema': 2})) == tiny_spec(**POSED)
    for key in ('sources', 'feature_channels', 'feature_stride'):
        del fields[key]
    assert ModelSpec.from_json(json.dumps({**fields, 'schema': 1})) == tiny_spec()
    with pytest.raises(ContractError, match='missing'):
        ModelSpec.from_json(json.dumps({**fields, 'schema': 2}))
    with pytest.raises(ContractError, match='missing'):
        ModelSpec.from_json(json.dumps({**fields, 'schema': SCHEMA}))
    with pytest.raises(ContractError, match='one of'):
        ModelSpec.from_json(json.dumps({**fields, 'schema': 1, 'kind': 'stereo'}))
    with pytest.raises(ContractError, match='sources'):
        ModelSpec.from_json(json.dumps({**fields, 'schema': 1, 'kind': 'posed'}))


def test_the_shipped_models_are_read() -> None:
    root = Path(__file__).resolve().parents[2] / 'hybrid_depth' / 'models'
    for path in root.glob('*/model.onnx'):
        assert read_spec(path).schema == SCHEMA


def test_tensors_of_a_model_that_takes_words() -> None:
    spec = tiny_spec(kind='clip_prior', text_dim=5)
    assert ModelSpec.from_json(spec.to_json()) == spec
    assert spec.inputs((32, 48)) == {**tiny_spec().inputs((32, 48)), 'text': ('float32', (1, 5))}
    assert spec.outputs((32, 48)) == tiny_spec().outputs((32, 48))


def test_tensors_of_both_kinds() -> None:
    single, posed = tiny_spec(), tiny_spec(**POSED)
    assert single.inputs((32, 48)) == {'image': ('uint8', (1, 32, 48, 3)),
                                       'K': ('float32', (1, 3, 3))}
    assert single.outputs((32, 48)) == {'depth': ('float32', (1, 1, 32, 48)),
                                        'sigma': ('float32', (1, 1, 32, 48))}
    small = ('float32', (1, 1, 8, 12))
    assert posed.inputs((32, 48)) == {
        **single.inputs((32, 48)), 'source_features': ('float32', (1, 2, 2, 8, 12)),
        'source_T_target': ('float32', (1, 2, 4, 4)), 'source_valid': ('float32', (1, 2))}
    assert posed.outputs((32, 48)) == {
        **single.outputs((32, 48)), 'features': ('float32', (1, 2, 8, 12)),
        'single_depth': small, 'matched_depth': small, 'match_weight': small}


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match='no model file'):
        read_spec(tmp_path / 'none.onnx')
    with pytest.raises(ContractError, match='no model file'):
        read_spec(tmp_path)


def test_a_file_without_contract_says_so(tmp_path: Path) -> None:
    save_model(tmp_path / 'm.onnx', tiny_graph(), None)
    with pytest.raises(ContractError, match='carries no'):
        read_spec(tmp_path / 'm.onnx')


def test_a_file_cut_short_anywhere_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / 'm.onnx'
    write_tiny_model(path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ContractError):
            read_spec(path)


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=200))
def test_arbitrary_bytes_are_an_error(tmp_path_factory: pytest.TempPathFactory,
                                      content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / 'arbitrary.onnx'
    path.write_bytes(content)
    with pytest.raises(ContractError):
        read_spec(path)


@settings(max_examples=300, deadline=None)
@given(position=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_a_damaged_byte_raises_nothing_but_our_error(tmp_path_factory: pytest.TempPathFactory,
                                                     position: float, value: int) -> None:
    path = tmp_path_factory.getbasetemp() / 'damaged.onnx'
    write_tiny_model(path)
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] = value
    path.write_bytes(content)
    try:
        spec = read_spec(path)
    except ContractError:
        return
    assert isinstance(spec, ModelSpec)  # the damage was in the graph or kept the text valid


def altered(**changes: object) -> str:
    return json.dumps({**json.loads(tiny_spec().to_json()), **changes})


def altered_posed(**changes: object) -> str:
    return altered(**{**POSED, **changes})


@pytest.mark.parametrize(('text', 'match'), [
    ('', 'not JSON'),
    ('{', 'not JSON'),
    ('[' * 100_000, 'not JSON'),
    ('[]', 'not a JSON object'),
    ('{}', 'missing'),
    (altered(colour='bgr'), "unknown \\['colour'\\]"),
    (altered(schema=4), 'schema 4'),
    (altered(schema=True), 'schema True'),
    (altered(text_dim=8), 'text_dim'),
    (altered(kind='clip_prior'), 'text_dim'),
    (altered(kind='clip_prior', text_dim='8'), 'text_dim'),
    (altered(kind='clip_prior', text_dim=1 << 20), 'text_dim'),
    (altered(kind='clip_prior', text_dim=8, sources=1), 'sources'),
    (altered(schema=0), 'schema 0'),
    (altered(schema='1'), 'schema'),
    (altered(kind='stereo'), 'single_frame'),
    (altered(kind=None), 'single_frame'),
    (altered(sources=2), 'sources'),
    (altered(feature_channels=1), 'feature_channels'),
    (altered(feature_stride=4), 'feature_stride'),
    (altered(kind='posed'), 'sources'),
    (altered_posed(sources=0), 'sources'),
    (altered_posed(sources=9), 'sources'),
    (altered_posed(sources=True), 'sources'),
    (altered_posed(feature_channels=0), 'feature_channels'),
    (altered_posed(feature_channels='2'), 'feature_channels'),
    (altered_posed(feature_stride=3), 'divisor of size_multiple'),
    (altered_posed(feature_stride=32), 'feature_stride'),
    (altered(size_multiple=0), 'size_multiple'),
    (altered(size_multiple=True), 'size_multiple'),
    (altered(pixels=1.5), 'pixels'),
    (altered(pixels=10**30), 'pixels'),
    (altered(min_depth_m=100.0), '0 < min < max'),
    (altered(min_depth_m=-1.0), '0 < min < max'),
    (altered(max_depth_m=float('nan')), '0 < min < max'),
    (altered(max_depth_m=float('inf')), '0 < min < max'),
    (altered(max_depth_m='80'), '0 < min < max'),
    (altered(trained_on=3), 'trained_on'),
    (altered(trained_on='kitti'), 'trained_on'),
    (altered(trained_on=[3]), 'text'),
    (altered(name=None), 'text'),
])
def test_a_contract_with_a_wrong_field_names_it(text: str, match: str) -> None:
    with pytest.raises(ContractError, match=match):
        ModelSpec.from_json(text)


@given(width=st.integers(1, 8000), height=st.integers(1, 8000), multiple=st.integers(1, 64))
def test_network_size_is_a_multiple_and_keeps_the_aspect(width: int, height: int,
                                                         multiple: int) -> None:
    spec = tiny_spec(size_multiple=multiple, pixels=128 * 416)
    h, w = spec.network_size(width, height)
    assert h % multiple == 0
    assert w % multiple == 0
    assert min(h, w) >= multiple
    scale = (128 * 416 / (width * height)) ** 0.5
    assert abs(h - height * scale) <= max(multiple / 2, multiple - height * scale) + 1e-6
    assert abs(w - width * scale) <= max(multiple / 2, multiple - width * scale) + 1e-6
