"""What making a message costs: from a due recipient to octets, digest, envelope and wire, in µs of CPU.

    PYTHONPATH=schema:workers .venv/bin/python bench/rendering.py [--rounds N]

Every case is measured in turns with what it cannot be cheaper than (one minijinja render of the body, one SHA-256
of 3 KB), and the medians are told: on a busy machine the ratios are what counts. No I/O.
"""

from __future__ import annotations

import argparse
from collections import deque
from datetime import UTC, datetime
from hashlib import sha256
from statistics import median
from time import process_time_ns
from typing import TYPE_CHECKING
from uuid import UUID

from minijinja import Environment

from tocsin_schema.ledger.attachments import StoredAttachment
from tocsin_schema.ledger.bit_strings import bit_string
from tocsin_schema.ledger.sending import ClaimedBatch, ClaimedRecipient, JobContent
from tocsin_workers.sender.preparing import JobMessages, PreparedMessage, prepare
from tocsin_workers.sender.screening import DueRecipient, ScreenedBatch

if TYPE_CHECKING:
    from collections.abc import Callable

PEOPLE = 50
DATED_AT = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)
DATA = {"incident": "INC-20417", "place": "Hall 7"}

LINE = "The alarm in the building was tested and everybody is asked to stay where they are for now.\n"
TEXT = f"Dear {{{{ recipient.name }}}},\n\n{LINE * 32}\n{{{{ data.incident }}}}, room {{{{ recipient.room }}}}\n"
HTML = f"<p>Dear {{{{ recipient.name }}}},</p>\n<p>{LINE * 32}</p>\n<p>{{{{ data.incident }}}}</p>\n"
UMLAUTS = TEXT.replace("building was tested", "Gebäude wurde geprüft")
CHINESE = TEXT.replace(LINE, "建筑物内的警报已经过测试，请大家暂时留在原地。\n")
LOOP = "Dear {{ recipient.name }},\n{% for row in data.rows %}{{ row.a }}: {{ row.b|upper }}\n{% endfor %}"


def job(text: str, *, html: str | None = None, mode: str = "individual") -> JobContent:
    return JobContent(
        number=1,
        id=UUID("3f0e1c1e-8a3f-4c52-9d57-6b1f0a4d3e21"),
        mode=mode,
        on_unknown="resend",
        rendered=mode == "shared",
        subject="Incident {{ data.incident }} at {{ data.place }}" if mode == "individual" else "Incident",
        text_body=text,
        html_body=html,
        from_name="Incident Desk",
        reply_to="desk@campus.example",
        visible_to=None,
        headers={"List-Id": "<incidents.campus.example>"},
        data={**DATA, "rows": [{"a": f"row {number}", "b": "quiet"} for number in range(150)]},
    )


def batch() -> ScreenedBatch:
    return ScreenedBatch(
        ClaimedBatch(1, 0, 0, PEOPLE, 1, bit_string(0, PEOPLE)),
        tuple(
            DueRecipient(
                index,
                ClaimedRecipient(
                    1, 0, index, f"person{index}@example.org", f"Ada {index}", {"room": f"B{index}", "floor": "2"}
                ),
                0,
            )
            for index in range(PEOPLE)
        ),
        None,
    )


def preparing(content: JobContent, *attachments: StoredAttachment) -> Callable[[], None]:
    messages = JobMessages.of(content, "desk@campus.example", attachments)
    people = batch()

    def run() -> None:
        for item in prepare(messages, people, DATED_AT, largest=PEOPLE):
            assert isinstance(item, PreparedMessage)
            _ = item.wire

    return run


def rendering_alone() -> Callable[[], None]:
    environment = Environment(undefined_behavior="strict", fuel=200_000)
    environment.add_template("text", TEXT)
    recipient = {"address": "person@example.org", "name": "Ada", "room": "B1", "floor": "2"}

    def run() -> None:
        for _ in range(PEOPLE):
            environment.render_template("text", data=DATA, recipient=recipient)

    return run


def hashing_alone() -> Callable[[], None]:
    octets = (LINE * 36).encode()

    def run() -> None:
        for _ in range(PEOPLE):
            sha256(octets).digest()

    return run


CASES: dict[str, Callable[[], Callable[[], None]]] = {
    "minijinja alone, 3 KB": rendering_alone,
    "SHA-256 alone, 3 KB": hashing_alone,
    "individual, text": lambda: preparing(job(TEXT)),
    "individual, text and html": lambda: preparing(job(TEXT, html=HTML)),
    "individual, quoted-printable": lambda: preparing(job(UMLAUTS)),
    "individual, base64": lambda: preparing(job(CHINESE)),
    "individual, a loop of 150 rows": lambda: preparing(job(LOOP)),
    "individual, 64 KB attached": lambda: preparing(
        job(TEXT), StoredAttachment("plan.pdf", "application/pdf", b"x" * 65536)
    ),
    "shared x 50, a batch": lambda: preparing(job(LINE * 32, mode="shared")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60, help=f"turns of {PEOPLE} messages a case")
    rounds = parser.parse_args().rounds
    runs = {name: make() for name, make in CASES.items()}
    took: dict[str, deque[float]] = {name: deque() for name in runs}
    for turn in range(rounds + 2):
        for name, run in runs.items():
            began = process_time_ns()
            run()
            if turn >= 2:
                took[name].append((process_time_ns() - began) / 1000)
    for name, each in took.items():
        divisor = 1 if name.startswith("shared") else PEOPLE
        print(f"{name:<34}{median(each) / divisor:8.1f} µs")


if __name__ == "__main__":
    main()
