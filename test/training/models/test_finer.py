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
"""The second look: what it compares, and that it mends depth where there is parallax alone."""
import math

import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from torch.nn import functional as F  # noqa: E402, N812

from hybrid_depth_training.models.finer import (  # noqa: E402
    contrasts,
    folded_grey,
    log_offsets,
    look_again,
    OFFSETS,
    SPAN,
)

HEIGHT, WIDTH = 64, 96
K = torch.tensor([[[64.0, 0.0, 47.5], [0.0, 64.0, 31.5], [0.0, 0.0, 1.0]]])
WALL_M = 4.0


def motion(x=0.0, y=0.0, z=0.0) -> torch.Tensor:
    """Return source_T_target (4, 4) that shifts points by (x, y, z) metres."""
    matrix = torch.eye(4)
    matrix[:3, 3] = torch.tensor([x, y, z])
    return matrix


def painted(source_T_target: torch.Tensor) -> torch.Tensor:
    """Return the image (1, H, W, 3) uint8 of a finely painted wall at WALL_M of the target."""
    v, u = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing='ij')
    centre = -source_T_target[:3, 3]
    x, y = ((p - K[0, i, 2]) / K[0, i, i] * (WALL_M - centre[2]) + centre[i]
            for i, p in ((0, u), (1, v)))
    generator = torch.Generator().manual_seed(0)
    paint = torch.zeros_like(x)
    for _ in range(24):
        a, b, phase = torch.randn(3, generator=generator)
        paint = paint + torch.sin(9 * a * x + 9 * b * y + 6 * phase)
    return (128 + 14 * paint).clamp(0, 255).to(torch.uint8)[None, ..., None].expand(-1, -1, -1, 3)


def look(believed_m: float, moves: list[torch.Tensor], valid: list[float] | None = None,
         sources: list[torch.Tensor] | None = None) -> torch.Tensor:
    """Return the logits (OFFSETS, H/2, W/2) around a depth that is believed all over."""
    sources = sources or [painted(move) for move in moves]
    return look_again(torch.full((1, 1, HEIGHT // 2, WIDTH // 2), math.log(believed_m)),
                      folded_grey(painted(torch.eye(4))), K,
                      torch.stack([folded_grey(image) for image in sources], dim=1),
                      torch.stack(moves)[None], torch.tensor([valid or [1.0] * len(moves)]))[0]


def test_grey_image_is_luma_and_comes_back_whole():
    image = torch.randint(0, 256, (2, 16, 24, 3), dtype=torch.uint8,
                          generator=torch.Generator().manual_seed(1))
    grey = F.pixel_shuffle(folded_grey(image), 4)
    luma = (image.float() @ torch.tensor([0.299, 0.587, 0.114]))[:, None]
    assert (grey * 256 - luma).abs().max() <= 0.5 + 1e-4
    assert torch.equal(grey.half().float(), grey)


def test_contrasts_do_not_depend_on_brightness_and_say_nothing_where_nothing_is():
    image = painted(torch.eye(4)) // 2
    found = contrasts(folded_grey(image))
    torch.testing.assert_close(contrasts(folded_grey(image + 100)), found)
    assert found.shape == (1, 4, HEIGHT, WIDTH)
    assert 0.9 < found.norm(dim=1).max() <= 1
    flat = torch.full((1, 8, 8, 3), 90, dtype=torch.uint8)
    assert contrasts(folded_grey(flat)).abs().max() == 0


def test_contrasts_are_to_the_right_from_the_left_downwards_and_from_above():
    image = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    image[0, 3, 5] = 200
    found = contrasts(folded_grey(image))[0]
    signs = {(3, 4): (1, 0, 0, 0), (3, 6): (0, -1, 0, 0), (2, 5): (0, 0, 1, 0),
             (4, 5): (0, 0, 0, -1), (3, 5): (-1, 1, -1, 1)}
    for (row, column), wanted in signs.items():
        assert tuple(torch.sign(found[:, row, column]).int().tolist()) == wanted


@pytest.mark.parametrize('move', [
    {'x': -0.5}, {'y': 0.6}, {'z': -0.9}, {'x': 0.3, 'z': -0.6}])
@pytest.mark.parametrize('wrong', [-0.2, 0.0, 0.2])
def test_depth_that_was_wrong_is_mended(move, wrong):
    logits = look(WALL_M * math.exp(wrong), [motion(**move)])
    mended = wrong + log_offsets(logits).flatten()[logits.argmax(0)]
    # straight ahead there is no parallax, and at the border the wall is out of view
    v, u = torch.meshgrid(torch.linspace(-1, 1, HEIGHT // 2), torch.linspace(-1, 1, WIDTH // 2),
                          indexing='ij')
    inner = (u.abs() < 0.6) & (v.abs() < 0.6) & ((u**2 + v**2 > 0.15) | ('x' in move))
    step = 2 * SPAN / (OFFSETS - 1)
    assert (mended[inner].abs() < 0.75 * step).float().mean() > 0.9


def test_wrong_motion_finds_nothing():
    right = look(WALL_M, [motion(x=-0.5)])
    wrong = look(WALL_M, [motion(x=0.5)], sources=[painted(motion(x=-0.5))])
    inner = (slice(None), slice(8, -8), slice(12, -12))
    assert right[inner].amax(0).mean() > wrong[inner].amax(0).mean() + 5


def test_source_that_is_not_valid_or_sees_nothing_counts_for_nothing():
    good, other = motion(x=-0.5), motion(z=-0.9)
    alone = look(WALL_M, [good])
    both = look(WALL_M, [good, other], valid=[1.0, 0.0],
                sources=[painted(good), 255 - painted(other)])
    torch.testing.assert_close(both, alone)
    assert look(WALL_M, [good], valid=[0.0]).abs().max() == 0
    assert look(WALL_M, [motion(z=-50.0)]).abs().max() == 0  # the wall is behind it
    assert look(WALL_M, [motion(x=1000.0)]).abs().max() == 0  # beside it


def test_samples_of_a_batch_do_not_meet():
    moves = [motion(x=-0.5), motion(y=0.45)]
    single = [look(WALL_M, [move]) for move in moves]
    target = folded_grey(painted(torch.eye(4))).expand(2, -1, -1, -1)
    sources = torch.stack([folded_grey(painted(move)) for move in moves])
    depth = torch.full((2, 1, HEIGHT // 2, WIDTH // 2), math.log(WALL_M))
    both = look_again(depth, target, K.expand(2, -1, -1), sources,
                      torch.stack(moves)[:, None], torch.ones(2, 1))
    torch.testing.assert_close(both, torch.stack(single))
