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
"""Cameras that share an engine: one backend per size, and no camera hears of another."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hybrid_depth import engine as engine_module
from hybrid_depth.camera import CameraModel
from hybrid_depth.config import PipelineConfig
from hybrid_depth.engine import Engine
from hybrid_depth.errors import BackendUnavailable, ConfigError
from hybrid_depth.pipeline import DepthPipeline
from hybrid_depth.types import Frame

WIDE = CameraModel(128, 96, 100., 100., 63.5, 47.5)
ALIKE = CameraModel(256, 192, 180., 180., 120., 90.)  # of the same shape
TALL = CameraModel(96, 128, 100., 100., 47.5, 63.5)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return the network sizes that a model was loaded for."""
    sizes: list[tuple[int, int]] = []
    load = engine_module.load_backend

    def counted(*arguments: Any) -> Any:
        sizes.append(arguments[3])
        return load(*arguments)
    monkeypatch.setattr(engine_module, 'load_backend', counted)
    return sizes


def frame(camera: CameraModel, step: int, seed: int = 0) -> Frame:
    """Return a frame of a camera that moves 0.2 m to the right at each step."""
    texture = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
    image = np.roll(np.kron(texture, np.ones((camera.height // 8, camera.width // 8, 1),
                                             np.uint8)), -step, axis=1)
    pose = np.eye(4)
    pose[0, 3] = 0.2 * step
    return Frame(image, step * 100_000_000, 'camera', camera, pose, 1)


def test_memory_is_given_back_until_the_next_frame(tiny_model: Path,
                                                   opened: list[tuple[int, int]]) -> None:
    first = DepthPipeline(PipelineConfig(model=str(tiny_model)))
    second = first.for_another_camera()
    engine = first._engine
    expected = first.run(frame(WIDE, 0)).depth_m
    second.run(frame(ALIKE, 0))
    first.free()
    assert engine.sizes == [opened[1]]  # the other has it still
    backend = second._backend
    second.free()
    second.free()
    assert engine.sizes == []
    with pytest.raises(BackendUnavailable, match='closed'):
        backend.infer({})
    np.testing.assert_array_equal(first.run(frame(WIDE, 0)).depth_m, expected)
    assert engine.sizes == [opened[1]]
    assert first._keyframes.choose(10**9, np.eye(4), 1) == []
    first.close()
    second.close()
    assert engine.sizes == []
    with pytest.raises(BackendUnavailable, match='closed'):
        first.run(frame(TALL, 0))
    assert engine.sizes == []


def test_cameras_of_one_shape_share_a_backend(tiny_model: Path,
                                              opened: list[tuple[int, int]]) -> None:
    first = DepthPipeline(PipelineConfig(model=str(tiny_model)))
    second = first.for_another_camera()
    engine = first._engine
    assert len(engine.sizes) == len(opened) == 1  # the size that is expected of a camera
    for pipeline, camera in ((first, WIDE), (second, ALIKE)):
        assert pipeline.run(frame(camera, 0)).depth_m.shape == (camera.height, camera.width)
    assert first._backend is second._backend
    assert engine.sizes == [opened[1]]
    assert len(opened) == 2
    third = first.for_another_camera()
    third.run(frame(TALL, 0))
    assert len(engine.sizes) == 2
    third.close()
    third.close()
    first.close()
    assert len(engine.sizes) == 1
    second.run(frame(ALIKE, 1))  # still open for who is left
    second.close()
    assert engine.sizes == []


def test_a_camera_that_changes_its_shape_leaves_the_others_alone(
        tiny_model: Path, opened: list[tuple[int, int]]) -> None:
    first = DepthPipeline(PipelineConfig(model=str(tiny_model)))
    second = first.for_another_camera()
    before = [pipeline.run(frame(WIDE, 0)).depth_m for pipeline in (first, second)]
    first.run(frame(TALL, 0))
    np.testing.assert_array_equal(second.run(frame(WIDE, 0)).depth_m, before[1])
    first.run(frame(WIDE, 0))
    assert len(first._engine.sizes) == 1
    assert len(opened) == 3  # expected, wide, tall: wide was never closed
    first.close()
    second.close()


def test_cameras_do_not_see_each_other(tiny_posed_model: Path) -> None:
    config = PipelineConfig(model=str(tiny_posed_model))

    def run_all(pipelines: list[DepthPipeline], turns: list[int]) -> list[list[Any]]:
        results: list[list[Any]] = [[], []]
        for turn in turns:
            step = len(results[turn])
            results[turn].append(pipelines[turn].run(
                frame((WIDE, ALIKE)[turn], step, seed=turn)))
        for pipeline in pipelines:
            pipeline.close()
        return results
    first = DepthPipeline(config)
    shared = run_all([first, first.for_another_camera()], [0, 1, 0, 0, 1, 1, 0, 1])
    alone = run_all([DepthPipeline(config), DepthPipeline(config)], [0] * 4 + [1] * 4)
    for camera in (0, 1):
        assert [result.mode for result in shared[camera]] == \
            [result.mode for result in alone[camera]]
        assert shared[camera][-1].mode == 'posed'
        for together, single in zip(shared[camera], alone[camera], strict=True):
            np.testing.assert_array_equal(together.depth_m, single.depth_m)
            assert together.scale == single.scale


def test_an_engine_of_another_model_is_refused(tiny_model: Path, tiny_posed_model: Path) -> None:
    engine = Engine(PipelineConfig(model=str(tiny_model)))
    with pytest.raises(ConfigError, match='model cannot change'):
        DepthPipeline(PipelineConfig(model=str(tiny_posed_model)), engine)
    assert engine.sizes == []
