# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The only stateful object of the core: frames go in, depth results come out."""
from __future__ import annotations

import logging
import time

import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth.config import PipelineConfig
from hybrid_depth.contract import ModelSpec, read_spec
from hybrid_depth.errors import BadFrame, ConfigError
from hybrid_depth.models import find_model
from hybrid_depth.postprocess import to_depth
from hybrid_depth.preprocess import content_of, network_view, NetworkView, to_network
from hybrid_depth.runtime import load_backend
from hybrid_depth.types import DepthResult, Frame

logger = logging.getLogger(__name__)

STATIC_SETTINGS = ('model', 'backend', 'cpu_threads')  # a change of these needs a new pipeline
# The camera assumed until the first frame tells: the model is loaded at construction, so that a
# bad file is noticed then and not while driving.
_EXPECTED_SHAPE = (1280, 720)


class DepthPipeline:
    """
    Metric depth from camera frames.

    ``run``, ``warm_up`` and ``close`` belong to one thread; ``configure`` may be called from
    another. Depth beyond ``config.max_depth_m``, or within 2 % of the model's own ceiling
    (``spec.max_depth_m``), where it saturates, is beyond range and goes by ``config.far_policy``.

    Raises ContractError where the model is missing, damaged or of another contract, and
    BackendUnavailable where the runtime asked for cannot be used.
    """

    def __init__(self, config: PipelineConfig) -> None:
        self._config = config
        self._path = find_model(config.model)
        self._spec = read_spec(self._path)
        self._size = self._spec.network_size(*_EXPECTED_SHAPE)
        self._backend = load_backend(config.backend, self._path, self._spec, self._size,
                                     config.cpu_threads)
        self._view: NetworkView | None = None

    @property
    def spec(self) -> ModelSpec:
        """The contract of the model in use."""
        return self._spec

    @property
    def config(self) -> PipelineConfig:
        """The settings that the next frame is run with."""
        return self._config

    @property
    def backend_description(self) -> str:
        """Runtime, version, device and network size, for people."""
        return self._backend.description

    def configure(self, config: PipelineConfig) -> None:
        """
        Use ``config`` from the next frame on; a frame in progress finishes with the old one.

        Raises ConfigError, and changes nothing, where a setting differs that is fixed at
        construction (STATIC_SETTINGS).
        """
        for key in STATIC_SETTINGS:
            old, new = getattr(self._config, key), getattr(config, key)
            if old != new:
                raise ConfigError(f'{key} cannot change from {old!r} to {new!r} while running; '
                                  'start again with the new value')
        self._config = config

    def warm_up(self, camera: CameraModel) -> None:
        """Load the model and compute the tables for ``camera``: the first frame is not late."""
        view = self._view_of(camera)
        image = to_network(np.zeros((camera.height, camera.width, 3), np.uint8), view)
        self._backend.infer({'image': image, 'K': view.K})
        depth = np.full(image.shape[1:3], self._spec.min_depth_m, np.float32)
        to_depth(depth, depth, view, self._config, self._spec.max_depth_m)

    def run(self, frame: Frame) -> DepthResult:
        """
        Return the depth of ``frame``; its arrays are the caller's to keep.

        ``timings_ms`` has the stages preprocess, inference and postprocess, and their total;
        loading the model for a camera of another shape is in none of them.
        Raises BadFrame where the image does not fit its camera or the model gives no depth.
        """
        _check_image(frame)
        config = self._config
        view = self._view_of(frame.camera)
        start = time.perf_counter()
        image = to_network(frame.image_rgb, view)
        prepared = time.perf_counter()
        outputs = self._backend.infer({'image': image, 'K': view.K})
        inferred = time.perf_counter()
        arrays = to_depth(outputs['depth'][0, 0], outputs['sigma'][0, 0], view, config,
                          self._spec.max_depth_m)
        if config.resolution == 'network':
            camera, image_rgb = view.content, content_of(image[0], view)
        else:
            camera, image_rgb = frame.camera, frame.image_rgb
        end = time.perf_counter()
        return DepthResult(
            depth_m=arrays.depth_m, sigma_m=arrays.sigma_m, edge=arrays.edge,
            image_rgb=image_rgb, camera=camera, stamp_ns=frame.stamp_ns, frame_id=frame.frame_id,
            mode='single_frame', timings_ms={
                'preprocess': 1e3 * (prepared - start), 'inference': 1e3 * (inferred - prepared),
                'postprocess': 1e3 * (end - inferred), 'total': 1e3 * (end - start)})

    def close(self) -> None:
        """Release the model's memory. Calling twice is harmless."""
        self._backend.close()

    def _view_of(self, camera: CameraModel) -> NetworkView:
        """Return how ``camera`` is shown to the model, which is loaded anew for another size."""
        if self._view is not None and self._view.camera == camera:
            return self._view
        size = self._spec.network_size(camera.width, camera.height)
        if size != self._size:
            logger.info('loading %s for network size %dx%d (camera %dx%d)', self._spec.name,
                        size[1], size[0], camera.width, camera.height)
            backend = load_backend(self._config.backend, self._path, self._spec, size,
                                   self._config.cpu_threads)
            self._backend.close()
            self._backend, self._size = backend, size
        self._view = network_view(camera, size)
        return self._view


def _check_image(frame: Frame) -> None:
    image, camera = frame.image_rgb, frame.camera
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise BadFrame('bad_image', f'the image is {image.dtype} {image.shape}; expected uint8 '
                       '(H, W, 3) in RGB order')
    if image.shape[:2] != (camera.height, camera.width):
        raise BadFrame('size_mismatch', f'the image is {image.shape[1]}x{image.shape[0]}, its '
                       f'camera {camera.width}x{camera.height}; the camera must describe the '
                       'image as delivered')
