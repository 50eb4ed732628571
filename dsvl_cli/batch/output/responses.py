"""A row in the form of the output of OpenAI's batches, which answers `requests`. No torch here."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from dsvl_cli.batch.row import Row, encode


def to_response(fields: Mapping[str, Any], created: int) -> dict[str, Any]:
    """Write a flat row as one line of such an output.

    Suspect answers are answers there: the form has no place for a doubt beside the reason why the text ended.

    Args:
        fields: of the row, as `Row.to_fields` gives them.
        created: when, in seconds since 1970.
    """
    response, error = None, None
    if fields["error"] is not None:
        error = {"code": fields["error_type"], "message": fields["error"]}
    else:
        prompt_tokens, tokens = fields["prompt_tokens"] or 0, fields["tokens"] or 0
        message = {"role": "assistant", "content": fields["text"]}
        body = {
            "id": f"chatcmpl-{fields['id']}",
            "object": "chat.completion",
            "created": created,
            "model": fields["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": fields["finish_reason"]}],
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": tokens,
                "total_tokens": prompt_tokens + tokens,
            },
        }
        response = {"status_code": 200, "request_id": f"request-{fields['id']}", "body": body}
    return {"id": f"batch-{fields['id']}", "custom_id": fields["id"], "response": response, "error": error}


def to_response_line(row: Row) -> bytes:
    """Write a row that has one answer, or an error, as a line of such an output, made now."""
    return encode(to_response(row.to_fields(), int(time.time()))) + b"\n"
