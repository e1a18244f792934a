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
"""The montage: its panels show what they are given, on scales that mean the same everywhere."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
from planes import plane_depth
import pytest

from hybrid_depth import montage as module
from hybrid_depth.birdseye import (
    birds_eye,
    GROUND_RGB,
    nice_down,
    nice_up,
    pixel_of,
    ring_distances,
    view_range,
)
from hybrid_depth.camera import CameraModel
from hybrid_depth.colour import INVALID_RGB
from hybrid_depth.errors import ConfigError
from hybrid_depth.montage import montage, MontageRow, WIDTH
from hybrid_depth.scales import depth_scale, DepthScale, share_scale

CAMERA = CameraModel(320, 96, 180.0, 180.0, 159.0, 20.0)
TRUTH = plane_depth(CAMERA, (0, 1, 0), 1.5)
TRUTH[:30] = np.inf
DEPTH = (TRUTH * np.float32(1.1)).astype(np.float32)
SIGMA = np.where(np.isfinite(DEPTH), DEPTH * np.float32(0.05), np.nan).astype(np.float32)
IMAGE = np.random.default_rng(0).integers(40, 220, (96, 320, 3), np.uint8)


def cloud(depth):
    finite = np.where(np.isfinite(depth), depth, np.nan)[..., None]
    return np.concatenate([CAMERA.rays() * finite, finite], axis=-1)


FULL = MontageRow('0000000007', IMAGE, DEPTH, SIGMA, cloud(DEPTH), TRUTH)


def ink(picture):
    """Return the share of the page that is not white."""
    return float((picture != 255).any(axis=-1).mean())


def test_page():
    picture = montage([FULL, replace(FULL, name='b')], 'a title')
    assert picture.shape[1] == WIDTH
    assert picture.dtype == np.uint8
    assert ink(picture) > 0.4
    assert np.array_equal(picture, montage([FULL, replace(FULL, name='b')], 'a title'))


def test_panels_hold_the_image_and_do_not_overlap(monkeypatch):
    """Every panel is put on white paper, and nothing but its frame's caption is near it."""
    placed = []
    place = module._place

    def watch(block, panel, caption, x, y):
        top = y + module._CAPTION
        window = block[top:top + panel.shape[0], x:x + panel.shape[1]]
        assert window.shape == panel.shape
        assert (window == 255).all()
        place(block, panel, caption, x, y)
        placed.append(caption)
    monkeypatch.setattr(module, '_place', watch)
    montage([FULL], 'title')
    assert placed == ['image', 'depth', 'sigma / depth', 'truth', '|depth - truth| / truth',
                      "bird's-eye view"]


@pytest.mark.parametrize(('missing', 'gone'), [
    ({'sigma_m': None}, 'sigma / depth'), ({'points': None}, "bird's-eye view"),
    ({'truth_m': None}, 'truth'), ({'truth_m': np.full((96, 320), np.nan, np.float32)}, 'truth')])
def test_what_is_not_there_gets_no_panel(monkeypatch, missing, gone):
    placed = []
    place = module._place
    monkeypatch.setattr(module, '_place', lambda *args: (placed.append(args[2]), place(*args)))
    montage([replace(FULL, **missing)], 'title')
    assert gone not in placed
    assert 'depth' in placed


@pytest.mark.parametrize('size', [(96, 320), (240, 320), (320, 200)])
@pytest.mark.parametrize('count', [1, 3])
def test_any_shape_of_image(size, count):
    depth = np.full(size, 5.0, np.float32)
    row = MontageRow('x', np.zeros((*size, 3), np.uint8), depth, depth * 0.1,
                     np.dstack([depth * 0, depth * 0, depth]), depth)
    assert montage([row] * count, 'title').shape[1] == WIDTH


def test_a_frame_without_any_depth_is_shown_as_such():
    nothing = np.full((96, 320), np.nan, np.float32)
    picture = montage([MontageRow('x', IMAGE, nothing, nothing, None, nothing)], 'title')
    black = (picture == INVALID_RGB).all(axis=-1)
    assert black.mean() > 0.1


def test_facts_are_those_of_the_arrays():
    facts = module._facts(module._maps(FULL, 80.0))
    assert 'median sigma 5.0 %' in facts
    assert 'mean error 10.0 %, median 10.0 %' in facts


def test_error_counts_only_truth_in_range():
    error = module._maps(FULL, 20.0)['|depth - truth| / truth']
    assert np.isnan(error[TRUTH > 20.0]).all()
    assert np.nanmax(error) == pytest.approx(0.1, rel=1e-4)


def test_truth_and_depth_share_their_scale():
    """The same distance has the same colour in both panels and in both frames."""
    scale = depth_scale([DEPTH, TRUTH], 80.0)
    values = np.array([[5.0, 20.0]], np.float32)
    alike = DepthScale(scale.min_m, scale.max_m)
    assert np.array_equal(scale.to_rgb(values), alike.to_rgb(values))
    assert scale.min_m <= np.nanpercentile(TRUTH, 1)
    assert scale.max_m <= 80.0


def test_a_room_has_the_scale_of_a_room():
    room = depth_scale([np.linspace(0.8, 4.5, 1000, dtype=np.float32)[None]], 80.0)
    assert room.max_m == 5.0


def test_no_colour_of_a_share_looks_like_no_value():
    for _, colormap in (('sigma', module.cv2.COLORMAP_VIRIDIS),
                        ('error', module.cv2.COLORMAP_PLASMA)):
        scale = share_scale([np.array([[0.1, 0.2]])], 'x', colormap)
        bar = scale.bar(100).astype(int)
        assert np.abs(bar - np.array(INVALID_RGB)).max(axis=-1).min() > 60
        assert (scale.to_rgb(np.array([[np.nan]])) == INVALID_RGB).all()


def test_ticks_are_apart():
    for low, high in ((0.5, 5.0), (1.5, 80.0), (2.0, 80.0), (1.0, 100.0)):
        shares = np.array([share for share, _ in DepthScale(low, high).ticks()])
        assert shares[0] == 0
        assert shares[-1] == pytest.approx(1)
        assert np.diff(shares).min() > 0.06


@pytest.mark.parametrize('bad', [
    [], [replace(FULL, sigma_m=SIGMA[:50])], [replace(FULL, truth_m=TRUTH[:, :9])]])
def test_what_does_not_fit_is_refused(bad):
    with pytest.raises(ConfigError):
        montage(bad, 'title')


def test_bad_range_is_refused():
    with pytest.raises(ConfigError, match='max_m'):
        montage([FULL], 'title', 0.0)


def test_birds_eye_puts_a_point_where_it_is():
    size, reach = (200, 300), 40.0
    points = np.array([[5.0, 1.0, 23.0], [-3.0, 1.0, 13.0], [0.0, -9.0, 33.0]], np.float32)
    colours = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250]], np.uint8)
    view = birds_eye(points, colours, size, reach)
    red = np.argwhere((view[..., 0] > 240) & (view[..., 1] < 60))
    column, row = pixel_of(5.0, 23.0, size, reach)
    assert np.abs(red.mean(axis=0) - (row, column)).max() < 1.5
    assert (view[..., 1] > 240).any()
    blue = (view[..., 2] > 240) & (view[..., 0] < 60)
    assert not blue.any()  # nine metres above the camera hides nothing below


def test_birds_eye_right_is_right_and_ahead_is_up():
    size = (200, 300)
    ego, right, ahead = (pixel_of(x, z, size, 40.0) for x, z in ((0, 0), (5, 0), (0, 5)))
    assert right[0] > ego[0]
    assert ahead[1] < ego[1]
    assert right[0] - ego[0] == pytest.approx(ego[1] - ahead[1])  # same scale both ways


def test_birds_eye_of_nothing_is_ground_and_rings():
    view = birds_eye(np.full((4, 5, 3), np.nan, np.float32), None, (200, 300), 20.0)
    assert (view == GROUND_RGB).all(axis=-1).mean() > 0.8


def test_rings_lie_in_the_view():
    for reach in (2.0, 5.0, 15.0, 40.0, 80.0):
        rings = ring_distances(reach)
        assert len(rings) >= 3
        assert max(rings) <= reach
        assert np.diff(rings).min() > 0


def test_range_follows_the_points():
    near = np.zeros((100, 3), np.float32)
    near[:, 2] = np.linspace(0.5, 3.0, 100)
    assert view_range(near, 80.0) == 3.0
    assert view_range(near * 100, 80.0) == 80.0
    assert view_range(near * np.nan, 80.0) == 80.0


def test_a_room_among_streets_has_its_own_range():
    def row(far_m):
        points = np.zeros((50, 3), np.float32)
        points[:, 2] = far_m
        return replace(FULL, points=points)
    none = replace(FULL, points=None)
    assert module._reaches([row(4.0), row(40.0), row(30.0), none], 80.0)[:3] == [4.0, 40.0, 40.0]


def test_truth_is_below_the_depth_and_the_left_over_cell_has_the_numbers(monkeypatch):
    places, texts = {}, []
    place, write = module._place, module.write
    monkeypatch.setattr(module, '_place', lambda block, panel, caption, x, y: (
        places.update({caption: (x, y)}), place(block, panel, caption, x, y)))
    monkeypatch.setattr(module, 'write', lambda picture, text, x, y, *args, **kinds: (
        texts.append((text, x, y)), write(picture, text, x, y, *args, **kinds)))
    montage([FULL], 'title')
    assert places['truth'][0] == places['depth'][0]
    assert places['|depth - truth| / truth'][0] == places['sigma / depth'][0]
    fact = next(entry for entry in texts if entry[0].startswith('mean error 10.0 %'))
    assert fact[1] == places['image'][0]
    assert fact[2] > places['truth'][1]


@pytest.mark.parametrize(('value', 'below', 'above'), [
    (0.9, 0.5, 1.0), (1.0, 1.0, 1.0), (3.1, 2.0, 5.0), (77.0, 50.0, 100.0)])
def test_round_numbers(value, below, above):
    assert nice_down(value, (1, 2, 5)) == pytest.approx(below)
    assert nice_up(value, (1, 2, 5)) == pytest.approx(above)


def test_frames_without_an_image_get_no_panel_of_it(monkeypatch):
    captions = []
    place = module._place

    def spy(block, panel, caption, x, y):
        captions.append(caption)
        place(block, panel, caption, x, y)
    monkeypatch.setattr(module, '_place', spy)
    montage([replace(FULL, image_rgb=None, points=None)], 'a')
    assert captions == [module.DEPTH, module.SIGMA, module.TRUTH, module.ERROR]
    captions.clear()
    montage([FULL, replace(FULL, image_rgb=None)], 'a')
    assert captions.count(module.IMAGE) == 1
    with pytest.raises(ConfigError, match='image_rgb of 0000000007'):
        montage([replace(FULL, image_rgb=IMAGE[:50])], 'a')
