# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""
From a training run to a model folder: ONNX with its contract, golden values, card.

Height and width stay symbolic in the file, named ``height`` and ``width``: a runtime fixes them
when it opens the model for a camera, so one file serves every aspect ratio.
"""
from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn
import yaml

from hybrid_depth.contract import METADATA_KEY, ModelSpec, SCHEMA
from hybrid_depth.drives.synthetic import render_random
from hybrid_depth.errors import ConfigError, ContractError
from hybrid_depth.runtime.ort import open_backend
from hybrid_depth_training import checkpoint, losses
from hybrid_depth_training.card import validation_rows, write_card
from hybrid_depth_training.config import TrainConfig
from hybrid_depth_training.models.compact import CompactDepth, MAX_DEPTH_M, MIN_DEPTH_M

_log = logging.getLogger(__name__)
OPSET = 17  # the highest that TensorRT 10.3 and the runtimes before it read without loss
PARITY = 2e-4  # largest relative difference of depth and sigma between torch and ONNX Runtime
_GOLDEN_SIZES = ((192, 640), (288, 416))


class ExportedDepth(nn.Module):
    """The graph as deployed: image (1, H, W, 3) uint8, K (1, 3, 3) -> depth, sigma in metres."""

    def __init__(self, network: CompactDepth, sigma_scale: float) -> None:
        super().__init__()
        self.network = network
        self.sigma_scale = losses.SIGMA_PER_B * sigma_scale

    def forward(self, image: torch.Tensor, K: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        log_depth, log_b = self.network(image, K)
        depth = torch.exp(log_depth).clamp(MIN_DEPTH_M, MAX_DEPTH_M)
        return depth, depth * torch.exp(log_b) * self.sigma_scale


def export(run: Path, out: Path, sigma_scale: float = 1.0, sigma_from: str = 'nothing') -> Path:
    """
    Export the newest checkpoint of ``run`` into the folder ``out``; return the ONNX path.

    ``sigma_scale`` multiplies sigma: what ``calibrate`` found on the frames of ``sigma_from``.
    Writes model.onnx, golden.npz, card.json and CARD.md. Raises ContractError where ONNX Runtime
    and torch differ by more than PARITY on any golden input; nothing is written then.
    """
    config = load_config(run)
    step, model = load_model(run, config)
    exported = ExportedDepth(model, sigma_scale).eval()
    street = max(config.groups.values(), key=lambda group: group.width)
    spec = ModelSpec(
        name=config.name, schema=SCHEMA, kind='single_frame', size_multiple=32,
        pixels=street.height * street.width, min_depth_m=MIN_DEPTH_M, max_depth_m=MAX_DEPTH_M,
        licence=config.licence,
        trained_on=tuple(dict.fromkeys(source.label for source in config.sources
                                       if source.hold_out < 1)))
    out.mkdir(parents=True, exist_ok=True)
    part = out / 'model.part.onnx'
    _write_onnx(exported, spec, part)
    golden = _golden(exported)
    try:
        worst = _parity(part, spec, golden)
    except ContractError:
        part.unlink()
        raise
    _log.info('parity with ONNX Runtime: largest relative difference %.1e', worst)
    path = part.replace(out / 'model.onnx')
    np.savez_compressed(out / 'golden.npz', **golden)
    write_card(out, {
        'name': config.name,
        'file': path.name,
        'sha256': hashlib.sha256(path.read_bytes()).hexdigest(),
        'bytes': path.stat().st_size,
        'licence': config.licence,
        'trained_on': list(spec.trained_on),
        'encoder': f'{config.encoder} ({config.weights})',
        'parameters_m': round(sum(p.numel() for p in model.parameters()) / 1e6, 2),
        'steps': step,
        'sigma_scale': round(sigma_scale, 4),
        'sigma_from': sigma_from,
        'parity': worst,
        'torch': torch.__version__,
        'opset': OPSET,
        'held_out': validation_rows(run, step),
        'evaluations': [],
    })
    return path


def load_config(run: Path) -> TrainConfig:
    """Read the resolved configuration that a run left in its folder. Raises ConfigError."""
    from jsonargparse import ArgumentParser
    path = run / 'config.yaml'
    if not path.is_file():
        raise ConfigError(f'{run} is no training run: there is no {path.name} in it')
    parser = ArgumentParser()
    parser.add_class_arguments(TrainConfig, 'run')
    config = parser.parse_object({'run': yaml.safe_load(path.read_text())})
    return parser.instantiate(config).run


def load_model(run: Path, config: TrainConfig) -> tuple[int, CompactDepth]:
    """Return the step and network of the newest sound checkpoint. Raises ContractError."""
    folder = checkpoint.newest(run)
    if folder is None:
        raise ContractError(f'{run} holds no sound checkpoint; train first')
    step, weights, _ = checkpoint.load(folder)
    model = CompactDepth(config.encoder, 'random')
    model.load_state_dict(weights, strict=True)
    return step, model.eval()


def _write_onnx(exported: ExportedDepth, spec: ModelSpec, path: Path) -> None:
    image = torch.zeros(1, 192, 640, 3, dtype=torch.uint8)
    K = torch.tensor([[[370.0, 0, 320], [0, 370, 96], [0, 0, 1]]])
    step = spec.size_multiple
    blocks = (torch.export.Dim('h', min=1, max=256), torch.export.Dim('w', min=1, max=256))
    program = torch.onnx.export(
        exported, (image, K), dynamo=True, opset_version=OPSET, verbose=False,
        input_names=['image', 'K'], output_names=['depth', 'sigma'],
        dynamic_shapes=({1: step * blocks[0], 2: step * blocks[1]}, None))
    graph = program.model_proto
    for value, axes in ((graph.graph.input[0], (1, 2)), (graph.graph.output[0], (2, 3)),
                        (graph.graph.output[1], (2, 3))):
        for axis, name in zip(axes, ('height', 'width'), strict=True):
            value.type.tensor_type.shape.dim[axis].dim_param = name
    del graph.graph.value_info[:]  # spoke of the symbols' old names; runtimes infer it anew
    for node in graph.graph.node:
        del node.metadata_props[:]  # the exporter's stack traces, with paths of this machine
        node.doc_string = ''
    del graph.metadata_props[:]
    onnx.helper.set_model_props(graph, {METADATA_KEY: spec.to_json()})
    onnx.checker.check_model(graph)
    onnx.save(graph, str(path))


def _golden(exported: ExportedDepth) -> dict[str, np.ndarray]:
    """Make inputs and torch's outputs by which any runtime of this model can be accepted."""
    golden = {}
    for index, size in enumerate(_GOLDEN_SIZES):
        image, _, K, _ = render_random(7 + index, size)
        inputs = {'image': image[None], 'K': K.astype(np.float32)[None]}
        with torch.no_grad():
            depth, sigma = exported(*(torch.from_numpy(value) for value in inputs.values()))
        values = {**inputs, 'depth': depth.numpy(), 'sigma': sigma.numpy()}
        golden.update({f'{index}_{key}': value for key, value in values.items()})
    return golden


def _parity(path: Path, spec: ModelSpec, golden: dict[str, np.ndarray]) -> float:
    worst = 0.0
    for index, size in enumerate(_GOLDEN_SIZES):
        backend = open_backend(path, spec, size, 2)
        outputs = backend.infer({key: golden[f'{index}_{key}'] for key in ('image', 'K')})
        for key in ('depth', 'sigma'):
            expected = golden[f'{index}_{key}']
            worst = max(worst, float((np.abs(outputs[key] - expected) / expected).max()))
        backend.close()
    if not worst <= PARITY:
        raise ContractError(f'ONNX Runtime and torch differ by {worst:.1e} (relative) on the '
                            f'golden inputs; expected at most {PARITY:.0e}; do not use this model')
    return worst


def calibrate(run: Path) -> tuple[float, str]:
    """
    Return the factor on sigma that makes 68.27 % of held-out errors fall within it, and on what.

    Where the run holds out whole sources (``hold_out: 1``), those alone decide: a scene that was
    never seen tells how sure one may be elsewhere, the end of a seen one does not. The median over
    the sources, so that no one source decides.
    """
    from hybrid_depth_training.train import collate, DataMix
    config = load_config(run)
    _, model = load_model(run, config)
    validation = DataMix(config).validation
    unseen = {source.label for source in config.sources if source.hold_out == 1}
    factors = {}
    for name, views in validation.items():
        if unseen and name not in unseen:
            continue
        ratios = []
        for view in views:
            batch = collate([view])
            with torch.no_grad():
                log_depth, log_b = model(batch['image'], batch['K'])
            has_truth = torch.isfinite(batch['depth_m'])
            depth, truth = log_depth.exp()[has_truth], batch['depth_m'][has_truth]
            sigma = losses.SIGMA_PER_B * log_b.exp()[has_truth] * depth
            ratios.append(((depth - truth).abs() / sigma).numpy())
        factors[name] = float(np.quantile(np.concatenate(ratios), 0.6827))
        _log.info('sigma of %s wants a factor of %.2f', name, factors[name])
    return float(np.median(list(factors.values()))), ', '.join(factors)
