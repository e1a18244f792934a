# Copyright 2026 The hybrid_depth_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Command line: ``python -m hybrid_depth_training train | evaluate | export``."""
from __future__ import annotations

import logging
from pathlib import Path
import sys

from jsonargparse import ArgumentParser

from hybrid_depth.errors import HybridDepthError
from hybrid_depth_training.config import TrainConfig


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status (2 = the user's input was at fault)."""
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s', stream=sys.stderr,
                        datefmt='%H:%M:%S')
    parser = ArgumentParser(prog='python -m hybrid_depth_training')
    commands = parser.add_subcommands()
    commands.add_subcommand('train', _train_parser(), help='train, or go on training, a model')
    commands.add_subcommand('export', _export_parser(),
                            help='turn a run into a model folder with its contract and card')
    commands.add_subcommand('evaluate', _evaluate_parser(),
                            help='measure models and priors on a drive with ground truth')
    chosen = parser.parse_args(arguments)
    options = parser.instantiate(chosen)[chosen.subcommand]
    try:
        COMMANDS[chosen.subcommand](options)
    except HybridDepthError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


def _train_parser() -> ArgumentParser:
    parser = ArgumentParser(description='Train a model; run the same command again to go on.')
    parser.add_class_arguments(TrainConfig, 'run', help='YAML file; --run.KEY overrides a key')
    parser.add_argument('--out', type=Path, required=True, help='folder of the run')
    parser.add_argument('--overfit', type=bool, default=False,
                        help='train and validate on the first batch only')
    return parser


def _export_parser() -> ArgumentParser:
    parser = ArgumentParser(description='Export the newest checkpoint of a run to ONNX.')
    parser.add_argument('run', type=Path, help='folder of the run')
    parser.add_argument('--out', type=Path, required=True, help='model folder to write')
    parser.add_argument('--calibrate_on', type=Path | None, default=None,
                        help='run whose held-out frames say how sigma is scaled; best one of the '
                             'same recipe that holds out a whole scene. Default: this run')
    return parser


def _evaluate_parser() -> ArgumentParser:
    parser = ArgumentParser(description='Measure on every frame of a drive that has truth.')
    parser.add_argument('drive', type=str, help='drive with ground truth')
    parser.add_argument('--models', type=list[str], default=['compact'], help='models to measure')
    parser.add_argument('--prior_from', type=Path | None, default=None,
                        help='training YAML whose real streets make the position-only prior')
    parser.add_argument('--camera_height_m', type=float, default=1.65, help='of the flat ground')
    parser.add_argument('--json', type=Path | None, default=None, help='file for the figures')
    parser.add_argument('--markdown', type=Path | None, default=None, help='file for the table')
    return parser


def _train(options: object) -> None:
    from hybrid_depth_training.train import train
    print(train(options.run, options.out, options.overfit))


def _export(options: object) -> None:
    from hybrid_depth_training.export import calibrate, export
    print(export(options.run, options.out, *calibrate(options.calibrate_on or options.run)))


def _evaluate(options: object) -> None:
    from hybrid_depth_training.evaluate import evaluate
    evaluate(options.drive, options.models, options.prior_from, options.camera_height_m,
             options.json, options.markdown)


COMMANDS = {'train': _train, 'export': _export, 'evaluate': _evaluate}

if __name__ == '__main__':
    sys.exit(main())
