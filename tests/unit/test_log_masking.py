"""Mail addresses in log lines: masked wherever they stand, in bounded time whatever the text is."""

from __future__ import annotations

import re
from time import perf_counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_workers.log_masking import MOST_CHARACTERS, Bounded, mask_addresses


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("robin@example.org", "r***@example.org"),
        ("550 5.1.1 <Robin.Hood+tag@example.org>: no such user", "550 5.1.1 <R***@example.org>: no such user"),
        ("ada@example.org, alan@example.org;x@y", "a***@example.org, a***@example.org;x***@y"),
        ("RCPT TO:<bounce+robin=example.com@lists.example.org>", "RCPT TO:<b***@lists.example.org>"),
        ('"Robin Hood"@example.org is full', "***@example.org is full"),
        ("user@[192.0.2.1]", "u***@[192.0.2.1]"),
        ("jürgen@bücher.example", "j***@bücher.example"),
        ("用户@例子.广告", "用***@例子.广告"),
        ("GET /users/robin%40example.org/sent", "GET /***%40example.org/sent"),
        ("robin＠example.org", "r***＠example.org"),
        ("amqp://user:hunter2@rabbit:5672/", "amqp://user:***@rabbit:5672/"),
        ("at amqp://user:a,b;c(d)@rabbit, gone", "at amqp://user:***@rabbit, gone"),
        ("amqp://user:p@ss:w@rabbit:5672/x", "amqp://user:***@rabbit:5672/x"),
        ("smtp://robin@example.org:hunter2@mail.example", "smtp://r***@example.org:***@mail.example"),
        ("https://token@git.example/x", "https://***@git.example/x"),
        ("user:hunter2@mail.example", "user:***@mail.example"),
        ("login user:hun,ter:2@mail.example", "login user:***@mail.example"),
        ("robin@example.org:hunter2@mail.example", "r***@example.org:***@mail.example"),
        ("user:hunter@2@mail.example", "user:***@***@mail.example"),
        ('{"url":"http://mail:25","to":"robin@example.org"}', '{"url":"http://mail:25","to":"r***@example.org"}'),
        ("verp=robin=40example.org", "v***=40example.org"),
        ("robin=40example.org, limit=4096 a=40 b", "r***=40example.org, limit=4096 a=40 b"),
        (r'{"to": "robin\u0040example.org"}', r'{"to": "r***\u0040example.org"}'),
        (r'"{\"to\": \"robin\\u0040example.org\"}"', r'"{\"to\": \"r***\\u0040example.org\"}"'),
        ("at 10:15 @ noon, @robin, robin@, @", "at 10:15 @ noon, @robin, robin@, @"),
        ("alerts@campus.example at smtp.campus.example", "a***@campus.example at smtp.campus.example"),
        ("", ""),
    ],
)
def test_an_address_shows_its_first_letter_and_its_domain(text: str, shown: str):
    assert mask_addresses(text) == shown


@given(st.from_regex(r"[a-z0-9.+_=-]{2,64}", fullmatch=True), st.text(max_size=20), st.text(max_size=20))
def test_no_surroundings_show_a_local_part(local: str, before: str, after: str):
    shown = mask_addresses(f"{before} {local}X@example.org {after}")
    assert f"{local}X" not in shown
    assert "@example.org" in shown


@given(
    st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"], exclude_characters='"<>\\/?#'), min_size=1)
)
def test_nothing_of_a_password_in_a_url_is_shown(password: str):
    assert mask_addresses(f"at smtp://user:{password}@mail.example") == "at smtp://user:***@mail.example"


@pytest.mark.parametrize(
    "nasty",
    [
        "@" * 1_000_000,
        "%40" * 300_000,
        "a@" * 500_000,
        '"@' * 500_000,
        '"' * 999_999 + "@",
        "a" * 1_000_000,
        "a" * 999_999 + "@b",
        '"a@b' * 250_000,
        "＠@" * 400_000,
        "x" * 500_000 + "@ " * 250_000,
        "://a:" * 200_000,
        "://" + "a:" * 500_000,
        "://a:" + "@" * 1_000_000,
        "a:" * 500_000 + "@b",
        "=40" * 300_000,
        "=40" + "1" * 1_000_000,
        "\\" * 1_000_000 + "u0040b",
        "a;" * 500_000 + "@b",
    ],
    ids=lambda text: f"{text[:6]}…{text[-3:]}",
)
def test_no_text_takes_long(nasty: str):
    begun = perf_counter()
    mask_addresses(nasty)
    assert perf_counter() - begun < 5.0  # a quadratic search would take minutes


def shown(*, shows_addresses: bool = False, **event: Any) -> Any:
    return Bounded(shows_addresses=shows_addresses)(None, "info", event)


class Strange:
    def __str__(self) -> str:
        raise RuntimeError("robin@example.org")


def test_every_value_of_a_line_is_masked_however_deep_and_of_whatever_kind():
    line = shown(
        event="for robin@example.org",
        reply=ValueError("<robin@example.org> unknown"),
        deep={"robin@example.org": [("robin@example.org", {"x": "robin@example.org"})]},
        strange=Strange(),
        number=3,
        nothing=None,
    )
    assert "robin" not in str(line)
    assert line["deep"] == {"r***@example.org": [["r***@example.org", {"x": "r***@example.org"}]]}
    assert (line["number"], line["nothing"], line["strange"]) == (3, None, "<Strange>")


def test_addresses_are_shown_where_the_setting_says_so():
    assert shown(shows_addresses=True, to="robin@example.org") == {"to": "robin@example.org"}


def test_passwords_in_urls_are_not_shown_even_then():
    url = "amqp://robin@example.org:hunter2@rabbit:5672/ https://token@git.example"
    line = shown(shows_addresses=True, url=url)
    assert line["url"] == "amqp://robin@example.org:***@rabbit:5672/ https://***@git.example"


@pytest.mark.parametrize("shows_addresses", [False, True])
def test_of_a_password_that_the_cut_of_a_long_text_goes_through_nothing_is_shown(shows_addresses: bool):
    url = "amqp://robin:hunter2hunter2@rabbit:5672/"
    for before in range(MOST_CHARACTERS // 2 - len(url), MOST_CHARACTERS // 2):
        text = " " * before + url + " " * (MOST_CHARACTERS - 2 * before) + url + " " * before
        assert "hunter2" not in shown(shows_addresses=shows_addresses, text=text)["text"]


def test_a_line_is_bounded_whatever_it_is_made_of():
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    line = shown(
        long="x" * 1_000_000, wide=["x"] * 100_000, deep=deep[0][0], huge=10**10_000, endless=float("nan"),
        screen="\x1b[2J\x07 a\nb",
    )  # fmt: skip
    assert len(line["long"]) <= MOST_CHARACTERS + 3
    assert len(line["wide"]) <= 2_000
    assert len(str(line["deep"])) < 3 * MOST_CHARACTERS
    assert line["huge"] == line["endless"] == "a number beyond all bounds"
    assert not re.search("[\x00-\x08\x1b]", line["screen"])
    assert line["screen"].endswith("a\nb")
