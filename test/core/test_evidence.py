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

from typing import Any

import numpy as np
from planes import CAMERAS
import pytest

from hybrid_depth.camera import CameraModel
from hybrid_depth.evidence import evidence_map, EvidenceRules, on_output
from hybrid_depth.preprocess import content_seen, network_view
from hybrid_depth.types import Evidence

CAMERA = CameraModel(160, 48, 93.0, 93.0, 79.5, 23.5)
RAYS = CAMERA.rays()
SHAPE = (48, 160)


def moved(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    """Return source_T_target of a source at (x, y, z) of the target's axes, turned the same."""
    result = np.eye(4)
    result[:3, 3] = -x, -y, -z
    return result


def evidence(depth: Any, motions: list[np.ndarray], *, matched: Any = None, weight: Any = 1.0,
             sigma: Any = 0.05, rules: EvidenceRules | None = None) -> np.ndarray:
    maps = [np.broadcast_to(np.asarray(value, np.float32), SHAPE)
            for value in (depth, depth if matched is None else matched, weight, sigma)]
    result = evidence_map(*maps, motions, RAYS, rules)
    assert result.shape == SHAPE
    assert result.dtype == np.uint8
    return result


def test_without_a_source_all_rests_on_the_single_frame() -> None:
    assert (evidence(10.0, []) == Evidence.SINGLE_FRAME).all()


def test_a_plane_seen_from_the_side_is_matched_but_for_the_new_margin() -> None:
    # 1 m to the left at 10 m: 9.3 px of parallax, so the last 10 columns are new
    result = evidence(10.0, [moved(x=-1.0)])
    assert (result[:, :150] == Evidence.MATCHED).all()
    assert (result[:, 151:] == Evidence.OCCLUDED).all()
    other = evidence(10.0, [moved(x=-1.0), moved(x=1.0)])
    assert (other == Evidence.MATCHED).all()  # each source sees what the other does not


def test_moving_forward_leaves_the_epipole() -> None:
    # 1 m behind at 20 m: a pixel at r moves by r / 21
    result = evidence(20.0, [moved(z=-1.0)])
    v, u = np.mgrid[:48, :160]
    radius = np.hypot(u - 79.5, v - 23.5)
    np.testing.assert_array_equal(result == Evidence.EPIPOLE, radius / 21 < 0.5)
    assert (result[radius / 21 > 0.5] == Evidence.MATCHED).all()


def test_the_far_has_no_parallax() -> None:
    depth = np.where(np.arange(48)[:, None] < 20, 500.0, 10.0)
    result = evidence(depth, [moved(x=-1.0)])
    assert (result[:20, :140] == Evidence.EPIPOLE).all()
    assert (result[20:, :140] == Evidence.MATCHED).all()


def test_a_turn_alone_is_no_parallax() -> None:
    turn = np.eye(4)
    turn[:3, :3] = [[np.cos(0.1), 0, np.sin(0.1)], [0, 1, 0], [-np.sin(0.1), 0, np.cos(0.1)]]
    assert set(np.unique(evidence(5.0, [turn]))) == {Evidence.EPIPOLE, Evidence.OCCLUDED}


def test_what_a_nearer_thing_hides_is_occluded() -> None:
    # a post at 4 m in columns 70 to 89 before a wall at 20 m; the source 0.8 m to the left sees
    # the post 18.6 px and the wall 3.7 px farther right: it hides what lies within 15 px right
    depth = np.full(SHAPE, 20.0)
    depth[:, 70:90] = 4.0
    result = evidence(depth, [moved(x=-0.8)])
    row = result[24]
    assert (row[92:102] == Evidence.OCCLUDED).all()
    assert (row[70:90] == Evidence.MATCHED).all()
    assert (row[110:150] == Evidence.MATCHED).all()
    assert (row[:68] == Evidence.MATCHED).all()
    both = evidence(depth, [moved(x=-0.8), moved(x=0.8)])
    assert (both[24, 92:102] == Evidence.MATCHED).all()


def test_behind_the_source_is_out_of_its_view() -> None:
    assert (evidence(2.0, [moved(z=3.0)]) == Evidence.OCCLUDED).all()


def test_disagreement_beyond_the_sigmas_where_evidence_is_strong_is_motion() -> None:
    matched = np.full(SHAPE, 10.0)
    matched[10:20, 30:60] = 14.0
    result = evidence(10.0, [moved(x=-1.0)], matched=matched)
    moving = result == Evidence.MOVING
    assert moving[11:19, 36:59].all()  # to the left of it, its matched depth lies hidden
    assert moving.sum() <= 300
    assert not (evidence(10.0, [moved(x=-1.0)], matched=matched, sigma=0.2)
                == Evidence.MOVING).any()
    assert not (evidence(10.0, [moved(x=-1.0)], matched=matched, weight=0.4)
                == Evidence.MOVING).any()
    # a small factor is none, however sure both are
    matched[10:20, 30:60] = 11.5
    assert not (evidence(10.0, [moved(x=-1.0)], matched=matched, sigma=0.001)
                == Evidence.MOVING).any()


def test_a_region_that_the_single_image_has_too_near_does_not_move() -> None:
    matched = np.where(np.arange(160) < 80, 10.0, 16.0)[None]
    moving = evidence(10.0, [moved(x=-1.0)], matched=matched) == Evidence.MOVING
    assert not moving[:, :55].any()
    assert not moving[:, 105:].any()


def test_a_single_speck_is_noise() -> None:
    matched = np.full(SHAPE, 10.0)
    matched[12, 30] = 14.0
    assert not (evidence(10.0, [moved(x=-1.0)], matched=matched) == Evidence.MOVING).any()


def test_where_matching_has_no_weight_the_single_frame_speaks() -> None:
    weight = np.where(np.arange(160) < 50, 0.1, 0.9)[None]
    result = evidence(10.0, [moved(x=-1.0)], weight=weight, matched=10.0)
    assert (result[:, :50] == Evidence.SINGLE_FRAME).all()
    assert (result[:, 50:149] == Evidence.MATCHED).all()


def test_numbers_that_are_none_do_no_harm() -> None:
    bad = np.full(SHAPE, np.nan)
    bad[::2] = np.inf
    bad[::3] = -1.0
    bad[::5] = 0.0
    result = evidence(bad, [moved(x=-1.0)], matched=bad[::-1], sigma=bad)
    assert set(np.unique(result)) <= set(Evidence)


@pytest.mark.parametrize('resolution', ['camera', 'network'])
@pytest.mark.parametrize('name', CAMERAS)
def test_the_map_lies_on_the_outputs_pixels(name: str, resolution: str) -> None:
    camera, stride = CAMERAS[name], 4
    view = network_view(camera, (96, 128))
    columns = np.tile(np.arange(32, dtype=np.uint8), (24, 1))
    rows = np.tile(np.arange(24, dtype=np.uint8)[:, None], (1, 32))
    output = camera if resolution == 'camera' else view.content
    rays = output.rays().astype(np.float64)
    u = rays[..., 0] * view.content.fx + view.content.cx + view.left
    v = rays[..., 1] * view.content.fy + view.content.cy + view.top
    seen = (u > view.left - 0.4) & (v > view.top - 0.4) \
        & (u < view.left + view.content.width - 0.6) & (v < view.top + view.content.height - 0.6)
    for index, position in ((columns, u), (rows, v)):
        mapped = on_output(index, view, resolution, stride)
        assert mapped.shape == (output.height, output.width)
        # feature pixel k covers network pixels 4 k - 0.5 to 4 k + 3.5
        expected = np.floor((position[seen] + 0.5) / stride)
        assert (np.abs(mapped[seen] - expected) <= 1).all()
        assert (mapped[seen] == expected).mean() > 0.98


def test_what_the_network_does_not_see_rests_on_nothing_else() -> None:
    camera = CAMERAS['fisheye']
    view = network_view(camera, (96, 128))
    mapped = on_output(np.full((24, 32), Evidence.MATCHED, np.uint8), view, 'camera', 4)
    assert set(np.unique(mapped)) == {Evidence.SINGLE_FRAME, Evidence.MATCHED}
    assert content_seen(view).any()
