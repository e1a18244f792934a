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
"""
Score an exported model on a data set by a published protocol, told the truth, a lie and nothing.

The model runs as on a robot, on the whole image. With ``flip`` as the supervised networks since
BTS, PixelFormer among them, publish: every image is shown mirrored as well, and both depths are
joined. Nothing is scaled to the truth.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from hybrid_depth.camera import CameraModel
from hybrid_depth.config import PipelineConfig
from hybrid_depth.contract import read_spec
from hybrid_depth.errors import BadFrame, ConfigError, DriveError
from hybrid_depth.models import find_model
from hybrid_depth.pipeline import DepthPipeline
from hybrid_depth.types import Frame
from hybrid_depth_training.data import DATASETS, DepthSample, load, Recording
from hybrid_depth_training.data.captions import captioned, read_captions
from hybrid_depth_training.evaluation.clip_prior_ablation import prompts, Row
from hybrid_depth_training.protocols import find_protocol, scores
from hybrid_depth_training.views import split

SIDE = 0.05  # share of the width at either side in which one of two mirrored depths counts alone
_log = logging.getLogger(__name__)
Target = tuple[Recording, int]


def score(model: str, dataset: str, path: str, protocol: str, *,
          options: Mapping[str, Any] | None = None, captions: Path | None = None,
          prompt: str | None = None, crop: str | None = None, flip: bool = True,
          hold_out: float = 1.0, limit: int = 0, out: Path | None = None) -> list[Row]:
    """
    Return a row for each way of prompting ``model``: name, frames, averaged figures and prompt.

    ``dataset``, ``path``, ``options`` and ``captions`` are those of a source of a training run,
    ``hold_out`` too: the last share of it is measured. A model that takes words is told the
    scene's own caption, nothing, a caption that never occurs, and another scene's; with
    ``prompt`` only that, for all. ``limit`` frames at most, evenly spread; 0 = all. Writes JSON to
    ``out``.

    Raises ConfigError for an unknown data set, protocol or prompt, DriveError where the data
    cannot be read or a frame cannot be scored.
    """
    rule = find_protocol(protocol, crop)
    targets = _targets(dataset, path, options or {}, captions, hold_out, limit)
    spec = read_spec(find_model(model))
    ways = _ways(spec.kind == 'clip_prior', prompt, targets)
    config = PipelineConfig(model=model, min_depth_m=max(1e-3, rule.min_m),
                            max_depth_m=rule.max_m, far_policy='clip')
    kept: dict[str, list[scores.ImageScore]] = {way: [] for way in ways}
    pipeline = DepthPipeline(config)
    try:
        for number, (recording, index) in enumerate(targets, start=1):
            sample = recording[index]
            for way, say in ways.items():
                pipeline.configure(replace(config, scene_prompt=say(sample.caption)))
                depth_m = predict(pipeline, sample, number, flip)
                try:
                    kept[way].append(scores.score(
                        scores.align(depth_m, sample.depth_m, rule, median_scaling=False)))
                except BadFrame as bad:
                    raise DriveError(f'{sample.name}: {bad}') from bad
            if number % 50 == 0 or number == len(targets):
                _log.info('%d of %d frames', number, len(targets))
    finally:
        pipeline.close()
    rows = [{'name': spec.name, 'frames': len(targets), **scores.average(of_way), 'prompt': way,
             'dataset': dataset, 'protocol': protocol, 'crop': rule.crop, 'flip': flip}
            for way, of_way in kept.items()]
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(rows, indent=2) + '\n')
    return rows


def predict(pipeline: DepthPipeline, sample: DepthSample, number: int,
            flip: bool) -> np.ndarray:
    """Return the depth (H, W) in metres of a sample; with ``flip`` joined with its mirror's."""
    frame = Frame(sample.image_rgb, number * 10**9, 'camera', sample.camera, None)
    depth_m = pipeline.run(frame, ()).depth_m
    if not flip:
        return depth_m
    mirrored = replace(frame, image_rgb=np.ascontiguousarray(sample.image_rgb[:, ::-1]),
                       stamp_ns=frame.stamp_ns + 1, camera=mirror(sample.camera))
    return joined(depth_m, pipeline.run(mirrored, ()).depth_m[:, ::-1])


def mirror(camera: CameraModel) -> CameraModel:
    """Return the camera of the image mirrored left to right; it is a pinhole."""
    return replace(camera, cx=camera.width - 1 - camera.cx)


def joined(depth_m: np.ndarray, back: np.ndarray) -> np.ndarray:
    """
    Join the depth (H, W) of an image with that of its mirror image, turned back.

    The mean; towards the left edge ``back`` alone, towards the right ``depth_m`` alone, as in the
    post-processing of Godard et al. (CVPR 2017, section 4.2).
    """
    place = np.linspace(0, 1, depth_m.shape[1])
    left = 1 - np.clip((place - SIDE) / SIDE, 0, 1)
    share = (1 - left + left[::-1]) / 2  # of depth_m; left and right do not overlap
    return share * depth_m + (1 - share) * back


def _targets(dataset: str, path: str, options: Mapping[str, Any], captions: Path | None,
             hold_out: float, limit: int) -> list[Target]:
    if dataset not in DATASETS:
        raise ConfigError(f'unknown dataset {dataset!r}; known: {", ".join(DATASETS)}')
    if not 0 < hold_out <= 1 or limit < 0:
        raise ConfigError(f'hold_out is {hold_out} and limit {limit}; expected more than 0 to 1, '
                          'and 0 or more')
    recordings = load(dataset, path, **options)
    if captions is not None:
        table = read_captions(captions)
        recordings = [captioned(recording, table) for recording in recordings]
    targets = split(recordings, hold_out)[1]
    if not targets:
        raise DriveError(f'{dataset} {path} has no frame with truth to measure against')
    count = min(limit or len(targets), len(targets))
    return [targets[i] for i in np.linspace(0, len(targets) - 1, count).astype(int)]


def _ways(has_words: bool, prompt: str | None,
          targets: list[Target]) -> dict[str, Callable[[str], str]]:
    if not has_words:
        if prompt is not None:
            raise ConfigError(f'prompt is {prompt!r}, but the model takes no words about the '
                              'scene; leave it out')
        return {'-': lambda caption: ''}
    if prompt is not None:
        return {prompt or 'neutral': lambda caption: prompt}
    said = sorted({recording[index].caption for recording, index in targets} - {''})
    return prompts(said)
