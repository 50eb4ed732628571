"""Results in the form of OpenAI's Batch API are read by the package `openai`: `.ci/run` installs it apart.

python -m pytest tests/foreign --openai PYTHON     # the Python of that environment
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dsvl_cli.cli import main

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
# The requests are made, and the results are read, by the types of the package; an unknown field is an error.
_WRITE = """
import json, sys
from pydantic import TypeAdapter
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming as Params
adapter = TypeAdapter(Params)
for line in sys.stdin:
    request = json.loads(line)
    adapter.validate_python(request["body"])
    print(json.dumps(request))
"""
_READ = """
import json, sys
from pydantic import BaseModel
from openai.types.chat import ChatCompletion
def find_extra(value, place=""):
    if isinstance(value, BaseModel):
        yield from (f"{place}.{name}" for name in value.model_extra or ())
        for name in type(value).model_fields:
            yield from find_extra(getattr(value, name), f"{place}.{name}")
    for part in value if isinstance(value, list) else ():
        yield from find_extra(part, place)
found = {}
for line in sys.stdin:
    result = json.loads(line)
    completion = ChatCompletion.model_validate(result["response"]["body"], strict=True)
    assert not list(find_extra(completion)), list(find_extra(completion))
    choice = completion.choices[0]
    found[result["custom_id"]] = [choice.message.content, choice.logprobs and [
        [token.token, token.logprob, token.bytes, len(token.top_logprobs)] for token in choice.logprobs.content
    ]]
print(json.dumps(found))
"""


def run(python: str, program: str, lines: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, "-c", program], input=lines, check=True, stdout=subprocess.PIPE, text=True, env=environment
    )
    return done.stdout


def make_request(custom_id: str, **body: Any) -> str:
    content = [
        {"type": "image_url", "image_url": {"url": "red-circle.png"}},
        {"type": "text", "text": "Describe this image."},
    ]
    body = {"model": "x", "messages": [{"role": "user", "content": content}], **body}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body})


def test_log_probabilities_are_read(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    python = request.config.getoption("--openai")
    if python is None:
        pytest.skip("--openai names no Python that has the package openai")
    (tmp_path / "red-circle.png").write_bytes((EXAMPLES / "red-circle.png").read_bytes())
    properties = {"n": {"type": "integer"}}
    shape = {"name": "shape", "schema": {"type": "object", "properties": properties, "required": ["n"]}}
    form = {"type": "json_schema", "json_schema": shape}
    lines = [
        make_request("without"),
        make_request("with", logprobs=True, top_logprobs=3),
        make_request("alone", logprobs=True, stop=["circle"]),
        make_request("schema", logprobs=True, top_logprobs=20, response_format=form),
    ]
    requests = tmp_path / "requests.jsonl"
    requests.write_text(run(python, _WRITE, "\n".join(lines)))
    out = tmp_path / "out.jsonl"
    options = ("--format", "openai", "--model", "tiny", "--dtype", "float32")
    assert main(["batch", str(requests), "-o", str(out), *options]) == 0
    found = json.loads(run(python, _READ, out.read_text()))
    assert found["without"] == ["A red circle on a white background.", None]
    assert found["with"][0] == found["without"][0]
    assert found["alone"][0] == "A red "
    assert "n" in json.loads(found["schema"][0])
    for name, most in (("with", 3), ("alone", 0), ("schema", 20)):
        content, tokens = found[name]
        assert "".join(token for token, *_ in tokens) == content
        assert bytes(byte for _, _, data, _ in tokens for byte in data).decode() == content
        assert all(logprob <= 0 and 0 <= others <= most for _, logprob, _, others in tokens)
    assert max(others for *_, others in found["with"][1]) == 3
