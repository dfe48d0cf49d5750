"""How a ClevrPolicy reads: names, instructions, sectioned conditions, queries and rationales.

Conditions are numbered by their place in the tree and spread over sections *out of reading order*,
so that following a policy is multi-hop (paper, ClevrPolicy). A rationale quotes the condition that
it applies and then the branch that it takes.
"""

import itertools
import random
from collections.abc import Callable, Sequence

from datasets_builders.clevr.tree import Node, Step, Tree
from trimpi.policy import ImagePart, Part, Policy, TextPart

INSTRUCTIONS = (
    "Policy {name}. Look at the picture and start at Condition 1. Follow the conditions until"
    " one gives the response.",
    "This is policy {name}. Begin with Condition 1, check each condition against the picture and"
    " follow the branches until a response is named.",
    "The rules of policy {name} are below, in no special order. Start at Condition 1 and go where"
    " the picture leads you; the last step names the response.",
    "Under policy {name} every picture has one response. Find it by starting at Condition 1 and"
    " following the branch that fits the picture.",
)

QUERIES = (
    "Which response does policy {name} give for this picture?",
    "What is the response of policy {name} to this picture?",
    "Apply policy {name} to this picture. Which response applies?",
)

_ONSETS = [
    "b",
    "d",
    "f",
    "g",
    "h",
    "k",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "t",
    "v",
    "z",
    "br",
    "dr",
    "gr",
    "kr",
    "pl",
    "st",
    "tr",
    "vl",
]
_VOWELS = ["a", "e", "i", "o", "u"]
_CODAS = ["l", "m", "n", "r", "s", "x", "th", "nd"]

_WORDS = frozenset((
    "babel", "bagel", "baron", "basin", "baton", "besom", "beton", "bevel", "bison", "bonus",
    "boron", "demon", "dinar", "diner", "divan", "donor", "dozen", "dragon", "fatal", "felon",
    "fetus", "fever", "filer", "final", "futon", "gamin", "gator", "genus", "halon", "heron",
    "hotel", "hovel", "human", "karen", "kevin", "label", "labor", "laden", "lapel", "lapis",
    "laser", "later", "latin", "legal", "lemon", "level", "lever", "libel", "linen", "liver",
    "lotus", "lumen", "lunar", "magus", "manor", "mason", "medal", "melon", "meson", "metal",
    "minor", "minus", "model", "modem", "molar", "moral", "moron", "moses", "motel", "motor",
    "mural", "nasal", "naval", "navel", "niger", "novel", "pagan", "panel", "papal", "pedal",
    "penal", "petal", "polar", "polis", "radar", "raven", "razor", "rebel", "regal", "repel",
    "resin", "revel", "rival", "robin", "rosin", "rotor", "rumor", "rural", "salon", "satan",
    "satin", "savor", "sedan", "seven", "simon", "sinus", "siren", "solar", "sonar", "stamen",
    "status", "stolen", "tabor", "taken", "talon", "tenon", "tenor", "tidal", "titan", "token",
    "tonal", "tonus", "total", "totem", "tumor", "tutor", "vapor", "venom", "venus", "vigor",
    "virus", "visor", "vital",
))  # fmt: skip
"""Words that the syllables can make; a policy named like an attribute would be ambiguous."""

Crop = Callable[[Node], str]


def made_up_name(rng: random.Random) -> str:
    """A pronounceable name such as "Vlomar", drawn again where it is a common word."""
    while True:
        syllables = [rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(2)]
        name = "".join(syllables) + rng.choice(_CODAS)
        if name not in _WORDS:
            return name.capitalize()


def question(attribute: str, value: str) -> str:
    """The yes/no question of a decision node in words."""
    thing = f"a {value}" if attribute == "shape" else f"a {value} object"
    return f"is there {thing}?"


def _branch(child: Node) -> str:
    if child.case is not None:
        return f"the response is Case {child.case}."
    return f"go to Condition {child.condition}."


def condition_text(node: Node) -> str:
    """A whole condition without its number: question and both branches."""
    assert node.yes is not None and node.no is not None
    return f"{question(node.attribute, node.value)} Yes: {_branch(node.yes)} No: {_branch(node.no)}"


def write_policy(
    rng: random.Random,
    name: str,
    tree: Tree,
    *,
    sections: int | None = None,
    crop: Crop | None = None,
) -> Policy:
    """The policy text (variant T), or text with image crops as attribute values (variant M).

    Args:
        sections: number of sections; by default one for every four conditions, at least two
            where there are two conditions.
        crop: given a decision node, the path of a picture that shows its value, or "" to use
            words for this node (the paper's "may be shown by a small image crop").

    `metadata` holds the tree and `conditions` (number -> text), for oracle and recital probe.
    """
    nodes = list(tree.decisions())
    count = sections or min(len(nodes), max(2, (len(nodes) + 3) // 4))
    order = nodes[:]
    while len(order) > 1 and order == nodes:
        rng.shuffle(order)
    parts: list[Part] = []
    text = rng.choice(INSTRUCTIONS).format(name=name) + "\n"
    for number, chunk in enumerate(_chunks(order, count), 1):
        text += f"\nSection {number}\n"
        for node in chunk:
            path = crop(node) if crop else ""
            text += f"Condition {node.condition}: "
            if path:
                text += f"is there an object with the {node.attribute} shown here: "
                parts += [TextPart(text), ImagePart(path)]
                text = "?" + condition_text(node).split("?", 1)[1] + "\n"
            else:
                text += condition_text(node) + "\n"
    parts.append(TextPart(text.rstrip("\n")))
    metadata = {
        "tree": tree.to_json(),
        "conditions": {node.condition: condition_text(node) for node in nodes},
    }
    return Policy(name, tuple(parts), metadata)


def _chunks(items: Sequence[Node], count: int) -> list[Sequence[Node]]:
    edges = [round(index * len(items) / count) for index in range(count + 1)]
    return [items[a:b] for a, b in itertools.pairwise(edges)]


def query(rng: random.Random, name: str) -> str:
    """The request that names the policy."""
    return rng.choice(QUERIES).format(name=name)


def recital_query(name: str, condition: str) -> str:
    """The recital probe: asks for a rule, not for behaviour."""
    return f"What does Condition {condition} of policy {name} say?"


def answer(case: int) -> str:
    """The gold answer of a case number."""
    return f"Case {case}"


def rationale(path: Sequence[Step], case: int) -> str:
    """The gold walk: each condition quoted, decided, and the branch that it leads to."""
    lines = []
    for index, step in enumerate(path):
        verdict = "Yes" if step.outcome else "No"
        last = index + 1 == len(path)
        target = (
            f"the response is Case {case}"
            if last
            else f"go to Condition {path[index + 1].condition}"
        )
        asked = question(step.attribute, step.value)
        lines.append(f"Condition {step.condition}: {asked} {verdict}: {target}.")
    return "\n".join(lines)
