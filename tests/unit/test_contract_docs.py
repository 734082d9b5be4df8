"""The page for publishers tells what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tocsin_schema.contract.codes import ContractCode
from tocsin_schema.contract.identity import JOB_NAMESPACE
from tocsin_schema.contract.part import JobPart
from tocsin_schema.contract.validation import decode_part

PAGE = (Path(__file__).parents[2] / "docs" / "contract.md").read_text(encoding="utf-8")


def test_the_example_is_a_valid_job():
    example = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert example
    valid = decode_part(json.dumps(json.loads(example[1])).encode())
    assert [found.address for found in valid.recipients] == ["ada@example.org", "alan@example.org"]


def test_every_field_and_every_code_is_told():
    told = set(re.findall(r"`([a-z0-9_]+)`", PAGE))
    assert set(JobPart.__struct_fields__) <= told
    assert {str(code) for code in ContractCode} <= told
    assert str(JOB_NAMESPACE) in PAGE
