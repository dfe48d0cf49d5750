"""How the scorer of tool calls agrees with scores given by hand, on 40 pairs.

    python benchmarks/tool_call_scores.py [--bertscore]

Texts are compared by words and letters, or by BERTScore with the model that the environment names.

Each pair: the gold call, what was said, and the overall score (half tool, half arguments) that a
reader gave before the scorer was run: exact fields by equality, texts by how much of the meaning
is there, boxes by eye, and 0 for what is missing or was not asked for.
"""

import argparse
from statistics import mean

from datasets_builders.gta.calls import Call, parse_call
from datasets_builders.gta.scoring import Similarity, score_call
from trimpi.errors import UserError
from trimpi.graders.likeness import lexical_similarity

DEFAULTS = {"GoogleSearch": {"k": 10}, "TextToBbox": {"top1": True}, "AddText": {"color": "red"}}


def box(name: str, **arguments: object) -> str:
    return f"\\boxed{{{Call(name, arguments).to_json()}}}"


OCR = Call("OCR_v3", {"image": "image/1.jpg"})
CALC = Call("Calculator", {"expression": "290 / 5"})
FIND = Call("TextToBbox", {"image": "image/1.jpg", "text": "red car"})
SEARCH = Call("GoogleSearch_v2", {"query": "price of fish oil capsules", "k": 1})
COUNT = Call("CountGivenObject_v4", {"image": "image/2.jpg", "text": "egg"})
REGION = Call(
    "RegionAttributeDescription_v1",
    {"image": "image/1.jpg", "bbox": "(10, 10, 110, 110)", "attribute": "color"},
)
DRAW = Call("TextToImage_v1", {"keywords": "a chocolate cake with strawberries"})
STYLE = Call(
    "ImageStylization_v2", {"image": "image/3.jpg", "instruction": "in the style of Monet"}
)
TEXT = Call(
    "AddText",
    {"image": "image/3.jpg", "text": "Happy birthday", "position": "mt", "color": "black"},
)

PAIRS: list[tuple[Call, str, float]] = [
    # the call itself
    (OCR, box("OCR_v3", image="image/1.jpg"), 1.0),
    (OCR, box("OCR_v2", image="image/1.jpg"), 0.5),
    (OCR, box("OCR", image="image/1.jpg"), 0.5),
    (OCR, box("MathOCR", image="image/1.jpg"), 0.5),
    (OCR, box("OCR_v3", image="image/2.jpg"), 0.5),
    (OCR, box("OCR_v2", image="image/2.jpg"), 0.0),
    (OCR, box("OCR_v3"), 0.5),
    (OCR, box("OCR_v3", image="image/1.jpg", text="all"), 0.75),
    (OCR, "I would read the picture with OCR_v3.", 0.0),
    (OCR, '```json\n{"name": "OCR_v3", "arguments": {"image": "image/1.jpg"}}\n```', 1.0),
    (OCR, "{'tool': 'OCR_v3', 'parameters': {'image': 'image/1.jpg'}}", 1.0),
    # expressions
    (CALC, box("Calculator", expression="290/5"), 1.0),
    (CALC, box("Calculator", expression="58"), 1.0),
    (CALC, box("Calculator", expression="(200 + 90) / 5"), 1.0),
    (CALC, box("Calculator", expression="290 * 5"), 0.5),
    (CALC, box("Calculator", expression="290 divided by 5"), 0.5),
    (CALC, box("Calculator", expression="__import__('os').system('ls')"), 0.5),
    # texts
    (FIND, box("TextToBbox", image="image/1.jpg", text="red car"), 1.0),
    (FIND, box("TextToBbox", image="image/1.jpg", text="the red car"), 0.97),
    (FIND, box("TextToBbox", image="image/1.jpg", text="car"), 0.9),
    (FIND, box("TextToBbox", image="image/1.jpg", text="blue dog"), 0.75),
    (FIND, box("TextToBbox", image="image/1.jpg", text="red car", top1=True), 1.0),
    (FIND, box("TextToBbox", image="image/1.jpg", text="red car", top1=False), 0.83),
    (SEARCH, box("GoogleSearch_v2", query="price of fish oil capsules", k=1), 1.0),
    (SEARCH, box("GoogleSearch_v2", query="fish oil capsules price", k=1), 0.97),
    (SEARCH, box("GoogleSearch_v2", query="How much do fish oil capsules cost?", k=1), 0.92),
    (SEARCH, box("GoogleSearch_v2", query="price of fish oil capsules", k=4), 0.75),
    (SEARCH, box("GoogleSearch_v2", query="price of fish oil capsules"), 0.75),
    (SEARCH, box("GoogleSearch_v2", query="price of fish oil capsules", k="1"), 1.0),
    (SEARCH, box("GoogleSearch_v2", query="weather in Paris", k=1), 0.75),
    (COUNT, box("CountGivenObject_v4", image="image/2.jpg", text="eggs"), 0.97),
    (COUNT, box("CountGivenObject_v1", image="image/2.jpg", text="eggs"), 0.47),
    (DRAW, box("TextToImage_v1", keywords="chocolate cake, strawberries"), 0.95),
    (DRAW, box("TextToImage_v1", keywords="a bicycle"), 0.5),
    (STYLE, box("ImageStylization_v2", image="image/3.jpg", instruction="Monet style"), 0.93),
    (TEXT, box("AddText", image="image/3.jpg", text="Happy Birthday!", position="mt",
               color="black"), 1.0),
    (TEXT, box("AddText", image="image/3.jpg", text="Happy birthday", position="mt"), 0.875),
    # boxes
    (REGION, box("RegionAttributeDescription_v1", image="image/1.jpg",
                 bbox="(10, 10, 110, 110)", attribute="color"), 1.0),
    (REGION, box("RegionAttributeDescription_v1", image="image/1.jpg",
                 bbox="(60, 10, 160, 110)", attribute="color"), 0.89),
    (REGION, box("RegionAttributeDescription_v1", image="image/1.jpg",
                 bbox="(110, 110, 10, 10)", attribute="color"), 0.83),
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bertscore", action="store_true", help="needs TRIMPI_BERTSCORE_MODEL")
    similarity: Similarity = lexical_similarity
    if parser.parse_args().bertscore:
        from trimpi.bertscore import from_environment

        try:
            similarity = from_environment()
        except UserError as error:
            parser.error(str(error))
        print(f"{similarity.about}\n")
    gaps = []
    print("| gold | said | by hand | scorer |\n|---|---|---|---|")
    for gold, said, expected in PAIRS:
        defaults = DEFAULTS.get(gold.name.partition("_")[0], {})
        found = score_call(gold, parse_call(said), defaults, similarity).overall
        gaps.append(abs(found - expected))
        shown = " ".join(said.removeprefix("\\boxed{").removesuffix("}").split())
        print(f"| `{gold.to_json()}` | `{shown}` | {expected:.2f} | {found:.2f} |")
    near = sum(gap <= 0.05 for gap in gaps)
    print(f"\n{len(gaps)} pairs: mean difference {mean(gaps):.3f}, largest {max(gaps):.2f},")
    print(f"{near} within 0.05.")


if __name__ == "__main__":
    main()
