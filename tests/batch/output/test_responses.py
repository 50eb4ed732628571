from __future__ import annotations

from dsvl_cli.batch.output.responses import to_response
from dsvl_cli.batch.row import ONLY, Answer, Failure, Row


def test_an_answer() -> None:
    answer = Answer("A cat.", "length", prompt_tokens=600, tokens=3)
    line = to_response(Row("a", "a.png", {ONLY: "What?"}, {ONLY: answer}, model="tiny").to_fields(), 1_700_000_000)
    assert (line["custom_id"], line["error"]) == ("a", None)
    assert line["response"]["status_code"] == 200
    body = line["response"]["body"]
    assert body["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": "A cat."}, "finish_reason": "length"}
    ]
    assert body["usage"] == {"prompt_tokens": 600, "completion_tokens": 3, "total_tokens": 603}
    assert (body["object"], body["model"], body["created"]) == ("chat.completion", "tiny", 1_700_000_000)


def test_log_probabilities() -> None:
    tokens = [{"token": "A", "logprob": -0.5, "bytes": [65], "top_logprobs": []}]
    row = Row("a", "a.png", {ONLY: "What?"}, {ONLY: Answer("A", "stop", tokens=2, logprobs=tokens)})
    assert Row.from_json(row.to_line()) == row
    line = to_response(row.to_fields(), 0)
    assert line["response"]["body"]["choices"][0]["logprobs"] == {"content": tokens, "refusal": None}


def test_an_error() -> None:
    line = to_response(Row("a", "a.png", {ONLY: "What?"}, error=Failure("ImageError", "a.png: empty")).to_fields(), 0)
    assert (line["custom_id"], line["response"]) == ("a", None)
    assert line["error"] == {"code": "ImageError", "message": "a.png: empty"}
