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
"""The objective clip_prior: it learns, with words and without; its data, its table, its export."""
from dataclasses import replace
import json
from pathlib import Path

import numpy as np
import pytest
import tiny_data
import yaml

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from painted_plane import batch as painted_batch  # noqa: E402
from short_encoders import take_short  # noqa: E402

from hybrid_depth.camera import CameraModel  # noqa: E402
from hybrid_depth.config import PipelineConfig  # noqa: E402
from hybrid_depth.contract import read_spec  # noqa: E402
from hybrid_depth.errors import ConfigError  # noqa: E402
from hybrid_depth.pipeline import DepthPipeline  # noqa: E402
from hybrid_depth.scene_prompts import read_table, TABLE, write_table  # noqa: E402
from hybrid_depth.types import Frame  # noqa: E402
from hybrid_depth_training import checkpoint  # noqa: E402
from hybrid_depth_training.calibration import SigmaScale  # noqa: E402
from hybrid_depth_training.config import GroupConfig, SourceConfig  # noqa: E402
from hybrid_depth_training.data import load  # noqa: E402
from hybrid_depth_training.data.captions import (  # noqa: E402
    caption_of,
    captioned,
    NYU_SCENES,
    read_captions,
    SUN_SCENES,
    VOCABULARY,
)
from hybrid_depth_training.deploy import export as export_module  # noqa: E402
from hybrid_depth_training.deploy.embed import embed, make_table  # noqa: E402
from hybrid_depth_training.evaluation.clip_prior_ablation import (  # noqa: E402
    BEGIN,
    clip_prior_ablation,
    END,
    MEASURES,
    prompts,
    with_table,
)
from hybrid_depth_training.objectives import make_objective  # noqa: E402
from hybrid_depth_training.objectives.clip_prior import ClipPrior, TextTable  # noqa: E402
from hybrid_depth_training.objectives.supervised import SingleOptions  # noqa: E402
from hybrid_depth_training.train import train  # noqa: E402
from hybrid_depth_training.views import DataMix  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
NETWORK = {'backbone': 'efficientnet_lite0', 'backbone_weights': 'random', 'width': 16, 'bins': 16,
           'max_depth_m': 20.0, 'trca_width': 16, 'text_model': 'tiny'}


def options(**changes) -> dict:
    return {'clip_prior': {**NETWORK, **changes}, 'text_weights': 'random'}


def objective(**changes) -> ClipPrior:
    torch.manual_seed(0)
    made = make_objective('clip_prior', options(**changes), 1e-3, 1e-3, 10)
    assert isinstance(made, ClipPrior)
    return made


def batch(captions: list[str]) -> dict:
    one = painted_batch()
    size = len(one['image'])
    return {**one, 'caption': (captions * size)[:size]}


# ---------------------------------------------------------------------------------- learning


def test_training_lowers_the_error_on_what_is_held_back(tiny_config, tmp_path):
    table = tmp_path / 'captions.yaml'
    table.write_text("'*/0000': a near wall\n'*': a wall\n")
    config = tiny_config(objective='clip_prior', options=options(), steps=16, validate_every=8,
                         lr=3e-3, encoder_lr=1e-3, schedule='polynomial',
                         groups={'plane': GroupConfig(32, 64)})
    config = replace(config, sources=[replace(config.sources[0], captions=str(table))])
    train(replace(config, steps=1, validate_every=1), tmp_path / 'before')
    train(config, tmp_path / 'run')

    def last_silog(run: str) -> float:
        rows = [json.loads(line) for line in
                (tmp_path / run / 'metrics.jsonl').read_text().splitlines()]
        return [row['silog'] for row in rows if 'validation' in row][-1]
    assert last_silog('run') < 0.7 * last_silog('before')
    weights = checkpoint.load(checkpoint.newest(tmp_path / 'run'))[1]
    assert weights['network.trca.gamma'].abs().max() > 0  # the words are listened to
    assert not any(key.startswith('text') for key in weights)  # and their tower is not trained


def test_without_words_it_is_pixelformer_exactly():
    plain, told = objective(trca='none', tbcp=False), objective(trca='pooled', tbcp=False)
    own = told.network.state_dict()
    for key, value in plain.network.state_dict().items():
        if key != 'neutral_text':
            assert torch.equal(value, own[key]), key  # the same seed, the same start
    assert not plain.network.has_language
    one = batch(['a kitchen', 'a street'])
    plain.eval(), told.eval()
    with torch.no_grad():
        expected = plain.network(one['image'], one['K'])
        found = told.network(one['image'], one['K'], told.text_of(one['caption'], one['image']))
        assert torch.equal(found[0], expected[0])  # gamma is 0
        told.network.trca.gamma += 0.5
        other = told.network(one['image'], one['K'], told.text_of(one['caption'], one['image']))
    assert (other[0] - expected[0]).abs().max() > 1e-4


def test_order_of_prompts_and_images_does_not_matter():
    told = objective().eval()
    with torch.no_grad():
        told.network.trca.gamma += 1.0
        told.network.widths.gate.bias -= 4.0  # listens to the words more than at the start
        told.network.widths.mlp[-1].weight *= 20.0
        image = batch([''])['image'][:1].expand(3, -1, -1, -1)
        K = batch([''])['K'][:1].expand(3, -1, -1)
        captions = ['a kitchen', 'a street', 'an office']
        depth = told.network(image, K, told.text_of(captions, image))[0]
        turned = told.network(image, K, told.text_of(captions[::-1], image))[0]
    assert torch.allclose(turned, depth.flip(0), atol=1e-4)
    assert (depth[0] - depth[1]).abs().max() > 5e-4


def test_captions_are_dropped_to_the_neutral_one_as_often_as_told(monkeypatch):
    told = objective()
    said: list[str] = []
    monkeypatch.setattr(told, 'text_of', lambda captions, image: said.extend(captions))
    monkeypatch.setattr(told.network, 'forward', lambda image, K, text: (
        torch.zeros(image.shape[0], 1, *image.shape[1:3], requires_grad=True), None))
    torch.manual_seed(0)
    one = batch(['a kitchen'])
    for step in range(150):
        told.loss(one, step)
    assert 0.2 < said.count('') / len(said) < 0.4
    assert set(said) == {'', 'a kitchen'}


def test_text_is_computed_once_for_each_prompt(monkeypatch):
    from hybrid_depth_training.objectives import clip_prior
    asked = []
    rows = clip_prior.text_rows
    monkeypatch.setattr(clip_prior, 'text_rows', lambda new, *more: (
        asked.append(new), rows(new, *more))[1])
    table = TextTable('tiny', 'random', 0, 'a scene')
    first = table(['a kitchen', '', 'a ship'])
    assert torch.equal(table(['a ship', 'a scene']), first[[2, 1]])
    assert len(asked) == 1
    assert set(VOCABULARY) < set(asked[0])
    table(['a tent'])
    assert asked[1][0] == 'a tent'


def test_truth_out_of_reach_is_left_out():
    told = objective()
    depth = torch.tensor([0.05, 0.2, 19.0, 25.0, float('inf'), float('nan')]).view(1, 1, 1, 6)
    assert torch.isfinite(told.truth({'depth_m': depth})).flatten().tolist() == \
        [False, True, True, False, False, False]


def test_held_encoder_stays_and_is_not_given_to_the_optimizer():
    torch.manual_seed(0)
    told = make_objective('clip_prior', {**options(), 'hold_encoder': True}, 1e-3, 1e-3, 10)
    assert not any(module.training for module in told.train().network.pyramid.modules())
    assert len(told.parameter_groups()) == 1
    with pytest.raises(ConfigError, match='expected backbone hybrid'):
        make_objective('clip_prior', {**options(), 'encoder_from': 'runs/x'}, 1e-3, 1e-3, 10)


def test_bins_can_be_refined_by_odometry(tmp_path):
    """A run of clip_prior gives the single frame of a run of posed, with its neutral words."""
    told = objective()
    checkpoint.save(tmp_path, 1, told.state_dict(), {}, {})
    posed = make_objective('posed', {'network': 'clip_prior', 'clip_prior': NETWORK,
                                     'single_from': str(tmp_path)}, 1e-3, 1e-4, 10)
    single = posed.network.single
    assert torch.equal(single.neutral_text, told.text([''])[0][None])
    one = batch([''])
    told.eval(), posed.eval()
    with torch.no_grad():
        expected = told.network.single_frame(one['image'], one['K'], told.text_of(
            [''] * len(one['image']), one['image']))
        assert torch.allclose(single.single_frame(one['image'], one['K']).log_depth,
                              expected.log_depth, atol=1e-5)
    with pytest.raises(ConfigError, match='clip_prior'):
        SingleOptions(network='vgg').build()


# ---------------------------------------------------------------------------------------- data


def test_captions_by_pattern(tmp_path):
    tiny_data.WRITERS['nyu'](tmp_path)
    table = tmp_path / 'captions.yaml'
    table.write_text("'kitchen/*': a kitchen\n'*': somewhere\n")
    recordings = load('nyu', str(tmp_path))
    told = [captioned(recording, read_captions(table))[0] for recording in recordings]
    assert {sample.name.split('/')[0]: sample.caption for sample in told} == {
        'kitchen': 'a kitchen', 'bath': 'somewhere'}
    with pytest.raises(ConfigError, match='no caption fits bath'):
        _ = [captioned(recording, {'kitchen*': 'x'})[0] for recording in recordings]
    for content in ('- a\n', "'a': 3\n", ': [', ''):
        table.write_text(content)
        with pytest.raises(ConfigError):
            read_captions(table)


def test_shipped_captions_are_of_scenes_in_the_vocabulary(tmp_path):
    nyu = read_captions(ROOT / 'config' / 'captions' / 'nyu.yaml')
    assert set(nyu.values()) == {caption_of(label) for label in NYU_SCENES} | {'a scene'}
    tiny_data.WRITERS['nyu'](tmp_path)
    recording = load('nyu', str(tmp_path))[0]
    # two folders of the data set are not called by their label
    spelled = {label: caption_of(label) for label in NYU_SCENES} | {
        'excercise_room': 'an exercise room', 'nyu_office': 'an office'}
    for folder, caption in spelled.items():
        for name in (f'{folder}_0012', folder):  # of training, of the official test set
            named = captioned(replace(recording, name=f'{name}/rgb_00001'), nyu)
            assert named[0].caption == caption, name
    for table in ('rooms', 'kitti'):
        said = read_captions(ROOT / 'config' / 'captions' / f'{table}.yaml')
        assert set(said.values()) <= {*VOCABULARY, 'a scene'}


def test_vocabulary_has_rooms_streets_and_nature_in_plain_english():
    assert len(set(VOCABULARY)) == len(VOCABULARY) > 90
    for sentence in ('an office corridor', 'a warehouse', 'a hospital corridor', 'an orchard',
                     'a residential street', 'a forest', 'a construction site', 'stairs',
                     'an indoor scene', 'an outdoor scene'):
        assert sentence in VOCABULARY
    for sentence in VOCABULARY:
        article, _, rest = sentence.partition(' ')
        assert '_' not in sentence
        assert sentence in ('stairs', 'crossroads') or article == (
            'an' if rest[0] in 'aeiou' else 'a')
    assert (caption_of('idk'), caption_of('')) == ('', '')
    assert caption_of('office_dining') in VOCABULARY
    assert 'an office dining' not in VOCABULARY


def test_sun_rgbd_gives_scene_labels_and_exact_depth(tmp_path):
    tiny_data.WRITERS['sunrgbd'](tmp_path)
    recordings = load('sunrgbd', str(tmp_path))
    assert [recording.name for recording in recordings] == ['kv1/NYUdata/NYU0001',
                                                            'xtion/sun3ddata/room/0002']
    sample = recordings[1][0]
    assert sample.caption == 'an office kitchen'
    assert np.isnan(sample.depth_m[:, 0]).all()
    np.testing.assert_allclose(sample.depth_m[:, 1:], tiny_data.depth_map(1)[:, 1:], atol=6e-4)
    split = tmp_path / 'list.txt'
    split.write_text('SUNRGBD/kv1/NYUdata/NYU0001\n')
    (only,) = load('sunrgbd', str(tmp_path), split_file=str(split))
    assert only.name == 'kv1/NYUdata/NYU0001'


def test_sun_rgbd_is_learned_from_with_its_own_labels(tiny_config, tmp_path, monkeypatch):
    tiny_data.WRITERS['sunrgbd'](tmp_path)
    config = tiny_config(objective='clip_prior', options=options(), batch=4, groups={
        'plane': GroupConfig(32, 64)})
    config = replace(config, sources=[SourceConfig('sunrgbd', str(tmp_path), 'plane',
                                                   hold_out=0.0)])
    told, said = objective(), []
    monkeypatch.setattr(told, 'text', lambda captions, text=told.text: (
        said.extend(captions), text(captions))[1])
    torch.manual_seed(0)
    told.loss(DataMix(config).batch(0), 0)['loss'].backward()
    assert set(said) <= {'', 'an office kitchen'}
    assert 'an office kitchen' in said
    assert any(p.grad is not None and p.grad.abs().max() > 0
               for p in told.network.trca.parameters())
    assert {caption_of(label) for label in SUN_SCENES} <= set(make_table(config).prompts)


# ----------------------------------------------------------------------- table and export


def test_embedding_more_prompts(tiny_config, tmp_path):
    config = tiny_config(objective='clip_prior', options=options())
    table = make_table(config)
    assert table.prompts[:2] == ('a scene', 'a basement')
    write_table(tmp_path / TABLE, table)
    more = embed(tmp_path, ['a greenhouse', 'a kitchen'])
    assert more.prompts == (*table.prompts, 'a greenhouse')
    assert read_table(tmp_path / TABLE).prompts == more.prompts
    np.testing.assert_allclose(more.find('a kitchen'), table.find('a kitchen'), atol=1e-6)
    assert np.linalg.norm(more.find('a greenhouse')) == pytest.approx(1.0, rel=1e-5)
    write_table(tmp_path / TABLE, replace(table, features=np.roll(table.features, 1, axis=0)))
    with pytest.raises(ConfigError, match='other features'):
        embed(tmp_path, ['a greenhouse'])
    with pytest.raises(ConfigError, match='one or more'):
        embed(tmp_path, [' '])
    elsewhere = replace(table, text_weights='/home/me/clip.pt')  # where the model was trained
    write_table(tmp_path / TABLE, elsewhere)
    with pytest.raises(ConfigError, match=r'clip\.pt.*give it with --weights'):
        embed(tmp_path, ['a greenhouse'])
    assert 'a greenhouse' in embed(tmp_path, ['a greenhouse'], 'random').prompts


@pytest.mark.slow
def test_exported_model_takes_words_as_torch_does(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, '_GOLDEN_SIZES', ((96, 160), (64, 96)))
    take_short(monkeypatch)
    told = objective(language_range=True)
    with torch.no_grad():
        told.network.trca.gamma += 0.5
        told.network.range.weight.weight += 0.1 * torch.randn(1, 64)
    config = tiny_config(objective='clip_prior',
                         options=options(language_range=True), deploy_pixels=64 * 96)
    checkpoint.save(tmp_path / 'run', 3, told.state_dict(), {}, {})
    (tmp_path / 'run' / 'metrics.jsonl').write_text('')
    monkeypatch.setattr(export_module, 'load_config', lambda run: config)
    path = export_module.export(tmp_path / 'run', tmp_path / 'model', SigmaScale(1.5))
    spec = read_spec(path)
    assert (spec.kind, spec.text_dim, spec.max_depth_m) == ('clip_prior', 64, 40.0)
    assert 'random text tower' in json.loads((path.parent / 'card.json').read_text())['encoder']

    camera = CameraModel(96, 64, 90.0, 90.0, 47.5, 31.5)
    image = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    pipeline = DepthPipeline(PipelineConfig(model=str(path), max_depth_m=39.0))
    K = torch.from_numpy(camera.K.astype(np.float32))[None]
    told.eval()
    try:
        for prompt in ('', 'a kitchen', 'a motorway'):
            pipeline.configure(pipeline.config.updated({'scene_prompt': prompt}))
            found = pipeline.run(Frame(image, 0, 'camera', camera, None)).depth_m
            shown = torch.from_numpy(image)[None]
            with torch.no_grad():
                expected = told.network(shown, K, told.text_of([prompt], shown))[0].exp()[0, 0]
            np.testing.assert_allclose(found, expected, rtol=2e-4)
    finally:
        pipeline.close()


# -------------------------------------------------------------------------------- ablation


def test_ablation_measures_every_prompt_and_goes_on(tiny_drive, tmp_path):
    table = tmp_path / 'captions.yaml'
    table.write_text("'*/0004': a kitchen\n'*': an office\n")
    stage = {
        'name': 'tiny', 'licence': 'Apache-2.0', 'objective': 'clip_prior', 'steps': 1, 'batch': 2,
        'options': options(trca='none', tbcp=False), 'threads': 1, 'validate_every': 1,
        'groups': {'plane': {'height': 32, 'width': 64}}, 'checkpoint_every': 1,
        'sources': [{'dataset': 'drive', 'path': str(tiny_drive), 'group': 'plane',
                     'hold_out': 0.34, 'captions': str(table)}]}
    grid = tmp_path / 'grid.yaml'
    both = {'fit': {'options': {'clip_prior': {'trca': 'pooled', 'tbcp': True}}}}
    grid.write_text(yaml.safe_dump({'stages': {'fit': stage},
                                    'variants': {'baseline': {}, 'both': both}}))
    doc = tmp_path / 'doc.md'
    doc.write_text(f'before\n{BEGIN}\nold\n{END}\nafter\n')
    out = tmp_path / 'rows.json'
    rows = clip_prior_ablation(grid, tmp_path / 'runs', out, doc)
    assert json.loads(out.read_text()) == rows
    assert [(row['name'], row['prompt']) for row in rows] == [
        ('baseline', '-'), ('both', 'scene'), ('both', 'neutral'),
        ('both', 'never learned: a motorway'), ('both', 'wrong: of another scene')]
    assert all(row['frames'] == 2 and 0 <= row['d1'] <= row['d2'] <= row['d3'] <= 1
               for row in rows)
    assert all(set(MEASURES) < set(row) for row in rows)
    assert rows[1]['rmse'] != rows[4]['rmse']
    text = doc.read_text()
    assert text.startswith('before\n')
    assert text.endswith(f'{END}\nafter\n')
    assert 'Random text tower' in text
    assert 'old' not in text
    trained = (tmp_path / 'runs' / 'both' / 'fit' / 'metrics.jsonl').stat().st_mtime_ns
    assert clip_prior_ablation(grid, tmp_path / 'runs', out) == rows
    assert (tmp_path / 'runs' / 'both' / 'fit' / 'metrics.jsonl').stat().st_mtime_ns == trained
    with pytest.raises(ConfigError, match='no place'):
        with_table('nothing', rows)


def test_wrong_prompts_are_wrong_for_every_scene():
    ways = prompts(['a kitchen', 'a street', 'an office'])
    for caption in ('a kitchen', 'a street', 'an office'):
        assert ways['wrong: of another scene'](caption) not in (caption, '')
        assert ways['scene'](caption) == caption
        assert ways['neutral'](caption) == ''
    assert 'wrong: of another scene' not in prompts(['a kitchen'])


def test_shipped_grid_is_of_this_kind():
    from hybrid_depth_training.evaluation.ablation import read_grid, resolve
    stages, variants = read_grid(ROOT / 'config' / 'training' / 'clip_prior_ablation.yaml')
    assert set(stages) == {'fit'}
    networks = {name: resolve(name, stages, variants)['fit'][1].options['clip_prior']
                for name in variants}
    assert {name: (network['trca'], network['tbcp']) for name, network in networks.items()} == {
        'baseline': ('none', False), 'baseline, another seed': ('none', False),
        '+ TRCA': ('pooled', False), '+ TBCP': ('none', True), 'both': ('pooled', True)}
    assert isinstance(SourceConfig('drive', 'x', 'room').captions, str)
