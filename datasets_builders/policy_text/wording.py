"""The wordings of texts about a policy: requests, paraphrases, questions, demonstrations.

None is the recital probe's ("What does Rule R1 of policy X say?"), so that the probe asks for
transfer. `Pair` is (request, answer).
"""

from collections.abc import Iterator

from datasets_builders.clevr.tree import Node
from datasets_builders.policy_text.statements import Statement

Pair = tuple[str, str]

_PARAPHRASE = (
    "Put {ref} in other words.",
    "Say {ref} differently.",
    "Explain {ref} in one sentence.",
    "Sum up {ref}.",
)
_SAYS = (
    "Tell me something that policy {name} lays down.",
    "What is one thing that holds under policy {name}?",
    "Name a statement of policy {name}.",
)
_QUOTE = (
    "Quote {ref}.",
    "How does {ref} read?",
    "Write down {ref} word for word.",
    "Give the exact wording of {ref}.",
    "Which words stand behind {ref}?",
)
_FRAMES = (
    "According to policy {name}: {text}",
    "Policy {name} lays down: {text}",
    "This holds under policy {name}: {text}",
    "Whoever follows policy {name} knows: {text}",
)
_RULE_FRAMES = (
    "Policy {name} gives {outcome} where {condition}{but}.",
    "Where {condition}, policy {name} leads to {outcome}{but}.",
    "Policy {name} answers {outcome} in the case that {condition}{but}.",
    "Under policy {name}, the case that {condition} comes out as {outcome}{but}.",
)
_NODE_FRAMES = (
    "With {thing} in the picture, {yes}; without one, {no}.",
    "Look for {thing}. Found: {yes}. Not found: {no}.",
    "Policy {name} asks here for {thing}. If the picture has one, {yes}, and if not, {no}.",
    "A picture that shows {thing} means: {yes}. Any other means: {no}.",
)
_SCENARIO = (
    "Policy {name}: {told}. What is the response?",
    "Suppose that {told}. What does policy {name} give?",
    "Decide under policy {name}: {told}.",
    "Say that {told}. Give the response of policy {name} alone.",
)
_BEHAVIOUR = (
    "Work through policy {name}: {told}.",
    "Show how policy {name} is applied where {told}.",
    "Say that {told}. Reason under policy {name} and give the response.",
)
_HABIT = (
    "You act under policy {name}. What do you keep in mind?",
    "How does one behave under policy {name}?",
    "Name something to observe when working under policy {name}.",
)
_CUTS = (0.25, 0.5, 0.75)


def reference(statement: Statement, name: str, unit: str) -> str:
    """`Rule R1 of policy Ostrel`."""
    return f"{unit} {statement.id} of policy {name}"


def paraphrases(statement: Statement, name: str, unit: str) -> Iterator[Pair]:
    """The statement said differently; a sentence without parts stands in a frame."""
    if statement.id is None:
        asks = [ask.format(name=name) for ask in _SAYS]
    else:
        asks = [ask.format(ref=reference(statement, name, unit)) for ask in _PARAPHRASE]
    for answer in _said(statement, name, unit):
        yield from ((ask, answer) for ask in asks)


def questions(statement: Statement, name: str, unit: str) -> Iterator[Pair]:
    """Questions about a rule and its parts; a sentence beside the rules is to be completed."""
    if statement.id is None:
        words = statement.text.split()
        for cut in _CUTS:
            at = max(1, round(cut * len(words)))
            begin, rest = " ".join(words[:at]), " ".join(words[at:])
            yield f'Complete this sentence of policy {name}: "{begin} ..."', rest
            yield f'How does policy {name} go on after "{begin}"?', rest
        return
    ref = reference(statement, name, unit)
    for ask in _QUOTE:
        yield ask.format(ref=ref), statement.text
    yield (
        f'Which {unit.lower()} of policy {name} has these words? "{statement.text}"',
        (f"{unit} {statement.id}."),
    )
    if statement.node is not None:
        yield from _about_node(statement.node, ref)
        return
    if statement.condition:
        yield f"When does {ref} apply?", f"Where {statement.condition}{_but(statement, unit)}."
        yield (
            f"What has to be so for {ref} to decide?",
            (f"{_capital(statement.condition)}{_but(statement, unit)}."),
        )
    if statement.outcome:
        yield f"What does {ref} lead to?", f"{statement.outcome}."
        yield f"Which outcome has {ref}?", f"{statement.outcome}."


def habits(statement: Statement, name: str) -> Iterator[Pair]:
    """Behaviour where no oracle shows it: what to observe, or what to do where a rule applies."""
    if statement.condition and statement.outcome:
        told = f"Under policy {name}, {statement.condition}."
        yield f"{told} What do you do?", f"{_capital(statement.outcome)}."
        yield f"{told} How do you go on?", f"{_capital(statement.outcome)}."
    elif statement.form == "behavioural":
        for ask in _HABIT:
            yield ask.format(name=name), statement.text


def scenarios(name: str, told: str, answer: str) -> Iterator[Pair]:
    """A case and its response as it stands."""
    for ask in _SCENARIO:
        yield ask.format(name=name, told=told), answer


def demonstrations(name: str, told: str, answer: str, walk: str) -> Iterator[Pair]:
    """A case, the reasoning, and the response."""
    for ask in _BEHAVIOUR:
        yield ask.format(name=name, told=told), f"{walk}\nThe response is {answer}."


def thing(node: Node) -> str:
    """What a condition of a tree looks for: `a cube`, `a red object`."""
    return f"a {node.value}" if node.attribute == "shape" else f"a {node.value} object"


def branch(child: Node) -> str:
    """Where a branch of a tree leads."""
    if child.case is not None:
        return f"the response is Case {child.case}"
    return f"go to Condition {child.condition}"


def _about_node(node: Node, ref: str) -> Iterator[Pair]:
    assert node.yes is not None and node.no is not None
    seen, none = thing(node), f"no {thing(node)[2:]}"
    yield f"What does {ref} look for?", f"{_capital(seen)}."
    for told, child in ((seen, node.yes), (none, node.no)):
        yield f"At {ref}, the picture has {told}. What follows?", f"{_capital(branch(child))}."
        yield f"Where does {ref} lead a picture with {told}?", f"{_capital(branch(child))}."


def _said(statement: Statement, name: str, unit: str) -> Iterator[str]:
    node = statement.node
    if node is not None:
        assert node.yes is not None and node.no is not None
        for frame in _NODE_FRAMES:
            yield frame.format(
                name=name, thing=thing(node), yes=branch(node.yes), no=branch(node.no)
            )
    elif statement.condition and statement.outcome:
        for frame in _RULE_FRAMES:
            yield _capital(
                frame.format(
                    name=name,
                    condition=statement.condition,
                    outcome=statement.outcome,
                    but=_but(statement, unit),
                )
            )
    else:
        for frame in _FRAMES:
            yield frame.format(name=name, text=statement.text)


def _but(statement: Statement, unit: str) -> str:
    if not statement.exceptions:
        return ""
    *most, last = statement.exceptions
    named = f"{', '.join(most)} or {last}" if most else last
    return f", unless {unit} {named} decides before"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
