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
"""Command line without ROS: ``python -m hybrid_depth --help`` lists the commands."""
from __future__ import annotations

import argparse
from dataclasses import asdict
import json
import logging
from pathlib import Path
import sys
from typing import TYPE_CHECKING

from hybrid_depth import build_engine
from hybrid_depth.config import PipelineConfig, RESOLUTIONS
from hybrid_depth.contract import ModelSpec, read_spec
from hybrid_depth.errors import ConfigError, HybridDepthError
from hybrid_depth.models import find_model, read_card, shipped_models
from hybrid_depth.runtime import PRECISIONS

if TYPE_CHECKING:  # needs onnx, which a robot may lack
    from hybrid_depth.runtime.graph_lint import Lint

_DEFAULTS = PipelineConfig()


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 = done, 1 = done but something is amiss, 2 = it could not be done."""
    logging.basicConfig(level=logging.INFO, format='%(message)s', stream=sys.stderr)
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except HybridDepthError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except OSError as error:
        print(f'error: {error}; name a folder that can be written', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('stopped', file=sys.stderr)
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='python -m hybrid_depth',
                                     description='Metric depth from one camera, without ROS.')
    commands = parser.add_subparsers(required=True)
    infer = commands.add_parser('infer', help='depth and sigma for every frame of a drive')
    infer.add_argument('drive', help='KITTI raw drive, folder with images/ and K.txt, rosbag2 or '
                                     "MCAP recording, or 'synthetic'")
    infer.add_argument('--out', type=Path, required=True, help='folder to write')
    infer.add_argument('--model', default=_DEFAULTS.model, help='shipped name or .onnx file')
    infer.add_argument('--backend', default=_DEFAULTS.backend, help='runtime, or auto')
    infer.add_argument('--precision', choices=PRECISIONS, default=_DEFAULTS.precision,
                       help='to compute in; int8_mix needs a file made by quantise')
    infer.add_argument('--limit', type=int, default=0, help='frames at most; 0 = all')
    infer.add_argument('--threads', type=int, default=_DEFAULTS.cpu_threads, help='of the CPU')
    infer.add_argument('--max-depth', type=float, default=_DEFAULTS.max_depth_m,
                       help='metres; what is farther is +Inf')
    infer.add_argument('--resolution', choices=RESOLUTIONS, default=_DEFAULTS.resolution,
                       help="pixels of the output: the image's, or the model's own")
    infer.add_argument('--scene-prompt', default=_DEFAULTS.scene_prompt,
                       help='words about the scene, for a model that takes them; default: none')
    infer.set_defaults(run=_infer)
    doctor = commands.add_parser('doctor', help='what is installed, missing, and what mends it')
    doctor.add_argument('--json', action='store_true', help='print JSON')
    doctor.set_defaults(run=_doctor)
    quantise = commands.add_parser('quantise', help='make the int8_mix file of a model, for CPUs')
    quantise.add_argument('model', help='shipped name or .onnx file')
    quantise.add_argument('--out', type=Path, help='file to write; without it beside the model')
    quantise.add_argument('--drives', nargs='+', help='as in infer: the last is judged by, ranges '
                          'are measured on the others; without it synthetic ones')
    quantise.add_argument('--frames', type=int, default=8, help='of each drive')
    quantise.add_argument('--limit', type=float, default=0.02,
                          help='mean relative difference of depth to fp32, at most')
    quantise.set_defaults(run=_quantise)
    engine = commands.add_parser('build-engine', help='build the engine of a GPU beforehand, or '
                                 'look after those that are there')
    build_engine.add_arguments(engine)
    engine.set_defaults(run=build_engine.run)
    inspect = commands.add_parser('inspect', help='the contract of a model')
    inspect.add_argument('model', help='shipped name or .onnx file')
    inspect.add_argument('--json', action='store_true', help='print JSON')
    inspect.set_defaults(run=_inspect)
    return parser


def _infer(options: argparse.Namespace) -> int:
    from hybrid_depth.infer import infer
    if options.limit < 0:
        raise ConfigError(f'--limit is {options.limit}; expected 0 or more')
    config = PipelineConfig(model=options.model, backend=options.backend,
                            precision=options.precision, cpu_threads=options.threads,
                            max_depth_m=options.max_depth,
                            resolution=options.resolution, scene_prompt=options.scene_prompt)

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty() or done == total:
            print(f'\r{done} of {total} frames', end='\n' if done == total else '',
                  file=sys.stderr, flush=True)
    summary = infer(options.drive, options.out, config, options.limit, show)
    latency = summary['latency_ms']
    print(f'{summary["frames_processed"]} of {summary["frames"]} frames of {summary["drive"]} '
          f'with {summary["model"]}, {latency["p50"]} ms a frame, written to {options.out}')
    for reason, count in summary['drops'].items():
        print(f'dropped: {count} {reason}')
    for name, row in (summary['accuracy'] or {}).items():
        print(f'{name.replace("_", " "):14s} AbsRel {row["abs_rel"]:.3f}  RMSE {row["rmse"]:.2f} m'
              f'  d1 {row["d1"]:.3f}')
    return 1 if summary['drops'] else 0


def _doctor(options: argparse.Namespace) -> int:
    from hybrid_depth import doctor
    return doctor.tell(doctor.examine(), options.json)


def _quantise(options: argparse.Namespace) -> int:
    from hybrid_depth.runtime.quantise import DRIVES, quantise
    made = quantise(find_model(options.model), options.out, options.drives or DRIVES,
                    options.frames, options.limit)
    print(f'{made.path}: {made.layers} of {made.candidates} layers in 8 bits, depth '
          f'{made.abs_rel:.2%} and sigma {made.sigma_rel:.2%} from fp32 (mean of {made.frames} '
          'frames)')
    return 0


def _graph_of(path: Path, spec: ModelSpec) -> Lint | None:
    """Return what is amiss in the graph at ``path``; None where that cannot be found out here."""
    from importlib.util import find_spec
    if find_spec('onnx') is None or find_spec('onnxruntime') is None:
        return None
    from hybrid_depth.runtime.graph_lint import lint
    return lint(path, spec, spec.network_size(1280, 720))


def _inspect(options: argparse.Namespace) -> int:
    path = find_model(options.model)
    spec = read_spec(path)
    card = read_card(options.model) if options.model in shipped_models() else None
    fields = {**json.loads(spec.to_json()), 'file': str(path), 'bytes': path.stat().st_size}
    found = _graph_of(path, spec)
    if options.json:
        graph = None if found is None else asdict(found)
        print(json.dumps({**fields, 'card': card, 'graph': graph}, indent=2))
        return 0
    for key, value in fields.items():
        text = ', '.join(value) if isinstance(value, list) else value
        print(f'{key:14s} {text}')
    print('inputs         image (1, H, W, 3) uint8 RGB; K (1, 3, 3) float32, pixels of that image')
    print('outputs        depth (1, 1, H, W) float32 metres along +Z; sigma, the same, one '
          'standard deviation')
    print('network size   ' + ', '.join(
        f'{w}x{h} camera -> {spec.network_size(w, h)[1]}x{spec.network_size(w, h)[0]}'
        for w, h in ((1280, 720), (640, 480), (1242, 375))))
    print(f'graph          {found.text()}' if found else
          'graph          not checked: pip install onnx onnxruntime')
    if card:
        print(f'card           {path.parent / "CARD.md"}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
