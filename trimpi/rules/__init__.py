"""Rules of a policy as data: written in words, decided by facts, proven, compared.

`extents` what attributes can be and boxes of them; `conditions` and `sentences` the words;
`rule_set` which rule decides and what is wrong with a set; `text` rules in a Markdown text;
`changes` two versions of a policy. Uses nothing but errors and policies.
"""

from trimpi.rules.changes import Changes, OutcomeChange, diff, outcome_changes
from trimpi.rules.conditions import in_words
from trimpi.rules.extents import Extent, Facts, Interval, Words
from trimpi.rules.rule_set import Fault, Rule, RuleSet

__all__ = [
    "Changes",
    "Extent",
    "Facts",
    "Fault",
    "Interval",
    "OutcomeChange",
    "Rule",
    "RuleSet",
    "Words",
    "diff",
    "in_words",
    "outcome_changes",
]
