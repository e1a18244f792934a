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
"""The shipped models themselves: golden values, focal length, and the bars on a real drive."""
from pathlib import Path

import numpy as np
import pytest

from hybrid_depth.camera import CameraModel
from hybrid_depth.config import PipelineConfig
from hybrid_depth.contract import read_spec
from hybrid_depth.drives import DriveFrame, open_drive
from hybrid_depth.drives.synthetic import render_random
from hybrid_depth.metrics import depth_metrics
from hybrid_depth.models import find_model, read_card, shipped_models
from hybrid_depth.pipeline import DepthPipeline
from hybrid_depth.runtime import BackendOptions, load_backend
from hybrid_depth.types import DepthResult, Frame
from hybrid_depth_training.data import load
from hybrid_depth_training.deploy.export import PARITY, parity
from hybrid_depth_training.evaluation.evaluate import measure
from hybrid_depth_training.evaluation.priors import flat_ground, PositionPrior

DATE = Path('kitti_raw') / '2011_09_26'
MODELS = pytest.mark.parametrize('name', shipped_models())
POSED = pytest.mark.parametrize('name', [
    name for name in shipped_models() if read_card(name).get('kind') == 'posed'])


def by_sigma(result: DepthResult, frame: DriveFrame) -> tuple[float, float]:
    """Return the mean relative error of the surer half of the pixels, and of the other."""
    both = np.isfinite(result.depth_m) & np.isfinite(frame.depth_m)
    truth = frame.depth_m[both]
    error = np.abs(result.depth_m[both] - truth) / truth
    relative = result.sigma_m[both] / result.depth_m[both]
    is_sure = relative < np.median(relative)
    return float(error[is_sure].mean()), float(error[~is_sure].mean())


def test_something_is_shipped():
    assert 'compact' in shipped_models()


@MODELS
def test_golden_values_are_reproduced(name):
    path = find_model(name)
    spec = read_spec(path)
    with np.load(path.parent / 'golden.npz') as golden:
        arrays = dict(golden)
    if spec.kind == 'posed':
        assert all((arrays[f'{index}_source_valid'] == 1).all() for index in (0, 1))
    assert parity(path, spec, arrays) <= max(PARITY[spec.kind].values())  # or raises


@POSED
def test_without_sources_a_posed_model_is_its_single_frame(name):
    path = find_model(name)
    spec = read_spec(path)
    with np.load(path.parent / 'golden.npz') as golden:
        inputs = {key: golden[f'1_{key}'] for key in spec.inputs((32, 32))}
    size = inputs['image'].shape[1:3]
    features = tuple(features[None] for features in inputs['source_features'][0])
    backend = load_backend('ort', path, spec, size, BackendOptions(cpu_threads=1))
    found = []
    for handles, valid in ((features, 0.0), ((None,) * spec.sources, 0.0), (features, 1.0)):
        found.append(backend.infer({**inputs, 'source_features': handles, 'source_valid': np.full(
            (1, spec.sources), valid, np.float32)}))
    backend.close()
    garbage, nothing, matched = found
    for key in ('depth', 'sigma', 'single_depth'):
        np.testing.assert_array_equal(garbage[key], nothing[key])
    assert (nothing['match_weight'] == 0).all()
    # depth is the single frame's: nearly the mean of log depth in each cell
    rows, columns = spec.feature_size(size)
    cells = np.log(nothing['depth'][0, 0]).reshape(rows, 4, columns, 4).mean(axis=(1, 3))
    assert np.quantile(np.abs(cells - np.log(nothing['single_depth'][0, 0])), 0.9) < 0.05
    assert np.median(np.abs(matched['depth'] / nothing['depth'] - 1)) > 0.005
    np.testing.assert_array_equal(matched['single_depth'], nothing['single_depth'])


@MODELS
def test_a_longer_lens_does_not_change_metric_depth_much(name):
    """The middle of an image is what a longer lens sees: its depth must stay where it was."""
    image, truth, K, _ = render_random(11, (288, 640))
    camera = CameraModel.from_K(K, 640, 288)
    x, y, width, height = 96, 44, 448, 200
    pipeline = DepthPipeline(PipelineConfig(model=name))
    whole = pipeline.run(Frame(image, 1, 'c', camera)).depth_m
    inner = np.ascontiguousarray(image[y:y + height, x:x + width])
    zoomed = pipeline.run(Frame(inner, 1, 'c', camera.cropped(x, y, width, height))).depth_m
    pipeline.close()
    whole, truth = whole[y:y + height, x:x + width], truth[y:y + height, x:x + width]
    both = np.isfinite(whole) & np.isfinite(zoomed) & (truth < 60)
    assert both.mean() > 0.3
    # a network that ignored K would be off by the zoom, 1.43
    assert 0.85 < np.median(zoomed[both] / whole[both]) < 1.18


def test_compact_beats_what_needs_no_image_on_a_drive_it_never_saw(shared_data):
    drive = open_drive(shared_data / DATE / '2011_09_26_drive_0013_sync')
    frames = list(range(0, len(drive), 12))
    (seen,) = load('drive', str(shared_data / DATE / '2011_09_26_drive_unknown_sync'))
    prior = PositionPrior(seen[index] for index in seen.targets)
    pipeline = DepthPipeline(PipelineConfig(model='compact'))

    def predict(frame):
        result = pipeline.run(Frame(frame.image_rgb, 1, 'c', frame.camera))
        return [(result.depth_m, result.sigma_m)]
    (ours,) = measure(['compact'], predict, drive, frames)
    pipeline.close()
    flat, position = measure(
        ['flat', 'position'], lambda f: [(flat_ground(f.camera, 1.65), None),
                                         (prior.depth(f.camera), None)], drive, frames)
    assert ours['abs_rel'] < position['abs_rel'] < flat['abs_rel']
    assert ours['abs_rel'] < 0.373


def test_where_compact_says_it_is_sure_its_error_is_smaller(shared_data):
    # how large sigma is there is in docs/accuracy.md; here, that it tells good from bad
    drive = open_drive(shared_data / DATE / '2011_09_26_drive_0013_sync')
    pipeline = DepthPipeline(PipelineConfig(model='compact'))
    sure, unsure = [], []
    for index in range(0, len(drive), 24):
        frame = drive.frame(index)
        result = pipeline.run(Frame(frame.image_rgb, 1, 'c', frame.camera))
        for errors, error in zip((sure, unsure), by_sigma(result, frame), strict=True):
            errors.append(error)
    pipeline.close()
    assert np.mean(sure) < 0.8 * np.mean(unsure)


@POSED
def test_odometry_makes_depth_of_a_drive_it_never_saw_better(name, shared_data):
    """Frame after frame as on a robot, with the poses of the drive and without."""
    drive = open_drive(shared_data / DATE / '2011_09_26_drive_0013_sync')
    shown, measured = range(60, 72), range(66, 72)  # the first are there to be matched against
    errors, sure, unsure = {}, [], []
    for use_odometry in (True, False):
        pipeline = DepthPipeline(PipelineConfig(model=name, use_odometry=use_odometry))
        of_frames = []
        for index in shown if use_odometry else measured:
            frame = drive.frame(index)
            result = pipeline.run(Frame(frame.image_rgb, frame.stamp_ns, 'c', frame.camera,
                                        frame.world_T_camera))
            if index not in measured:
                continue
            assert result.mode == ('posed' if use_odometry else 'single_frame')
            of_frames.append(depth_metrics(result.depth_m, frame.depth_m, max_m=80.0)['abs_rel'])
            if use_odometry:
                for errors_of, error in zip((sure, unsure), by_sigma(result, frame), strict=True):
                    errors_of.append(error)
        pipeline.close()
        errors[use_odometry] = np.mean(of_frames)
    assert errors[True] < 0.8 * errors[False], errors
    assert np.mean(sure) < 0.8 * np.mean(unsure)
