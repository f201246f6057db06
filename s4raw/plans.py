"""The shapes of map calls: which keys make up each task, by name, and the task that they make."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

from s4raw.compute import MapRequest, Tick
from s4raw.keys import Key, common_suffix, key_prefix
from s4raw.node import Node
from s4raw.tasks import MapFromNTask, MapTask, MapToNTask, Task

Shape = tuple[
    Callable[[Node, MapRequest, Tick], Iterator[list[str]]],
    Callable[[Node, MapRequest, list[str]], Task],
]


def _each(node: Node, request: MapRequest, tick: Tick) -> Iterator[list[str]]:
    for key in request.keys(node.store, tick):
        yield [key.name]


def _grouped(node: Node, request: MapRequest, tick: Tick) -> Iterator[list[str]]:
    """Group by numeric prefix, or whole basename. The one plan whose names are in memory, all at once."""
    groups: dict[str, list[str]] = defaultdict(list)
    for key in request.keys(node.store, tick):
        groups[key_prefix(key.basename)].append(key.name)
    for prefix in sorted(groups):
        yield groups[prefix]


def _map_task(node: Node, request: MapRequest, names: list[str]) -> Task:
    output = request.outputs.join(names[0][len(request.inputs.name) :])
    return MapTask(node, Key(request.inputs.bucket, names[0]), output)


def _map_to_n_task(node: Node, request: MapRequest, names: list[str]) -> Task:
    key = Key(request.inputs.bucket, names[0])
    return MapToNTask(node, key, request.outputs.join(key.basename))


def _map_from_n_task(node: Node, request: MapRequest, names: list[str]) -> Task:
    inputs = [Key(request.inputs.bucket, name) for name in names]
    basenames = [key.basename for key in inputs]
    output = request.outputs.join(key_prefix(basenames[0]) + common_suffix(basenames))
    return MapFromNTask(node, output, inputs)


SHAPES: dict[str, Shape] = {
    "map": (_each, _map_task),
    "map-to-n": (_each, _map_to_n_task),
    "map-from-n": (_grouped, _map_from_n_task),
}
