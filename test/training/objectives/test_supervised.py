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
"""What the supervised objectives learn from, and what they leave as it is."""
import math
from pathlib import Path

import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from painted_plane import batch as painted_batch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

from hybrid_depth.errors import ConfigError  # noqa: E402
from hybrid_depth_training import checkpoint, losses  # noqa: E402
from hybrid_depth_training.models.compact import SingleFrame  # noqa: E402
from hybrid_depth_training.objectives import (  # noqa: E402
    make_objective,
    Objective,
    supervised,
)

NAN, INF = float('nan'), float('inf')
RANDOM = {'weights': 'random'}


def posed(**options) -> Objective:
    torch.manual_seed(0)
    return make_objective('posed', {**RANDOM, **options}, 1e-3, 1e-4, 100)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def save(run: Path, objective: Objective) -> str:
    """Leave a checkpoint of ``objective`` as a run does; return the run's folder."""
    checkpoint.save(run, 5, objective.state_dict(), {}, {})
    return str(run)


def awake(objective: Objective) -> Objective:
    """Make every weight differ from where it starts."""
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return objective


# --------------------------------------------------------------------- errors that are put in


def many(batch: int = 400) -> SingleFrame:
    return SingleFrame(torch.full((batch, 1, 32, 80), 2.0), torch.full((batch, 1, 32, 80), -2.0),
                       [])


def test_doubt_is_as_large_as_documented():
    single = many()
    found = supervised.doubted(single, 1.0, generator())
    error = found.log_depth - 2.0
    # of scale, slope and regions, times a factor drawn evenly from 0.3 to 2
    largest = math.sqrt(0.20**2 + 0.16**2 + 0.14**2 + 0.12**2)
    assert 0.6 * largest < float(error.square().mean().sqrt()) < 1.25 * largest
    spread = error.square().mean((1, 2, 3)).sqrt()
    assert spread.quantile(0.1) < 0.12
    assert spread.quantile(0.9) > 0.3
    assert error.mean().abs() < 0.05
    # smooth: neighbours are wrong together
    assert (error[..., 1:] - error[..., :-1]).abs().mean() < 0.2 * error.abs().mean()
    # the uncertainty grows by a factor of 1 to 3, the same all over an image
    factor = (found.log_b + 2.0).exp()
    assert 1 <= float(factor.min()) < 1.05
    assert 2.9 < float(factor.max()) <= 3 + 1e-5
    assert torch.equal(factor.amin((1, 2, 3)), factor.amax((1, 2, 3)))
    # drawn apart from the error
    both = torch.stack([spread, factor[:, 0, 0, 0]])
    assert abs(float(torch.corrcoef(both)[0, 1])) < 0.2


def test_doubt_has_strength_and_is_drawn_from_its_generator_alone():
    single = many(2)
    half, whole, again, other = (
        supervised.doubted(single, strength, generator(seed))
        for strength, seed in ((0.5, 1), (1.0, 1), (1.0, 1), (1.0, 2)))
    assert (single.log_depth == 2.0).all()
    assert (single.log_b == -2.0).all()
    torch.testing.assert_close(2 * (half.log_depth - 2), whole.log_depth - 2)
    assert torch.equal(whole.log_depth, again.log_depth)
    assert torch.equal(whole.log_b, again.log_b)
    assert not torch.allclose(whole.log_depth, other.log_depth)
    none = supervised.doubted(single, 0.0, generator())
    assert torch.equal(none.log_depth, single.log_depth)
    assert torch.equal(none.log_b, single.log_b)


def motions(batch: int = 500) -> torch.Tensor:
    """Return motions, (B, 2, 4, 4), of 5 m, and of none, with a turn."""
    matrix = torch.eye(4).repeat(batch, 2, 1, 1)
    c, s = math.cos(0.3), math.sin(0.3)
    matrix[..., :3, :3] = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    matrix[:, 0, :3, 3] = torch.tensor([3.0, 0.0, -4.0])
    return matrix


def test_shaken_motions_stay_rigid_and_err_as_documented():
    before = motions()
    kept = before.clone()
    after = supervised.shaken(before, 0.5, 0.01, generator())
    assert torch.equal(before, kept)
    R = after[..., :3, :3]
    torch.testing.assert_close(R @ R.mT, torch.eye(3).expand_as(R), atol=1e-5, rtol=0)
    assert torch.allclose(torch.linalg.det(R), torch.tensor(1.0), atol=1e-5)
    assert torch.equal(after[..., 3, :], before[..., 3, :])
    turn = R @ before[..., :3, :3].mT
    axis = torch.stack([turn[..., 2, 1] - turn[..., 1, 2], turn[..., 0, 2] - turn[..., 2, 0],
                        turn[..., 1, 0] - turn[..., 0, 1]], dim=-1) / 2
    # a standard deviation about each axis
    for deviation in axis.flatten(0, 1).std(0).rad2deg():
        assert float(deviation) == pytest.approx(0.5, rel=0.1)
    slip = after[:, 0, :3, 3] - before[:, 0, :3, 3]
    for deviation in slip.std(0):
        assert float(deviation) == pytest.approx(0.01 * 5.0, rel=0.15)
    assert (after[:, 1, :3, 3] == 0).all()  # who did not move does not slip


def test_unshaken_motions_are_those_that_were_given():
    torch.testing.assert_close(supervised.shaken(motions(3), 0.0, 0.0, generator()), motions(3))


# --------------------------------------------------------------------- truth at stride 4


def cell(*values: float, others: float = NAN) -> torch.Tensor:
    flat = torch.full((16,), others)
    flat[:len(values)] = torch.tensor(values)
    return flat[torch.randperm(16, generator=generator())].view(1, 1, 4, 4)


@pytest.mark.parametrize(('depth', 'expected'), [
    (cell(others=8.0), 8.0),
    (cell(5.0), 5.0),  # a single return
    (cell(4.0, 4.4, 4.8), math.sqrt(4.0 * 4.8)),  # one surface: the middle of its range
    (cell(4.0, 9.0, 9.1, 9.2), 4.0),  # an edge: the nearest
    (cell(4.0, 4.1, 9.0, others=9.1), 4.0),
    (cell(6.0, INF, INF), 6.0),  # before the sky
    (cell(), NAN), (cell(others=INF), NAN), (cell(INF, INF), NAN)])
def test_truth_of_a_cell(depth, expected):
    found = supervised.at_stride_4(depth)
    assert found.shape == (1, 1, 1, 1)
    assert float(found) == pytest.approx(math.log(expected), abs=1e-5, nan_ok=True)


def test_truth_of_cells_keeps_their_places():
    depth = torch.full((2, 1, 8, 12), NAN)
    depth[1, 0, 5, 10] = 3.0
    found = supervised.at_stride_4(depth)
    assert found.shape == (2, 1, 2, 3)
    assert torch.isfinite(found).nonzero().tolist() == [[1, 0, 1, 2]]


# --------------------------------------------------------------------- figures


def test_figures_by_hand():
    truth = torch.tensor([10.0, 10.0, 10.0, NAN, INF, 90.0]).view(1, 1, 1, 6)
    depth = torch.tensor([10.0, 12.0, 20.0, 1.0, 1.0, 1.0]).view(1, 1, 1, 6)
    log_b = torch.full_like(depth, math.log(0.2 / losses.SIGMA_PER_B))  # sigma = 0.2 depth
    found = supervised.depth_figures(depth.log(), log_b, truth)
    assert found == pytest.approx({'abs_rel': (0 + 0.2 + 1.0) / 3, 'd1': 2 / 3,
                                   'scale': 10 / 12, 'within_1_sigma': 2 / 3})


# --------------------------------------------------------------------- the objectives


def test_a_few_steps_lower_every_term_of_the_posed_objective():
    objective = posed(doubt=0.5).train()
    batch = painted_batch((-0.8, 0.8))
    optimizer = torch.optim.AdamW(objective.parameter_groups(), lr=1e-3)
    terms = []
    for _ in range(26):  # a toy this small goes up before it goes down
        found = objective.loss(batch, 0)
        assert set(found) == {'loss', 'nll', 'l1', 'gradient', 'match', 'trust'}
        optimizer.zero_grad()
        found['loss'].backward()
        optimizer.step()
        terms.append({key: float(value.detach()) for key, value in found.items()})
    assert terms[-1]['loss'] < terms[0]['loss'] - 0.3
    assert terms[-1]['match'] < terms[0]['match'] - 0.2
    assert terms[-1]['l1'] < terms[0]['l1']
    s = objective.settings
    assert terms[0]['loss'] == pytest.approx(
        terms[0]['nll'] + s.l1_weight * terms[0]['l1'] + s.gradient_weight * terms[0]['gradient']
        + s.match_weight * terms[0]['match'] + s.trust_weight * terms[0]['trust'], rel=1e-4)


def test_the_single_network_stays_as_it_is():
    objective = posed().train()
    single = objective.network.single
    assert not any(module.training for module in single.modules())
    assert objective.network.fusion.training
    before = {key: value.clone() for key, value in single.state_dict().items()}
    optimizer = torch.optim.AdamW(objective.parameter_groups(), lr=0.1)
    objective.loss(painted_batch(), 0)['loss'].backward()
    optimizer.step()
    for key, value in single.state_dict().items():
        assert torch.equal(value, before[key]), key
    grouped = [id(p) for group in objective.parameter_groups() for p in group['params']]
    assert sorted(grouped) == sorted(id(p) for p in objective.parameters() if p.requires_grad)
    assert not {id(p) for p in single.parameters()} & set(grouped)


def test_the_two_scalars_have_their_own_rate_and_do_not_decay():
    rest, scalars = posed(scalar_lr=0.5).parameter_groups()
    assert (rest['lr'], scalars['lr'], scalars['weight_decay']) == (1e-3, 0.5, 0.0)
    assert all(p.ndim == 0 for p in scalars['params'])
    assert len(scalars['params']) == 2


def test_held_matching_stays_as_it_is_while_sigma_learns():
    objective = posed(hold_matching=True).train()
    before = {key: value.clone() for key, value in objective.network.state_dict().items()}
    optimizer = torch.optim.AdamW(objective.parameter_groups(), lr=0.1)
    objective.loss(painted_batch(), 0)['loss'].backward()
    optimizer.step()
    changed = {key.split('.')[0] for key, value in objective.network.state_dict().items()
               if not torch.equal(value, before[key])}
    assert changed == {'fusion', 'refine'}


def test_depth_learns_before_the_second_look_and_sigma_after_it():
    objective = posed().train()
    posed_out = {}
    refined = objective.network.refined

    def kept(*args):
        posed_out['found'] = refined(*args)
        for value in posed_out['found']:
            value.requires_grad and value.retain_grad()
        return posed_out['found']
    objective.network.refined = kept
    objective.loss(painted_batch(), 0)['loss'].backward()
    found = posed_out['found']
    assert not torch.equal(found.log_depth, found.first_log_depth)
    assert found.log_depth.grad is None
    assert found.first_log_depth.grad.abs().sum() > 0
    assert found.log_b.grad.abs().sum() > 0


@torch.no_grad()
def test_without_metric_sources_nothing_is_learned_of_matching():
    objective = posed().eval()
    batch = painted_batch()
    for key in ('source_valid', 'source_posed'):
        found = objective.loss({**batch, key: torch.zeros(1, 2)}, 0)
        assert float(found['match']) == float(found['trust']) == 0
        assert float(found['nll']) != 0
    assert float(objective.loss(batch, 0)['match']) > 1


def uncertain(log_p: torch.Tensor, matched: torch.Tensor, trust: float) -> supervised.Posed:
    nothing = torch.zeros(1)
    return supervised.Posed(nothing, nothing, nothing, nothing, log_p, matched,
                            torch.full_like(matched, trust))


def test_match_terms_by_hand():
    objective = posed()
    planes = objective.network.log_planes
    batch = {'depth_m': torch.full((1, 1, 8, 8), float(planes[0, 20, 0, 0].exp())),
             'source_valid': torch.ones(1, 1), 'source_posed': torch.ones(1, 1)}
    even = torch.full((1, planes.shape[1], 2, 2), -math.log(planes.shape[1]))
    matched = torch.full((1, 1, 2, 2), float(planes[0, 20, 0, 0]))
    matched[..., 0] += 0.2  # half of the cells are wrong by 20 %
    match, trust = objective._match_terms(uncertain(even, matched, 1.0), batch)
    assert float(match) == pytest.approx(math.log(planes.shape[1]), rel=1e-4)
    yes, no = -math.log(1 / (1 + math.exp(-1))), -math.log(1 / (1 + math.exp(1)))
    assert float(trust) == pytest.approx((yes + no) / 2, rel=1e-4)
    # the plane that is there is wanted most, its neighbours a little: 1, 1/e, 1/e^4
    step = (planes - planes[:, 20:21]) / (planes[:, 1:2] - planes[:, :1])
    best = torch.log_softmax(-step**2, dim=1).expand(-1, -1, 2, 2)
    p = best[0, :, 0, 0].exp()
    assert float(p[20] / p[21]) == pytest.approx(math.e, rel=1e-3)
    least, _ = objective._match_terms(uncertain(best, matched, 1.0), batch)
    assert float(least) == pytest.approx(float(-(p * best[0, :, 0, 0]).sum()), rel=1e-4)
    # one plane off is worse, two are worse still
    worse = [objective._match_terms(uncertain(torch.roll(best, by, dims=1), matched, 1.0), batch)
             for by in (1, 2)]
    assert float(least) < float(worse[0][0]) < float(worse[1][0])


def test_truth_outside_the_planes_teaches_no_matching():
    objective = posed()
    planes = objective.network.log_planes
    even = torch.zeros(1, planes.shape[1], 1, 1)
    for depth in (NAN, INF, 0.2, 150.0):
        batch = {'depth_m': torch.full((1, 1, 4, 4), depth), 'source_valid': torch.ones(1, 1),
                 'source_posed': torch.ones(1, 1)}
        terms = objective._match_terms(uncertain(even, torch.zeros(1, 1, 1, 1), 3.0), batch)
        assert [float(term) for term in terms] == [0, 0]


@torch.no_grad()
def test_losses_of_a_step_are_the_same_again_and_other_steps_err_otherwise():
    objective, batch = posed().eval(), painted_batch()
    first, again, other = (float(objective.loss(batch, step)['nll']) for step in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize('key', ['doubt', 'pose_noise_deg', 'pose_noise'])
@torch.no_grad()
def test_every_kind_of_error_is_put_in(key):
    batch = painted_batch()
    clean = {'doubt': 0.0, 'pose_noise_deg': 0.0, 'pose_noise': 0.0}
    for options, differ in ((clean, False), ({**clean, key: 1.0}, True)):
        objective = posed(**options).eval()
        first, other = (float(objective.loss(batch, step)['nll']) for step in (3, 4))
        assert (first != other) == differ


def test_validation_tells_the_refinement_from_the_single_frame():
    objective, batch = posed().eval(), painted_batch()
    with torch.no_grad():
        found = objective.validate(batch)
    log_depth, _ = objective.network.single(batch['image'], batch['K'])
    alone = supervised.depth_figures(log_depth, log_depth, batch['depth_m'])['abs_rel']
    assert found['single_abs_rel'] == pytest.approx(alone, rel=1e-4)
    assert found['doubted_single_abs_rel'] != pytest.approx(alone, rel=1e-2)
    names = {'abs_rel', 'd1', 'scale', 'within_1_sigma', 'single_abs_rel'}
    assert set(found) == names | {f'doubted_{name}' for name in names} | {'sure', 'sure_abs_rel'}
    assert found['sure'] == 0  # trust starts at even odds
    # with no valid source the refined result is the single frame's
    nothing = {**batch, 'source_valid': torch.zeros(1, 2)}
    with torch.no_grad():
        found = objective.validate(nothing)
    assert found['abs_rel'] == pytest.approx(found['single_abs_rel'], rel=1e-5)


# --------------------------------------------------------------------- where weights come from


def test_weights_come_from_the_runs_that_are_named(tmp_path):
    single = awake(make_objective('supervised', RANDOM, 0, 0, 1))
    before = awake(posed())
    after = posed(single_from=save(tmp_path / 'single', single),
                  refinement_from=save(tmp_path / 'before', before))
    expected = {**{f'single.{key}': value for key, value in single.network.state_dict().items()},
                **{key: value for key, value in before.network.state_dict().items()
                   if not key.startswith('single.')}}
    found = after.network.state_dict()
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert torch.equal(found[key], value), key
    assert not torch.equal(found['single.head.weight'],
                           before.network.state_dict()['single.head.weight'])
    assert not any(p.requires_grad for p in after.network.single.parameters())


@pytest.mark.parametrize('key', ['single_from', 'refinement_from'])
def test_a_blank_objective_reads_nothing_from_elsewhere(key, tmp_path):
    options = {key: str(tmp_path / 'gone')}
    with pytest.raises(ConfigError, match='no sound checkpoint'):
        make_objective('posed', options, 0, 0, 1)
    make_objective('posed', options, 0, 0, 1, blank=True)


def test_a_blank_single_frame_objective_reads_no_weights(tmp_path):
    options = {'weights': str(tmp_path / 'gone.safetensors')}
    blank = make_objective('supervised', options, 0, 0, 1, blank=True)
    assert blank.settings.weights == 'random'


def test_networks_that_do_not_exist_are_named():
    for name in ('supervised', 'posed'):
        with pytest.raises(ConfigError, match=r"'huge'.*compact, hybrid"):
            make_objective(name, {**RANDOM, 'network': 'huge'}, 0, 0, 1)


def test_the_encoder_of_a_single_frame_has_its_own_rate():
    objective = make_objective('supervised', RANDOM, 1e-3, 1e-4, 100)
    encoder, rest = objective.parameter_groups()
    assert (encoder['lr'], rest['lr']) == (1e-4, 1e-3)
    assert {id(p) for p in encoder['params']} == {
        id(p) for p in objective.network.encoder.parameters()}
    assert len(encoder['params']) + len(rest['params']) == len(list(objective.parameters()))


def test_the_opinion_of_a_single_frame_is_as_sure_as_calibration_says():
    network = posed().network
    nn.init.normal_(network.single.head.weight, std=0.05)
    batch = painted_batch()
    with torch.no_grad():
        plain = network.single.single_frame(batch['image'], batch['K'])
        network.single_sigma_scale = 2.5
        opinion = network.opinion_of_single(batch['image'], batch['K'])
    assert torch.equal(opinion.log_depth, plain.log_depth)
    torch.testing.assert_close(opinion.log_b.exp(), 2.5 * plain.log_b.exp())
    assert F.avg_pool2d(opinion.log_b, 2).std() > 0
