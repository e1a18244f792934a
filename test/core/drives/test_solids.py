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
"""Ray casting against distances that are known in closed form."""
from __future__ import annotations

import numpy as np
import pytest

from hybrid_depth.drives.solids import (
    box,
    cast,
    cylinder,
    ellipsoid,
    hexahedron,
    join,
    normals,
    QUADRIC,
    RayGrid,
)

GREY = [(0.5, 0.5, 0.5)]
# looks along world x from the origin: optical x is -y, optical y is -z
LOOK_X = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])


def grid(width=81, height=61, focal=60.0, pose=LOOK_X):
    return RayGrid((np.arange(width) - width // 2) / focal,
                   (np.arange(height) - height // 2) / focal, pose)


def depth_of(solids, rays):
    empty = np.zeros((len(rays.y), len(rays.x)))
    hits = cast(solids, rays, empty, empty.astype(np.int8))
    with np.errstate(divide='ignore'):
        return 1 / hits.inverse_depth, hits


def test_box_front_is_at_its_distance():
    depth, hits = depth_of(box((5, 7), (-1, 1), (-1, 1), 0, GREY), grid())
    assert depth[30, 40] == pytest.approx(5.0, abs=1e-12)
    x, y = np.meshgrid(grid().x, grid().y)
    front = (np.abs(x) * 5 < 0.999) & (np.abs(y) * 5 < 0.999)
    assert np.allclose(depth[front], 5.0, rtol=1e-12)
    assert (hits.face[front] == 1).all()  # the face towards -x
    assert np.isinf(depth[0, 0])


def test_side_of_a_box_recedes():
    """A wall at y = -2 is met at z = 2 / x of the ray."""
    depth, hits = depth_of(box((1, 50), (-4, -2), (-3, 3), 0, GREY), grid())
    assert hits.face[30, 70] == 2
    assert depth[30, 70] == pytest.approx(2 / grid().x[70], rel=1e-12)


def test_sphere_in_closed_form():
    depth, hits = depth_of(ellipsoid((10, 0.5, -0.3), (2, 2, 2), 0, GREY), grid())
    for v, u in ((30, 40), (35, 45), (25, 33)):
        d = np.array([1.0, -grid().x[u], -grid().y[v]])
        c = np.array([10, 0.5, -0.3])
        b, a, k = d @ c, d @ d, c @ c - 4
        assert depth[v, u] == pytest.approx((b - np.sqrt(b * b - a * k)) / a, rel=1e-12)
        assert hits.face[v, u] == QUADRIC


def test_upright_cylinder_in_closed_form_and_its_cap():
    solid = cylinder((8, 0, -5), 2, 1.0, 4.5, 0, GREY)
    depth, hits = depth_of(solid, grid())
    v = 45  # looks down onto the side
    assert np.isinf(depth[30, 40])  # the top is below the horizon
    down = grid().y[v]
    cap = 0.5 / down
    side = 7.0
    expected = side if side * down > 0.5 else cap
    assert depth[v, 40] == pytest.approx(expected, rel=1e-12)
    assert hits.solid[v, 40] == 0


def test_frustum_slope():
    """The front of a frustum leans back: x = 5 at the bottom, 6 at the top."""
    solid = hexahedron((5, 9, -2, 2), (6, 8, -1, 1), -1, 1, 0, GREY)
    depth, _ = depth_of(solid, grid())
    for v in (25, 30, 34):
        z_of = -grid().y[v]  # height = z_of * depth; x = 5.5 + height / 2
        assert depth[v, 40] == pytest.approx(5.5 / (1 - z_of / 2), rel=1e-12)


def test_the_nearer_solid_wins_whatever_the_order():
    near, far = box((4, 5), (-1, 1), (-1, 1), 0, GREY), box((8, 9), (-3, 3), (-3, 3), 0, GREY)
    for solids in (join([near, far]), join([far, near])):
        depth, hits = depth_of(solids, grid())
        assert depth[30, 40] == pytest.approx(4.0)
        assert len(np.unique(hits.solid)) == 3


def test_solids_behind_or_around_the_camera_are_not_seen():
    around = box((-5, 5), (-5, 5), (-5, 5), 0, GREY)
    behind = box((-9, -6), (-2, 2), (-2, 2), 0, GREY)
    depth, hits = depth_of(join([around, behind]), grid())
    assert np.isinf(depth).all()
    assert (hits.solid == -1).all()


def test_solid_across_the_camera_plane():
    """A wall that begins behind the camera is seen from where its rays meet it."""
    wall = box((-20, 40), (-3, -2), (-2, 2), 0, GREY)
    depth, _ = depth_of(wall, grid())
    assert depth[30, 80] == pytest.approx(2 / grid().x[80], rel=1e-12)


def test_moving_turns_and_shifts():
    solid = box((0, 2), (-1, 1), (-1, 1), 0, GREY).moved(np.pi / 2, (10, 0, 0))
    depth, _ = depth_of(solid, grid())
    assert depth[30, 35] == pytest.approx(9.0)  # the side of the box, now turned to the camera
    assert solid.origin[0] == pytest.approx([10, 1, -1])


def test_normals_point_outwards():
    solids = join([box((5, 6), (-1, 1), (-1, 1), 0, GREY),
                   ellipsoid((10, 0, 0), (1, 2, 3), 0, GREY)])
    n = normals(solids, np.array([0, 1, 1]), np.array([1, QUADRIC, QUADRIC], np.int8),
                np.array([[5, 0, 0], [9, 0, 0], [10, 0, 3.0]]))
    assert n == pytest.approx(np.array([[-1, 0, 0], [-1, 0, 0], [0, 0, 1]]), abs=1e-12)


def test_cutout_lets_rays_pass_to_what_is_behind():
    solids = join([box((4, 5), (-3, 3), (-3, 3), 0, GREY), box((8, 9), (-9, 9), (-9, 9), 0, GREY)])
    rays = grid()
    hits = cast(solids, rays, np.zeros((61, 81)), np.zeros((61, 81), np.int8),
                lambda index, points, _: (index == 0) & (points[:, 1] > 0))
    assert 1 / hits.inverse_depth[30, 20] == pytest.approx(8.0)  # y > 0 is left of the middle
    assert 1 / hits.inverse_depth[30, 60] == pytest.approx(4.0)
