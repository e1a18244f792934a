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
"""View geometry against what can be said about it without computing it."""
import math

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from hybrid_depth.camera import CameraModel  # noqa: E402
from hybrid_depth_training import geometry  # noqa: E402

HEIGHT, WIDTH = 24, 40
K = torch.tensor([[[30.0, 0.0, 19.0], [0.0, 28.0, 11.0], [0.0, 0.0, 1.0]]])


def motion(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> torch.Tensor:
    return geometry.pose_matrix(torch.zeros(1, 3), torch.tensor([[x, y, z]]))


def random_pose(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return geometry.pose_matrix(torch.randn(3, 3, generator=generator),
                                torch.randn(3, 3, generator=generator))


def pattern(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return a smooth image, one that bilinear sampling gets right to a few thousandths."""
    return 0.5 + 0.25 * torch.sin(0.2 * u) + 0.25 * torch.cos(0.15 * v)


def grid() -> tuple[torch.Tensor, torch.Tensor]:
    u, v, _ = geometry.pixel_grid(HEIGHT, WIDTH, K)
    return u, v


def test_the_pixel_at_the_principal_point_is_straight_ahead():
    points = geometry.backproject(torch.full((1, 1, HEIGHT, WIDTH), 3.0), K)
    assert points[0, :, 11, 19].tolist() == pytest.approx([0, 0, 3], abs=1e-6)
    # one pixel to the right is 3 m / 30 px to the right, one below is 3 m / 28 px down
    assert points[0, :, 12, 20].tolist() == pytest.approx([0.1, 3 / 28, 3], abs=1e-6)


def test_projecting_what_was_backprojected_gives_the_pixels():
    depth = 1 + 9 * torch.rand(1, 1, HEIGHT, WIDTH)
    pixels, z = geometry.project(geometry.backproject(depth, K), K)
    torch.testing.assert_close(pixels[0], torch.stack(grid()), atol=1e-4, rtol=0)
    torch.testing.assert_close(z, depth)


def test_sampling_at_the_pixels_is_the_image_and_between_them_the_mean():
    image = torch.rand(1, 3, HEIGHT, WIDTH)
    u, v = grid()
    torch.testing.assert_close(geometry.sample(image, torch.stack([u, v])[None]), image,
                               atol=1e-5, rtol=0)
    between = geometry.sample(image, torch.stack([u + 0.5, v])[None])
    torch.testing.assert_close(between[..., :-1], (image[..., 1:] + image[..., :-1]) / 2,
                               atol=1e-5, rtol=0)
    assert float(geometry.sample(image, torch.stack([u - 99, v])[None], 'zeros').abs().max()) == 0


def test_warping_without_motion_is_the_identity_at_any_depth():
    image = torch.rand(1, 3, HEIGHT, WIDTH)
    warped, _ = geometry.warp(image, 0.5 + torch.rand(1, 1, HEIGHT, WIDTH), K, motion())
    torch.testing.assert_close(warped, image, atol=1e-4, rtol=0)


def test_a_wall_moves_by_focal_length_times_baseline_over_depth():
    # the source camera stands 0.4 m to the right: what the target sees at u, it sees f b / z
    # further left. Points go from target to source, so the translation is -0.4
    image = torch.rand(1, 1, HEIGHT, WIDTH)
    warped, inside = geometry.warp(image, torch.full((1, 1, HEIGHT, WIDTH), 4.0), K, motion(-0.4))
    shift = 3  # 30 px * 0.4 m / 4 m
    torch.testing.assert_close(warped[..., shift:], image[..., :-shift], atol=1e-4, rtol=0)
    assert not inside[..., :shift].any()
    assert inside[..., 1:-1, shift + 1:-1].all()


def test_a_slanted_plane_seen_from_a_turned_camera():
    # the source sees the pattern painted on the plane n . X = d; its value at a source pixel is
    # the pattern at the target pixel that the same point of the plane has
    normal, distance = torch.tensor([0.0, 0.5, 1.0]), 5.0
    source_T_target = geometry.pose_matrix(torch.tensor([[0.01, -0.03, 0.02]]),
                                           torch.tensor([[0.1, 0.05, -0.3]]))
    rays = geometry.backproject(torch.ones(1, 1, HEIGHT, WIDTH), K)
    depth = distance / torch.einsum('c,bchw->bhw', normal, rays)[:, None]
    # the plane in the source's frame: n_s = R n, d_s = d + n_s . t
    R, t = source_T_target[0, :3, :3], source_T_target[0, :3, 3]
    normal_s = R @ normal
    depth_s = (distance + normal_s @ t) / torch.einsum('c,bchw->bhw', normal_s, rays)[:, None]
    points = geometry.transform(geometry.inverse_pose(source_T_target), depth_s * rays)
    u, v = geometry.project(points, K)[0][0]
    source = pattern(u, v)[None, None]
    warped, inside = geometry.warp(source, depth, K, source_T_target)
    expected = pattern(*grid())
    assert inside.float().mean() > 0.8
    assert float((warped[0, 0] - expected).abs()[inside[0, 0]].max()) < 0.01
    # the inverse motion, the classic mistake, does not explain it
    wrong, inside = geometry.warp(source, depth, K, geometry.inverse_pose(source_T_target))
    assert float((wrong[0, 0] - expected).abs()[inside[0, 0]].mean()) > 0.02


def test_points_behind_the_camera_are_not_inside_and_stay_finite():
    image = torch.rand(1, 3, HEIGHT, WIDTH)
    depth = torch.full((1, 1, HEIGHT, WIDTH), 2.0, requires_grad=True)
    warped, inside = geometry.warp(image, depth, K, motion(z=-5.0))
    warped.sum().backward()
    assert not inside.any()
    assert torch.isfinite(warped).all()
    assert torch.isfinite(depth.grad).all()


def test_depth_has_the_gradient_that_the_warp_says():
    u, _ = grid()
    depth = torch.full((1, 1, HEIGHT, WIDTH), 4.0, requires_grad=True)
    warped, _ = geometry.warp(u[None, None].contiguous(), depth, K, motion(-0.4))
    warped[0, 0, 10, 20].backward()
    # u_s = u - f b / z, so d u_s / d z = f b / z^2
    assert float(depth.grad[0, 0, 10, 20]) == pytest.approx(30 * 0.4 / 16, rel=1e-3)
    assert int((depth.grad != 0).sum()) == 1


def test_quarter_turn_about_the_optical_axis_takes_right_to_down():
    R = geometry.rotation_matrix(torch.tensor([[0.0, 0.0, math.pi / 2]]))
    assert (R[0] @ torch.tensor([1.0, 0.0, 0.0])).tolist() == pytest.approx([0, 1, 0], abs=1e-6)


@pytest.mark.parametrize('scale', [0.0, 1e-6, 1e-4, 3e-3, 1.0, 3.0])
def test_rotations_are_the_matrix_exponential(scale):
    w = scale * torch.tensor([0.5, -0.7, math.sqrt(1 - 0.25 - 0.49)], dtype=torch.float64)
    cross = torch.tensor([[0, -w[2], w[1]], [w[2], 0, -w[0]], [-w[1], w[0], 0]])
    R = geometry.rotation_matrix(w[None])[0]
    torch.testing.assert_close(R, torch.linalg.matrix_exp(cross), atol=1e-9, rtol=0)


def test_no_rotation_has_a_gradient():
    w = torch.zeros(1, 3, requires_grad=True)
    geometry.rotation_matrix(w)[0, 2, 1].backward()  # = w_x near 0
    assert w.grad.tolist() == [[1, 0, 0]]


def test_pose_rotates_first_and_moves_then():
    pose = geometry.pose_matrix(torch.tensor([[0.0, 0.0, math.pi / 2]]),
                                torch.tensor([[10.0, 0.0, 0.0]]))
    moved = geometry.transform(pose, torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1))
    assert moved.flatten().tolist() == pytest.approx([10, 1, 0], abs=1e-6)


def test_inverse_pose_undoes_the_pose_and_reverses_the_order():
    first, second = random_pose(0), random_pose(1)
    identity = torch.eye(4).expand(3, 4, 4)
    torch.testing.assert_close(geometry.inverse_pose(first) @ first, identity, atol=1e-5, rtol=0)
    torch.testing.assert_close(geometry.inverse_pose(first @ second),
                               geometry.inverse_pose(second) @ geometry.inverse_pose(first),
                               atol=1e-4, rtol=0)


def test_intrinsics_of_feature_maps_agree_with_resizing_the_camera():
    camera = CameraModel(40, 24, 30.0, 28.0, 19.0, 11.0)
    expected = camera.resized(10, 6).K
    assert np.allclose(geometry.scale_K(K, 4)[0].numpy(), expected, atol=1e-5)
