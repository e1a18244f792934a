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
"""The parameter scene_prompt of the running node."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from node_bench import Bench
import numpy as np
import pytest
from rclpy.parameter import Parameter
from tiny_model import TINY_PROMPTS, write_tiny_clip_prior_model

from hybrid_depth.errors import ConfigError
from hybrid_depth.pipeline import DepthPipeline
from hybrid_depth_ros.depth_node import DepthNode

pytestmark = pytest.mark.usefixtures('ros')


@pytest.fixture
def model(tmp_path: Path) -> str:
    write_tiny_clip_prior_model(tmp_path / 'model.onnx')
    return str(tmp_path / 'model.onnx')


@pytest.fixture
def talking(model: str) -> Iterator[Bench]:
    """Return a bench with the real pipeline and the tiny model that takes words."""
    made = Bench(DepthPipeline, model=model)
    yield made
    made.close()


def depth(bench: Bench) -> float:
    message = bench.send_and_wait()
    return float(np.median(np.frombuffer(message.data, '<f4')))


def tell(bench: Bench, prompt: str):
    return bench.node.set_parameters([Parameter('scene_prompt', value=prompt)])[0]


def test_words_change_the_depth_of_the_next_frame(talking: Bench) -> None:
    talking.start('depth/image')
    talking.calibrate()
    unsaid = depth(talking)
    for prompt, factor in TINY_PROMPTS.items():
        assert tell(talking, prompt).successful
        assert depth(talking) == pytest.approx(factor * unsaid, rel=1e-5)

    result = tell(talking, 'a greenhouse')
    assert not result.successful
    for part in (*TINY_PROMPTS, 'hybrid_depth_training embed'):
        assert part in result.reason
    last = list(TINY_PROMPTS.values())[-1]
    assert depth(talking) == pytest.approx(last * unsaid, rel=1e-5)  # as before
    assert talking.node.get_parameter('scene_prompt').value == list(TINY_PROMPTS)[-1]
    assert tell(talking, '').successful
    assert depth(talking) == pytest.approx(unsaid, rel=1e-5)
    assert len(talking.pipelines) == 1


def test_model_without_language_takes_no_words(tiny_model: Path) -> None:
    node = DepthNode(parameter_overrides=[Parameter('model', value=str(tiny_model))])
    try:
        result = node.set_parameters([Parameter('scene_prompt', value='a kitchen')])[0]
        assert not result.successful
        assert 'takes no words' in result.reason
    finally:
        node.destroy_node()


def test_unknown_words_at_the_start_are_an_error(model: str) -> None:
    with pytest.raises(ConfigError, match=r'a greenhouse.*a kitchen'):
        DepthNode(parameter_overrides=[Parameter('model', value=model),
                                       Parameter('scene_prompt', value='a greenhouse')])
