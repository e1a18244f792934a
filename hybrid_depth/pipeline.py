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
"""The only stateful object of the core: frames go in, depth results come out."""
from __future__ import annotations

from collections.abc import Callable, Collection
import logging
import time
from typing import Any

import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth.config import PipelineConfig
from hybrid_depth.contract import ModelSpec
from hybrid_depth.engine import Engine
from hybrid_depth.errors import BackendUnavailable, BadFrame
from hybrid_depth.evidence import evidence_map, on_output
from hybrid_depth.keyframes import is_rigid, Keyframes, Source
from hybrid_depth.matching import gravity, small_map, small_rays, source_inputs, thumbnail
from hybrid_depth.pose_check import PoseCheck, PoseChecker
from hybrid_depth.postprocess import to_depth
from hybrid_depth.preprocess import content_of, network_view, NetworkView, to_network
from hybrid_depth.scale import ScaleFilter, ScaleReport
from hybrid_depth.types import DepthResult, EXTRAS, Frame

logger = logging.getLogger(__name__)

# The camera assumed until the first frame tells: the model is loaded at construction, so that a
# bad file is noticed then and not while driving.
_EXPECTED_SHAPE = (1280, 720)
_SCALE_STRIDE = 4  # network pixels per pixel that scale is judged by, where the model has no own


class DepthPipeline:
    """
    Metric depth from the frames of one camera.

    ``run``, ``warm_up`` and ``close`` belong to one thread, the same for all pipelines that share
    an ``engine``; ``configure`` may be called from another. Without ``engine`` the pipeline opens
    one of its own (``is_live``: see there). Depth beyond ``config.max_depth_m``, or within 2 % of
    the model's own ceiling (``spec.max_depth_m``), where it saturates, is beyond range and goes by
    ``config.far_policy``.

    A model of kind 'posed' matches frames that have a pose against earlier ones (see
    ``keyframes``). The poses are checked against the images: while their motion is found useless
    (``pose_check``: fault 'motion'), depth is that of the single image. Depth of the single
    image is multiplied by the scale that the frames before have shown (``scale``), so that it does
    not jump when matching has to pause. A model of kind 'single_frame' is rescaled only where
    ``config.camera_height_m`` is given.

    Raises ContractError where the model is missing, damaged or of another contract, and
    BackendUnavailable where the runtime asked for cannot be used.
    """

    def __init__(self, config: PipelineConfig, engine: Engine | None = None, *,
                 is_live: bool = False) -> None:
        self._engine = engine or Engine(config, is_live=is_live)
        self._engine.check(config)
        self._config = config
        self._spec = self._engine.spec
        self._text = self._engine.text_inputs(config.scene_prompt)
        self._size = self._spec.network_size(*_EXPECTED_SHAPE)
        self._serving = self._engine.acquire(self._size)
        self._backend = self._serving.current()
        self._is_open = self._is_loaded = True
        self._stride = self._spec.feature_stride or _SCALE_STRIDE
        self._view: NetworkView | None = None
        self._rays = np.empty((0, 0, 2), np.float32)  # of the view, every stride-th pixel
        self._keyframes = Keyframes()
        self._checker = PoseChecker()
        self._camera_height_m = config.camera_height_m
        self._scale = ScaleFilter(self._camera_height_m)
        self._is_trusted = True  # False = the poses do not fit the images, and are not used
        self._had_bad_pose = False
        self._epoch = 0  # of the poses of the keyframes

    @property
    def spec(self) -> ModelSpec:
        """Return the contract of the model in use."""
        return self._spec

    @property
    def config(self) -> PipelineConfig:
        """Return the settings that the next frame is run with."""
        return self._config

    @property
    def backend_description(self) -> str:
        """Runtime, version, device and network size, for people."""
        return self._serving.description

    def backend_facts(self) -> dict[str, str]:
        """Return what diagnostics say of the choice of the runtime and of its engine."""
        return self._serving.facts()

    def backend_complaint(self) -> str:
        """Return why depth is not from the engine that it should be from; '' = no fault."""
        return self._serving.complaint()

    def configure(self, config: PipelineConfig) -> None:
        """
        Use ``config`` from the next frame on; a frame in progress finishes with the old one.

        Raises ConfigError, and changes nothing, where a setting differs that is fixed at
        construction (engine.STATIC_SETTINGS), or the model does not know the scene prompt.
        """
        self._engine.check(config)
        self._text = self._engine.text_inputs(config.scene_prompt)
        self._config = config

    def for_another_camera(self) -> DepthPipeline:
        """Return a pipeline that shares this one's engine and settings, and nothing else."""
        return DepthPipeline(self._config, self._engine)

    def warm_up(self, camera: CameraModel,
                is_hurried: Callable[[], bool] = lambda: False) -> None:
        """
        Load the model and compute the tables for ``camera``: the first frame is not late.

        ``is_hurried`` is asked between the steps. Where a frame waits already, the rest would
        only make it later, and is left to the frame itself.
        """
        view = self._view_of(camera)
        self._take_over()
        if is_hurried():
            return
        image = to_network(np.zeros((camera.height, camera.width, 3), np.uint8), view)
        inputs = {'image': image, 'K': view.K, **self._text}
        outputs = self._backend.infer(inputs | source_inputs(self._spec, []))
        if is_hurried():
            return
        depth = np.full(image.shape[1:3], self._spec.min_depth_m, np.float32)
        if self._spec.kind == 'posed':
            motion = np.eye(4)
            motion[2, 3] = 0.1 * self._spec.min_depth_m
            feed = source_inputs(self._spec, [])
            feed['source_features'] = (outputs['features'],) * self._spec.sources
            feed['source_valid'] = np.ones_like(feed['source_valid'])
            self._backend.infer(inputs | feed)
            small, grey = small_map(depth, self._stride), thumbnail(image[0], self._stride)
            PoseChecker().update(grey, grey, motion, small, self._rays, 0)
            on_output(evidence_map(small, small, small, small, [motion], self._rays), view,
                      self._config.resolution, self._stride)
        to_depth(depth, depth, view, self._config, self._spec.max_depth_m)

    def run(self, frame: Frame, extras: Collection[str] = EXTRAS) -> DepthResult:
        """
        Return the depth of ``frame``; its arrays are the caller's to keep.

        ``extras`` are those of EXTRAS that the result shall hold; leaving some out saves their
        time and changes nothing else.
        ``timings_ms`` has the stages preprocess, inference and postprocess, and their total; with
        a model of kind 'posed' also keyframes, pose_check, scale and evidence. Loading the model
        for a camera of another shape is in none of them. A pose that is not finite or no rigid
        motion counts as none.
        Raises BadFrame where the image does not fit its camera or the model gives no depth.
        """
        _check_image(frame)
        config, spec = self._config, self._spec
        is_posed = spec.kind == 'posed'
        view = self._view_of(frame.camera)
        self._take_over()
        clock = _Clock()
        image = to_network(frame.image_rgb, view)
        clock.lap('preprocess')
        pose = self._pose_of(frame) if is_posed or config.camera_height_m else None
        candidates = self._candidates(frame, pose, config) if is_posed else []
        sources = candidates if self._is_trusted else []
        inputs = {'image': image, 'K': view.K, **self._text, **source_inputs(spec, sources)}
        if is_posed:
            clock.lap('keyframes')
        try:
            outputs = self._backend.infer(inputs)
        except BackendUnavailable as error:
            self._serving.failed(error)
            raise
        clock.lap('inference')
        depth, sigma = outputs['depth'][0, 0], outputs['sigma'][0, 0]
        evidence = check = report = None
        ceiling_m = spec.max_depth_m
        if is_posed:
            grey = thumbnail(image[0], self._stride)
            check = self._check_pose(frame, grey, outputs, candidates)
            clock.lap('pose_check')
        if is_posed or config.camera_height_m:
            report = self._judge_scale(frame, outputs, bool(sources), pose, config)
            if not sources:
                depth, sigma = _rescaled(depth, sigma, report)
                ceiling_m *= report.scale
            clock.lap('scale')
        if is_posed:
            if 'evidence' in extras:
                evidence = self._evidence(outputs, depth, sigma, sources, report, view, config)
                clock.lap('evidence')
            if pose is not None and config.use_odometry:
                self._keyframes.add(frame.stamp_ns, pose, outputs['features'], grey,
                                    small_map(depth, self._stride), self._rays)
            clock.lap('keyframes')
        arrays = to_depth(depth, sigma, view, config, ceiling_m, with_sigma='sigma' in extras)
        if config.resolution == 'network':
            camera, image_rgb = view.content, content_of(image[0], view)
        else:
            camera, image_rgb = frame.camera, frame.image_rgb
        clock.lap('postprocess')
        return DepthResult(
            depth_m=arrays.depth_m, sigma_m=arrays.sigma_m, edge=arrays.edge,
            image_rgb=image_rgb, camera=camera, stamp_ns=frame.stamp_ns, frame_id=frame.frame_id,
            mode='posed' if sources else 'single_frame', timings_ms=clock.timings_ms(),
            sources=len(sources), evidence=evidence, scale=report, pose_check=check)

    def close(self) -> None:
        """Release the memory that no other pipeline uses. Calling twice is harmless."""
        self.free()
        self._is_open = False

    def free(self) -> None:
        """Do the same until the next frame, which opens the model again."""
        self._keyframes.reset()
        if self._is_loaded:
            self._is_loaded = False
            self._engine.release(self._size)

    def _view_of(self, camera: CameraModel) -> NetworkView:
        """Return how ``camera`` is shown to the model, which is loaded anew for another size."""
        if not self._is_open:
            raise BackendUnavailable('this pipeline was closed; make a new one')
        if not self._is_loaded:
            self._serving = self._engine.acquire(self._size)
            self._backend = self._serving.current()
            self._is_loaded = True
        if self._view is not None and self._view.camera == camera:
            return self._view
        # nothing learned through another camera holds for this one
        self._keyframes.reset()
        self._checker.reset()
        self._scale.reset()
        self._is_trusted = True
        size = self._spec.network_size(camera.width, camera.height)
        if size != self._size:
            serving = self._engine.acquire(size)  # first: it may fail
            self._engine.release(self._size)
            self._serving, self._size = serving, size
            self._backend = serving.current()
        self._view = network_view(camera, size)
        self._rays = small_rays(self._view, self._stride)
        return self._view

    def _take_over(self) -> None:
        """Go on with the engine that was accepted meanwhile, if any."""
        backend = self._serving.current()
        if backend is not self._backend:
            self._keyframes.reset()  # what they hold are features of the backend before
            self._backend = backend

    def _pose_of(self, frame: Frame) -> np.ndarray | None:
        """Return the frame's pose where it is one."""
        pose = frame.odom_T_camera
        is_bad = pose is not None and not is_rigid(pose)
        if is_bad and not self._had_bad_pose:
            logger.warning('the pose of the camera is not a finite rigid motion, and is not used: '
                           '%s', np.asarray(pose).tolist())
        self._had_bad_pose = is_bad
        return None if is_bad else pose

    def _candidates(self, frame: Frame, pose: np.ndarray | None,
                    config: PipelineConfig) -> list[Source]:
        """Return the earlier frames that geometry allows to match against."""
        if not config.use_odometry:
            self._keyframes.reset()
            return []
        if pose is not None and frame.pose_epoch != self._epoch:
            self._epoch = frame.pose_epoch
            self._keyframes.reset()
            self._checker.reset()
            self._is_trusted = True
        return self._keyframes.choose(frame.stamp_ns, pose, self._spec.sources)

    def _check_pose(self, frame: Frame, grey: np.ndarray, outputs: dict[str, Any],
                    candidates: list[Source]) -> PoseCheck | None:
        """Judge the poses by the images; what is found holds from the next frame on."""
        if not candidates:
            return None
        nearest = candidates[0]  # the short baseline: the images still look alike
        check = self._checker.update(grey, nearest.keyframe.thumbnail, nearest.source_T_target,
                                     outputs['single_depth'][0, 0], self._rays, frame.stamp_ns)
        if check.fault == 'motion' and self._is_trusted:
            logger.warning('odometry is not used for depth: %s', check.reason)
            self._scale.reset()  # it had learned from these poses
        self._is_trusted = check.fault != 'motion'
        return check

    def _judge_scale(self, frame: Frame, outputs: dict[str, Any], is_matched: bool,
                     pose: np.ndarray | None, config: PipelineConfig) -> ScaleReport:
        if config.camera_height_m != self._camera_height_m:
            self._camera_height_m = config.camera_height_m
            self._scale = ScaleFilter(self._camera_height_m)
        if self._spec.kind == 'posed':
            single = outputs['single_depth'][0, 0]
        else:
            single = small_map(outputs['depth'][0, 0], self._stride)
        matched, weight = (outputs[name][0, 0] if is_matched else None
                           for name in ('matched_depth', 'match_weight'))
        down = gravity(pose) if frame.down_camera is None else frame.down_camera
        return self._scale.update(single, matched, weight, self._rays, frame.stamp_ns, down)

    def _evidence(self, outputs: dict[str, Any], depth: np.ndarray, sigma: np.ndarray,
                  sources: list[Source], report: ScaleReport | None, view: NetworkView,
                  config: PipelineConfig) -> np.ndarray:
        with np.errstate(all='ignore'):
            relative = small_map(sigma, self._stride) / small_map(depth, self._stride)
        single, matched, weight = (outputs[name][0, 0] for name in
                                   ('single_depth', 'matched_depth', 'match_weight'))
        scale = np.float32(report.scale if report else 1)
        evidence = evidence_map(single * scale, matched, weight, relative,
                                [source.source_T_target for source in sources], self._rays)
        return on_output(evidence, view, config.resolution, self._stride)


class _Clock:
    """Milliseconds between laps, summed by stage."""

    def __init__(self) -> None:
        self._stages: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self._stages[stage] = self._stages.get(stage, 0.0) + 1e3 * (now - self._last)
        self._last = now

    def timings_ms(self) -> dict[str, float]:
        return {**self._stages, 'total': sum(self._stages.values())}


def _rescaled(depth: np.ndarray, sigma: np.ndarray,
              report: ScaleReport) -> tuple[np.ndarray, np.ndarray]:
    """Multiply by the scale; its uncertainty adds to sigma, in squares."""
    if report.scale == 1:  # the model's own word, whose uncertainty is in its sigma
        return depth, sigma
    scale = np.float32(report.scale)
    return depth * scale, np.hypot(sigma, depth * np.float32(report.sigma)) * scale


def _check_image(frame: Frame) -> None:
    image, camera = frame.image_rgb, frame.camera
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise BadFrame('bad_image', f'the image is {image.dtype} {image.shape}; expected uint8 '
                       '(H, W, 3) in RGB order')
    if image.shape[:2] != (camera.height, camera.width):
        raise BadFrame('size_mismatch', f'the image is {image.shape[1]}x{image.shape[0]}, its '
                       f'camera {camera.width}x{camera.height}; the camera must describe the '
                       'image as delivered')
