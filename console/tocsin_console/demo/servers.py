"""The mail sink and the token endpoint together in one process, and the handle by which another runs it.

The process reads its configuration, secret included, from its standard input, which must be a pipe: when the
other end closes, because its parent stopped it or died, it ends. It says where it listens in one line of JSON on
standard output and in `servers.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from tocsin_console.demo.certificates import DemoCertificates
from tocsin_console.demo.mail_sink import MailSink, SinkOptions
from tocsin_console.demo.sink_script import AuthFailure, RecipientScript
from tocsin_console.demo.token_endpoint import TokenEndpoint
from tocsin_schema.errors import TocsinError

if TYPE_CHECKING:
    from types import TracebackType

_STDIN: Final = 0
_STOP_SECONDS: Final = 10


class ServersConfiguration(msgspec.Struct, frozen=True, kw_only=True):
    """What the servers are told when they start."""

    client_id: str
    client_secret: str
    token_lifetime_seconds: int = 3600
    recipients: dict[str, list[str]] = {}
    """See `RecipientScript`."""
    auth_failure: AuthFailure = AuthFailure.MICROSOFT
    max_recipients: int = 500

    def __repr__(self) -> str:
        return f"ServersConfiguration(client_id={self.client_id!r}, client_secret=…)"


class RunningServers(msgspec.Struct, frozen=True, kw_only=True):
    """Where the servers are, and where they write down what they saw."""

    smtp_host: str
    smtp_port: int
    token_endpoint: str
    """With `{tenantId}` in it, to be filled in with any tenant."""
    ca_file: Path
    received_file: Path
    """For `mail_sink.read_received`."""
    token_requests_file: Path
    """For `token_endpoint.read_token_requests`."""
    process_id: int


class DemoServers:
    """The servers' process, started and ended by this one. Everything that they write is in `directory`."""

    def __init__(self, directory: Path, configuration: ServersConfiguration) -> None:
        self._directory = directory
        self._configuration = configuration
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> RunningServers:
        """Start the process and wait until both servers listen. Raises TocsinError where they do not."""
        self._directory.mkdir(parents=True, exist_ok=True)
        log = self._directory / "servers.log"
        command = [sys.executable, "-m", "tocsin_console.demo.servers", "--directory", str(self._directory)]
        with log.open("ab") as errors:
            # A session of its own: at Ctrl-C mail that is under way shall still be taken and recorded.
            self._process = subprocess.Popen(  # noqa: S603  # this interpreter, this module
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(msgspec.json.encode(self._configuration) + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
            return decode_running_servers(line)
        except (BrokenPipeError, msgspec.DecodeError):
            self.stop()
            raise TocsinError("The demo's mail sink and token endpoint do not start.", fix=f"See {log}.") from None
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the process and wait for it."""
        if self._process is None:
            return
        process, self._process = self._process, None
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            process.wait(_STOP_SECONDS)
        except BaseException:
            process.kill()
            process.wait()
            raise

    def __enter__(self) -> RunningServers:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Servers:
    """Both servers in this process."""

    def __init__(self, directory: Path, configuration: ServersConfiguration) -> None:
        self._directory = directory
        self._certificates = DemoCertificates(directory)
        self._tokens = TokenEndpoint(
            tls=self._certificates.server_context(),
            clients={configuration.client_id: configuration.client_secret},
            lifetime_seconds=configuration.token_lifetime_seconds,
            record_file=directory / "token_requests.jsonl",
        )
        options = SinkOptions(
            tls=self._certificates.server_context(),
            check_token=self._tokens.check,
            auth_failure=configuration.auth_failure,
            max_recipients=configuration.max_recipients,
            record_file=directory / "received.jsonl",
        )
        self._sink = MailSink(options, recipients=RecipientScript(configuration.recipients))

    async def __aenter__(self) -> RunningServers:
        await self._tokens.start()
        _, port = await self._sink.start()
        return RunningServers(
            smtp_host="localhost",
            smtp_port=port,
            token_endpoint=self._tokens.token_url("{tenantId}"),
            ca_file=self._certificates.ca_file,
            received_file=self._directory / "received.jsonl",
            token_requests_file=self._directory / "token_requests.jsonl",
            process_id=os.getpid(),
        )

    async def __aexit__(self, *_: object) -> None:
        await self._sink.stop()
        await self._tokens.stop()


def decode_running_servers(content: bytes) -> RunningServers:
    """Read what `servers.json` holds. Raises msgspec.DecodeError."""
    return msgspec.json.decode(content, type=RunningServers, dec_hook=lambda kind, value: kind(value))


async def _serve(directory: Path, configuration: ServersConfiguration) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for request in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(request, stopped.set)
    loop.add_reader(_STDIN, lambda: None if os.read(_STDIN, 4096) else stopped.set())
    async with _Servers(directory, configuration) as running:
        content = msgspec.json.encode(running, enc_hook=str)
        unfinished = directory / "servers.json.new"
        unfinished.write_bytes(content + b"\n")
        unfinished.replace(directory / "servers.json")
        sys.stdout.write(content.decode() + "\n")
        sys.stdout.flush()
        await stopped.wait()
    loop.remove_reader(_STDIN)


def main() -> None:
    """Run the servers until a signal or the end of standard input."""
    parser = argparse.ArgumentParser(prog="python -m tocsin_console.demo.servers", description=__doc__)
    parser.add_argument("--directory", type=Path, required=True)
    directory: Path = parser.parse_args().directory
    configuration = msgspec.json.decode(sys.stdin.buffer.readline(), type=ServersConfiguration)
    asyncio.run(_serve(directory, configuration))


if __name__ == "__main__":
    main()
