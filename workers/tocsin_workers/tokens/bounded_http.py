"""HTTP to token endpoints, for OAuth libraries that block and set no bounds of their own.

MSAL and Authlib run in a thread and see a session that looks like requests'. Each request really runs in the event
loop, over one httpx client, under one hard total deadline: when it passes, the request is cancelled and the thread
ends at once, also where the endpoint drips a byte a second. Bodies are bounded, redirects are not followed (a
secret goes only where the profile says), addresses are held against the endpoint's rules (https, but for managed
identities), the environment's proxies and certificates are not heeded. Answers that are not OAuth's never reach the
libraries, which would log them whole.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, TypeVar, cast
from urllib.parse import urlencode

import certifi
import httpx

from tocsin_schema.errors import TokenError
from tocsin_workers.tokens import refusals
from tocsin_workers.tokens.endpoint import endpoint_host

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from tocsin_schema.ledger.oauth_profiles import OAuthProfile
    from tocsin_workers.tokens.refusals import Refusal

#: A token answer has 2 to 5 KB, a discovery document 3.
MAX_BODY_BYTES = 64 * 1024
#: Only a loop that has stopped makes a thread wait longer than the deadline, and then not for ever.
_STOPPED_LOOP_SECONDS = 5.0

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class EndpointRules:
    """What holds for a kind of endpoint.

    `admits` says whether requests may go to an address, `otherwise` is what is wrong with one where they may not.
    `passing` are the refusals by HTTP status that are worth asking again after, beside 5xx.
    """

    admits: Callable[[httpx.URL], bool]
    otherwise: str
    passing: frozenset[int]


def own_endpoints(profile: OAuthProfile) -> EndpointRules:
    """Give the rules of a profile's own endpoints: over TLS (RFC 6749 section 3.2), and to no other host.

    A discovery document may name any address, and the secret was not given for that.
    """
    origins: set[tuple[str, str, int | None]] = set()
    for address in filter(None, (profile.token_endpoint, profile.device_endpoint)):
        with suppress(httpx.InvalidURL):  # whoever asks there says what is wrong with it
            origins.add(_origin(httpx.URL(address)))
    return EndpointRules(
        admits=lambda url: _origin(url) in origins and url.scheme == "https",
        otherwise="it leads on to an address that is not https, or not the profile's own host",
        passing=frozenset({httpx.codes.TOO_MANY_REQUESTS, httpx.codes.REQUEST_TIMEOUT}),
    )


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


class Signature(Protocol):
    """What Authlib hands over to put the client's credentials into a request."""

    def prepare(self, method: str, uri: str, headers: dict[str, str], body: str) -> tuple[str, dict[str, str], str]:
        """Give address, headers and body with the credentials in."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer whose body is a JSON object, in the form that MSAL and Authlib read."""

    status_code: int
    headers: Mapping[str, str] = field(repr=False)
    text: str = field(repr=False)

    def json(self) -> object:
        """Decode the body."""
        return json.loads(self.text)

    def raise_for_status(self) -> None:
        """Do nothing: what the libraries would raise for was raised before they saw it."""


class EndpointSession:
    """A session for OAuth libraries: `get` and `post` block the calling thread until the answer or the deadline.

    Both raise TokenError where no OAuth answer came. `refusal` is the last answer where it was one: MSAL's discovery
    keeps it to itself, and Authlib chokes on descriptions with a line break or a quotation mark.
    """

    def __init__(
        self,
        profile: OAuthProfile,
        client: httpx.AsyncClient,
        loop: asyncio.AbstractEventLoop,
        seconds: float,
        rules: EndpointRules,
    ) -> None:
        self._profile = profile
        self._client = client
        self._loop = loop
        self._seconds = seconds
        self._rules = rules
        self._under_way: set[asyncio.Task[Answer]] = set()
        self._closed = False
        self.refusal: Refusal | None = None

    def get(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        **_ignored: object,
    ) -> Answer:
        """Send a GET request."""
        return self._wait_for(self._send("GET", url, params, dict(headers or {}), None))

    def post(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        data: Mapping[str, str] | str | None = None,
        headers: Mapping[str, str] | None = None,
        auth: Signature | None = None,
        **_ignored: object,
    ) -> Answer:
        """Send a POST request with a form as its body."""
        body = data if isinstance(data, str) else urlencode(data or {})
        prepared = {**(headers or {}), "Content-Type": "application/x-www-form-urlencoded"}
        if auth is not None:
            url, prepared, body = auth.prepare("POST", url, prepared, body)
        return self._wait_for(self._send("POST", url, params, prepared, body))

    def close(self) -> None:
        """Do nothing: the session is closed by who made it."""

    async def cancel(self) -> None:
        """Cancel what is under way, which ends the thread that waits for it, and refuse what would follow."""
        self._closed = True
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def _wait_for(self, request: Coroutine[None, None, Answer]) -> Answer:
        answer = asyncio.run_coroutine_threadsafe(request, self._loop)
        return answer.result(timeout=self._seconds + _STOPPED_LOOP_SECONDS)

    async def _send(
        self,
        method: str,
        url: str,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str],
        body: str | None,
    ) -> Answer:
        if self._closed:
            raise refusals.too_late(self._profile, self._seconds)
        task = cast("asyncio.Task[Answer]", asyncio.current_task())
        self._under_way.add(task)
        try:
            return await self._exchange(method, url, params, headers, body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # Not chained: the error holds the request, and that the secret.
            raise refusals.unreachable(self._profile, _reason(self._profile, error)) from None
        finally:
            self._under_way.discard(task)

    async def _exchange(
        self,
        method: str,
        url: str,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str],
        body: str | None,
    ) -> Answer:
        address = httpx.URL(url).copy_merge_params(params) if params else httpx.URL(url)
        if not self._rules.admits(address):
            raise refusals.unreachable(self._profile, self._rules.otherwise)
        # Unpacked, a bounded body could be of any size.
        plain = {**headers, "Accept-Encoding": "identity"}
        async with self._client.stream(method, address, headers=plain, content=body) as response:
            content = await self._read(response)
        answer = _judge(self._profile, response, content, self._rules.passing)
        told = cast("dict[str, object]", answer.json())
        self.refusal = refusals.read_refusal(told) if response.is_client_error or "error" in told else None
        return answer

    async def _read(self, response: httpx.Response) -> bytes:
        content = bytearray()
        async for chunk in response.aiter_raw():
            content += chunk
            if len(content) > MAX_BODY_BYTES:
                raise refusals.unreachable(self._profile, f"it sends more than {MAX_BODY_BYTES // 1024} KiB")
        return bytes(content)


async def with_session(
    profile: OAuthProfile,
    use: Callable[[EndpointSession], _T],
    *,
    deadline_seconds: float,
    rules: EndpointRules | None = None,
) -> _T:
    """Run `use`, which blocks, in a thread of its own with a session to the profile's token endpoint.

    `rules` are those of the profile's own endpoints unless given. `deadline_seconds` is for the whole of it, name
    resolution to last byte. Raises TokenError; what else `use` raises is passed on.
    """
    trust = _trust(profile)
    loop = asyncio.get_running_loop()
    # Not the loop's own threads: name resolution runs there, and would wait for those that wait for it.
    thread = ThreadPoolExecutor(1, thread_name_prefix="tocsin-oauth")
    try:
        async with (
            asyncio.timeout(deadline_seconds),
            httpx.AsyncClient(verify=trust, trust_env=False, timeout=deadline_seconds) as client,
        ):
            session = EndpointSession(profile, client, loop, deadline_seconds, rules or own_endpoints(profile))
            try:
                return await loop.run_in_executor(thread, use, session)
            finally:
                await session.cancel()
    except TimeoutError:
        raise refusals.too_late(profile, deadline_seconds) from None
    finally:
        thread.shutdown(wait=False)


def _judge(profile: OAuthProfile, response: httpx.Response, content: bytes, passing: frozenset[int]) -> Answer:
    """Give the answer where it is OAuth's, success or refusal; raise TokenError where it is not."""
    status = response.status_code
    asked = response.request.url.netloc.decode("ascii")
    if response.is_server_error or status in passing:
        wish = refusals.read_retry_after(response.headers.get("Retry-After"), now=datetime.now(UTC))
        raise refusals.unavailable(profile, status, wish)
    try:
        text = content.decode()
        is_object = isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        raise refusals.not_an_answer(profile, status, asked=asked) from None
    if not is_object or not (response.is_success or response.is_client_error):
        raise refusals.not_an_answer(profile, status, asked=asked)
    return Answer(status, dict(response.headers), text)


def _reason(profile: OAuthProfile, error: httpx.HTTPError | httpx.InvalidURL) -> str:
    reason = refusals.reason_of(error)
    if not isinstance(error, httpx.RequestError):
        return reason
    asked = error.request.url.netloc.decode("ascii")
    # Discovery, or the machine, may have named another host than the profile does.
    return reason if asked in endpoint_host(profile) else f"{asked}: {reason}"


def _trust(profile: OAuthProfile) -> ssl.SSLContext:
    try:
        return _context(profile.ca_pem)
    except (ssl.SSLError, ValueError):
        raise TokenError(
            f"OAuth profile {profile.name}: its CA certificate is not readable PEM.",
            fix=f"Set it again: `tocsin oauth set {profile.name} --ca-file FILE`.",
            permanent=True,
        ) from None


@lru_cache(maxsize=32)  # making one takes up to 50 ms
def _context(ca_pem: str | None) -> ssl.SSLContext:
    """Trust the profile's own CA and no other, or else the system's and, where it has none, Mozilla's."""
    if ca_pem is not None:
        return ssl.create_default_context(cadata=ca_pem)
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context
