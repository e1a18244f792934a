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
"""The commands of docs/clip_prior.md are commands that there are; its figures those measured."""
import json
from pathlib import Path
import re
import shlex

import pytest

torch = pytest.importorskip('torch', reason='the training extra is not installed')
from hybrid_depth_training.__main__ import make_parser  # noqa: E402
from hybrid_depth_training.data.captions import VOCABULARY  # noqa: E402
from hybrid_depth_training.models.clip_prior.pyramid import SWINS  # noqa: E402
from hybrid_depth_training.models.encoders.clip import CLIP_VIT_L14_HUB  # noqa: E402
from hybrid_depth_training.overrides import take_deep  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / 'docs' / 'clip_prior.md').read_text()


def commands() -> list[list[str]]:
    """Return the arguments of every command, with the recipe's variables filled in."""
    variables = dict(re.findall(r'^([A-Z]+)=(\S+)', TEXT, re.MULTILINE))
    found = []
    for block in re.findall(r'^```$\n(.*?)^```$', TEXT, re.MULTILINE | re.DOTALL):
        joined = block.replace('\\\n', ' ')
        for match in re.finditer(r'^python -m hybrid_depth_training ', joined, re.MULTILINE):
            rest = joined[match.end():]
            end = next(i for i in range(len(rest)) if rest[i] == '\n'
                       and rest[:i].count("'") % 2 == 0)
            line = rest[:end]
            for name, value in variables.items():
                line = line.replace(f'${name}', value)
            found.append(shlex.split(line))
    return found


def test_commands_are_understood(monkeypatch):
    monkeypatch.chdir(ROOT)
    found = commands()
    assert {arguments[0] for arguments in found} == {'train', 'export', 'score', 'embed'}
    for arguments in found:
        rest, changes = take_deep(arguments)
        assert not any('$' in word for word in arguments), arguments
        chosen = make_parser().parse_args(rest)
        assert chosen.subcommand == arguments[0]
        for _, captions in ((w, arguments[i + 1]) for i, w in enumerate(arguments)
                            if w == '--captions'):
            assert (ROOT / captions).is_file()
        if arguments[0] == 'train' and changes:
            assert set(changes) == {('clip_prior', 'text_model')}


def test_downloads_are_of_the_files_that_the_names_stand_for():
    for hub in (CLIP_VIT_L14_HUB, SWINS['swin_large']):
        assert f'hf download {hub.repository} {hub.name} --local-dir weights' in TEXT


def test_words_that_are_added_are_not_there_already():
    added = [json.loads(arguments[arguments.index('--prompts') + 1])
             for arguments in commands() if arguments[0] == 'embed']
    assert added
    assert not {prompt for prompts in added for prompt in prompts} & set(VOCABULARY)
    for prompt in re.findall(r'scene_prompt "(.+)"', TEXT):
        assert prompt in VOCABULARY
