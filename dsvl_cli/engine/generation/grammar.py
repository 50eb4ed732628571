"""Keeps an answer to JSON that a schema describes: which tokens may come next, by llguidance.

A grammar is compiled once; each answer gets a copy of its state. JSON is written on one line, with a space after `,`
and `:` as most JSON that models have read, so that none is lost in endless white space.

A model that was not made for JSON often wants to end where the JSON cannot: its sentence is complete, but the string
around it is not closed. There the probability of an end passes to the tokens that close a string, an array or an
object, instead of being lost among all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer

from dsvl_cli.engine.constraints import JsonSchema, write_grammar
from dsvl_cli.errors import DsvlError

if TYPE_CHECKING:
    from llguidance import LLMatcher

_QUOTE, _BRACKETS, _LETTERS = '"', ("]", "}"), ("e", "x")
_MOST_COMPILED = 64  # grammars that are kept, each of 100 KB or more


class ClosingTokens:
    """The tokens that close a string, an array or an object."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._quote, *letters = (tokenizer.token_to_id(text) for text in (_QUOTE, *_LETTERS))
        self._letters = [token_id for token_id in letters if token_id is not None]
        brackets = (tokenizer.token_to_id(text) for text in _BRACKETS)
        self._brackets = [token_id for token_id in brackets if token_id is not None]
        self._tokenizer = tokenizer

    def find(self, allowed: npt.NDArray[np.bool_], last: int | None) -> list[int]:
        """Return those that close what is open, by what may come next and the token before."""
        # Where any letter may come this is the inside of a string, in which brackets are text.
        if self._quote is not None and allowed[self._quote] and all(allowed[letter] for letter in self._letters):
            was_opened = last is not None and (self._tokenizer.id_to_token(last) or "").endswith(_QUOTE)
            return [] if was_opened else [self._quote]  # an empty string would say nothing
        return [bracket for bracket in self._brackets if allowed[bracket]]


class Matcher:
    """The state of one answer.

    Args:
        state: of llguidance, at the start of the answer.
        end_ids: ids that end an answer; llguidance knows the first only.
        closing: tokens that close something.
    """

    def __init__(self, state: LLMatcher, end_ids: Sequence[int], closing: ClosingTokens) -> None:
        self._state = state
        self._end_ids = frozenset(end_ids)
        self._ends = torch.tensor(end_ids, dtype=torch.long)
        self._closing = closing
        self._last: int | None = None
        self._is_lost = False

    def mask(self, logits: torch.Tensor) -> None:
        """Take out of logits `(vocabulary,)`, in place, what cannot come next."""
        bits = np.frombuffer(self._state.compute_bitmask(), dtype=np.uint8)
        allowed = np.unpackbits(bits, bitorder="little")[: len(logits)].astype(np.bool_)
        ends = self._ends.to(logits.device)
        if self._is_lost:
            allowed[:] = False
        is_complete = self._is_lost or bool(allowed[self._ends].any())
        allowed[self._ends] = is_complete  # any of them ends the answer, though llguidance knows only the first
        denied = torch.from_numpy(~allowed).to(logits.device)
        heirs = torch.tensor(self._closing.find(allowed, self._last), dtype=torch.long, device=logits.device)
        if not is_complete and len(heirs):
            inherited = torch.logaddexp(logits[heirs], logits[ends].logsumexp(dim=-1))
            logits.index_copy_(0, heirs, inherited)
        logits.masked_fill_(denied, -torch.inf)

    def accept(self, token_id: int) -> None:
        """Record a chosen token.

        Where a grammar becomes too large for llguidance to follow, the answer ends there, as one that is not complete:
        an error here would end all others of a batch.
        """
        self._last = token_id
        if token_id not in self._end_ids:
            self._is_lost = not self._state.consume_token(token_id)


class GrammarCompiler:
    """Compiles schemas for the tokenizer of a model.

    Args:
        tokenizer: of the checkpoint.
        vocabulary: the number of ids that the model computes scores for.
        end_ids: ids that end an answer.
        prefix: what the answer begins with, before the JSON.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: int, end_ids: frozenset[int], prefix: str) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._end_ids = sorted(end_ids)
        self._prefix = prefix
        self._closing = ClosingTokens(tokenizer)
        self._library_tokenizer: Any = None
        self._compiled = lru_cache(_MOST_COMPILED)(self._compile)  # in a file of requests each may have its own

    def compile(self, schema: JsonSchema) -> Matcher:
        """Return the state at the start of an answer.

        Raises:
            DsvlError: the schema is not supported.
        """
        return Matcher(self._compiled(schema).deep_copy(), self._end_ids, self._closing)

    def _compile(self, schema: JsonSchema) -> LLMatcher:
        from llguidance import LLMatcher, LLTokenizer

        if not self._end_ids:
            raise DsvlError("the model has no end token, so its JSON would not end", "use another model")
        if self._library_tokenizer is None:
            self._library_tokenizer = LLTokenizer(
                self._tokenizer.to_str(), n_vocab=self._vocabulary, eos_token=self._end_ids[0]
            )
        state = LLMatcher(self._library_tokenizer, write_grammar(schema, self._prefix), log_level=0)
        if state.is_error():
            raise DsvlError(f"the schema is not supported: {state.get_error()}")
        return state
