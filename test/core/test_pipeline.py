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

from pathlib import Path
import threading

import numpy as np
from planes import CAMERAS
import pytest
from tiny_model import RELATIVE_SIGMA, save_model, tiny_depth, tiny_graph, tiny_spec

from hybrid_depth.camera import CameraModel
from hybrid_depth.cloud import CloudPacker
from hybrid_depth.config import PipelineConfig
from hybrid_depth.errors import BackendUnavailable, BadFrame, ConfigError, ContractError
from hybrid_depth.pipeline import DepthPipeline
from hybrid_depth.preprocess import network_view
from hybrid_depth.types import Frame


@pytest.fixture
def pipeline(tiny_model: Path):
    made = DepthPipeline(PipelineConfig(model=str(tiny_model), cpu_threads=1))
    yield made
    made.close()


def grey_frame(camera: CameraModel, grey: int = 51, stamp_ns: int = 7) -> Frame:
    image = np.full((camera.height, camera.width, 3), grey, np.uint8)
    return Frame(image, stamp_ns, 'cam_optical_frame', camera)


def expected_depth(pipeline: DepthPipeline, camera: CameraModel, grey: int) -> float:
    size = pipeline.spec.network_size(camera.width, camera.height)
    fx = network_view(camera, size).K[0, 0, 0]
    return float(tiny_depth(np.full((1, 1, 3), grey, np.uint8), fx)[0, 0])


@pytest.mark.parametrize('resolution', ['camera', 'network'])
@pytest.mark.parametrize('name', CAMERAS)
def test_the_models_depth_comes_out_on_the_right_pixels(pipeline: DepthPipeline, name: str,
                                                        resolution: str) -> None:
    camera = CAMERAS[name]
    pipeline.configure(pipeline.config.updated({'resolution': resolution}))
    frame = grey_frame(camera)
    result = pipeline.run(frame)
    size = pipeline.spec.network_size(camera.width, camera.height)
    assert result.camera == (camera if resolution == 'camera'
                             else network_view(camera, size).content)
    shape = (result.camera.height, result.camera.width)
    assert result.depth_m.shape == result.sigma_m.shape == result.edge.shape == shape
    assert result.image_rgb.shape == (*shape, 3)
    assert (result.depth_m.dtype, result.sigma_m.dtype) == (np.float32, np.float32)
    assert result.edge.dtype == bool
    finite = np.isfinite(result.depth_m)
    assert finite.mean() > (0.5 if camera.is_distorted else 0.999)
    depth = expected_depth(pipeline, camera, 51)
    np.testing.assert_allclose(result.depth_m[finite], depth, rtol=1e-5)
    np.testing.assert_allclose(result.sigma_m[finite], RELATIVE_SIGMA * depth, rtol=1e-4)
    assert (result.stamp_ns, result.frame_id) == (7, 'cam_optical_frame')
    assert result.mode == 'single_frame'


def test_depth_follows_the_image_and_the_focal_length(pipeline: DepthPipeline) -> None:
    camera = CAMERAS['plain']
    image = np.zeros((camera.height, camera.width, 3), np.uint8)
    image[:, camera.width // 2:] = 255
    result = pipeline.run(Frame(image, 0, 'c', camera))
    # near and far as for images of one grey, and nothing in between at the border
    near, far = (expected_depth(pipeline, camera, grey) for grey in (0, 255))
    np.testing.assert_allclose(result.depth_m[:, 0], near, rtol=1e-5)
    np.testing.assert_allclose(result.depth_m[:, -1], far, rtol=1e-5)
    longer = CameraModel(310, 94, 360.0, 180.0, 152.0, 43.0)
    doubled = pipeline.run(Frame(image, 0, 'c', longer))
    np.testing.assert_allclose(doubled.depth_m[:, -1], 2 * far, rtol=1e-5)


def test_timings_are_stages_and_their_total(pipeline: DepthPipeline) -> None:
    timings = pipeline.run(grey_frame(CAMERAS['plain'])).timings_ms
    assert set(timings) == {'preprocess', 'inference', 'postprocess', 'total'}
    assert all(value > 0 for value in timings.values())
    assert sum(timings.values()) == pytest.approx(2 * timings['total'])


def test_results_of_earlier_frames_stay_as_they_were(pipeline: DepthPipeline) -> None:
    first = pipeline.run(grey_frame(CAMERAS['plain'], 20))
    kept = first.depth_m.copy()
    pipeline.run(grey_frame(CAMERAS['plain'], 200))
    np.testing.assert_array_equal(first.depth_m, kept)


def test_a_changed_camera_gets_its_own_network_size(pipeline: DepthPipeline) -> None:
    for camera in (CAMERAS['plain'], CAMERAS['tall'], CAMERAS['plain']):
        result = pipeline.run(grey_frame(camera))
        height, width = pipeline.spec.network_size(camera.width, camera.height)
        assert f'{width}x{height}' in pipeline.backend_description
        np.testing.assert_allclose(result.depth_m, expected_depth(pipeline, camera, 51), rtol=1e-5)


def test_warm_up_loads_the_model_for_the_camera(pipeline: DepthPipeline) -> None:
    camera = CAMERAS['tall']
    pipeline.warm_up(camera)
    height, width = pipeline.spec.network_size(camera.width, camera.height)
    assert f'{width}x{height}' in pipeline.backend_description
    assert np.isfinite(pipeline.run(grey_frame(camera)).depth_m).all()


@pytest.mark.parametrize(('image', 'reason'), [
    (np.zeros((94, 309, 3), np.uint8), 'size_mismatch'),
    (np.zeros((310, 94, 3), np.uint8), 'size_mismatch'),
    (np.zeros((94, 310), np.uint8), 'bad_image'),
    (np.zeros((94, 310, 4), np.uint8), 'bad_image'),
    (np.zeros((94, 310, 3), np.float32), 'bad_image'),
    (np.zeros((0, 0, 3), np.uint8), 'size_mismatch'),
])
def test_a_bad_image_is_dropped_and_the_next_one_is_fine(pipeline: DepthPipeline,
                                                         image: np.ndarray, reason: str) -> None:
    with pytest.raises(BadFrame) as caught:
        pipeline.run(Frame(image, 0, 'c', CAMERAS['plain']))
    assert caught.value.reason == reason
    assert np.isfinite(pipeline.run(grey_frame(CAMERAS['plain'])).depth_m).all()


def test_dynamic_settings_hold_from_the_next_frame(pipeline: DepthPipeline) -> None:
    camera = CAMERAS['plain']
    depth = expected_depth(pipeline, camera, 51)
    assert np.isfinite(pipeline.run(grey_frame(camera)).depth_m).all()
    pipeline.configure(pipeline.config.updated({'max_depth_m': 0.9 * depth}))
    assert np.isposinf(pipeline.run(grey_frame(camera)).depth_m).all()


@pytest.mark.parametrize('changes', [{'model': 'other'}, {'backend': 'ort'}, {'cpu_threads': 2}])
def test_static_settings_cannot_change(pipeline: DepthPipeline, changes: dict) -> None:
    before = pipeline.config
    with pytest.raises(ConfigError, match=next(iter(changes))):
        pipeline.configure(before.updated({**changes, 'max_depth_m': 5.0}))
    assert pipeline.config is before


def test_configure_from_another_thread_never_mixes_two_settings(pipeline: DepthPipeline) -> None:
    camera = CAMERAS['plain']
    depth = expected_depth(pipeline, camera, 51)
    clip = pipeline.config.updated({'max_depth_m': depth / 2, 'far_policy': 'clip'})
    all_far = pipeline.config.updated({'max_depth_m': depth / 4, 'far_policy': 'inf'})
    pipeline.configure(clip)
    stop = threading.Event()

    def flip() -> None:
        while not stop.is_set():
            pipeline.configure(all_far)
            pipeline.configure(clip)

    thread = threading.Thread(target=flip)
    thread.start()
    try:
        seen = {float(value) for _ in range(60)
                for value in np.unique(pipeline.run(grey_frame(camera)).depth_m)}
    finally:
        stop.set()
        thread.join()
    # depth / 4 would be the distance of one setting with the policy of the other
    assert seen <= {float(np.float32(depth / 2)), float('inf')}


@pytest.mark.parametrize(('graph', 'spec', 'match'), [
    ({}, None, 'carries no'),
    ({'depth_name': 'disparity'}, tiny_spec(), 'outputs'),
    ({'squeeze': True}, tiny_spec(), 'outputs'),
    ({'size': (32, 64)}, tiny_spec(), 'fixed to images'),
])
def test_a_model_that_breaks_its_contract_fails_at_construction(
        tmp_path: Path, graph: dict, spec: object, match: str) -> None:
    save_model(tmp_path / 'm.onnx', tiny_graph(**graph), spec)
    with pytest.raises(ContractError, match=match):
        DepthPipeline(PipelineConfig(model=str(tmp_path / 'm.onnx')))


def test_an_unknown_runtime_fails_at_construction(tiny_model: Path) -> None:
    with pytest.raises(BackendUnavailable, match='abacus'):
        DepthPipeline(PipelineConfig(model=str(tiny_model), backend='abacus'))


@pytest.mark.parametrize('factor', [np.nan, 0.0, -1.0, np.inf])
def test_a_model_that_gives_nonsense_gives_no_depth(tmp_path: Path, factor: float) -> None:
    save_model(tmp_path / 'm.onnx', tiny_graph(factor=factor), tiny_spec())
    pipeline = DepthPipeline(PipelineConfig(model=str(tmp_path / 'm.onnx'), cpu_threads=1))
    with pytest.raises(BadFrame) as caught:
        pipeline.run(grey_frame(CAMERAS['plain']))
    assert caught.value.reason == 'model_output'


def test_a_closed_pipeline_says_so(tiny_model: Path) -> None:
    pipeline = DepthPipeline(PipelineConfig(model=str(tiny_model), cpu_threads=1))
    pipeline.close()
    pipeline.close()
    with pytest.raises(BackendUnavailable, match='closed'):
        pipeline.run(grey_frame(CameraModel(1280, 720, 900.0, 900.0, 639.5, 359.5)))


@pytest.mark.parametrize('name', ['plain', 'plumb_bob'])
def test_any_memory_layout_of_the_image_will_do(pipeline: DepthPipeline, name: str) -> None:
    camera = CAMERAS[name]
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (camera.height, camera.width, 3), np.uint8)
    expected = pipeline.run(Frame(image, 0, 'c', camera))
    rows = np.zeros((camera.height, camera.width + 5, 3), np.uint8)
    rows[:, :-5] = image
    read_only = image.copy()
    read_only.setflags(write=False)
    swapped = np.ascontiguousarray(image[..., ::-1])[..., ::-1]
    mirrored = np.ascontiguousarray(image[:, ::-1])[:, ::-1]
    for layout in (rows[:, :-5], read_only, swapped, mirrored):
        result = pipeline.run(Frame(layout, 0, 'c', camera))
        np.testing.assert_array_equal(result.depth_m, expected.depth_m)
        np.testing.assert_array_equal(CloudPacker(2).pack(result).data,
                                      CloudPacker(2).pack(expected).data)


def test_a_single_frame_model_ignores_poses(pipeline: DepthPipeline) -> None:
    camera = CAMERAS['plain']
    plain = pipeline.run(grey_frame(camera))
    image = grey_frame(camera).image_rgb
    for index in range(3):
        pose = np.eye(4)
        pose[2, 3] = index
        result = pipeline.run(Frame(image, index, 'c', camera, pose))
        np.testing.assert_array_equal(result.depth_m, plain.depth_m)
        np.testing.assert_array_equal(result.sigma_m, plain.sigma_m)
        assert (result.mode, result.evidence, result.scale, result.pose_check) == \
            ('single_frame', None, None, None)


def test_the_known_height_of_the_camera_rescales_a_single_frame_model(tmp_path: Path) -> None:
    camera = CAMERAS['plain']
    save_model(tmp_path / 'm.onnx', tiny_graph(), tiny_spec())
    pipeline = DepthPipeline(PipelineConfig(model=str(tmp_path / 'm.onnx'), cpu_threads=1))
    # grey levels that the tiny model takes for the ground 2 m below
    view = network_view(camera, pipeline.spec.network_size(camera.width, camera.height))
    down = camera.rays()[..., 1]
    depth = np.minimum(2.0 / np.maximum(down, 0.01), 15.0)
    grey = np.clip((depth / (view.K[0, 0, 0] / 100) - 1) * 25.5, 0, 255)
    image = np.repeat(grey.round().astype(np.uint8)[..., None], 3, axis=2)
    plain = pipeline.run(Frame(image, 0, 'c', camera))
    pipeline.configure(pipeline.config.updated({'camera_height_m': 1.6}))
    for index in range(1, 30):
        result = pipeline.run(Frame(image, index * 100_000_000, 'c', camera))
    assert result.scale is not None
    assert result.scale.scale == pytest.approx(0.8, abs=0.06)
    finite = np.isfinite(plain.depth_m) & np.isfinite(result.depth_m)
    np.testing.assert_allclose(result.depth_m[finite],
                               plain.depth_m[finite] * np.float32(result.scale.scale), rtol=1e-4)
    assert (result.sigma_m[finite] > plain.sigma_m[finite] * result.scale.scale).all()
    assert 'scale' in result.timings_ms
    pipeline.configure(pipeline.config.updated({'camera_height_m': 0.0}))
    again = pipeline.run(Frame(image, 4 * 10**9, 'c', camera))
    np.testing.assert_array_equal(again.depth_m, plain.depth_m)
    pipeline.close()
