"""Decision trees over CLEVR scenes: how they grow and the oracle that runs a scene through them.

A decision node asks "does the image hold an object with attribute = value?"; a response node is a
unique `Case k`. Constraint of the paper (ClevrPolicy): below a *true* edge of a node testing
attribute type t no descendant tests t. Ours on top: no node repeats a test made above it, and none
is forced by the false edges above it, so every response is reachable by some scene.
"""

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from datasets_builders.clevr.ontology import ATTRIBUTES
from trimpi.errors import UserError

MAX_DEPTH = 8


class Step(NamedTuple):
    """One decision on the way from the root to a response."""

    condition: str
    attribute: str
    value: str
    outcome: bool


@dataclass(frozen=True)
class Node:
    """A decision node (`attribute` set) or a response node (`case` set).

    `condition` is the dotted number of a decision node: the root is "1", its yes branch "1.1",
    its no branch "1.2".
    """

    condition: str = ""
    attribute: str = ""
    value: str = ""
    yes: "Node | None" = None
    no: "Node | None" = None
    case: int | None = None


@dataclass(frozen=True)
class Tree:
    """A binary decision tree of at most `depth` layers of decisions."""

    root: Node
    depth: int

    def decide(self, objects: Iterable[Mapping[str, Any]]) -> tuple[list[Step], int]:
        """The oracle: run a scene's objects through the tree; the path and the case number."""
        present = {(name, item[name]) for item in objects for name in ATTRIBUTES}
        node, path = self.root, []
        while node.case is None:
            outcome = (node.attribute, node.value) in present
            path.append(Step(node.condition, node.attribute, node.value, outcome))
            child = node.yes if outcome else node.no
            assert child is not None
            node = child
        return path, node.case

    def decisions(self) -> Iterator[Node]:
        """All decision nodes, parents before children, yes branch first."""
        yield from (node for node, _ in self._walk() if node.case is None)

    def leaves(self) -> list[tuple[int, list[Step]]]:
        """Every (case number, path to it)."""
        return [(node.case, path) for node, path in self._walk() if node.case is not None]

    def _walk(self) -> Iterator[tuple[Node, list[Step]]]:
        stack: list[tuple[Node, list[Step]]] = [(self.root, [])]
        while stack:
            node, path = stack.pop()
            yield node, path
            if node.case is None:
                for child, outcome in ((node.no, False), (node.yes, True)):
                    assert child is not None
                    step = Step(node.condition, node.attribute, node.value, outcome)
                    stack.append((child, [*path, step]))

    def to_json(self) -> dict[str, Any]:
        """Nested JSON form: {"condition", "attribute", "value", "yes", "no"} or {"case"}."""

        def dump(node: Node) -> dict[str, Any]:
            if node.case is not None:
                return {"case": node.case}
            assert node.yes is not None and node.no is not None
            return {
                "condition": node.condition,
                "attribute": node.attribute,
                "value": node.value,
                "yes": dump(node.yes),
                "no": dump(node.no),
            }

        return {"depth": self.depth, "root": dump(self.root)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Tree":
        """Inverse of `to_json`.

        Raises:
            UserError: a node is neither a decision nor a response, or tests an unknown value.
        """

        def load(raw: Any) -> Node:
            if isinstance(raw, Mapping) and isinstance(raw.get("case"), int):
                return Node(case=raw["case"])
            try:
                attribute, value = raw["attribute"], raw["value"]
                if value not in ATTRIBUTES[attribute]:
                    raise KeyError(value)
                return Node(raw["condition"], attribute, value, load(raw["yes"]), load(raw["no"]))
            except (KeyError, TypeError) as error:
                raise UserError(
                    f"policy tree: bad node near {error}; build the data again"
                ) from None

        return cls(load(record.get("root")), int(record.get("depth", 0)))


def grow(rng: random.Random, depth: int) -> Tree:
    """Draw a tree of `depth` layers with its cases shuffled.

    A branch ends early where every further test is excluded or forced. Depths 1 to 8 give 2, 4,
    8, 16, 28, 40, 52 and 64 responses, all reachable (the paper: 4, 16, 55 at depths 2, 4, 6).

    Raises:
        UserError: depth outside 1..8.
    """
    if not 1 <= depth <= MAX_DEPTH:
        raise UserError(f"depth: {depth} is outside 1..{MAX_DEPTH}; choose a depth in that range")
    count = 0

    def draw(
        condition: str, layer: int, known_true: set[str], known_false: set[tuple[str, str]]
    ) -> Node:
        nonlocal count
        options = []
        for name, every in ATTRIBUTES.items():
            left = [value for value in every if (name, value) not in known_false]
            if name not in known_true and len(left) > 1:
                options.append((name, left))
        if layer == depth or not options:
            count += 1
            return Node(case=count)
        name, values = rng.choice(options)
        value = rng.choice(values)
        yes = draw(f"{condition}.1", layer + 1, known_true | {name}, known_false)
        no = draw(f"{condition}.2", layer + 1, known_true, known_false | {(name, value)})
        return Node(condition, name, value, yes, no)

    root = draw("1", 0, set(), set())
    cases = list(range(1, count + 1))
    rng.shuffle(cases)

    def renumber(node: Node) -> Node:
        if node.case is not None:
            return Node(case=cases[node.case - 1])
        assert node.yes is not None and node.no is not None
        return Node(
            node.condition, node.attribute, node.value, renumber(node.yes), renumber(node.no)
        )

    return Tree(renumber(root), depth)
