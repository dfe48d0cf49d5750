"""Made-up tool-calling tasks, which tiny-vlm-tools is trained on.

None is a task of a data set that the model is later trained on: requests are put together from
phrases (tool_words.json), and pictures are named at random.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from datasets_builders.clevr.wording import made_up_name
from datasets_builders.gta.calls import Call
from datasets_builders.gta.source import Step, Task
from datasets_builders.gta.tools import Tool

WORDS = json.loads(Path(__file__).with_name("tool_words.json").read_text(encoding="utf-8"))
OBJECTS: list[str] = WORDS["objects"]
COLOURS: list[str] = WORDS["colours"]
PLACES: list[str] = WORDS["places"]
ATTRIBUTES: list[str] = WORDS["attributes"]
PAPERS: list[str] = WORDS["papers"]
FOODS: list[str] = WORDS["foods"]
THINGS: list[str] = WORDS["things"]
TOPICS: list[str] = WORDS["topics"]
CITIES: list[str] = WORDS["cities"]
STYLES: list[str] = WORDS["styles"]
NAMES: list[str] = WORDS["names"]
NUMBERS: list[str] = WORDS["numbers"]
PHRASES: dict[str, list[str]] = WORDS["phrases"]
SPOTS = {
    "lt": "top left corner",
    "mt": "top",
    "rt": "top right corner",
    "lm": "left side",
    "mm": "middle",
    "rm": "right side",
    "lb": "bottom left corner",
    "mb": "bottom",
    "rb": "bottom right corner",
}

Draft = tuple[str, list[Step], bool]
"""Request, calls, and whether the question is closed."""


def picture_name(rng: random.Random) -> str:
    """Such as `image/image_12.jpg` (most are numbered, as GTA's are) or `image/kettle.png`."""
    kind = rng.random()
    if kind < 0.75:
        stem = f"{rng.choice(('image', *NAMES))}_{rng.randrange(1, 500)}"
    elif kind < 0.9:
        stem = rng.choice((*OBJECTS, *PAPERS)).replace(" ", "_")
        if rng.random() < 0.4:
            stem += "_" + rng.choice((*OBJECTS, *PAPERS, *FOODS)).replace(" ", "_")
    else:
        stem = "".join(rng.choice("abcdefghiklmnoprstuvw") for _ in range(rng.randint(3, 8)))
    return f"image/{stem}.{rng.choice(('jpg', 'png'))}"


def _plural(word: str) -> str:
    ending = "es" if word.endswith(("s", "sh", "ch", "x")) else "s"
    return word[:-1] + "ies" if word.endswith(("rry", "dy", "ny")) else word + ending


def _box(rng: random.Random) -> str:
    x, y = rng.randrange(300), rng.randrange(260)
    return f"({x}, {y}, {x + rng.randint(9, 180)}, {y + rng.randint(9, 120)})"


def _thing(rng: random.Random) -> str:
    found = rng.choice(OBJECTS)
    if rng.random() < 0.15:  # a word that is never met again, to be copied
        found = made_up_name(rng).lower()
    if rng.random() < 0.5:
        found = f"{rng.choice(COLOURS)} {found}"
    if rng.random() < 0.3:
        found += " " + rng.choice(PLACES).format(o=rng.choice(OBJECTS))
    return found


def _say(rng: random.Random, ways: Sequence[str], **words: object) -> str:
    return rng.choice(ways).format(**words)


def _description(rng: random.Random) -> str:
    first, second = _thing(rng), rng.choice(OBJECTS)
    return _say(
        rng,
        PHRASES["description_thought"],
        a=first,
        b=second,
        bs=_plural(second),
        where=rng.choice(("near", "behind", "in front of", "on top of")),
        c=rng.choice(CITIES),
        p=rng.choice(PAPERS),
        n=rng.choice(NUMBERS),
        N=rng.choice(NUMBERS).capitalize(),
    )


# --- plans: each makes a request and its calls --------------------------------------------------


def _describe(rng: random.Random, images: Sequence[str]) -> Draft:
    query = _say(rng, PHRASES["describe_query"], i=images[0])
    thought = _say(rng, PHRASES["describe_thought"])
    call = Call("ImageDescription", {"image": images[0]})
    return query, [Step(call, _description(rng), thought)], False


def _compare(rng: random.Random, images: Sequence[str]) -> Draft:
    query = _say(rng, PHRASES["compare_query"], o=rng.choice(OBJECTS), p=rng.choice(CITIES))
    steps = [
        Step(
            Call("ImageDescription", {"image": image}),
            _description(rng),
            _say(rng, PHRASES["compare_steps"], i=image),
        )
        for image in images
    ]
    return query, steps, False


def _count(rng: random.Random, images: Sequence[str]) -> Draft:
    image, thing = rng.choice(images), rng.choice(OBJECTS)
    if rng.random() < 0.3:
        thing = f"{rng.choice(COLOURS)} {thing}"
    number = rng.randrange(2, 30)
    query = _say(
        rng,
        PHRASES["count_query"],
        t=_plural(thing),
        w="" if len(images) == 1 and rng.random() < 0.7 else f" in {image}",
    )
    steps = [
        Step(
            Call("CountGivenObject", {"image": image, "text": thing}),
            str(number),
            _say(rng, PHRASES["count_steps"], t=_plural(thing)),
        )
    ]
    kind = rng.random()
    if kind < 0.25:
        each = rng.randint(2, 40)
        query += _say(rng, PHRASES["count_query_more"], e=each)
        thought = _say(rng, PHRASES["count_thought"], n=number, e=each)
        call = Call("Calculator", {"expression": f"{number} * {each}"})
        steps.append(Step(call, str(number * each), thought))
    elif kind < 0.4:
        people = rng.randint(2, 9)
        query += _say(rng, PHRASES["count_query_more_2"], p=people)
        thought = _say(rng, PHRASES["count_thought_2"], n=number, p=people)
        call = Call("Calculator", {"expression": f"{number} / {people}"})
        steps.append(Step(call, f"{number / people:g}", thought))
    return query, steps, True


def _paper(rng: random.Random) -> tuple[str, list[tuple[str, str]]]:
    """OCR's result for a list of prices, and the items."""
    pool = FOODS if rng.random() < 0.6 else THINGS
    items = [
        (item, f"{rng.randint(1, 40)}.{rng.choice(('00', '50', '20', '80', '95'))}")
        for item in rng.sample(pool, rng.randint(3, 5))
    ]
    rows = [f"{_box(rng)} {rng.choice((*PAPERS, *CITIES)).upper()}"]
    for item, price in items:
        if rng.random() < 0.5:
            rows.append(f"{_box(rng)} {item} {price}")
        else:
            rows += [f"{_box(rng)} {item}", f"{_box(rng)} {price}"]
    return "\n".join(rows), items


def _read(rng: random.Random, images: Sequence[str]) -> Draft:
    image, paper = rng.choice(images), rng.choice(PAPERS)
    where = f" in {image}" if len(images) > 1 else ""
    text, items = _paper(rng)
    thought = _say(rng, PHRASES["read_thought"], p=paper)
    steps = [Step(Call("OCR", {"image": image}), text, thought)]
    kind = rng.random()
    (one, price), (other, cost) = rng.sample(items, 2)
    if kind < 0.3:
        query = _say(rng, PHRASES["read_query_2"], p=paper, o=one, w=where)
        return query, steps, True
    if kind < 0.8:
        count, more = rng.randint(2, 9), rng.randint(2, 9)
        ways = {
            f"{count} * {price}": "read_times",
            f"{price} + {cost}": "read_plus",
            f"{count} * {price} + {more} * {cost}": "read_bill",
            f"{price} - {cost}": "read_minus",
            f"{10 * count} - {price}": "read_change",
        }
        expression = rng.choice(list(ways))
        words = {"n": count, "m": more, "t": 10 * count, "o": one, "q": other, "p": paper}
        query = _say(rng, PHRASES[ways[expression]], w=where, **words)
        thought = _say(rng, PHRASES["read_thought_2"], e=expression)
        steps.append(Step(Call("Calculator", {"expression": expression}), "", thought))
        return query, steps, True
    words = rng.choice(CITIES)
    query = _say(rng, PHRASES["read_query"], p=paper, w=where)
    steps = [Step(steps[0].call, f"{_box(rng)} {words}\n{text}", thought)]
    then = _say(rng, PHRASES["read_then"], c=words, p=paper)
    found = _say(rng, PHRASES["read_found"], c=words)
    steps.append(Step(Call("GoogleSearch", {"query": words, "k": 10}), found, then))
    return query, steps, False


def _formula(rng: random.Random, images: Sequence[str]) -> Draft:
    image = rng.choice(images)
    a, b, x = rng.randint(2, 12), rng.randint(1, 40), rng.randint(1, 20)
    c = a * x + b
    latex = rng.choice((f"{a}x + {b} = {c}", f"{c} - {a}x = {b}", f"\\frac{{{c}}}{{{a}}} + {b}"))
    query = _say(rng, PHRASES["formula_query"], i=image)
    thought = _say(rng, PHRASES["formula_thought"])
    marks = frozenset({"mathematical"})
    steps = [Step(Call("OCR", {"image": image}), latex, thought, marks)]
    if "x" in latex:
        code = (
            "```python\nfrom sympy import symbols, Eq, solve\ndef solution():\n"
            "    x = symbols('x')\n"
            f"    return str(solve(Eq({latex.replace('x', '*x').replace(' = ', ', ')}), x))\n```"
        )
        then = _say(rng, PHRASES["formula_then"])
        steps.append(Step(Call("Solver", {"command": code}), f"[{x}]", then))
    else:
        expression = f"{c} / {a} + {b}"
        then = _say(rng, PHRASES["formula_then_2"], e=expression)
        steps.append(Step(Call("Calculator", {"expression": expression}), "", then))
    return query, steps, True


def _region(rng: random.Random, images: Sequence[str]) -> Draft:
    image, thing, attribute = rng.choice(images), _thing(rng), rng.choice(ATTRIBUTES)
    query = _say(rng, PHRASES["region_query"], a=attribute, t=thing, i=image)
    box = _box(rng)
    look = {"image": image, "bbox": box, "attribute": attribute}
    return (
        query,
        [
            _locate(rng, image, thing, box),
            Step(
                Call("RegionAttributeDescription", look),
                rng.choice(COLOURS),
                _say(rng, PHRASES["region_thought"], a=attribute, t=thing, b=box),
            ),
        ],
        True,
    )


def _locate(rng: random.Random, image: str, thing: str, box: str) -> Step:
    arguments: dict[str, object] = {"image": image, "text": thing}
    thought = _say(rng, PHRASES["locate_thought"], t=thing)
    return Step(Call("TextToBbox", arguments), f"{box}, score {rng.randint(60, 100)}", thought)


def _mark(rng: random.Random, images: Sequence[str]) -> Draft:
    image, thing, box = rng.choice(images), _thing(rng), ""
    box = _box(rng)
    steps = [_locate(rng, image, thing, box)]
    if rng.random() < 0.35:
        query = _say(rng, PHRASES["mark_query_2"], t=thing, i=image)
        return query, steps, True
    arguments = {"image": image, "bbox": box}
    note = ""
    if rng.random() < 0.4:
        note = rng.choice((thing.split()[-1], "here", "this one", "look", rng.choice(CITIES)))
        arguments["annotation"] = note
    query = _say(
        rng, PHRASES["mark_query"], t=thing, i=image, n=f' and label it "{note}"' if note else ""
    )
    thought = _say(rng, PHRASES["mark_thought"], t=thing, b=box)
    steps.append(Step(Call("DrawBox", arguments), picture_name(rng), thought))
    return query, steps, False


def _write(rng: random.Random, images: Sequence[str]) -> Draft:
    image, position = rng.choice(images), rng.choice(list(SPOTS))
    text = rng.choice(
        (
            f"{rng.choice(CITIES)} {rng.randrange(1900, 2030)}",
            "Hello",
            "For sale",
            f"My {rng.choice(OBJECTS)}",
            "Happy birthday",
            f"No. {rng.randrange(90)}",
        )
    )
    colour = rng.choice(COLOURS) if rng.random() < 0.6 else None
    query = _say(
        rng,
        PHRASES["write_query"],
        t=text,
        s=SPOTS[position],
        i=image,
        c=f" in {colour}" if colour else "",
    )
    arguments = {"image": image, "text": text, "position": position}
    if colour:
        arguments["color"] = colour
    thought = _say(rng, PHRASES["write_thought"], s=SPOTS[position])
    return query, [Step(Call("AddText", arguments), picture_name(rng), thought)], False


def _search(rng: random.Random, images: Sequence[str]) -> Draft:
    topic = rng.choice(TOPICS).format(
        p=rng.choice(CITIES), q=rng.choice(CITIES), o=_plural(rng.choice(OBJECTS))
    )
    closed = rng.random() < 0.5
    ways = PHRASES["search_closed" if closed else "search_open"]
    query = _say(rng, ways, t=topic)
    thought = _say(rng, PHRASES["search_thought"], t=topic)
    call = Call("GoogleSearch", {"query": topic, "k": 10})
    return query, [Step(call, f"{topic}: see the first page.", thought)], closed


def _recognize_then_search(rng: random.Random, images: Sequence[str]) -> Draft:
    image, thing = rng.choice(images), _thing(rng)
    closed = rng.random() < 0.5
    ways = PHRASES["recognize_closed" if closed else "recognize_open"]
    query = _say(rng, ways, i=images[0])
    seen = Step(
        Call("ImageDescription", {"image": image}),
        f"A {thing}.",
        _say(rng, PHRASES["recognize_then_search_seen"]),
    )
    topic = _say(rng, PHRASES["recognize_then_search_topic"], t=thing)
    then = _say(rng, PHRASES["recognize_then_search_then"], t=thing, q=topic)
    search = Call("GoogleSearch", {"query": topic, "k": 10})
    return query, [seen, Step(search, f"{topic}: an overview.", then)], closed


def _draw(rng: random.Random, images: Sequence[str]) -> Draft:
    words = ", ".join([_thing(rng), rng.choice(STYLES)][: rng.randint(1, 2)])
    query = _say(rng, PHRASES["draw_query"], w=words)
    steps = []
    if images and rng.random() < 0.4:
        image, seen = rng.choice(images), _thing(rng)
        query = _say(rng, PHRASES["draw_query_2"], w=rng.choice(STYLES))
        words = f"{seen}, {query.rpartition('as ')[2].rstrip('.')}"
        thought = _say(rng, PHRASES["draw_thought"])
        steps.append(Step(Call("ImageDescription", {"image": image}), f"A {seen}.", thought))
    then = _say(rng, PHRASES["draw_then"], w=words)
    steps.append(Step(Call("TextToImage", {"keywords": words}), picture_name(rng), then))
    return query, steps, False


def _stylize(rng: random.Random, images: Sequence[str]) -> Draft:
    image, thing = rng.choice(images), rng.choice(OBJECTS)
    instruction = _say(
        rng,
        PHRASES["stylize_instruction"],
        s=rng.choice(STYLES),
        o=thing,
        p=rng.choice(OBJECTS),
        c=rng.choice(COLOURS),
    )
    query = _say(rng, PHRASES["stylize_query"], x=instruction, i=image)
    thought = _say(rng, PHRASES["stylize_thought"], x=instruction)
    call = Call("ImageStylization", {"image": image, "instruction": instruction})
    return query, [Step(call, picture_name(rng), thought)], False


def _plot(rng: random.Random, images: Sequence[str]) -> Draft:
    image, paper = rng.choice(images), rng.choice(PAPERS)
    text, items = _paper(rng)
    kind = rng.choice(("bar", "pie", "plot"))
    names = [item for item, _ in items]
    values = ", ".join(price for _, price in items)
    call = "pie(data, labels=labels)" if kind == "pie" else f"{kind}(labels, data)"
    code = (
        "```python\nimport matplotlib.pyplot as plt\ndef solution():\n"
        f"    labels = {names}\n    data = [{values}]\n    figure = plt.figure()\n"
        f"    plt.{call}\n    return figure\n```"
    )
    query = _say(rng, PHRASES["plot_query"], k={"plot": "line"}.get(kind, kind), p=paper)
    read = _say(rng, PHRASES["plot_read"], p=paper)
    then = _say(rng, PHRASES["plot_then"])
    return (
        query,
        [
            Step(Call("OCR", {"image": image}), text, read),
            Step(Call("Plot", {"command": code}), picture_name(rng), then),
        ],
        False,
    )


def _sum(rng: random.Random, images: Sequence[str]) -> Draft:
    a, b = rng.randint(2, 400), rng.randint(2, 60)
    sign, words = rng.choice((("*", "times"), ("+", "plus"), ("-", "minus"), ("/", "divided by")))
    query = _say(rng, PHRASES["sum_query"], a=a, b=b, w=words)
    expression = f"{a} {sign} {b}"
    thought = _say(rng, PHRASES["sum_thought"], e=expression)
    return query, [Step(Call("Calculator", {"expression": expression}), "", thought)], True


Plan = Callable[[random.Random, Sequence[str]], Draft]
PLANS: Mapping[Plan, float] = {
    _describe: 1.0,
    _compare: 0.8,
    _count: 1.8,
    _read: 2.4,
    _formula: 1.2,
    _region: 1.6,
    _mark: 1.4,
    _write: 0.8,
    _search: 1.2,
    _recognize_then_search: 1.2,
    _draw: 1.4,
    _stylize: 1.3,
    _plot: 0.5,
    _sum: 0.3,
}


def draw_task(rng: random.Random, known: Mapping[str, Tool]) -> Task:
    """A task whose calls are all of `known` tools.

    Raises:
        TimeoutError: none was drawn in 200 attempts; there may be none.
    """
    for _ in range(200):
        plan = rng.choices(list(PLANS), list(PLANS.values()))[0]
        several = plan is _compare or (rng.random() < 0.15 and plan is not _describe)
        images = [picture_name(rng) for _ in range(rng.choice((2, 2, 3)) if several else 1)]
        query, steps, closed = plan(rng, images)
        called = {step.call.name for step in steps} | ({"ImageDescription"} if several else set())
        if len(set(images)) == len(images) and called <= known.keys():
            return Task(
                "",
                query,
                dict.fromkeys(images, ""),
                tuple(steps),
                closed,
                {image: _description(rng) for image in images},
            )
    raise TimeoutError(f"no task for {', '.join(known)}")
