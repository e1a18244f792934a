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
"""A trained run becomes a model folder that the robot's code accepts at any size."""
from dataclasses import asdict, replace
import functools
import hashlib
import json
from pathlib import Path
import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import tiny_data

torch = pytest.importorskip('torch', reason='the training extra is not installed')
import onnx  # noqa: E402
from torch import nn  # noqa: E402
import yaml  # noqa: E402

from hybrid_depth.camera import CameraModel  # noqa: E402
from hybrid_depth.config import PipelineConfig  # noqa: E402
from hybrid_depth.contract import read_spec  # noqa: E402
from hybrid_depth.drives import synthetic  # noqa: E402
from hybrid_depth.errors import ConfigError, ContractError  # noqa: E402
from hybrid_depth.pipeline import DepthPipeline  # noqa: E402
from hybrid_depth.preprocess import content_of, network_view, to_network  # noqa: E402
from hybrid_depth.runtime import BackendOptions, load_backend  # noqa: E402
from hybrid_depth.types import Frame  # noqa: E402
from hybrid_depth_training import losses  # noqa: E402
from hybrid_depth_training.calibration import SigmaScale  # noqa: E402
from hybrid_depth_training.config import (  # noqa: E402
    GroupConfig,
    NeighbourConfig,
    SourceConfig,
    TrainConfig,
)
from hybrid_depth_training.deploy import export as export_module  # noqa: E402
from hybrid_depth_training.models.compact import CompactDepth  # noqa: E402
from hybrid_depth_training.models.posed import PosedDepth  # noqa: E402
from hybrid_depth_training.train import train  # noqa: E402

KINDS = ('single_frame', 'posed')
SIGMA = SigmaScale(2.0, 1.5, 'a street')
SIZES = ((64, 96), (96, 160))
CAMERAS = [CameraModel(96, 64, 70.0, 70.0, 48.0, 32.0),
           CameraModel(200, 300, 150.0, 150.0, 100.0, 150.0)]


@functools.cache
def golden_frame(seed: int, index: int):
    return synthetic.open_drive(seed).frame(index)


@pytest.fixture(scope='module', autouse=True)
def small_golden_values():
    """Make the tests fast: small golden images, each rendered once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_module, '_GOLDEN_SIZES', SIZES)
        patch.setattr(export_module, 'open_drive', lambda seed: SimpleNamespace(
            frame=functools.partial(golden_frame, seed)))
        yield


@pytest.fixture(scope='module')
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Train one of each kind, the second on top of the first, far enough from where it starts."""
    data = tmp_path_factory.mktemp('drive')
    tiny_data.write_drive(data)
    single, posed = tmp_path_factory.mktemp('single'), tmp_path_factory.mktemp('posed')
    config = TrainConfig(
        name='tiny', licence='Apache-2.0', options={'weights': 'random'}, batch=2, steps=3,
        warmup_steps=1, threads=1, lr=1e-3, groups={'wall': GroupConfig(64, 96)},
        sources=[SourceConfig('drive', str(data), 'wall', hold_out=0.5)])
    train(config, single)
    train(replace(config, name='tiny_posed', objective='posed',
                  options={'single_from': str(single)},
                  neighbours=NeighbourConfig(count=2, absent=0.0)), posed)
    return {'single_frame': single, 'posed': posed}


@pytest.fixture(scope='module')
def models(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: export_module.export(run, tmp_path_factory.mktemp(f'{kind}_model'), SIGMA)
            for kind, run in runs.items()}


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


def deployed(run: Path) -> nn.Module:
    """Return the graph of ``run`` in torch."""
    return export_module.make_exported(
        export_module.load_model(run, export_module.load_config(run))[1], SIGMA)


def picture(size: tuple[int, int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (1, *size, 3), dtype=np.uint8)


@pytest.mark.slow
def test_contract_golden_and_card_are_there(models, kind):
    path = models[kind]
    spec = read_spec(path)
    assert (spec.licence, spec.kind, spec.size_multiple, spec.pixels) == (
        'Apache-2.0', kind, 32, 64 * 96)
    assert (spec.sources, spec.feature_channels, spec.feature_stride) == (
        (2, 32, 4) if kind == 'posed' else (0, 0, 0))
    assert sorted(file.name for file in path.parent.iterdir()) == [
        'CARD.md', 'card.json', 'golden.npz', 'model.onnx']
    card = json.loads((path.parent / 'card.json').read_text())
    text = (path.parent / 'CARD.md').read_text()
    limit = max(export_module.PARITY[kind].values())
    assert (card['kind'], card['steps'], card['opset']) == (kind, 3, 17)
    assert 0 <= card['parity'] <= limit
    assert card['sha256'] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert card['sha256'] in text
    assert card['sigma_scale'] == {'single_frame': 2.0, 'posed': 1.5}
    assert 'by 2.0 (single frame) and 1.5 (posed)' in text
    assert card['sigma_from'] == 'a street'
    assert card['commands'][-1].startswith('python -m hybrid_depth_training export')
    assert all(command in text for command in card['commands'])
    (row,) = card['held_out']
    assert (row['step'], row['frames']) == (3, 2)
    with np.load(path.parent / 'golden.npz') as golden:
        expected = {f'{index}_{key}': value for index, size in enumerate(SIZES)
                    for key, value in {**spec.inputs(size), **spec.outputs(size)}.items()}
        assert {key: (golden[key].dtype.name, golden[key].shape) for key in golden.files} \
            == expected
        if kind == 'posed':
            assert (golden['0_source_valid'] == 1).all()
            assert np.linalg.norm(golden['0_source_T_target'][0, :, :3, 3], axis=1) \
                == pytest.approx([1.6, 4.0], rel=0.05)  # 2 and 5 frames ago at 8 m/s and 10 Hz


@pytest.mark.slow
def test_file_is_of_opset_17_and_says_nothing_of_the_machine(models, kind):
    model = onnx.load(models[kind])
    assert [(entry.domain, entry.version) for entry in model.opset_import
            if entry.domain in ('', 'ai.onnx')] == [('', 17)]
    onnx.checker.check_model(model, full_check=True)
    for node in model.graph.node:
        schema = onnx.defs.get_schema(node.op_type, 17)
        assert len(node.input) <= schema.max_input, node.op_type
        assert {attribute.name for attribute in node.attribute} <= set(schema.attributes)
    data = models[kind].read_bytes()
    for word in (b'site-packages', b'.py', str(Path.home()).encode() + b'/',
                 str(Path.cwd()).encode()):
        assert word not in data
    lengths = [dim.dim_param or dim.dim_value for value in (*model.graph.input,
                                                            *model.graph.output)
               for dim in value.type.tensor_type.shape.dim]
    names = {'height', 'width', 'feature_height', 'feature_width'}
    assert {length for length in lengths if isinstance(length, str)} == (
        names if kind == 'posed' else {'height', 'width'})


@pytest.mark.slow
@pytest.mark.parametrize('camera', CAMERAS)
def test_any_aspect_ratio_runs_and_agrees_with_torch(runs, models, kind, camera):
    spec = read_spec(models[kind])
    image = picture((camera.height, camera.width), 0)[0]
    pipeline = DepthPipeline(PipelineConfig(model=str(models[kind]), resolution='network',
                                            max_depth_m=300.0))
    result = pipeline.run(Frame(image, 1, 'camera', camera))
    pipeline.close()
    assert result.mode == 'single_frame'
    view = network_view(camera, spec.network_size(camera.width, camera.height))
    inputs = [torch.from_numpy(to_network(image, view)), torch.from_numpy(view.K)]
    if kind == 'posed':
        shapes = [shape for _, shape in spec.inputs(inputs[0].shape[1:3]).values()][2:]
        inputs += [torch.zeros(shape) for shape in shapes]
    with torch.no_grad():
        depth, sigma = deployed(runs[kind])(*inputs)[:2]
    for found, expected in ((result.depth_m, depth), (result.sigma_m, sigma)):
        expected = content_of(expected[0, 0].numpy(), view)
        known = np.isfinite(found)
        assert known.mean() > 0.9
        np.testing.assert_allclose(found[known], expected[known], rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize('size', SIZES)
def test_features_fed_back_give_what_torch_gives(runs, models, size):
    spec, graph = read_spec(models['posed']), deployed(runs['posed'])
    backend = load_backend('ort', models['posed'], spec, size, BackendOptions(cpu_threads=1))
    K = np.array([[[70.0, 0, size[1] / 2], [0, 70.0, size[0] / 2], [0, 0, 1]]], np.float32)
    motion = np.tile(np.eye(4, dtype=np.float32), (1, 2, 1, 1))
    motion[0, :, 0, 3] = -0.4, 0.8
    handles, features = (None, None), np.zeros(spec.inputs(size)['source_features'][1], np.float32)
    for index, valid in enumerate(([0, 0], [1, 0], [1, 1])):
        # not noise, of which another pixel looked up by the last bit would be another thing
        image = cv2.resize(picture((8, 12), index)[0], size[::-1], interpolation=cv2.INTER_CUBIC)[
            None]
        source_valid = np.array([valid], np.float32)
        found = backend.infer({'image': image, 'K': K, 'source_features': handles,
                               'source_T_target': motion, 'source_valid': source_valid})
        with torch.no_grad():
            expected = graph(*map(torch.from_numpy, (image, K, features, motion, source_valid)))
        for name, values in zip(graph.outputs, expected, strict=True):
            values = values.numpy()
            difference = np.abs(found[name] - values) / np.maximum(np.abs(values), 0.1)
            # to a network that has hardly learned many planes are as good as the best, and the
            # last bit decides; what rests on that choice agrees in most places only
            chosen = any(valid) and name in ('matched_depth', 'depth', 'sigma')
            share = 0.5 if chosen else 0.99
            assert np.quantile(difference, share) < 1e-3, name
        # what is compared are no limits
        assert np.mean((found['depth'] > 0.2) & (found['depth'] < 150)) > 0.9
        if not any(valid):
            assert (found['match_weight'] == 0).all()
        else:
            assert found['match_weight'].min() > 0
        handles = (found['features'], handles[0])
        features = np.stack([features[:, 0] if handle is None else handle
                             for handle in handles], axis=1)
    backend.close()


@pytest.mark.slow
@pytest.mark.parametrize('camera', CAMERAS)
def test_pipeline_matches_a_moving_camera(models, camera):
    pipeline = DepthPipeline(PipelineConfig(model=str(models['posed']), resolution='network'))
    modes = []
    for index in range(5):
        pose = np.eye(4)
        pose[0, 3] = 0.5 * index
        image = picture((camera.height, camera.width), index)[0]
        result = pipeline.run(Frame(image, 10**9 + index * 10**8, 'c', camera, pose))
        modes.append(result.mode)
        assert result.evidence.shape == result.depth_m.shape
    pipeline.close()
    assert modes[0] == 'single_frame'
    assert 'posed' in modes


@pytest.mark.slow
def test_export_that_disagrees_is_not_written(runs, models, tmp_path, monkeypatch):
    # the file of another export, whose sigma is twice as large
    monkeypatch.setattr(export_module, 'write_onnx',
                        lambda graph, spec, example, path: shutil.copy(models['single_frame'],
                                                                       path))
    with pytest.raises(ContractError, match='differ'):
        export_module.export(runs['single_frame'], tmp_path / 'out', SigmaScale(1.0))
    assert list((tmp_path / 'out').iterdir()) == []


# ------------------------------------------------------------------------- without a file


@pytest.fixture(scope='module')
def network() -> PosedDepth:
    torch.manual_seed(0)
    network = PosedDepth(CompactDepth(weights='random')).eval()
    for layer in (network.single.head, network.fusion.out, network.refine[-1]):
        nn.init.normal_(layer.weight, std=0.05)
    return network


def moment(valid: float) -> list[torch.Tensor]:
    """Return the inputs of a posed graph."""
    image, generator = torch.from_numpy(picture((64, 96), 0)), torch.Generator().manual_seed(0)
    K = torch.tensor([[[70.0, 0.0, 48.0], [0.0, 70.0, 32.0], [0.0, 0.0, 1.0]]])
    motion = torch.eye(4).repeat(1, 2, 1, 1)
    motion[..., 0, 3] = 0.4
    return [image, K, torch.randn(1, 2, 32, 16, 24, generator=generator), motion,
            torch.tensor([[valid, 0.0]])]


@torch.no_grad()
def test_posed_graph_without_sources_is_the_graph_of_its_single_frame(network):
    alone = export_module.make_exported(network.single, SigmaScale(2.0))
    posed = export_module.make_exported(network, SIGMA)
    inputs = moment(0.0)
    depth, sigma, _, single_depth, _, match_weight = posed(*inputs)
    expected_depth, expected_sigma = alone(*inputs[:2])
    assert torch.equal(depth, expected_depth)
    torch.testing.assert_close(sigma, expected_sigma)
    small = torch.exp(nn.functional.avg_pool2d(network.single.single_frame(*inputs[:2]).log_depth,
                                               2))
    torch.testing.assert_close(single_depth, small)
    assert (match_weight == 0).all()


@torch.no_grad()
def test_factor_of_posed_sigma_holds_where_there_is_a_source(network):
    posed = [export_module.make_exported(network, SigmaScale(2.0, factor))
             for factor in (1.0, 1.5)]
    for valid, ratio in ((0.0, 1.0), (1.0, 1.5)):
        one, other = (graph(*moment(valid)) for graph in posed)
        torch.testing.assert_close(other[1], ratio * one[1])
        assert torch.equal(other[0], one[0])


@torch.no_grad()
def test_depth_stays_within_the_contract():
    class Extreme(nn.Module):

        def forward(self, image, K):
            return torch.tensor([-30.0, 0.0, 30.0]), torch.zeros(3)
    depth, sigma = export_module.make_exported(Extreme(), SigmaScale(2.0))(None, None)
    assert depth.tolist() == pytest.approx([0.1, 1.0, 200.0])
    assert sigma.tolist() == pytest.approx(
        [2 * losses.SIGMA_PER_B * z for z in (0.1, 1.0, 200.0)])


# ------------------------------------------------------------------------- where it is from


def test_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(ConfigError, match='no training run'):
        export_module.export(tmp_path, tmp_path / 'out', SIGMA)


def test_run_without_checkpoint_is_named(runs, tmp_path):
    shutil.copy(runs['single_frame'] / 'config.yaml', tmp_path)
    with pytest.raises(ContractError, match='no sound checkpoint'):
        export_module.load_model(tmp_path, export_module.load_config(tmp_path))


def test_loaded_network_has_the_weights_of_the_run_and_needs_nothing_else(runs, tmp_path):
    """The checkpoint holds the single-frame part too; the run that it came from may be gone."""
    run = tmp_path / 'copy'
    shutil.copytree(runs['posed'], run)
    config = export_module.load_config(run)
    config = replace(config, options={'single_from': str(tmp_path / 'gone')})
    step, network = export_module.load_model(run, config)
    _, single = export_module.load_model(runs['single_frame'],
                                         export_module.load_config(runs['single_frame']))
    assert step == 3
    assert not network.training
    for key, value in single.state_dict().items():
        torch.testing.assert_close(network.single.state_dict()[key], value, msg=key)


def plain(name: str, sources=(), **changes) -> TrainConfig:
    sources = list(sources) or [SourceConfig('drive', 'data/a', 'street')]
    return TrainConfig(name=name, licence='Apache-2.0', sources=sources,
                       groups={'street': GroupConfig(64, 96)}, **changes)


def test_everything_the_weights_have_seen_is_named(runs):
    data = export_module.load_config(runs['single_frame']).sources[0].label
    held_out = SourceConfig('drive', 'data/held', 'street', weight=0.0, hold_out=1.0)
    silent = SourceConfig('drive', 'data/silent', 'street', weight=0.0)
    config = plain('x', [SourceConfig('drive', 'data/a', 'street'), held_out, silent])
    assert export_module.trained_on_labels(config) == ('drive a',)
    for changes in ({'init_from': str(runs['single_frame'])},
                    {'options': {'single_from': str(runs['posed'])}},
                    {'options': {'refinement_from': str(runs['posed'])}}):
        assert export_module.trained_on_labels(replace(config, **changes)) == ('drive a', data)


def left_run(folder: Path, name: str, **changes) -> str:
    """Leave the configuration of a run in ``folder``, as training does; return its path."""
    (folder / name).mkdir()
    (folder / name / 'config.yaml').write_text(yaml.safe_dump(asdict(plain(name, **changes))))
    return str(folder / name)


def test_commands_make_the_model_and_all_it_rests_on_in_order(tmp_path):
    single = left_run(tmp_path, 'net_single')
    before = left_run(tmp_path, 'net_before', options={'single_from': single})
    found = export_module.commands(plain('net', options={
        'single_from': single, 'refinement_from': before}), Path('somewhere/net'))
    assert [command.split('hybrid_depth_training ')[1] for command in found] == [
        'train --run config/training/net_single.yaml --out runs/net_single',
        'train --run config/training/net_before.yaml --out runs/net_before',
        'train --run config/training/net.yaml --out runs/net',
        'export runs/net --out hybrid_depth/models/net']
    assert len(export_module.commands(plain('net'), Path('net'))) == 2


def test_initial_weights_are_those_of_the_first_run(tmp_path):
    single = left_run(tmp_path, 'net_single', options={
        'network': 'hybrid', 'weights': 'imagenet', 'dino_weights': '/data/vits.safetensors'})
    config = plain('net', objective='posed', options={'network': 'hybrid', 'single_from': single})
    assert export_module.initial_weights(config) == (
        'efficientnet_lite0 (imagenet) and dinov2_vits14 (vits.safetensors)')
