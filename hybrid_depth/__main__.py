# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Command line without ROS: ``python -m hybrid_depth infer | doctor | inspect``."""
from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
import sys

from hybrid_depth.config import PipelineConfig, RESOLUTIONS
from hybrid_depth.contract import read_spec
from hybrid_depth.errors import ConfigError, HybridDepthError
from hybrid_depth.models import find_model, read_card, shipped_models

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
    infer.add_argument('drive', help="KITTI raw drive, folder with images/ and K.txt, rosbag2 or "
                                     "MCAP recording, or 'synthetic'")
    infer.add_argument('--out', type=Path, required=True, help='folder to write')
    infer.add_argument('--model', default=_DEFAULTS.model, help='shipped name or .onnx file')
    infer.add_argument('--backend', default=_DEFAULTS.backend, help='runtime, or auto')
    infer.add_argument('--limit', type=int, default=0, help='frames at most; 0 = all')
    infer.add_argument('--threads', type=int, default=_DEFAULTS.cpu_threads, help='of the CPU')
    infer.add_argument('--max-depth', type=float, default=_DEFAULTS.max_depth_m,
                       help='metres; what is farther is +Inf')
    infer.add_argument('--resolution', choices=RESOLUTIONS, default=_DEFAULTS.resolution,
                       help="pixels of the output: the image's, or the model's own")
    infer.set_defaults(run=_infer)
    doctor = commands.add_parser('doctor', help='what is installed, missing, and what mends it')
    doctor.add_argument('--json', action='store_true', help='print JSON')
    doctor.set_defaults(run=_doctor)
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
                            cpu_threads=options.threads, max_depth_m=options.max_depth,
                            resolution=options.resolution)

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
    from hybrid_depth.doctor import as_rows, examine, report
    findings = examine()
    print(json.dumps(as_rows(findings), indent=2) if options.json else report(findings))
    return 1 if any(finding.is_required and not finding.ok for finding in findings) else 0


def _inspect(options: argparse.Namespace) -> int:
    path = find_model(options.model)
    spec = read_spec(path)
    card = read_card(options.model) if options.model in shipped_models() else None
    fields = {**json.loads(spec.to_json()), 'file': str(path), 'bytes': path.stat().st_size}
    if options.json:
        print(json.dumps({**fields, 'card': card}, indent=2))
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
    if card:
        print(f'card           {path.parent / "CARD.md"}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
