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
"""What ``gpu_bench`` runs: networks as they are deployed, on a drive down a synthetic street."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hybrid_depth.camera import CameraModel
from hybrid_depth.drives.render import render
from hybrid_depth.drives.street import make_street
from hybrid_depth.drives.synthetic import ego_pose, SPEED_MPS
from hybrid_depth.errors import ConfigError
from hybrid_depth_training.calibration import SigmaScale
from hybrid_depth_training.config import read_config
from hybrid_depth_training.deploy.export import (
    ExportedClipPrior,
    ExportedDepth,
    ExportedPosed,
    load_config,
    load_model,
)
from hybrid_depth_training.models.clip_prior.network import ClipPriorDepth
from hybrid_depth_training.models.hybrid import HybridDepth
from hybrid_depth_training.models.posed import PosedDepth
from hybrid_depth_training.models.sweep import FEATURE_STRIDE
from hybrid_depth_training.objectives import make_objective, objective_class
from hybrid_depth_training.weights import RANDOM

_PERIOD_S = 0.1
_FOCAL = 0.58  # of the image's width, as of the synthetic drives


def deployed(path: Path) -> nn.Module:
    """
    Return the network of a run folder, or of a recipe with random weights, as it is deployed.

    Attention stays torch's own fused one, unlike in an exported graph.
    """
    if path.is_dir():
        _, network = load_model(path, load_config(path))
    else:
        config = read_config(path)
        torch.manual_seed(0)
        options = random_weights(config.options, objective_class(config.objective).Options)
        network = make_objective(config.objective, options, 0, 0, 1, blank=True).network.eval()
    for part in network.modules():
        if isinstance(part, HybridDepth) and part.text is not None:
            with torch.no_grad():
                part.bake_text()
    kind: type[nn.Module] | None = None
    if isinstance(network, PosedDepth):
        kind = ExportedPosed
    elif isinstance(network, ClipPriorDepth) and network.has_language:
        kind = ExportedClipPrior
    elif list(inspect.signature(network.forward).parameters) == ['image', 'K']:
        kind = ExportedDepth
    return (network if kind is None else kind(network, SigmaScale())).eval()


def random_weights(options: Mapping[str, Any], kind: type | None = None) -> dict[str, Any]:
    """
    Return a recipe's options with all weights random: those it names, and its defaults.

    ``kind`` is the dataclass that has the defaults.
    """
    result = {key: random_weights(value) if isinstance(value, Mapping) else value
              for key, value in options.items()}
    names = {*result, *(entry.name for entry in (fields(kind) if kind else ()))}
    return result | {key: RANDOM for key in names if key.split('_')[-1] == 'weights'}


def street_frames(network: nn.Module, size: tuple[int, int], sources: int,
                  count: int) -> list[dict[str, np.ndarray]]:
    """
    Return the inputs of ``count`` successive frames of a drive, at 10 Hz and 8 m/s.

    ``size`` (H, W). The sources of a frame are the ``sources`` frames before it, with their true
    motion; ``source_features`` is empty, for TorchSession has them. Raises ConfigError where the
    network has an input that a drive cannot give.
    """
    height, width = size
    camera = CameraModel(width, height, _FOCAL * width, _FOCAL * width, (width - 1) / 2,
                         0.48 * height)
    street = make_street(0, count * _PERIOD_S * SPEED_MPS)
    names = inspect.signature(network.forward).parameters
    poses: list[np.ndarray] = []
    frames = []
    for index in range(count):
        poses.append(ego_pose(street, index * _PERIOD_S))
        motion = np.tile(np.eye(4, dtype=np.float32), (1, sources, 1, 1))
        past = poses[-2::-1][:sources]
        for age, pose in enumerate(past):
            motion[0, age] = np.linalg.inv(pose) @ poses[-1]
        known: dict[str, np.ndarray] = {
            'image': render(street, camera, poses[-1], index * _PERIOD_S)[0][None],
            'K': camera.K[None].astype(np.float32),
            'source_T_target': motion,
            'source_valid': (np.arange(sources) < len(past)).astype(np.float32)[None]}
        if 'text' in names:
            known['text'] = np.ones((1, network.network.text_dim), np.float32)
        if 'source_features' in names:
            known['source_features'] = np.zeros(
                (1, sources, network.network.channels, height // FEATURE_STRIDE,
                 width // FEATURE_STRIDE), np.float32)
        unknown = sorted(set(names) - set(known))
        if unknown:
            raise ConfigError(f'{type(network).__name__} takes {unknown}, which nothing here can '
                              'feed')
        frames.append({name: known[name] for name in names})
    return frames
