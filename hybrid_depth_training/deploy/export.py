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
"""
From a training run to a model folder: ONNX with its contract, golden values, card.

Height and width stay symbolic in the file, named ``height`` and ``width``: a runtime fixes them
when it opens the model for a camera, so one file serves every aspect ratio.
"""
from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from hybrid_depth.contract import METADATA_KEY, ModelSpec, SCHEMA
from hybrid_depth.drives.synthetic import open_drive
from hybrid_depth.errors import ConfigError, ContractError
from hybrid_depth.runtime import BackendOptions
from hybrid_depth.runtime.graph_lint import check
from hybrid_depth.runtime.ort import open_backend
from hybrid_depth.scene_prompts import TABLE, write_table
from hybrid_depth_training import checkpoint
from hybrid_depth_training.calibration import SigmaScale
from hybrid_depth_training.config import read_config, TrainConfig
from hybrid_depth_training.deploy import onnx_faster
from hybrid_depth_training.deploy.card import validation_rows, write_card
from hybrid_depth_training.deploy.embed import make_table
from hybrid_depth_training.deploy.exported import ExportedClipPrior, ExportedDepth, ExportedPosed
from hybrid_depth_training.deploy.onnx_rewrite import (
    as_opset_17,
    cast_image_first,
    OPSET,
    store_in_half,
)
from hybrid_depth_training.models.clip_prior.network import ClipPriorConfig, ClipPriorDepth
from hybrid_depth_training.models.clip_prior.window_attention import ONNX_TRANSLATIONS
from hybrid_depth_training.models.compact import MAX_DEPTH_M, MIN_DEPTH_M
from hybrid_depth_training.models.encoders.vit import explicit_attention
from hybrid_depth_training.models.posed import PosedDepth
from hybrid_depth_training.models.sweep import FEATURE_STRIDE
from hybrid_depth_training.objectives import make_objective, read_options
from hybrid_depth_training.objectives.clip_prior import ClipPriorOptions
from hybrid_depth_training.weights import RANDOM

_log = logging.getLogger(__name__)
# Shares of all golden values of each output, by kind, and the largest relative difference between
# torch and ONNX Runtime that each may have; see parity.
PARITY: dict[str, dict[float, float]] = {
    'single_frame': {1.0: 2e-4}, 'posed': {0.5: 2e-5, 0.99: 1e-3}, 'clip_prior': {1.0: 5e-4}}
_RECIPES = Path(__file__).resolve().parents[2] / 'config' / 'training'
_GOLDEN_SIZES = ((192, 640), (288, 416))


def export(run: Path, out: Path, sigma: SigmaScale) -> Path:
    """
    Export the newest checkpoint of ``run`` into the folder ``out``; return the ONNX path.

    Writes model.onnx, golden.npz, card.json and CARD.md, and prompts.npz for a model that takes
    words. Raises ContractError where ONNX Runtime and torch differ by more than PARITY on the
    golden inputs; nothing is written then.
    """
    config = load_config(run)
    step, network = load_model(run, config)
    exported = make_exported(network, sigma)
    street = max(config.groups.values(), key=lambda group: group.width)
    posed = {'sources': config.neighbours.count, 'feature_channels': network.channels,
             'feature_stride': FEATURE_STRIDE} if isinstance(network, PosedDepth) else {}
    trained_on = trained_on_labels(config)
    kind = {ExportedPosed: 'posed', ExportedClipPrior: 'clip_prior'}.get(
        type(exported), 'single_frame')
    text = {'text_dim': network.text_dim} if kind == 'clip_prior' else {}
    table = make_table(config) if text else None  # first: the text tower may be missing
    spec = ModelSpec(
        name=config.name, schema=SCHEMA, kind=kind,
        size_multiple=network.size_multiple,
        pixels=config.deploy_pixels or street.height * street.width,
        min_depth_m=MIN_DEPTH_M, max_depth_m=_farthest(network), licence=config.licence,
        trained_on=trained_on, **posed, **text)
    out.mkdir(parents=True, exist_ok=True)
    part = out / 'model.part.onnx'
    golden = _golden(exported, spec)
    write_onnx(exported, spec, {key[2:]: torch.from_numpy(value) for key, value in golden.items()
                                if key[2:] in spec.inputs(_GOLDEN_SIZES[0])
                                and key.startswith('0_')}, part)
    try:
        worst = parity(part, spec, golden)
    except ContractError:
        part.unlink()
        raise
    _log.info('parity with ONNX Runtime: relative difference %.1e', worst)
    path = part.replace(out / 'model.onnx')
    if table is not None:
        write_table(out / TABLE, table)
    np.savez_compressed(out / 'golden.npz', **golden)
    write_card(out, {
        'name': config.name,
        'kind': spec.kind,
        'file': path.name,
        'sha256': hashlib.sha256(path.read_bytes()).hexdigest(),
        'bytes': path.stat().st_size,
        'licence': config.licence,
        'trained_on': list(spec.trained_on),
        'encoder': initial_weights(config),
        'parameters_m': round(sum(p.numel() for p in network.parameters()) / 1e6, 2),
        'steps': step,
        'sigma_scale': {'single_frame': round(sigma.single, 4), 'posed': round(sigma.posed, 4)},
        'sigma_from': sigma.measured_on,
        'parity': worst,
        'torch': torch.__version__,
        'opset': OPSET,
        'commands': commands(config, out),
        'held_out': validation_rows(run, step),
        'evaluations': [],
    })
    return path


def make_exported(network: nn.Module, sigma: SigmaScale) -> nn.Module:
    """Wrap a trained network as the graph that is deployed."""
    explicit_attention(network)  # fused attention is wrong in several versions of TensorRT
    kind: type[nn.Module] = ExportedDepth
    if isinstance(network, PosedDepth):
        kind = ExportedPosed
    elif isinstance(network, ClipPriorDepth) and network.has_language:
        kind = ExportedClipPrior
    return kind(network, sigma).eval()


def _farthest(network: nn.Module) -> float:
    """Return the depth in metres at which a network saturates."""
    if isinstance(network, ClipPriorDepth) and not network.config.canonical_focal_px:
        return float(network.max_depth_m)
    return MAX_DEPTH_M


def initial_weights(config: TrainConfig) -> str:
    """Name the encoders and the weights they started from."""
    before = config.options.get('single_from') or config.init_from
    if before:
        return initial_weights(load_config(Path(before)))
    if config.objective == 'clip_prior':
        return _clip_prior_weights(config)
    options = {'encoder': 'efficientnet_lite0', 'weights': 'imagenet', **config.options}
    text = f"{options['encoder']} ({Path(options['weights']).name})"
    if options.get('network') == 'hybrid':
        text += (f" and {options.get('dino', 'dinov2_vits14')} "
                 f"({Path(options.get('dino_weights', 'pretrained')).name})")
    return text


def _clip_prior_weights(config: TrainConfig) -> str:
    options = read_options(ClipPriorOptions, config.options)
    network = read_options(ClipPriorConfig, options.clip_prior)
    text = f'{network.backbone} ({Path(network.backbone_weights).name})'
    if network.trca != 'none' or network.tbcp or network.language_range:
        text += f' and the text tower {network.text_model} ({Path(options.text_weights).name})'
    if options.text_weights == RANDOM:
        text += ': random text tower, shows the mechanism, not what CLIP knows'
    return text


def commands(config: TrainConfig, out: Path) -> list[str]:
    """Return the commands that make this model from nothing, in order."""
    train = [f'python -m hybrid_depth_training train --run config/training/{name}.yaml '
             f'--out runs/{name}' for name in (*run_names(config), config.name)]
    unseen = f'{config.name}_unseen'  # a recipe that holds out a whole scene, where there is one
    calibrate = f' --calibrate_on runs/{unseen}' if (_RECIPES / f'{unseen}.yaml').is_file() else ''
    return [*train, f'python -m hybrid_depth_training export runs/{config.name} --out '
                    f'hybrid_depth/models/{out.name}{calibrate}']


def runs_before(config: TrainConfig) -> list[Path]:
    """Return the folders of the runs that this one took weights from."""
    named = (config.init_from, *(config.options.get(key)
                                 for key in ('single_from', 'refinement_from',
                                             'encoder_from')))
    return [Path(name) for name in named if name]


def run_names(config: TrainConfig) -> list[str]:
    """Return the names of all runs that must be there before this one, first things first."""
    names = [name for run in runs_before(config) for name in (*run_names(load_config(run)),
                                                              run.name)]
    return list(dict.fromkeys(names))


def trained_on_labels(config: TrainConfig) -> tuple[str, ...]:
    """Name everything the weights have seen, that of the runs they were started from included."""
    seen = [source.label for source in config.sources if source.hold_out < 1 and source.weight > 0]
    for run in runs_before(config):
        seen += trained_on_labels(load_config(run))
    return tuple(dict.fromkeys(seen))


def load_config(run: Path) -> TrainConfig:
    """Read the resolved configuration that a run left in its folder. Raises ConfigError."""
    path = run / 'config.yaml'
    if not path.is_file():
        raise ConfigError(f'{run} is no training run: there is no {path.name} in it')
    return read_config(path)


def load_model(run: Path, config: TrainConfig) -> tuple[int, nn.Module]:
    """Return the step and network of the newest sound checkpoint. Raises ContractError."""
    folder = checkpoint.newest(run)
    if folder is None:
        raise ContractError(f'{run} holds no sound checkpoint; train first')
    step, weights, _ = checkpoint.load(folder)
    objective = make_objective(config.objective, config.options, 0, 0, 1, blank=True)
    objective.load_state_dict(weights, strict=True)
    return step, objective.network.eval()


def write_onnx(exported: nn.Module, spec: ModelSpec, example: dict[str, torch.Tensor],
               path: Path) -> None:
    """Write the graph of ``exported`` to ``path``. Raises ContractError where the lint objects."""
    step = spec.size_multiple
    blocks = (step * torch.export.Dim('h', min=1, max=256),
              step * torch.export.Dim('w', min=1, max=256))
    names = list(spec.inputs(_GOLDEN_SIZES[0]))
    shapes: dict[str, Any] = {'image': dict(zip((1, 2), blocks, strict=True))}
    if spec.kind == 'posed':
        stride = spec.feature_stride
        shapes['source_features'] = {3: (step // stride) * torch.export.Dim('h', min=1, max=256),
                                     4: (step // stride) * torch.export.Dim('w', min=1, max=256)}
    program = torch.onnx.export(
        exported, tuple(example[name] for name in names), dynamo=True, verbose=False,
        opset_version=18,  # the oldest it can write; see as_opset_17
        input_names=names, output_names=list(exported.outputs),
        dynamic_shapes=tuple(shapes.get(name) for name in names),
        custom_translation_table=ONNX_TRANSLATIONS | onnx_faster.ONNX_TRANSLATIONS)
    graph = as_opset_17(program.model_proto)
    # what stays symbolic has a name that the runtimes know
    full, small = ('height', 'width'), ('feature_height', 'feature_width')
    sizes = {'image': (1, full), 'source_features': (3, small), 'depth': (2, full),
             'sigma': (2, full), 'features': (2, small), 'single_depth': (2, small),
             'matched_depth': (2, small), 'match_weight': (2, small)}
    for value in (*graph.graph.input, *graph.graph.output):
        first, lengths = sizes.get(value.name, (0, ()))
        for axis, name in enumerate(lengths, start=first):
            value.type.tensor_type.shape.dim[axis].dim_param = name
    del graph.graph.value_info[:]  # spoke of the symbols' old names; runtimes infer it anew
    onnx_faster.rewrite(graph)
    for node in graph.graph.node:
        del node.metadata_props[:]  # the exporter's stack traces, with paths of this machine
        node.doc_string = ''
    del graph.metadata_props[:]
    store_in_half(graph)
    cast_image_first(graph)
    onnx.helper.set_model_props(graph, {METADATA_KEY: spec.to_json()})
    onnx.checker.check_model(graph)
    onnx.save(graph, str(path))
    try:
        check(path, spec, _GOLDEN_SIZES[0])
    except ContractError:
        path.unlink()
        raise


def _golden(exported: nn.Module, spec: ModelSpec) -> dict[str, np.ndarray]:
    """Make inputs and torch's outputs by which any runtime of this model can be accepted."""
    golden = {}
    for index, (height, width) in enumerate(_GOLDEN_SIZES):
        inputs = _golden_inputs(exported, spec, 7 + index, (height, width))
        with torch.no_grad():
            outputs = exported(*(torch.from_numpy(value) for value in inputs.values()))
        values = {**inputs, **{name: value.numpy() for name, value
                               in zip(exported.outputs, outputs, strict=True)}}
        golden.update({f'{index}_{key}': value for key, value in values.items()})
    return golden


def _golden_inputs(exported: nn.Module, spec: ModelSpec, seed: int,
                   size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Show a moment of the synthetic drive of ``seed``, the frames before it as sources."""
    from hybrid_depth.preprocess import network_view, to_network
    drive = open_drive(seed)
    # the gaps grow, as those of keyframes do
    frames = [drive.frame(index) for index in (16, 14, 11, 7, 2)[:1 + spec.sources]]
    views = [network_view(frame.camera, size) for frame in frames]
    images = [to_network(frame.image_rgb, view)
              for frame, view in zip(frames, views, strict=True)]
    inputs = {'image': images[0], 'K': views[0].K}
    if spec.kind == 'clip_prior':  # no sentence, but of the same length
        text = np.random.default_rng(seed).standard_normal((1, spec.text_dim)).reshape(
            exported.network.text_rows, -1)
        text /= np.linalg.norm(text, axis=-1, keepdims=True)
        inputs['text'] = text.reshape(1, -1).astype(np.float32)
    if spec.kind == 'posed':
        with torch.no_grad():
            features = exported.network.source_features(
                torch.from_numpy(np.stack(images[1:], axis=1)))
        motion = [np.linalg.inv(frame.world_T_camera) @ frames[0].world_T_camera
                  for frame in frames[1:]]
        inputs |= {'source_features': features.numpy(),
                   'source_T_target': np.array([motion], np.float32),
                   'source_valid': np.ones((1, len(motion)), np.float32)}
    return inputs


def parity(path: Path, spec: ModelSpec, golden: dict[str, np.ndarray]) -> float:
    """
    Return the relative difference that the largest share asked of every output stays below.

    Of a posed graph not all: where two hypotheses are equally likely, or a look-up falls between
    two cells, the last bit decides, and single pixels may differ in any two runtimes. By the
    focal length it was 0 to 32 of 1.8 million look-ups of the golden frames, and each reaches the
    49 cells that the second look averages over. So half of them have to be near to the last
    digits. A single-frame graph decides nothing so, and every value counts. Raises ContractError.
    """
    limits = PARITY[spec.kind]
    differences: dict[str, list[np.ndarray]] = {}
    for index, size in enumerate(_GOLDEN_SIZES):
        backend = open_backend(path, spec, size, BackendOptions(cpu_threads=2))
        inputs = {key: golden[f'{index}_{key}'] for key in spec.inputs(size)}
        if spec.kind == 'posed':
            inputs['source_features'] = tuple(
                features[None] for features in inputs['source_features'][0])
        outputs = backend.infer(inputs)
        for key in spec.outputs(size):
            expected = golden[f'{index}_{key}']
            # features and weights are of the order of 1 and may be 0: compared to 0.1 at least
            floor = 0.1 if key in ('features', 'match_weight') else 0.0
            difference = np.abs(outputs[key] - expected) / np.maximum(np.abs(expected), floor)
            differences.setdefault(key, []).append(difference.ravel())
        backend.close()
    worst = {share: max(float(np.quantile(np.concatenate(parts), share))
                        for parts in differences.values()) for share in limits}
    for share, limit in limits.items():
        if not worst[share] <= limit:
            raise ContractError(
                f'ONNX Runtime and torch differ by up to {worst[share]:.1e} (relative) on '
                f'{share:.0%} of the golden values; expected at most {limit:.0e}; do not use this '
                'model')
    return worst[max(limits)]
