# SPDX-License-Identifier: Apache-2.0
"""Makes a failing input smaller while it still fails in the same way.

The steps know nothing of the target: they drop elements of lists and members of objects, and reduce numbers. An input
that no longer makes sense does not fail in the same way, so it is not taken.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any


def shrink(value: dict, fails: Callable[[dict], bool], limit: int = 200) -> dict:
    """Returns a smaller input for which `fails` is true.

    Args:
        value: The input. It fails.
        fails: Runs an input. Returns whether it fails in the same way.
        limit: Largest number of calls of `fails`.
    """
    calls = 0
    progress = True
    while progress:
        progress = False
        for smaller in _smaller(value):
            if calls == limit:
                return value
            calls += 1
            if fails(smaller):
                value, progress = smaller, True
                break
    return value


def _smaller(value: dict) -> Iterator[dict]:
    """Yields inputs with one change each, the largest changes first."""
    places = [place for place in _places(value) if place]
    for place in places:  # halves of lists, then single elements
        found = _get(value, place)
        if isinstance(found, list) and len(found) > 1:
            middle = len(found) // 2
            yield _with(value, place, found[middle:])
            yield _with(value, place, found[:middle])
    for place in reversed(places):
        if isinstance(_get(value, place[:-1]), list):
            yield _without(value, place)
    for place in places:
        found = _get(value, place)
        if isinstance(found, bool) or not isinstance(found, int):
            continue
        for number in (0, 1, found // 2, found - 1):
            if abs(number) < abs(found):
                yield _with(value, place, number)


def _places(value: Any, place: tuple = ()) -> Iterator[tuple]:
    yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _places(item, (*place, key))


def _get(value: Any, place: tuple) -> Any:
    for key in place:
        value = value[key]
    return value


def _with(value: dict, place: tuple, item: Any) -> dict:
    changed = copy.deepcopy(value)
    _get(changed, place[:-1])[place[-1]] = copy.deepcopy(item)
    return changed


def _without(value: dict, place: tuple) -> dict:
    changed = copy.deepcopy(value)
    del _get(changed, place[:-1])[place[-1]]
    return changed
