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
"""What the network is told of the camera, and what it makes of it."""
import math

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from hybrid_depth.camera import CameraModel  # noqa: E402
from hybrid_depth_training.models.compact import (  # noqa: E402
    CompactDepth,
    ray_map,
    REFERENCE_FOCAL_PX,
)

CAMERA = CameraModel(96, 64, 70.0, 72.0, 50.0, 30.0)


def K(camera: CameraModel) -> torch.Tensor:
    return torch.from_numpy(camera.K.astype(np.float32))[None]


@pytest.fixture(scope='module')
def network() -> CompactDepth:
    torch.manual_seed(0)
    return CompactDepth(weights='random').eval()


def test_ray_map_is_the_cameras_rays():
    rays = ray_map(K(CAMERA), 64, 96)
    np.testing.assert_allclose(rays[0, :2].permute(1, 2, 0).numpy(), CAMERA.rays(), atol=1e-6)
    assert torch.allclose(rays[0, 2], torch.tensor(math.log(70.0 / REFERENCE_FOCAL_PX)))


@pytest.mark.parametrize('stride', [2, 32])
def test_rays_of_cells_are_the_means_of_their_pixels(stride):
    means = torch.nn.functional.avg_pool2d(ray_map(K(CAMERA), 64, 96), stride)
    torch.testing.assert_close(ray_map(K(CAMERA), 64, 96, stride), means, atol=1e-5, rtol=1e-5)


def test_untrained_network_starts_at_ten_metres_of_the_reference_focal_length(network):
    image = torch.zeros(1, 64, 96, 3, dtype=torch.uint8)
    with torch.no_grad():
        log_depth, log_b = network(image, K(CAMERA))
    assert log_depth.shape == log_b.shape == (1, 1, 64, 96)
    assert torch.allclose(log_depth.exp(), torch.tensor(10 * 70.0 / REFERENCE_FOCAL_PX))


def test_every_parameter_takes_part(network):
    image = torch.randint(0, 255, (1, 64, 96, 3), dtype=torch.uint8)
    network.zero_grad()
    torch.nn.init.normal_(network.head.weight, std=0.1)
    log_depth, log_b = network(image, K(CAMERA))
    (log_depth.sum() + log_b.sum()).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    torch.nn.init.zeros_(network.head.weight)
