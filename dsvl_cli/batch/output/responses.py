"""Rows in the output format of OpenAI's Batch API, the counterpart of `requests`. Does not import torch."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from dsvl_cli.batch.row import Row, encode
from dsvl_cli.engine.samples import Sample, samples_from_fields
from dsvl_cli.errors import InvalidRequest


def to_response(fields: Mapping[str, Any], created: int) -> dict[str, Any]:
    """Convert a flat row to one line of the output.

    Suspect answers become ordinary answers: the format has no field for a suspicion.

    Args:
        fields: the fields of the row, as returned by `Row.to_fields`.
        created: creation time as a Unix timestamp.
    """
    response, error = None, None
    if fields["error"] is not None:
        code = "invalid_request_error" if fields["error_type"] == InvalidRequest.__name__ else fields["error_type"]
        error = {"code": code, "message": fields["error"]}
    else:
        prompt_tokens, tokens = fields["prompt_tokens"] or 0, fields["tokens"] or 0
        body = {
            "id": f"chatcmpl-{fields['id']}",
            "object": "chat.completion",
            "created": created,
            "model": fields["model"],
            "choices": [_to_choice(*pair) for pair in enumerate(_list_answers(fields))],
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": tokens,
                "total_tokens": prompt_tokens + tokens,
            },
        }
        response = {"status_code": 200, "request_id": f"request-{fields['id']}", "body": body}
    return {"id": f"batch-{fields['id']}", "custom_id": fields["id"], "response": response, "error": error}


def _list_answers(fields: Mapping[str, Any]) -> Sequence[Sample]:
    if "samples" not in fields:
        return [Sample(fields["text"], fields["finish_reason"], logprobs=fields.get("logprobs"))]
    return samples_from_fields(fields["samples"], fields.get("sample_details"))


def _to_choice(index: int, answer: Sample) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer.text}
    choice = {"index": index, "message": message, "finish_reason": answer.finish_reason}
    if answer.logprobs is not None:
        choice["logprobs"] = {"content": answer.logprobs, "refusal": None}
    return choice


def to_response_line(row: Row) -> bytes:
    """Encode a flat row as a line of the output, with the current time."""
    return encode(to_response(row.to_fields(), int(time.time()))) + b"\n"
