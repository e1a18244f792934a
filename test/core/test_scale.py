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
"""Scale against known truths: recovered, covered by sigma, and wrong cues noticed."""
from __future__ import annotations

import math

import numpy as np
from planes import plane_depth
import pytest

from hybrid_depth.camera import CameraModel
from hybrid_depth.errors import BadFrame
from hybrid_depth.ground_plane import fit_ground
from hybrid_depth.scale import GROUND_COMMON, NETWORK_SIGMA, ODOMETRY_COMMON, ScaleFilter
from hybrid_depth.spread import block_median, weighted_median

CAMERA = CameraModel(160, 48, 92.0, 92.0, 79.0, 20.0)
RAYS = CAMERA.rays()
HEIGHT = 1.65
STEP_NS = 100_000_000
RNG = np.random.default_rng(5)


def street(height: float = HEIGHT, pitch: float = 0.0) -> np.ndarray:
    """Return a road ``height`` below the camera between house fronts 6 m away, 60 m long."""
    road = plane_depth(CAMERA, (0.0, math.cos(pitch), math.sin(pitch)), height)
    with np.errstate(divide='ignore'):
        walls = 6.0 / np.abs(RAYS[..., 0])
    return np.fmin(np.fmin(road, walls), 60.0).astype(np.float32)


TRUTH = street()
SURE = np.ones_like(TRUTH)


def noise(sigma: float, blocks: bool = False) -> np.ndarray:
    """Return factors around 1: of every pixel, or of patches of 8 x 8 pixels alike."""
    if blocks:
        coarse = RNG.normal(0, sigma, (6, 20))
        return np.exp(np.kron(coarse, np.ones((8, 8))))
    return np.exp(RNG.normal(0, sigma, TRUTH.shape))


def test_without_evidence_it_is_the_network_that_speaks() -> None:
    report = ScaleFilter().update(TRUTH, None, None, RAYS, 0)
    assert report.scale == 1.0
    assert report.sigma == pytest.approx(NETWORK_SIGMA)
    assert report.cues == {'network': (1.0, pytest.approx(NETWORK_SIGMA))}
    assert (report.agrees, report.reason) == (True, '')


@pytest.mark.parametrize('factor', [0.8, 1.0, 1.3])
def test_odometry_recovers_the_scale(factor: float) -> None:
    scale = ScaleFilter()
    for index in range(3):
        single = (TRUTH / factor * noise(0.1)).astype(np.float32)
        report = scale.update(single, TRUTH * noise(0.03), SURE, RAYS, index * STEP_NS)
    assert report.scale == pytest.approx(factor, rel=0.02)
    assert ODOMETRY_COMMON <= report.sigma < 0.03
    assert report.agrees


def test_sigma_covers_errors_that_whole_surfaces_share() -> None:
    """Errors of patches do not average out like those of pixels; sigma must know."""
    inside, sigmas = 0, []
    for _ in range(150):
        report = ScaleFilter().update(TRUTH, TRUTH * noise(0.2, blocks=True), SURE, RAYS, 0)
        value, sigma = report.cues['odometry']
        inside += abs(math.log(value)) < sigma
        sigmas.append(sigma)
    assert 0.55 < inside / 150 < 0.9  # 0.68 for a perfect sigma
    assert np.median(sigmas) > 1.5 * ODOMETRY_COMMON


def test_only_pixels_with_evidence_count() -> None:
    matched = TRUTH.copy()
    weight = SURE.copy()
    matched[:, 100:], weight[:, 100:] = 7.0, 0.2  # epipole, occlusion: no evidence
    report = ScaleFilter().update(TRUTH / 1.2, matched, weight, RAYS, 0)
    assert report.cues['odometry'][0] == pytest.approx(1.2, rel=1e-3)
    assert 'odometry' not in ScaleFilter().update(TRUTH, matched, 0 * weight, RAYS, 0).cues
    weight[:, 10:] = 0  # a corner of the image says nothing about the whole
    assert 'odometry' not in ScaleFilter().update(TRUTH, matched, weight, RAYS, 0).cues


@pytest.mark.parametrize('factor', [0.8, 1.25])
@pytest.mark.parametrize('pitch_deg', [0.0, 2.0])
def test_camera_height_recovers_the_scale(factor: float, pitch_deg: float) -> None:
    pitch = math.radians(pitch_deg)
    single = street(pitch=pitch) / factor * noise(0.03)
    down = np.array([0.0, math.cos(pitch), math.sin(pitch)])
    for gravity in (down, None):  # a pitch that nobody tells is found in the plane itself
        report = ScaleFilter(HEIGHT).update(single, None, None, RAYS, 0, gravity)
        value, sigma = report.cues['ground']
        assert value == pytest.approx(factor, rel=0.03)
        assert GROUND_COMMON <= sigma < 0.08
        assert report.scale == pytest.approx(factor, rel=0.08)


def test_walls_and_a_ceiling_are_no_ground() -> None:
    wall = np.full_like(TRUTH, 5.0)
    assert fit_ground(wall, RAYS, np.array([0.0, 1.0, 0.0])) is None
    assert fit_ground(street(), RAYS, np.array([0.0, -1.0, 0.0])) is None
    steep = math.radians(15)  # what the depth map calls level is none by gravity
    assert fit_ground(street(), RAYS, np.array([0.0, math.cos(steep), math.sin(steep)])) is None
    assert fit_ground(np.full_like(TRUTH, np.nan), RAYS, np.array([0.0, 1.0, 0.0])) is None


def test_a_wrong_camera_height_is_left_out_and_reported() -> None:
    scale = ScaleFilter(camera_height_m=1.0)
    report = scale.update(TRUTH, TRUTH * noise(0.02), SURE, RAYS, 0)
    assert report.cues['ground'][0] == pytest.approx(1 / HEIGHT, rel=0.02)
    assert not report.agrees
    assert 'camera_height_m' in report.reason
    assert report.scale == pytest.approx(1.0, rel=0.01)


def test_where_nobody_can_say_who_is_wrong_sigma_covers_both() -> None:
    scale = ScaleFilter(camera_height_m=1.0)
    for index in range(20):
        report = scale.update(TRUTH, None, None, RAYS, index * STEP_NS)
    assert not report.agrees
    assert abs(math.log(report.scale)) < 1.2 * report.sigma
    assert abs(math.log(report.scale) - math.log(1 / HEIGHT)) < 1.2 * report.sigma


def test_two_measurements_overrule_the_network() -> None:
    report = ScaleFilter(HEIGHT).update(TRUTH / 2, TRUTH, SURE, RAYS, 0)
    assert report.scale == pytest.approx(2.0, rel=0.03)
    assert not report.agrees
    assert 'network' in report.reason


def test_one_bad_frame_is_left_out_and_a_lasting_change_is_followed() -> None:
    scale = ScaleFilter()
    for index in range(5):
        scale.update(TRUTH, TRUTH, SURE, RAYS, index * STEP_NS)
    report = scale.update(TRUTH, 1.25 * TRUTH, SURE, RAYS, 5 * STEP_NS)
    assert report.scale == pytest.approx(1.0, rel=1e-3)
    assert not report.agrees
    assert '1.25' in report.reason
    assert scale.update(TRUTH, TRUTH, SURE, RAYS, 6 * STEP_NS).agrees
    for index in range(7, 20):
        report = scale.update(TRUTH, 1.25 * TRUTH, SURE, RAYS, index * STEP_NS)
    assert report.scale == pytest.approx(1.25, rel=0.01)
    assert report.agrees


def test_standing_still_keeps_the_scale_and_grows_less_sure() -> None:
    scale = ScaleFilter()
    moved = scale.update(TRUTH, 1.2 * TRUTH, SURE, RAYS, 0)
    sigmas = [moved.sigma]
    for index in range(1, 50):
        report = scale.update(TRUTH, TRUTH, 0 * SURE, RAYS, index * STEP_NS)
        assert report.scale == moved.scale
        sigmas.append(report.sigma)
    assert (np.diff(sigmas) > 0).all()
    for seconds in (1e3, 1e4):
        still = scale.update(TRUTH, None, None, RAYS, int(seconds * 1e9))
    assert still.sigma == pytest.approx(math.sqrt(2) * NETWORK_SIGMA)
    assert scale.update(TRUTH, 0.9 * TRUTH, SURE, RAYS, int(2e4 * 1e9)).scale == pytest.approx(
        0.9, rel=0.01)


def test_averaging_over_frames_smooths_but_is_never_surer_than_odometry_itself() -> None:
    scale = ScaleFilter()
    raw, filtered = [], []
    for index in range(60):
        matched = TRUTH * noise(0.15, blocks=True)
        report = scale.update(TRUTH, matched, SURE, RAYS, index * STEP_NS)
        raw.append(math.log(report.cues['odometry'][0]))
        filtered.append(math.log(report.scale))
        assert report.sigma >= ODOMETRY_COMMON
    assert np.std(filtered[5:]) < 0.8 * np.std(raw[5:])


@pytest.mark.parametrize('by_stamp', [False, True])
def test_reset_forgets(by_stamp: bool) -> None:
    scale = ScaleFilter()
    scale.update(TRUTH, 1.3 * TRUTH, SURE, RAYS, 10 * STEP_NS)
    if not by_stamp:
        scale.reset()
    report = scale.update(TRUTH, None, None, RAYS, (5 if by_stamp else 11) * STEP_NS)
    assert (report.scale, report.sigma) == (1.0, pytest.approx(NETWORK_SIGMA))


def test_maps_of_different_sizes_are_refused() -> None:
    with pytest.raises(BadFrame, match='same pixels') as caught:
        ScaleFilter().update(TRUTH, TRUTH[1:], SURE, RAYS, 0)
    assert caught.value.reason == 'size_mismatch'


def test_medians_worked_by_hand() -> None:
    assert weighted_median(np.array([3.0, 1.0, 2.0]), np.ones(3)) == 2.0
    assert weighted_median(np.array([0.0, 1.0]), np.ones(2)) == 0.5
    assert weighted_median(np.array([0.0, 10.0, 20.0]), np.array([1.0, 1.0, 8.0])) > 17
    # 48 blocks, half of them at +1, half at -1: MAD 1, 1.4826 * 1.2533 / sqrt(47)
    values = np.where(np.arange(48) < 24, -1.0, 1.0).reshape(6, 8)
    middle, error = block_median(np.kron(values, np.ones((4, 4))), np.ones((24, 32)))
    assert middle == pytest.approx(0.0, abs=1e-9)
    assert error == pytest.approx(1.4826 * 1.2533 / math.sqrt(47))
