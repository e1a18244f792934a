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
"""Every network that can be deployed passes the lint and, where it is there, NVIDIA's compiler."""
from pathlib import Path

import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
import onnx  # noqa: E402
from short_encoders import take_short  # noqa: E402

from hybrid_depth.contract import ModelSpec, read_spec, SCHEMA  # noqa: E402
from hybrid_depth.runtime.graph_lint import check  # noqa: E402
from hybrid_depth.runtime.precision import FP16_SHARE  # noqa: E402
from hybrid_depth_training.calibration import SigmaScale  # noqa: E402
from hybrid_depth_training.deploy import compiler_gate  # noqa: E402
from hybrid_depth_training.deploy import export as export_module  # noqa: E402
from hybrid_depth_training.models.posed import PosedDepth  # noqa: E402
from hybrid_depth_training.models.sweep import FEATURE_STRIDE  # noqa: E402
from hybrid_depth_training.objectives.supervised import NETWORKS, SingleOptions  # noqa: E402

SIZE = (64, 96)
SOURCES = 2
# a posed graph holds all of its single frame's; that of words has one input more
KINDS = [*((name, 'posed') for name in NETWORKS), ('clip_prior', 'clip_prior')]
# settings of ClipPriorConfig: a narrow one on a backbone that can be matched
CLIP_PRIOR = {'backbone': 'efficientnet_lite0', 'width': 16, 'bins': 16, 'trca_width': 16,
              'text_model': 'tiny'}


@pytest.fixture(scope='module', params=KINDS, ids=lambda pair: '-'.join(pair))
def model(request, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export one with random weights and fewer blocks in its encoders."""
    name, kind = request.param
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        take_short(patch)
        patch.setattr(export_module, '_GOLDEN_SIZES', (SIZE,))
        network = SingleOptions(name, weights='random', dino_weights='random',
                                clip_prior=CLIP_PRIOR).build()
        more = {}
        if kind == 'clip_prior':
            more = {'text_dim': network.text_dim}
        if kind == 'posed':
            network = PosedDepth(network)
            more = {'sources': SOURCES, 'feature_channels': network.channels,
                    'feature_stride': FEATURE_STRIDE}
        spec = ModelSpec(name, SCHEMA, kind, network.size_multiple, SIZE[0] * SIZE[1], 0.1, 200.0,
                         'Apache-2.0', (), **more)
        example = {key: torch.zeros(shape, dtype=getattr(torch, dtype))
                   for key, (dtype, shape) in spec.inputs(SIZE).items()}
        path = tmp_path_factory.mktemp('graphs') / f'{name}_{kind}.onnx'
        export_module.write_onnx(export_module.make_exported(network.eval(), SigmaScale()), spec,
                                 example, path)
    return path


@pytest.mark.slow
def test_passes_the_lint(model: Path) -> None:
    found = check(model, read_spec(model), SIZE)
    assert found.opset == 17
    first = onnx.load(model).graph.node
    readers = {node.op_type for node in first if 'image' in node.input}
    assert readers <= {'Cast', 'Shape'}


@pytest.mark.slow
@pytest.mark.skipif(bool(compiler_gate.unavailable()), reason=compiler_gate.unavailable())
def test_compiles_in_half_precision(model: Path) -> None:
    made = compiler_gate.compiled(model, SIZE)
    assert made.engine_bytes > 1e6
    assert made.matrix_layers > 50
    assert made.half_share >= FP16_SHARE
