"""Which students' answers are alike in ways that chance does not explain.

Answers are compared as syntax trees: names of variables, comments, docstrings and layout do not count,
and what the released stub holds is subtracted. An answer is cut into overlapping pieces; a piece that
many in the class have weighs little, one that two have weighs much. It points to pairs worth reading
side by side; it proves nothing.
"""

from __future__ import annotations

import ast
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

PIECE = 8  # nodes of a syntax tree: about a line of an answer
MOST_SOURCE = 100_000  # characters; an answer has a few hundred
LEAST_RARE = 4  # pieces that hardly anybody else has; fewer prove nothing


@dataclass(frozen=True)
class Pair:
    """Two students' answers to one question. alike: 0 to 1. rare: how many rare pieces they share."""

    first: str
    second: str
    answer: str
    alike: float
    rare: int


def suspicious_pairs(answers: Mapping[str, str], stub: str, name: str, at_least: float = 0.8) -> list[Pair]:
    """Pairs among `answers` (student -> source) that share most of their weight, the most alike first."""
    given = pieces(stub)
    found = {student: pieces(source) - given for student, source in answers.items()}
    found = {student: own for student, own in found.items() if own}
    having = Counter(piece for own in found.values() for piece in own)
    weight = {piece: math.log((1 + len(found)) / count) for piece, count in having.items()}
    few = max(3, len(found) // 5)  # three or four friends are still few
    pairs = []
    for first, second in combinations(sorted(found), 2):
        shared = found[first] & found[second]
        rare = sum(having[piece] <= few for piece in shared)
        if rare < LEAST_RARE:
            continue
        both = sum(weight[piece] for piece in shared)
        alike = both / sum(weight[piece] for piece in found[first] | found[second])
        if alike >= at_least:
            pairs.append(Pair(first, second, name, alike, rare))
    return sorted(pairs, key=lambda pair: (-pair.alike, -pair.rare, pair.first, pair.second))


def pieces(source: str) -> set[tuple[str, ...]]:
    """The overlapping pieces of a program's syntax tree; none if it is no Python, or too long."""
    if len(source) > MOST_SOURCE:
        return set()
    lines = ("" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines())
    try:
        words = list(_words(ast.parse("\n".join(lines))))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    return {tuple(words[i : i + PIECE]) for i in range(len(words) - PIECE + 1)}


def _words(tree: ast.AST) -> Iterator[str]:
    """The tree's nodes in order: attributes and numbers by name and value, variables as variables."""
    waiting = [tree]  # instead of a call in a call: 1 + 1 + ... would go too deep, and hide what was copied
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # a docstring
        if isinstance(node, ast.expr_context):
            continue
        word = type(node).__name__
        if isinstance(node, ast.Attribute):
            word = f".{node.attr}"
        elif isinstance(node, ast.Constant) and not isinstance(node.value, str):
            word = repr(node.value)
        yield word
        waiting += reversed(list(ast.iter_child_nodes(node)))
