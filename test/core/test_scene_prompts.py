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
"""Words about the scene on the robot: the table beside a model, and the frames that follow."""
from __future__ import annotations

import json
from pathlib import Path
import pickle
import shutil
import zipfile

import numpy as np
import pytest
from tiny_model import tiny_depth, TINY_PROMPTS, tiny_spec, write_tiny_clip_prior_model

from hybrid_depth import scene_prompts
from hybrid_depth.camera import CameraModel
from hybrid_depth.config import PipelineConfig
from hybrid_depth.errors import ConfigError, ContractError
from hybrid_depth.pipeline import DepthPipeline
from hybrid_depth.scene_prompts import (
    check_prompt,
    PromptTable,
    read_table,
    TABLE,
    text_inputs,
    with_prompts,
    write_table,
)
from hybrid_depth.types import Frame

CAMERA = CameraModel(128, 96, 100.0, 100.0, 63.5, 47.5)
FEATURES = np.array([[1.0, 0.0], [0.5, 2.0]], np.float32)


def table(**changes: object) -> PromptTable:
    return PromptTable(**{'neutral': 'a scene', 'text_model': 'tiny', 'text_weights': 'random',
                          'tokens': 0, 'prompts': ('a scene', 'a kitchen'), 'features': FEATURES,
                          **changes})  # type: ignore[arg-type]


def write_raw(path: Path, header: object, features: np.ndarray, **more: np.ndarray) -> None:
    np.savez(path, header=np.frombuffer(json.dumps(header).encode(), np.uint8),
             features=features, **more)


HEADER = {'neutral': 'a scene', 'text_model': 'tiny', 'text_weights': 'random', 'tokens': 0,
          'prompts': ['a scene', 'a kitchen']}


def test_table_survives_the_file(tmp_path: Path) -> None:
    write_table(tmp_path / TABLE, table())
    found = read_table(tmp_path / TABLE)
    assert found.prompts == ('a scene', 'a kitchen')
    np.testing.assert_array_equal(found.features, FEATURES)
    assert (found.neutral, found.text_model, found.tokens) == ('a scene', 'tiny', 0)
    assert [file.name for file in tmp_path.iterdir()] == [TABLE]


def test_nothing_said_is_the_neutral_prompt() -> None:
    np.testing.assert_array_equal(table().find(''), FEATURES[:1])
    np.testing.assert_array_equal(table().find('a kitchen'), FEATURES[1:])


def test_unknown_prompt_is_refused_with_the_list_and_the_command() -> None:
    with pytest.raises(ConfigError) as caught:
        table().find('a greenhouse')
    for part in ("'a greenhouse'", "'a kitchen'", "''", 'hybrid_depth_training embed'):
        assert part in str(caught.value)


def test_command_of_the_refusal_can_be_pasted(model: Path) -> None:
    import shlex
    prompt = 'the robot\'s "lab"'
    with pytest.raises(ConfigError) as caught:
        text_inputs(model, tiny_spec(kind='clip_prior', text_dim=2), prompt)
    words = shlex.split(str(caught.value).rpartition('with: ')[2])
    assert words[:4] == ['python', '-m', 'hybrid_depth_training', 'embed']
    assert words[words.index('--model') + 1] == str(model.parent)
    assert json.loads(words[words.index('--prompts') + 1]) == [prompt]


def test_more_prompts_keep_the_others() -> None:
    more = with_prompts(table(), ['a street', 'a kitchen'],
                        np.array([[3, 4], [5, 6]], np.float32))
    assert more.prompts == ('a scene', 'a kitchen', 'a street')
    assert more.features.tolist() == [[1, 0], [5, 6], [3, 4]]


@pytest.mark.parametrize(('header', 'features', 'match'), [
    ({**HEADER, 'neutral': 'a barn'}, FEATURES, 'neutral'),
    ({**HEADER, 'prompts': ['a scene', 'a scene']}, FEATURES, 'twice'),
    ({**HEADER, 'prompts': ['a scene', '']}, FEATURES, 'empty'),
    ({**HEADER, 'prompts': ['a scene', 'x' * 301]}, FEATURES, '300 characters'),
    ({**HEADER, 'prompts': ['a scene', 7]}, FEATURES, 'no text'),
    ({**HEADER, 'prompts': ['a scene']}, FEATURES, 'features of 1 prompts'),
    (HEADER, FEATURES.astype(np.float64), 'float64'),
    (HEADER, FEATURES * np.nan, 'finite'),
    (HEADER, FEATURES[0], 'features'),
    ({**HEADER, 'more': 1}, FEATURES, 'cannot be read'),
    ({'prompts': []}, FEATURES, 'cannot be read'),
    ([], FEATURES, 'cannot be read'),
    (HEADER, np.array([pickle.dumps, 1], object), 'cannot be read'),
])
def test_unsound_tables_are_refused(tmp_path: Path, header: object, features: np.ndarray,
                                    match: str) -> None:
    write_raw(tmp_path / TABLE, header, features)
    with pytest.raises(ContractError, match=match):
        read_table(tmp_path / TABLE)


def test_damaged_foreign_and_huge_files_are_refused(tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / TABLE
    write_table(path, table())
    whole = path.read_bytes()
    for content in (b'', whole[:-30], b'no archive', whole[:60] + b'\0' * 20 + whole[80:]):
        path.write_bytes(content)
        with pytest.raises(ContractError, match='cannot be read'):
            read_table(path)
    write_raw(path, HEADER, FEATURES, more=FEATURES)
    with pytest.raises(ContractError, match=r'more\.npy'):
        read_table(path)
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:  # 2 kB that unpack to 2 MB
        archive.writestr('header.npy', b'\0' * (2 << 20))
        archive.writestr('features.npy', b'')
    with pytest.raises(ContractError, match='at most'):
        read_table(path)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_tiny_clip_prior_model(tmp_path / 'model.onnx')
    return tmp_path / 'model.onnx'


def frame(level: int = 100) -> Frame:
    return Frame(np.full((96, 128, 3), level, np.uint8), 0, 'camera', CAMERA, None)


def test_prompt_acts_on_the_next_frame_without_touching_the_engine(model: Path) -> None:
    config = PipelineConfig(model=str(model))
    pipeline = DepthPipeline(config)
    expected = tiny_depth(frame().image_rgb, 100.0)
    try:
        pipeline.warm_up(CAMERA)
        backend = pipeline._backend
        for prompt in ('', *TINY_PROMPTS, ''):
            pipeline.configure(config.updated({'scene_prompt': prompt}))
            depth_m = pipeline.run(frame()).depth_m
            np.testing.assert_allclose(depth_m, expected * TINY_PROMPTS.get(prompt, 1.0),
                                       rtol=1e-5)
        with pytest.raises(ConfigError, match='greenhouse'):
            pipeline.configure(config.updated({'scene_prompt': 'a greenhouse'}))
        assert pipeline.config.scene_prompt == ''  # as before
        assert pipeline._backend is backend
    finally:
        pipeline.close()


def test_prompts_that_are_added_meanwhile_are_known(model: Path) -> None:
    config = PipelineConfig(model=str(model))
    pipeline = DepthPipeline(config)
    path = model.parent / TABLE
    with pytest.raises(ConfigError, match='greenhouse'):
        check_prompt(str(model), 'a greenhouse')
    write_table(path, with_prompts(read_table(path), ['a greenhouse'],
                                   np.array([[3, 0]], np.float32)))
    check_prompt(str(model), 'a greenhouse')
    try:
        pipeline.configure(config.updated({'scene_prompt': 'a greenhouse'}))
        np.testing.assert_allclose(pipeline.run(frame()).depth_m,
                                   3 * tiny_depth(frame().image_rgb, 100.0), rtol=1e-5)
    finally:
        pipeline.close()


def test_start_with_an_unknown_prompt_is_refused(model: Path) -> None:
    with pytest.raises(ConfigError, match='greenhouse'):
        DepthPipeline(PipelineConfig(model=str(model), scene_prompt='a greenhouse'))


def test_model_without_language_takes_no_words(tiny_model: Path) -> None:
    assert text_inputs(tiny_model, tiny_spec(), '') == {}
    with pytest.raises(ConfigError, match='takes no words'):
        DepthPipeline(PipelineConfig(model=str(tiny_model), scene_prompt='a kitchen'))
    with pytest.raises(ConfigError, match='takes no words'):
        check_prompt(str(tiny_model), 'a kitchen')


def test_check_leaves_unreadable_models_to_who_opens_them(model: Path) -> None:
    check_prompt('no such model', 'a kitchen')
    check_prompt(str(model), '')
    (model.parent / TABLE).unlink()
    with pytest.raises(ConfigError, match='is missing'):
        check_prompt(str(model), 'a kitchen')


def test_table_of_another_model_and_no_table_are_refused(model: Path, tmp_path: Path) -> None:
    spec = tiny_spec(kind='clip_prior', text_dim=3)
    with pytest.raises(ContractError, match='takes 3'):
        text_inputs(model, spec, '')
    elsewhere = tmp_path / 'elsewhere'
    elsewhere.mkdir()
    shutil.copy(model, elsewhere)
    with pytest.raises(ContractError, match='is missing'):
        DepthPipeline(PipelineConfig(model=str(elsewhere / 'model.onnx')))


def test_table_is_read_once_for_each_of_its_states(model: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    count = []
    read = scene_prompts.read_table
    monkeypatch.setattr(scene_prompts, 'read_table', lambda path: (count.append(1), read(path))[1])
    spec = tiny_spec(kind='clip_prior', text_dim=2)
    for _ in range(3):
        text_inputs(model, spec, 'a kitchen')
    assert len(count) == 1
