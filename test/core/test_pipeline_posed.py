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
"""The pipeline with a recurrent model, whose depth a test can predict (see tiny_model.py)."""
from __future__ import annotations

from pathlib import Path

import numpy as np
from planes import CAMERAS
import pytest
from tiny_model import RELATIVE_SIGMA, tiny_depth, tiny_matched_depth, tiny_posed_depth

from hybrid_depth.camera import CameraModel
from hybrid_depth.config import PipelineConfig
from hybrid_depth.pipeline import DepthPipeline
from hybrid_depth.pose_check import PoseCheck
from hybrid_depth.preprocess import network_view, to_network
from hybrid_depth.scale import ScaleReport
from hybrid_depth.types import DepthResult, Evidence, Frame

CAMERA = CAMERAS['plain']
STAGES = {'preprocess', 'keyframes', 'inference', 'pose_check', 'scale', 'evidence',
          'postprocess', 'total'}


@pytest.fixture
def pipeline(tiny_posed_model: Path):
    made = DepthPipeline(PipelineConfig(model=str(tiny_posed_model), cpu_threads=1,
                                        resolution='network'))
    yield made
    made.close()


def pose(z: float, x: float = 0.0) -> np.ndarray:
    result = np.eye(4)
    result[:3, 3] = x, 0, z
    return result


def grey_frame(grey: int, index: int, odom_T_camera: np.ndarray | None,
               camera: CameraModel = CAMERA) -> Frame:
    image = np.full((camera.height, camera.width, 3), grey, np.uint8)
    return Frame(image, 10**9 + index * 500_000_000, 'c', camera, odom_T_camera)


def single(pipeline: DepthPipeline, frame: Frame) -> np.ndarray:
    """Return what the tiny model's single-frame branch gives on the network's pixels."""
    size = pipeline.spec.network_size(frame.camera.width, frame.camera.height)
    view = network_view(frame.camera, size)
    return tiny_depth(to_network(frame.image_rgb, view)[0], view.K[0, 0, 0])


def drive(pipeline: DepthPipeline, count: int = 8, first: int = 0) -> list[DepthResult]:
    """Run frames of rising grey, 0.4 m apart."""
    return [pipeline.run(grey_frame(50 + 5 * index, index, pose(0.4 * index)))
            for index in range(first, first + count)]


def fused(pipeline: DepthPipeline, frame: Frame,
          sources: list[tuple[int, float]]) -> float:
    """Return the depth of a grey ``frame`` matched against (grey, metres behind)."""
    matched = tiny_matched_depth([(np.full((1, 1), grey / 255), z) for grey, z in sources])
    return float(tiny_posed_depth(single(pipeline, frame)[:4, :4], matched)[0, 0])


def test_the_first_frame_is_a_single_one_and_the_next_is_matched(
        pipeline: DepthPipeline) -> None:
    first, second = drive(pipeline, 2)
    assert (first.mode, second.mode) == ('single_frame', 'posed')
    assert (first.sources, second.sources) == (0, 1)
    np.testing.assert_allclose(first.depth_m, single(pipeline, grey_frame(50, 0, None))[0, 0],
                               rtol=1e-5)
    expected = fused(pipeline, grey_frame(55, 1, None), [(50, 0.4)])
    np.testing.assert_allclose(second.depth_m, expected, rtol=1e-5)
    np.testing.assert_allclose(second.sigma_m, RELATIVE_SIGMA * expected, rtol=1e-4)


@pytest.mark.parametrize('steps', range(3))
def test_warming_up_ends_where_a_frame_waits(pipeline: DepthPipeline, steps: int) -> None:
    answers = iter([False] * steps + [True] * 3)
    seen: list[dict] = []
    pipeline.run(grey_frame(50, 0, None))  # the model for this camera is open
    infer = pipeline._backend.infer
    pipeline._backend.infer = lambda inputs: seen.append(inputs) or infer(inputs)
    pipeline.warm_up(CAMERA, lambda: next(answers))
    assert len(seen) == steps


def test_features_and_motions_of_the_chosen_keyframes_reach_the_network(
        pipeline: DepthPipeline) -> None:
    seen: list[dict] = []
    pipeline.warm_up(CAMERA)
    infer = pipeline._backend.infer
    pipeline._backend.infer = lambda inputs: seen.append(inputs) or infer(inputs)
    results = drive(pipeline)
    last = seen[-1]
    assert last['source_valid'].tolist() == [[1, 1]]
    behind = last['source_T_target'][0, :, 2, 3]
    assert 0 < behind[0] < behind[1]
    assert results[-1].sources == 2
    used = [(50 + 5 * (7 - round(z / 0.4)), z) for z in behind]
    expected = fused(pipeline, grey_frame(85, 7, None), used)
    np.testing.assert_allclose(results[-1].depth_m, expected, rtol=1e-5)


@pytest.mark.parametrize('resolution', ['camera', 'network'])
@pytest.mark.parametrize('name', CAMERAS)
def test_results_have_evidence_scale_and_stages(pipeline: DepthPipeline, name: str,
                                                resolution: str) -> None:
    pipeline.configure(pipeline.config.updated({'resolution': resolution}))
    for index in range(3):
        result = pipeline.run(grey_frame(80, index, pose(0, 0.5 * index), CAMERAS[name]))
        assert set(result.timings_ms) == STAGES
        assert sum(result.timings_ms.values()) == pytest.approx(2 * result.timings_ms['total'])
        assert result.evidence is not None
        assert result.evidence.dtype == np.uint8
        assert result.evidence.shape == result.depth_m.shape
        assert result.scale is not None
        assert np.isfinite([result.scale.scale, result.scale.sigma]).all()
        if index == 0:
            assert (result.evidence == Evidence.SINGLE_FRAME).all()
            assert result.pose_check is None
    assert result.mode == 'posed'
    assert result.pose_check is not None
    assert result.pose_check.verdict == 'unknown'  # nothing but grey
    kinds = set(np.unique(result.evidence))
    assert Evidence.OCCLUDED in kinds  # what has come into view
    assert kinds & {Evidence.MATCHED, Evidence.MOVING}


@pytest.mark.parametrize('bad', [
    np.full((4, 4), np.nan), np.full((4, 4), np.inf), np.zeros((4, 4)), np.eye(4)[:3],
    np.diag([1.0, 1.0, -1.0, 1.0]), np.diag([2.0, 2.0, 2.0, 1.0]), 3 * np.ones((4, 4))])
def test_a_bad_pose_counts_as_none(pipeline: DepthPipeline, bad: np.ndarray,
                                   caplog: pytest.LogCaptureFixture) -> None:
    drive(pipeline, 4)
    for index in (4, 5):
        result = pipeline.run(grey_frame(70, index, bad))
        assert (result.mode, result.pose_check) == ('single_frame', None)
        assert np.isfinite(result.depth_m).all()
    assert sum('not a finite rigid motion' in record.message for record in caplog.records) == 1
    assert pipeline.run(grey_frame(75, 6, pose(2.4))).mode == 'posed'


def test_without_odometry_depth_is_that_of_single_frames(pipeline: DepthPipeline) -> None:
    pipeline.configure(pipeline.config.updated({'use_odometry': False}))
    for index, result in enumerate(drive(pipeline, 4)):
        assert (result.mode, result.pose_check) == ('single_frame', None)
        expected = single(pipeline, grey_frame(50 + 5 * index, index, None))[0, 0]
        np.testing.assert_allclose(result.depth_m, expected, rtol=1e-5)
    pipeline.configure(pipeline.config.updated({'use_odometry': True}))
    assert [result.mode for result in drive(pipeline, 2, first=4)] == ['single_frame', 'posed']


def test_depth_does_not_jump_when_matching_has_to_pause(pipeline: DepthPipeline) -> None:
    for index in range(20):
        matched = pipeline.run(grey_frame(50, index, pose(0.4 * index)))
    paused = pipeline.run(grey_frame(50, 20, None))
    assert (matched.mode, paused.mode) == ('posed', 'single_frame')
    assert paused.scale is not None
    alone = single(pipeline, grey_frame(50, 0, None))[0, 0]
    np.testing.assert_allclose(paused.depth_m, alone * paused.scale.scale, rtol=1e-5)
    np.testing.assert_allclose(
        paused.sigma_m, paused.depth_m * np.hypot(RELATIVE_SIGMA, paused.scale.sigma), rtol=1e-4)
    # matched depth lies between the branches; the paused frame is far nearer to it than to alone
    assert abs(np.log(paused.depth_m[0, 0] / matched.depth_m[0, 0])) < \
        0.5 * abs(np.log(alone / matched.depth_m[0, 0]))


def test_a_rescaled_ceiling_is_still_out_of_range(pipeline: DepthPipeline) -> None:
    class Halved:

        def update(self, *_: object) -> ScaleReport:
            return ScaleReport(0.5, 0.1, {}, True, '')
    pipeline.warm_up(CAMERA)
    pipeline._scale = Halved()
    frame = grey_frame(50, 0, None)
    alone = float(single(pipeline, frame)[0, 0])
    object.__setattr__(pipeline._spec, 'max_depth_m', alone * 1.01)  # what it says is its ceiling
    assert np.isposinf(pipeline.run(frame).depth_m).all()
    object.__setattr__(pipeline._spec, 'max_depth_m', alone * 1.1)
    np.testing.assert_allclose(pipeline.run(grey_frame(50, 1, None)).depth_m, alone / 2,
                               rtol=1e-5)


@pytest.mark.parametrize(('fault', 'mode'), [('motion', 'single_frame'), ('direction', 'posed'),
                                             ('scale', 'posed'), ('', 'posed')])
def test_poses_that_do_not_fit_the_images_are_not_used(
        pipeline: DepthPipeline, fault: str, mode: str,
        caplog: pytest.LogCaptureFixture) -> None:
    update = pipeline._checker.update
    verdict = 'inconsistent' if fault else 'ok'
    check = PoseCheck(verdict, verdict, 0.5, 0.5, 0.2, 1.0, 90.0, 1.0, fault, 'turned')
    pipeline._checker.update = lambda *_: check
    results = drive(pipeline, 6)
    assert {result.mode for result in results[2:]} == {mode}
    assert results[-1].pose_check is check
    assert sum('turned' in record.message for record in caplog.records) == (fault == 'motion')
    pipeline._checker.update = update  # from here on nothing speaks against them
    assert drive(pipeline, 2, first=6)[-1].mode == 'posed'


def test_another_camera_starts_anew(pipeline: DepthPipeline) -> None:
    drive(pipeline, 4)
    other = pipeline.run(grey_frame(70, 4, pose(1.6), CAMERAS['tall']))
    assert other.mode == 'single_frame'
    assert pipeline.run(grey_frame(70, 5, pose(2.0), CAMERAS['tall'])).mode == 'posed'
    # the same size, another focal length
    longer = CameraModel(120, 200, 300.0, 310.0, 61.0, 97.0)
    assert pipeline.run(grey_frame(70, 6, pose(2.4), longer)).mode == 'single_frame'


def test_a_recording_that_starts_again_and_a_jump_start_anew(pipeline: DepthPipeline) -> None:
    drive(pipeline, 5)
    assert pipeline.run(grey_frame(50, 0, pose(0.0))).mode == 'single_frame'
    assert drive(pipeline, 3, first=1)[-1].mode == 'posed'
    assert pipeline.run(grey_frame(50, 4, pose(500.0))).mode == 'single_frame'


def test_a_standing_robot_keeps_its_evidence_and_does_not_flicker(
        pipeline: DepthPipeline) -> None:
    drive(pipeline, 8)
    results = [pipeline.run(grey_frame(85, index, pose(2.8))) for index in range(8, 30)]
    assert {result.mode for result in results} == {'posed'}
    for result in results:
        np.testing.assert_array_equal(result.depth_m, results[0].depth_m)


def test_repeated_and_late_frames_are_answered(pipeline: DepthPipeline) -> None:
    results = drive(pipeline, 5)
    again = pipeline.run(grey_frame(70, 4, pose(1.6)))
    late = pipeline.run(grey_frame(65, 3, pose(1.2)))
    np.testing.assert_allclose(again.depth_m, results[-1].depth_m, rtol=0.1)
    assert again.mode == late.mode == 'posed'
    assert drive(pipeline, 1, first=5)[0].mode == 'posed'


def test_results_of_earlier_frames_stay_as_they_were(pipeline: DepthPipeline) -> None:
    results = drive(pipeline, 3)
    kept = [(r.depth_m.copy(), r.evidence.copy()) for r in results if r.evidence is not None]
    drive(pipeline, 3, first=3)
    for result, (depth_m, evidence) in zip(results, kept, strict=True):
        np.testing.assert_array_equal(result.depth_m, depth_m)
        np.testing.assert_array_equal(result.evidence, evidence)


def test_warm_up_runs_the_matched_path_and_leaves_no_trace(pipeline: DepthPipeline) -> None:
    seen: list[list] = []
    camera = CAMERAS['tall']
    pipeline.run(grey_frame(50, 0, None, camera))  # loads the model for this camera
    infer = pipeline._backend.infer
    pipeline._backend.infer = lambda inputs: \
        seen.append(inputs['source_valid'].tolist()) or infer(inputs)
    pipeline.warm_up(camera)
    assert seen == [[[0, 0]], [[1, 1]]]
    assert pipeline.run(grey_frame(50, 1, pose(5.0), camera)).mode == 'single_frame'


def test_closing_lets_go_of_the_features(tiny_posed_model: Path) -> None:
    pipeline = DepthPipeline(PipelineConfig(model=str(tiny_posed_model), cpu_threads=1))
    drive(pipeline, 3)
    assert len(pipeline._keyframes) > 0
    pipeline.close()
    pipeline.close()
    assert len(pipeline._keyframes) == 0


def test_extras_that_nobody_asks_for_change_nothing_else(tiny_posed_model: Path) -> None:
    config = PipelineConfig(model=str(tiny_posed_model), cpu_threads=1)
    whole, bare = (DepthPipeline(config) for _ in range(2))
    for index in range(3):
        frame = grey_frame(50 + 5 * index, index, pose(0.4 * index))
        full, result = whole.run(frame), bare.run(frame, extras=())
        np.testing.assert_array_equal(result.depth_m, full.depth_m)
        np.testing.assert_array_equal(result.edge, full.edge)
        assert (result.mode, result.scale) == (full.mode, full.scale)
        assert full.evidence is not None
        assert result.evidence is None
        assert 'evidence' not in result.timings_ms
        assert np.isnan(result.sigma_m).all()
    assert full.mode == 'posed'
    whole.close()
    bare.close()
