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
"""Command line: ``python -m hybrid_depth_training train | evaluate | export | describe ...``."""
from __future__ import annotations

import json
import logging
from pathlib import Path
import sys
from typing import Any

from jsonargparse import ArgumentParser

from hybrid_depth.errors import ConfigError, HybridDepthError
from hybrid_depth_training.config import TrainConfig
from hybrid_depth_training.overrides import put_deep, take_deep


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status (2 = the user's input was at fault)."""
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s', stream=sys.stderr,
                        datefmt='%H:%M:%S')
    try:
        rest, changes = take_deep(sys.argv[1:] if arguments is None else arguments)
        parser = make_parser()
        chosen = parser.parse_args(rest)
        if changes:
            if chosen.subcommand != 'train':
                raise ConfigError(f'--run.options is for train, not for {chosen.subcommand}')
            run = chosen.train.run
            run.options = put_deep(run.options or {}, changes)
        options = parser.instantiate(chosen)[chosen.subcommand]
        COMMANDS[chosen.subcommand](options)
    except HybridDepthError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


def make_parser() -> ArgumentParser:
    """Return the parser of all commands."""
    parser = ArgumentParser(prog='python -m hybrid_depth_training')
    commands = parser.add_subcommands()
    commands.add_subcommand('train', _train_parser(), help='train, or go on training, a model')
    commands.add_subcommand('export', _export_parser(),
                            help='turn a run into a model folder with its contract and card')
    commands.add_subcommand('describe', _describe_parser(),
                            help='print the size and cost of a network as JSON')
    commands.add_subcommand('kitti_truth', _kitti_truth_parser(),
                            help='make the raw ground truth of the KITTI Eigen split')
    commands.add_subcommand('evaluate', _evaluate_parser(),
                            help='measure on a drive, or score a folder by a protocol')
    commands.add_subcommand('score', _score_parser(),
                            help='score a model on a data set by a protocol, with and without '
                                 'words')
    commands.add_subcommand('ablate', _ablate_parser(),
                            help='train a grid of variants and compare them')
    commands.add_subcommand('clip_prior_ablation', _clip_prior_ablation_parser(),
                            help='train PixelFormer with and without language and compare')
    commands.add_subcommand('embed', _embed_parser(),
                            help='teach a model of kind clip_prior more words about scenes')
    commands.add_subcommand('accuracy', _accuracy_parser(),
                            help='measure everything that docs/accuracy.md shows')
    commands.add_subcommand('gpu_bench', _gpu_bench_parser(),
                            help='measure networks through torch on a GPU')
    return parser


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


def _describe_parser() -> ArgumentParser:
    parser = ArgumentParser(description='Print parameters and multiply-adds, in all and for each '
                                        'module, without weights or data.')
    parser.add_argument('recipe', type=Path, help='training YAML')
    return parser


def _kitti_truth_parser() -> ArgumentParser:
    parser = ArgumentParser(description='Project the LiDAR scans of KITTI raw as the published '
                                        'evaluation does (docs/evaluation.md).')
    parser.add_argument('raw', type=Path, help='root of KITTI raw, with a folder for each date')
    parser.add_argument('--split', type=Path, required=True, help='list of frames')
    parser.add_argument('--out', type=Path, required=True, help='folder to write')
    return parser


def _evaluate_parser() -> ArgumentParser:
    from hybrid_depth_training.protocols import PROTOCOLS
    parser = ArgumentParser(description=(
        'Measure models on every frame of a drive that has truth; or, with --pred and --gt, score '
        'a folder of predictions by a published protocol and print the figures as JSON '
        '(docs/evaluation.md).'))
    parser.add_argument('--json', type=Path | None, default=None, help='file for the figures')
    parser.add_argument('--markdown', type=Path | None, default=None, help='file for the table')
    drive = parser.add_argument_group('a drive')
    drive.add_argument('drive', type=str, nargs='?', help='drive with ground truth')
    drive.add_argument('--models', type=list[str], default=['compact'], help='models to measure')
    drive.add_argument('--prior_from', type=Path | None, default=None,
                       help='training YAML whose real streets make the position-only prior')
    drive.add_argument('--camera_height_m', type=float, default=1.65, help='of the flat ground')
    folders = parser.add_argument_group('two folders')
    folders.add_argument('--pred', type=Path | None, default=None,
                         help='folder of predicted depth, such as `hybrid_depth infer` writes')
    folders.add_argument('--gt', type=Path | None, default=None, help='folder of true depth')
    folders.add_argument('--protocol', default='kitti', choices=list(PROTOCOLS),
                         help='whose range of depth, crop and unit of PNG files are used')
    folders.add_argument('--no-scaling', action='store_true',
                         help='score metric depth as it is. Without it, under every protocol, '
                              'each prediction is multiplied by median truth / median prediction')
    folders.add_argument('--crop', type=str | None, default=None,
                         help="garg, garg_352, eigen or none; default: the protocol's own")
    folders.add_argument('--split', type=Path | None, default=None,
                         help='text file of the frames to score, such as the Eigen list')
    folders.add_argument('--pred_scale', type=float | None, default=None,
                         help='units per metre of the predictions; default: PNG 256 for kitti, '
                              '1000 for nyu and sun; npy and npz are metres')
    folders.add_argument('--gt_scale', type=float | None, default=None, help='the same of the '
                         'truth')
    folders.add_argument('--csv', type=Path | None, default=None, help='file for every image')
    folders.add_argument('--montage', type=Path | None, default=None,
                         help='picture of frames from the best to the worst')
    folders.add_argument('--images', type=Path | None, default=None,
                         help='folder of colour images for the montage')
    return parser


def _score_parser() -> ArgumentParser:
    from hybrid_depth_training.protocols import PROTOCOLS
    parser = ArgumentParser(description='Run an exported model on a data set and score it by a '
                                        'published protocol, unscaled; print the rows as JSON.')
    parser.add_argument('model', type=str, help='model folder, or a shipped name')
    parser.add_argument('--dataset', type=str, required=True,
                        help='nyu, sunrgbd, kitti_raw or another row of DATASETS')
    parser.add_argument('--path', type=str, required=True, help='folder of the data')
    parser.add_argument('--options', type=dict[str, Any], default={},
                        help='further arguments of the data set, such as '
                             '\'{"split_file": "list.txt"}\'')
    parser.add_argument('--captions', type=Path | None, default=None,
                        help="table of scene captions; default: the data set's own, if any")
    parser.add_argument('--protocol', required=True, choices=list(PROTOCOLS))
    parser.add_argument('--crop', type=str | None, default=None,
                        help="another of the protocol's crops")
    parser.add_argument('--prompt', type=str | None, default=None,
                        help="say this everywhere; default: the scene's caption, nothing, and "
                             'two wrong ones in turn')
    parser.add_argument('--flip', type=bool, default=True,
                        help='join the depth with that of the mirrored image, as published')
    parser.add_argument('--hold_out', type=float, default=1.0, help='measure this last share')
    parser.add_argument('--limit', type=int, default=0, help='frames at most; 0 = all')
    parser.add_argument('--json', type=Path | None, default=None, help='file for the rows')
    return parser


def _ablate_parser() -> ArgumentParser:
    parser = ArgumentParser(description='Train the variants of a grid and print what each part is '
                                        'worth; run the same command again to go on.')
    parser.add_argument('grid', type=Path, help='YAML file of stages and variants')
    parser.add_argument('--out', type=Path, required=True, help='JSON file for the rows')
    parser.add_argument('--runs', type=Path, default=Path('runs/ablation'),
                        help='folder for the run folders of the variants')
    return parser


def _clip_prior_ablation_parser() -> ArgumentParser:
    parser = ArgumentParser(description='Train the variants of a grid and measure each with the '
                                        "scene's caption, a wrong one and none; run the same "
                                        'command again to go on.')
    parser.add_argument('grid', type=Path, help='YAML file of the stage fit and of variants')
    parser.add_argument('--out', type=Path, required=True, help='JSON file for the rows')
    parser.add_argument('--runs', type=Path, default=Path('runs/clip_prior_ablation'),
                        help='folder for the run folders of the variants')
    parser.add_argument('--markdown', type=Path | None, default=None,
                        help='file whose table is brought up to date')
    return parser


def _embed_parser() -> ArgumentParser:
    parser = ArgumentParser(description='Add prompts to prompts.npz beside a model.')
    parser.add_argument('--model', type=Path, required=True, help='model folder')
    parser.add_argument('--prompts', type=list[str], required=True,
                        help='JSON list of sentences, such as \'["a greenhouse"]\'')
    parser.add_argument('--weights', type=str, default='',
                        help='file or name of the weights of the text tower, where those that the '
                             'model was trained with are not at hand')
    return parser


def _accuracy_parser() -> ArgumentParser:
    parser = ArgumentParser(description='Measure priors, plane sweep and models, side by side.')
    parser.add_argument('--street', type=str, required=True, help='drive with ground truth')
    parser.add_argument('--room', type=str, required=True,
                        help='indoor drive; its last 10 %% are measured')
    parser.add_argument('--models', type=list[str], default=[],
                        help='models to measure; default: all that are shipped')
    parser.add_argument('--prior_from', type=Path | None, default=None,
                        help='training YAML whose real frames make the position-only prior')
    parser.add_argument('--json', type=Path | None, default=None, help='file for the figures')
    parser.add_argument('--markdown', type=Path | None, default=None, help='file for the tables')
    return parser


def _gpu_bench_parser() -> ArgumentParser:
    parser = ArgumentParser(description='Measure latency through torch CUDA graphs against what '
                                        'the device can do.')
    parser.add_argument('models', type=Path, nargs='+',
                        help='run folders, or training YAML files (random weights)')
    parser.add_argument('--out', type=Path, default=Path('out/gpu_bench.json'))
    parser.add_argument('--device', default='cuda', help='cpu tries the code, not the speed')
    parser.add_argument('--size', type=tuple[int, int], default=(224, 672),
                        help='height and width')
    parser.add_argument('--sources', type=int, default=2, help='earlier frames that are matched')
    parser.add_argument('--frames', type=int, default=200, help='frames to measure')
    for name, text in (('half', 'in half precision'), ('compiled', 'through torch.compile too')):
        parser.add_argument(f'--{name}', type=bool | None, help=f'{text} (null: on CUDA)')
    parser.add_argument('--tuned', type=bool, default=False, help='and tuned, for minutes')
    return parser


def _gpu_bench(options: object) -> None:
    from hybrid_depth_training.gpu.bench import gpu_bench
    print(json.dumps(gpu_bench(options.models, options.out, device=options.device,
                               size=options.size, sources=options.sources,
                               frames=options.frames, is_half=options.half,
                               is_compiled=options.compiled, is_tuned=options.tuned), indent=1))


def _train(options: object) -> None:
    from hybrid_depth_training.train import train
    print(train(options.run, options.out, options.overfit))


def _export(options: object) -> None:
    from hybrid_depth_training.calibration import calibrate
    from hybrid_depth_training.deploy.export import export
    print(export(options.run, options.out, calibrate(options.calibrate_on or options.run)))


def _accuracy(options: object) -> None:
    from hybrid_depth_training.evaluation.accuracy import accuracy
    accuracy(options.street, options.room, options.models, options.prior_from, options.json,
             options.markdown)


def _describe(options: object) -> None:
    from hybrid_depth_training.evaluation.describe import describe_file
    print(json.dumps(describe_file(options.recipe), indent=1))


def _kitti_truth(options: object) -> None:
    from hybrid_depth_training.protocols.lidar import write_eigen_truth
    count = write_eigen_truth(options.raw, options.split, options.out)
    print(f'{count} frames written to {options.out}')


def _evaluate(options: object) -> None:
    if options.pred is None and options.gt is None:
        _only(options, FOLDER_OPTIONS, 'is for two folders; give --pred and --gt')
        if options.drive is None:
            raise ConfigError('nothing to evaluate; give a drive, or --pred DIR --gt DIR')
        from hybrid_depth_training.evaluation.evaluate import evaluate
        evaluate(options.drive, options.models, options.prior_from, options.camera_height_m,
                 options.json, options.markdown)
        return
    if options.pred is None or options.gt is None:
        raise ConfigError('--pred and --gt go together; give both folders')
    _only(options, DRIVE_OPTIONS, 'is for evaluating on a drive; leave out it, or --pred and --gt')
    from hybrid_depth_training.protocols.evaluate import evaluate_folders
    result = evaluate_folders(
        options.pred, options.gt, options.protocol, not options.no_scaling, options.crop,
        options.split, options.pred_scale, options.gt_scale, options.csv, options.markdown,
        options.montage, options.images)
    text = json.dumps(result, indent=1)
    print(text)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(text + '\n')


def _only(options: object, others: tuple[str, ...], why: str) -> None:
    """Raise ConfigError where an option of the other kind of evaluation was given."""
    parser = _evaluate_parser()
    for name in others:
        if getattr(options, name) != parser.get_default(name):
            raise ConfigError(f'{name} {why}')


DRIVE_OPTIONS = ('drive', 'models', 'prior_from', 'camera_height_m')
FOLDER_OPTIONS = ('protocol', 'no_scaling', 'crop', 'split', 'pred_scale', 'gt_scale', 'csv',
                  'montage', 'images')


def _score(options: object) -> None:
    from hybrid_depth_training.evaluation.score import score
    rows = score(options.model, options.dataset, options.path, options.protocol,
                 options=options.options, captions=options.captions, prompt=options.prompt,
                 crop=options.crop, flip=options.flip, hold_out=options.hold_out,
                 limit=options.limit, out=options.json)
    print(json.dumps(rows, indent=1))


def _ablate(options: object) -> None:
    from hybrid_depth_training.evaluation.ablation import ablate, table
    print(table(ablate(options.grid, options.runs, options.out)))


def _clip_prior_ablation(options: object) -> None:
    from hybrid_depth_training.evaluation.clip_prior_ablation import clip_prior_ablation, table
    print(table(clip_prior_ablation(options.grid, options.runs, options.out, options.markdown)))


def _embed(options: object) -> None:
    from hybrid_depth_training.deploy.embed import embed
    print('\n'.join(embed(options.model, options.prompts, options.weights).prompts))


COMMANDS = {
    'train': _train, 'export': _export, 'evaluate': _evaluate, 'kitti_truth': _kitti_truth,
    'gpu_bench': _gpu_bench, 'accuracy': _accuracy, 'ablate': _ablate, 'describe': _describe,
    'clip_prior_ablation': _clip_prior_ablation, 'embed': _embed, 'score': _score,
}

if __name__ == '__main__':
    sys.exit(main())
