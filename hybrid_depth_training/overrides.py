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
Settings within settings on the command line: ``--run.options.clip_prior.trca none``.

jsonargparse replaces the whole of ``clip_prior`` by the one key, as text, whatever the YAML file
says of the others. So such arguments are taken out before it, and put in after it.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
import re
from typing import Any

import yaml

from hybrid_depth.errors import ConfigError

_DEEP = re.compile(r'--run\.options\.((?:[^.=]+\.)+[^.=]+)(?:=(.*))?', re.DOTALL)
Changes = dict[tuple[str, ...], Any]  # keys from the outside in -> value


def take_deep(arguments: Sequence[str]) -> tuple[list[str], Changes]:
    """
    Part the arguments for keys within an option from all others.

    Values are read as JSON or, where they are none, as YAML. Raises ConfigError for an argument
    without a value.
    """
    rest: list[str] = []
    changes: Changes = {}
    remaining = iter(arguments)
    for argument in remaining:
        found = _DEEP.fullmatch(argument)
        if found is None:
            rest.append(argument)
            continue
        text = found[2] if found[2] is not None else next(remaining, None)
        if text is None or text.startswith('--'):
            raise ConfigError(f'{argument} has no value; expected one after it')
        changes[tuple(found[1].split('.'))] = _value(text)
    return rest, changes


def put_deep(options: Mapping[str, Any], changes: Changes) -> dict[str, Any]:
    """Return ``options`` with the changes in it; what they do not name stays as it is."""
    result = dict(options)
    for keys, value in changes.items():
        at = result
        for key in keys[:-1]:
            inner = at.get(key, {})
            if not isinstance(inner, Mapping):
                raise ConfigError(f'{".".join(keys)} cannot be set: {key} is {inner!r} and has '
                                  'no settings in it')
            at[key] = dict(inner)
            at = at[key]
        at[keys[-1]] = value
    return result


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
