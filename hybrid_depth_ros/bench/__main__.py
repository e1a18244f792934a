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
Measure the node and write out/bench.json and docs/performance.md.

Exit status 0 when all was measured that can be here, 1 when a measurement failed, 2 when it could
not be tried.
"""
from __future__ import annotations

import argparse
from dataclasses import asdict
import json
import os
from pathlib import Path
import sys
import time
from typing import Any

from hybrid_depth.contract import read_spec
from hybrid_depth.errors import HybridDepthError
from hybrid_depth.models import find_model
from hybrid_depth.runtime import BackendOptions, rows_of, why_not
from hybrid_depth_ros.bench import end_to_end, machine, messages, runtimes, stages
from hybrid_depth_ros.bench.frames import camera, images, resolution, street_views
from hybrid_depth_ros.bench.null_runtime import NullBackend
from hybrid_depth_ros.bench.peak import gemm_gflops, peak
from hybrid_depth_ros.bench.plan import Plan, quick
from hybrid_depth_ros.bench.report import markdown
from hybrid_depth_ros.demo import isolated_environment
from hybrid_depth_ros.processes import signals_as_exceptions, Stopped

GPU = ('not run: this command measures CPUs. python -m hybrid_depth_training gpu_bench '
       'measures a GPU through torch, where there is one')


def bench(plan: Plan, out: Path) -> dict[str, Any]:
    """Measure everything; see the module. Raises HybridDepthError."""
    start = time.monotonic()
    environment = isolated_environment(dict(os.environ))
    os.environ.update(environment)  # this process is the camera, on the same domain
    found: dict[str, Any] = {'config': asdict(plan), 'commit': machine.commit(),
                             'versions': machine.all_versions(), 'device': machine.device()}
    views = street_views()
    say('through real processes, with the model')
    real = end_to_end.measure(plan, plan.backend, environment, out / 'model', views, plan.sizes,
                              with_idle=True)
    say('through real processes, with a model that takes no time')
    null_sizes = plan.sizes if plan.all_sizes_streamed else (plan.main_size,)
    null = end_to_end.measure(plan, 'null', environment, out / 'null', views, null_sizes,
                              with_idle=False)
    main = resolution(plan.main_size)
    found |= {
        'node_overhead_ms': {size: {key: row['overhead_ms'][key] for key in ('p50', 'p95')}
                             for size, row in real['sizes'].items()},
        'idle_cpu_percent': real['idle']['cpu_percent'],
        'overload_latency_ratio': real['sizes'][main].get('overload', {}).get('latency_ratio'),
        'end_to_end': {'model': real, 'null': null}}
    say('stage by stage')
    found |= in_process(plan, views, out)
    options = BackendOptions(plan.cpu_threads)
    chosen = next(row for row in rows_of(plan.backend) if not why_not(row, options))
    found['stages'] = {plan.model: {chosen: node_stages(real), 'null': node_stages(null)}}
    found['not_run'] = not_run(found)
    found['seconds'] = round(time.monotonic() - start, 1)
    return found


def not_run(found: dict[str, Any]) -> dict[str, str]:
    """Return what could not be measured here, and why."""
    answers = {'GPU': GPU, 'cv_bridge': found['messages']['cv_bridge'],
               'growth with earlier frames': found['growth']['sources'],
               **found['backends']['rows']}
    if isinstance(found['backends_wide'], str):
        answers['the network of the publication'] = found['backends_wide']
    int8 = found['int8_mix']
    answers |= {'in 8 bits': int8} if isinstance(int8, str) else {
        f'in 8 bits: {name}': answer for name, answer in int8['rows'].items()}
    return {name: answer for name, answer in answers.items() if isinstance(answer, str)}


def node_stages(run: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """Return median ms of each stage in the node, by the size of the camera."""
    return {size: {'take': row['take_ms']['p50'],
                   **{name: values['p50'] for name, values in row['stages_ms'].items()}}
            for size, row in run['sizes'].items()}


def in_process(plan: Plan, views: list[Any], out: Path) -> dict[str, Any]:
    """Measure what needs no middleware."""
    path = find_model(plan.model)
    spec = read_spec(path)
    pictures = {size: images(views[:1], size)[0] for size in plan.sizes}
    picture, view = pictures[plan.main_size], camera(plan.main_size)
    depth_m = NullBackend(spec, (view.height, view.width)).infer({})['depth'][0, 0]
    alone = {resolution(size): stages.stage_times(spec, image, plan.work_s)
             for size, image in pictures.items()}
    found: dict[str, Any] = {
        'stages_alone': alone,
        'stages_with_poses': {f'{plan.model}/{plan.backend}': stages.pipeline_times(
            plan.model, plan.backend, plan.cpu_threads, plan.pipeline_frames)}}
    found['messages'] = messages.conversions(picture, depth_m, plan.work_s)
    found['clouds'] = messages.clouds(view, picture, depth_m, plan.work_s)
    say('runtimes against each other')
    gemm = [gemm_gflops(path, plan.cpu_threads, plan.work_s)]
    found['backends'] = runtimes.runtimes(plan.model, plan.main_size, plan.cpu_threads,
                                          plan.backend_s, plan.precisions)
    found['backends_large'] = runtimes.runtimes(
        plan.large_model, plan.main_size, plan.cpu_threads, plan.backend_s,
        ('fp32',)) if plan.large_model else None
    found['backends_wide'] = runtimes.untrained(
        plan.wide_recipe, plan.main_size, plan.cpu_threads, plan.backend_s,
        out / 'wide') if plan.wide_recipe else None
    timed = [run for run in (found['backends'], found['backends_large'], found['backends_wide'])
             if isinstance(run, dict)]
    # the machine may have been busy at any of these times
    gemm += [row['gemm'] for run in timed for row in run['rows'].values() if isinstance(row, dict)]
    found['gemm_gflop_per_s'], found['gemm'] = peak(*gemm)
    found['ort_fp32_share_of_peak'] = shares_of_peak(*timed)
    found |= in_8_bits(plan, out / 'int8')
    say('growth')
    found['growth'] = {
        'resolution': growth_with_resolution(alone),
        'sources': runtimes.growth_with_sources(plan.model, plan.main_size, plan.cpu_threads,
                                                plan.backend_s),
        'cameras': runtimes.growth_with_cameras(plan.model, plan.backend, plan.cpu_threads,
                                                picture, plan.cameras, plan.backend_s)}
    return found


def shares_of_peak(*timed: dict[str, Any]) -> dict[str, float | None]:
    """Return the share that ONNX Runtime has in fp32, by model; None where it was not timed."""
    rows = {run['model']: run['rows'].get('ort/fp32') for run in timed}
    return {model: row['share_of_peak'] if isinstance(row, dict) else None
            for model, row in rows.items()}


def in_8_bits(plan: Plan, folder: Path) -> dict[str, Any]:
    """Measure int8_mix of the large model, which is quantised for it."""
    int8: dict[str, Any] | str = 'not run: a quick look quantises no model'
    if plan.large_model:
        say('8 bits')
        int8 = runtimes.int8_mix(plan.large_model, plan.main_size, plan.cpu_threads,
                                 plan.backend_s, folder, plan.int8_frames)
    ratio = None if isinstance(int8, str) else int8['over_openvino_fp32']
    return {'int8_mix': int8, 'int8_mix_over_openvino_fp32': ratio}


def growth_with_resolution(alone: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Return each stage's cost over that at the first size, and the ratio of pixels."""
    sizes = list(alone)
    pixels = {size: int.__mul__(*map(int, size.split('x'))) for size in sizes}
    return {size: {'pixels': round(pixels[size] / pixels[sizes[0]], 2),
                   **{name: round(ms / alone[sizes[0]][name], 2)
                      for name, ms in alone[size].items()}} for size in sizes}


def say(text: str) -> None:
    """Tell what is being done."""
    print(f'[bench] {text}', flush=True)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return what to measure and where to write it."""
    parser = argparse.ArgumentParser(prog='python -m hybrid_depth_ros.bench',
                                     description='Measure how fast the node is.')
    parser.add_argument('--quick', action='store_true', help='a rough look, within a minute')
    parser.add_argument('--model', default=Plan.model, help='shipped model, or an .onnx file')
    parser.add_argument('--backend', default=Plan.backend, help='runtime of the node')
    parser.add_argument('--cpu-threads', type=int, default=Plan.cpu_threads)
    parser.add_argument('--json', type=Path, default=Path('out/bench.json'), help='figures')
    parser.add_argument('--markdown', type=Path, default=None,
                        help='report; default docs/performance.md, with --quick none')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure and write; see the module for the exit status."""
    arguments = parse_arguments(argv)
    chosen = (arguments.model, arguments.backend, arguments.cpu_threads)
    plan = quick(*chosen) if arguments.quick else Plan(*chosen)
    try:
        with signals_as_exceptions():
            found = bench(plan, arguments.json.parent / 'bench')
    except HybridDepthError as error:
        print(f'bench: {error}', file=sys.stderr)
        return 1
    except (KeyboardInterrupt, Stopped) as stopped:
        print(f'bench: stopped ({stopped})', file=sys.stderr)
        return 130
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(found, indent=1) + '\n')
    report = arguments.markdown
    if report is None and not arguments.quick:
        report = Path('docs/performance.md')
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(markdown(found))
    say(f'{arguments.json} written after {found["seconds"]:.0f} s'
        + (f', and {report}' if report else ''))
    return 0


if __name__ == '__main__':
    sys.exit(main())
