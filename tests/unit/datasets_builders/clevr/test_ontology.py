"""The values are CLEVR's, and every colour can be told from the others."""

from itertools import combinations

from datasets_builders.clevr.ontology import ATTRIBUTES, RGB


def test_there_are_96_kinds_of_objects():
    kinds = 1
    for values in ATTRIBUTES.values():
        assert len(set(values)) == len(values)
        kinds *= len(values)
    assert kinds == 96


def test_every_color_has_its_own_rgb():
    assert tuple(RGB) == ATTRIBUTES["color"]
    for a, b in combinations(RGB.values(), 2):
        assert sum(abs(x - y) for x, y in zip(a, b, strict=True)) > 40
