"""The same series of messages to servers that others wrote: whatever the form and the pieces, the same comes out."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from aiosmtpd.controller import Controller

from tests.integration.test_dovecot import MAILBOX, tokeninfo_endpoint
from tests.servers import dovecot, postfix
from tests.servers.availability import or_skip
from tests.servers.chunking_proxy import Chunks, chunking_proxy
from tests.servers.dovecot import DovecotSubmission
from tests.servers.ports import free_port
from tests.servers.postfix import PostfixRelay, SmtpSink
from tests.servers.smtp import KeepingHandler, aiosmtpd_server, authority_pem, certificate_authority, server_context
from tocsin_workers.outcomes import Verdict, judge
from tocsin_workers.smtp.body import to_wire
from tocsin_workers.smtp.connection import SmtpServer, open_session
from tocsin_workers.smtp.credentials import Credentials, NoCredentials, OAuthCredentials
from tocsin_workers.smtp.dsn import DsnRequest, Notify, Returned
from tocsin_workers.smtp.envelope import Envelope
from tocsin_workers.smtp.pipelining import Pipelining, PipeliningRecord
from tocsin_workers.smtp.tls import TlsMode

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from pathlib import Path

    from tocsin_workers.outcomes import RecipientOutcome
    from tocsin_workers.smtp.dialogue import Transaction
    from tocsin_workers.smtp.session import Session

SENT, FAILED = Verdict.SENT, Verdict.FAILED
REFUSED = "refused@campus.example"
_POSTFIX_SETTINGS = """
smtpd_tls_security_level = may
smtpd_tls_cert_file = {certificate}
smtpd_tls_key_file = {key}
smtpd_recipient_restrictions = check_recipient_access inline:{{ {{ {refused} = 550 5.1.1 No such user }} }}, permit
"""


class Message:
    """A delivery that keeps what became of it."""

    def __init__(self, number: int, recipients: tuple[str, ...], text: bytes) -> None:
        self.envelope = Envelope(MAILBOX, recipients)
        self.body = to_wire(b"From: <%b>\r\nSubject: %d\r\n\r\n" % (MAILBOX.encode(), number) + text)
        self.outcomes: tuple[RecipientOutcome, ...] = ()

    def begin_body(self) -> bytes:
        return self.body

    def may_end_body(self) -> None:
        pass

    def done(self, transaction: Transaction) -> None:
        self.outcomes = judge(transaction).recipients

    @property
    def verdicts(self) -> list[Verdict]:
        return [outcome.verdict for outcome in self.outcomes]

    @property
    def told(self) -> list[tuple[Verdict, int | None, str | None]]:
        """What each recipient got to hear, without the texts, in which queue ids stand."""
        replies = [outcome.reply for outcome in self.outcomes]
        return [
            (verdict, reply and reply.code, reply and reply.enhanced)
            for verdict, reply in zip(self.verdicts, replies, strict=True)
        ]


def messages(*, with_a_big_one: bool) -> list[Message]:
    people = tuple(f"user{i}@campus.example" for i in range(20))
    big = (b"y" * 76 + b"\r\n") * 2000
    return [
        Message(0, people[:1], b".dot\r\n..\r\n.\r\nend"),
        Message(1, (people[0], REFUSED, people[1]), b"Hello.\r\n"),
        Message(2, (REFUSED,), b"Nobody gets this.\r\n"),
        Message(3, people, b"Hello all.\r\n" + big * with_a_big_one),
        Message(4, people[:2], b"QUIT\r\nRSET\r\n"),
    ]


EXPECTED = [[SENT], [SENT, FAILED, SENT], [FAILED], [SENT] * 20, [SENT] * 2]


@dataclass
class Place:
    """A server, and how to get into it."""

    host: str
    port: int
    ca_pem: str
    credentials: Credentials = NoCredentials()  # noqa: RUF009  # it is immutable

    @asynccontextmanager
    async def session(self, tls: TlsMode, form: Pipelining, chunks: Chunks | None) -> AsyncGenerator[Session]:
        async with AsyncExitStack() as stack:
            port = self.port
            if chunks is not None:
                port = await stack.enter_async_context(chunking_proxy(self.host, self.port, chunks))
            session = await open_session(
                SmtpServer("localhost", port, tls, self.ca_pem, allow_plaintext_auth=True),
                self.credentials,
                local_hostname="client.test",
                pipelining=form,
            )
            try:
                yield session
            finally:
                await session.quit()


@pytest.fixture(scope="module")
def relay() -> Iterator[Controller]:
    controller = Controller(KeepingHandler(), hostname="127.0.0.1", port=free_port())
    controller.start()
    yield controller
    controller.stop()


@pytest.fixture(scope="module")
def dovecot_place(relay: Controller) -> Iterator[Place]:
    with (
        tokeninfo_endpoint() as url,
        DovecotSubmission(
            or_skip(dovecot.from_debian()), tokeninfo_url=url, relay=(relay.hostname, relay.port)
        ) as service,
    ):
        yield Place("127.0.0.1", service.port, service.ca_pem, OAuthCredentials(MAILBOX, "a-right-token"))


@pytest.fixture(scope="module")
def postfix_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    unpacked = or_skip(postfix.from_debian())
    with SmtpSink(unpacked) as sink:
        settings = _postfix_settings(tmp_path_factory.mktemp("postfix"))
        try:
            relay = PostfixRelay(unpacked, relay=(sink.host, sink.port), settings=settings)
            with relay:
                yield Place("127.0.0.1", relay.port, authority_pem())
        except PermissionError as error:
            pytest.skip(str(error))


def _postfix_settings(directory: Path) -> str:
    certificate = certificate_authority().issue_cert("localhost")
    certificate.private_key_pem.write_to_path(directory / "key.pem")
    (directory / "certificate.pem").write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    return _POSTFIX_SETTINGS.format(
        certificate=directory / "certificate.pem", key=directory / "key.pem", refused=REFUSED
    )


async def send(place: Place, tls: TlsMode, form: Pipelining, chunks: Chunks | None) -> list[Message]:
    mail = messages(with_a_big_one=chunks is not Chunks.ONE_OCTET)
    async with place.session(tls, form, chunks) as session:
        await session.deliver(iter(mail))
        assert session.is_open
        assert session.pipelining.strained is None
    return mail


async def check_every_form(place: Place, tls: TlsMode, chunks: Chunks | None, forms: list[Pipelining]) -> None:
    told = []
    for form in forms:
        mail = await send(place, tls, form, chunks)
        assert [message.verdicts for message in mail] == EXPECTED
        told.append([message.told for message in mail])
    assert told == [told[0]] * len(forms)


with_and_without_tls = pytest.mark.parametrize("tls", [TlsMode.NONE, TlsMode.STARTTLS])
in_any_pieces = pytest.mark.parametrize("chunks", [None, *Chunks], ids=lambda chunks: chunks and chunks.value)


@with_and_without_tls
@in_any_pieces
async def test_aiosmtpd_hears_the_same_in_every_form_and_in_any_pieces(tls: TlsMode, chunks: Chunks | None) -> None:
    async with aiosmtpd_server(tls_context=server_context()) as (port, kept):
        place = Place("127.0.0.1", port, authority_pem())
        await check_every_form(place, tls, chunks, list(Pipelining))
        whole = [b"Subject: %d\r\n" % number for number in (0, 1, 3, 4)] * len(Pipelining)
        assert [subject in message.body for subject, message in zip(whole, kept.envelopes, strict=True)] == [True] * 12


@with_and_without_tls
@in_any_pieces
async def test_postfix_hears_the_same_in_every_form_and_in_any_pieces(
    postfix_place: Place, tls: TlsMode, chunks: Chunks | None
) -> None:
    await check_every_form(postfix_place, tls, chunks, list(Pipelining))


async def test_postfix_understands_what_is_asked_of_notifications(postfix_place: Place) -> None:
    dsn = DsnRequest(Returned.HEADERS, "job 1+2=3", frozenset({Notify.FAILURE, Notify.DELAY}), names_original=True)
    async with postfix_place.session(TlsMode.NONE, Pipelining.FULL, None) as session:
        assert session.capabilities.dsn
        envelope = Envelope(MAILBOX, ("a+b=c@campus.example", "jörg@campus.example"), dsn=dsn)
        outcomes = judge(await session.transact(envelope, to_wire(b"Subject: x\r\n\r\n"))).recipients
        assert [outcome.verdict for outcome in outcomes] == [SENT, SENT]


@with_and_without_tls
@in_any_pieces
async def test_dovecot_hears_the_same_in_the_forms_that_it_survives_and_in_any_pieces(
    dovecot_place: Place, relay: Controller, tls: TlsMode, chunks: Chunks | None
) -> None:
    relay.handler.envelopes.clear()
    await check_every_form(dovecot_place, tls, chunks, [Pipelining.ENVELOPE, Pipelining.OFF])


async def test_dovecot_breaks_on_the_boldest_form_and_the_next_session_uses_another(dovecot_place: Place) -> None:
    record = PipeliningRecord()
    mail = messages(with_a_big_one=False)
    async with dovecot_place.session(TlsMode.STARTTLS, record.allowed(Pipelining.FULL), None) as session:
        await session.deliver(iter(mail))
        assert not session.is_open
        record = record.after(session.pipelining)
    assert [message.verdicts for message in mail[:3]] == [[Verdict.UNKNOWN], [Verdict.DEFERRED] * 3, []]
    form = record.allowed(Pipelining.FULL)
    assert form is Pipelining.ENVELOPE
    await check_every_form(dovecot_place, TlsMode.STARTTLS, None, [form])
