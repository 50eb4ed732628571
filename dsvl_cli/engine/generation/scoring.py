"""The probability of each answer of a list: how likely the model is to give it, its end included.

All answers are computed together behind the cached prompt, as a tree whose branches share their beginnings, so that a
list costs about as much as one decode step of a batch. Nothing is sampled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from dsvl_cli.engine.network.kv_cache import KVCache
from dsvl_cli.engine.network.network import Network

# Logits are `(tokens, vocabulary)` in float32: 105 MB for so many tokens of 102,400.
_MOST_TOKENS = 256


@dataclass(frozen=True, slots=True)
class CandidateAnswers:
    """The answers that are compared.

    Attributes:
        texts: as they were given.
        token_ids: of each, without an end.
        end_ids: any of them ends an answer.
    """

    texts: tuple[str, ...]
    token_ids: tuple[tuple[int, ...], ...]
    end_ids: frozenset[int]

    @property
    def longest(self) -> int:
        """The number of tokens of the longest one."""
        return max(map(len, self.token_ids))


@dataclass(slots=True)
class _Tree:
    """Answers as paths from the end of the prompt; answers with the same beginning share its tokens."""

    token_ids: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    paths: list[list[int]] = field(default_factory=list)
    _known: dict[tuple[int, int], int] = field(default_factory=dict)

    def add(self, token_ids: Sequence[int]) -> None:
        parent, path = -1, []
        for token_id in token_ids:
            index = self._known.setdefault((parent, token_id), len(self.token_ids))
            if index == len(self.token_ids):
                self.token_ids.append(token_id)
                self.parents.append(parent)
            path.append(index)
            parent = index
        self.paths.append(path)


@torch.inference_mode()
def score_answers(
    network: Network, cache: KVCache, logits: torch.Tensor, candidates: CandidateAnswers
) -> tuple[float, ...]:
    """Return the natural logarithm of the probability of each answer.

    Args:
        network: the model.
        cache: holds the whole prompt; unchanged.
        logits: behind the prompt, `(vocabulary,)`.
        candidates: the answers.
    """
    first = logits.float().log_softmax(dim=-1)
    ends = torch.tensor(sorted(candidates.end_ids), device=first.device)
    scores: list[float] = []
    for group in _group(candidates.token_ids):
        tree = _Tree()
        for token_ids in group:
            tree.add(token_ids)
        after = network.branch(tree.token_ids, tree.parents, cache).log_softmax(dim=-1)
        end = after[:, ends].logsumexp(dim=-1)
        for token_ids, path in zip(group, tree.paths, strict=True):
            following = after[path[:-1]].gather(1, torch.tensor(token_ids[1:], device=after.device).unsqueeze(1))
            # In float64: the order of a long list does not depend on rounding.
            score = first[token_ids[0]].double() + following.double().sum() + end[path[-1]].double()
            scores.append(float(score))
    return tuple(scores)


def normalize(scores: Sequence[float]) -> tuple[float, ...]:
    """Return the probabilities of answers given that it is one of them."""
    return tuple(torch.tensor(scores, dtype=torch.float64).softmax(dim=0).tolist())


def _group(answers: Sequence[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    """Split a list so that the tokens of each part are bounded; an answer is never split."""
    group: list[tuple[int, ...]] = []
    count = 0
    for answer in answers:
        if group and count + len(answer) > _MOST_TOKENS:
            yield group
            group, count = [], 0
        group.append(answer)
        count += len(answer)
    yield group
