# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A trained run becomes a model folder that the robot's code accepts at any size."""
import json
from pathlib import Path
import shutil

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from hybrid_depth.camera import CameraModel  # noqa: E402
from hybrid_depth.config import PipelineConfig  # noqa: E402
from hybrid_depth.contract import read_spec  # noqa: E402
from hybrid_depth.errors import ConfigError, ContractError  # noqa: E402
from hybrid_depth.pipeline import DepthPipeline  # noqa: E402
from hybrid_depth.types import Frame  # noqa: E402
from hybrid_depth_training import export as export_module  # noqa: E402
from hybrid_depth_training.train import train  # noqa: E402


@pytest.fixture(scope='module')
def run(tiny_drive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from hybrid_depth_training.config import GroupConfig, SourceConfig, TrainConfig
    folder = tmp_path_factory.mktemp('run')
    train(TrainConfig(
        name='tiny', licence='Apache-2.0', weights='imagenet', batch=2, steps=3, threads=1,
        groups={'plane': GroupConfig(64, 96)},
        sources=[SourceConfig('drive', str(tiny_drive), 'plane', hold_out=0.34)]), folder)
    return folder


@pytest.fixture(scope='module')
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_module.export(run, tmp_path_factory.mktemp('model'), sigma_scale=2.0)


def test_contract_golden_and_card_are_there(exported):
    spec = read_spec(exported)
    assert (spec.name, spec.licence, spec.kind) == ('tiny', 'Apache-2.0', 'single_frame')
    card = json.loads((exported.parent / 'card.json').read_text())
    assert card['steps'] == 3
    assert card['parity'] <= export_module.PARITY
    assert card['sha256'] in (exported.parent / 'CARD.md').read_text()
    with np.load(exported.parent / 'golden.npz') as golden:
        assert {'0_image', '0_K', '0_depth', '0_sigma', '1_depth'} <= set(golden.files)


@pytest.mark.parametrize('camera', [CameraModel(96, 64, 70.0, 70.0, 48.0, 32.0),
                                    CameraModel(200, 300, 150.0, 150.0, 100.0, 150.0)])
def test_any_aspect_ratio_runs_and_agrees_with_torch(run, exported, camera):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (camera.height, camera.width, 3), dtype=np.uint8)
    pipeline = DepthPipeline(PipelineConfig(model=str(exported), resolution='network'))
    result = pipeline.run(Frame(image, 1, 'camera', camera))
    pipeline.close()
    from hybrid_depth.preprocess import content_of, network_view, to_network
    view = network_view(camera, read_spec(exported).network_size(camera.width, camera.height))
    _, network = export_module.load_model(run, export_module.load_config(run))
    graph = export_module.ExportedDepth(network, 2.0).eval()
    with torch.no_grad():
        depth, sigma = graph(torch.from_numpy(to_network(image, view)), torch.from_numpy(view.K))
    np.testing.assert_allclose(result.depth_m, content_of(depth[0, 0].numpy(), view), rtol=1e-3)
    np.testing.assert_allclose(result.sigma_m, content_of(sigma[0, 0].numpy(), view), rtol=1e-3)


def test_file_holds_no_path_of_the_machine_that_made_it(exported):
    data = exported.read_bytes()
    for word in (b'site-packages', b'.py', str(Path.home()).encode() + b'/'):
        assert word not in data


def test_export_that_disagrees_is_not_written(run, exported, tmp_path, monkeypatch):
    # the file of another export, whose sigma is half as large
    monkeypatch.setattr(export_module, '_write_onnx',
                        lambda graph, spec, path: shutil.copy(exported, path))
    with pytest.raises(ContractError, match='differ'):
        export_module.export(run, tmp_path / 'out', sigma_scale=1.0)
    assert list((tmp_path / 'out').iterdir()) == []


def test_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(ConfigError, match='no training run'):
        export_module.export(tmp_path, tmp_path / 'out')


def test_calibration_makes_sigma_right_on_the_held_out_frames(run):
    from hybrid_depth_training.train import collate, DataMix
    config = export_module.load_config(run)
    scale, names = export_module.calibrate(run)
    assert names == 'drive ' + Path(config.sources[0].path).name
    _, model = export_module.load_model(run, config)
    (views,) = DataMix(config).validation.values()
    inside = []
    for view in views:
        batch = collate([view])
        with torch.no_grad():
            log_depth, log_b = model(batch['image'], batch['K'])
        sigma = scale * export_module.losses.SIGMA_PER_B * log_b.exp() * log_depth.exp()
        has_truth = torch.isfinite(batch['depth_m'])
        inside.append(((log_depth.exp() - batch['depth_m']).abs() <= sigma)[has_truth])
    assert float(torch.cat(inside).float().mean()) == pytest.approx(0.6827, abs=0.01)
