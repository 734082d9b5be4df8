"""Templates with minijinja: compiled once, rendered often, bounded.

Undefined is an error. HTML is escaped, all else is not. Two names exist: `data`, which all recipients of a
job share, and `recipient` (`address`, `name` and the columns of its own data), which individual mode has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from minijinja import Environment, TemplateError
from msgspec import Struct

from tocsin_schema.errors import RenderingError, Scope
from tocsin_workers.rendering.message import MessageSources, RenderedMessage
from tocsin_workers.rendering.tag_limits import check_tags
from tocsin_workers.rendering.tag_values import TagObject, tag_object
from tocsin_workers.rendering.template_problems import explain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FUEL = 200_000
"""Instructions that one template may use for one rendering; a loop over 10,000 rows fits."""

MAX_BODY_CHARACTERS = 1024 * 1024
MAX_HEADER_CHARACTERS = 2_000
MAX_SOURCE_CHARACTERS = 1024 * 1024

TEXT, HTML = "text", "html"
HEADER_PREFIX = "headers."
"""Before the name of a field that is a header of the caller's: `headers.X-Room`."""

_TAG_OPENERS = ("{{", "{%", "{#")
_NAMES_OF_THE_LANGUAGE = frozenset({"range", "dict", "cycler", "joiner", "namespace"})
_OUR_NAMES = frozenset({"data", "recipient"})


class TemplateField(Struct, frozen=True):
    """One template of a message. `constant` is its text where it has no tags."""

    name: str
    source: str
    constant: str | None
    is_body: bool

    @property
    def limit(self) -> int:
        """How many characters it may become."""
        return MAX_BODY_CHARACTERS if self.is_body else MAX_HEADER_CHARACTERS


class MessageTemplate:
    """A message's templates, ready to render. Rendering changes nothing in it, so threads may share one."""

    def __init__(self, environment: Environment, fields: tuple[TemplateField, ...], variables: frozenset[str]) -> None:
        self._environment = environment
        self.fields = fields
        self.variables = variables
        """The variables that the templates use, with dots: `data.incident`, `recipient.name`."""

    @property
    def uses_recipient(self) -> bool:
        """Whether anything in the message is personal, which shared mode refuses."""
        return any(name == "recipient" or name.startswith("recipient.") for name in self.variables)

    def render(self, data: Mapping[str, object], recipient: Mapping[str, object] | None = None) -> RenderedMessage:
        """Return the message for these values. Raises RenderingError, and nothing else.

        `data` comes from `tag_object` (once a job), `recipient` from `recipient_tags`; plain JSON works too.
        """
        tags: dict[str, TagObject] = {"data": tag_object(data)}
        if recipient is not None:
            tags["recipient"] = tag_object(recipient)
        texts = {field.name: self._render_field(field, tags) for field in self.fields}
        return RenderedMessage(
            subject=texts.get("subject"),
            text=texts.get(TEXT),
            html=texts.get(HTML),
            from_name=texts.get("from_name"),
            reply_to=texts.get("reply_to"),
            visible_to=texts.get("to"),
            headers={
                name.removeprefix(HEADER_PREFIX): text for name, text in texts.items() if name.startswith(HEADER_PREFIX)
            },
        )

    def _render_field(self, field: TemplateField, tags: dict[str, TagObject]) -> str:
        if field.constant is not None:
            return field.constant
        try:
            text = self._environment.render_template(field.name, **tags)
        except Exception as error:  # noqa: BLE001  filters may raise any Python error
            raise explain(error, field=field.name, source=field.source, tags=tags) from None
        _check_output(field, text)
        return text


def compile_message(sources: MessageSources) -> MessageTemplate:
    """Return the templates ready to render. Raises RenderingError for a syntax error or an unknown name."""
    environment = bounded_environment()
    fields = tuple(_fields(sources))
    variables: set[str] = set()
    for field in fields:
        if field.constant is not None:
            _check_output(field, field.constant)
            continue
        check_tags(field.name, field.source)
        try:
            environment.add_template(field.name, field.source)
            used = environment.undeclared_variables_in_template(field.name, nested=True)
        except TemplateError as error:
            raise explain(error, field=field.name, source=field.source, tags={}) from None
        _check_names(field, used)
        variables |= {name for name in used if name.partition(".")[0] in _OUR_NAMES}
    return MessageTemplate(environment, fields, frozenset(variables))


def bounded_environment() -> Environment:
    """Return an engine that escapes the template `html` and bounds the work of each."""
    environment = Environment(
        undefined_behavior="strict",
        fuel=FUEL,
        auto_escape_callback=lambda name: name == HTML,
        keep_trailing_newline=True,
    )
    # `debug` would print the whole context into a mail; `format` takes a width of gigabytes.
    environment.remove_global("debug")
    environment.remove_filter("format")
    return environment


def _fields(sources: MessageSources) -> Iterator[TemplateField]:
    for name, source in (("text", sources.text), ("html", sources.html)):
        if source is not None:
            yield _field(name, source, is_body=True)
    header_like = {
        "subject": sources.subject,
        "from_name": sources.from_name,
        "reply_to": sources.reply_to,
        "to": sources.visible_to,
        **{f"{HEADER_PREFIX}{name}": source for name, source in sources.headers.items()},
    }
    for name, source in header_like.items():
        if source is not None:
            # A template that was read from a file ends in a line break that nobody meant.
            yield _field(name, source.rstrip("\r\n"), is_body=False)


def _field(name: str, source: str, *, is_body: bool) -> TemplateField:
    if len(source) > MAX_SOURCE_CHARACTERS:
        raise RenderingError(
            f"{name} is a template of {len(source)} characters; {MAX_SOURCE_CHARACTERS} are allowed.",
            fix="Shorten it.",
            scope=Scope.TEMPLATE,
        )
    constant = None if any(opener in source for opener in _TAG_OPENERS) else source
    return TemplateField(name=name, source=source, constant=constant, is_body=is_body)


def _check_names(field: TemplateField, used: set[str]) -> None:
    unknown = sorted({name.partition(".")[0] for name in used} - _OUR_NAMES - _NAMES_OF_THE_LANGUAGE)
    if unknown:
        raise RenderingError(
            f"{field.name} uses {unknown[0]}, which is not defined; defined are data and recipient.",
            fix=f"Write data.{unknown[0]} or recipient.{unknown[0]}.",
            scope=Scope.TEMPLATE,
        )


def _check_output(field: TemplateField, text: str) -> None:
    if len(text) > field.limit:
        raise RenderingError(
            f"{field.name} becomes {len(text)} characters long; {field.limit} are allowed.",
            fix="Shorten the template or its data.",
        )
    if "\0" in text:
        raise RenderingError(
            f"{field.name} contains a NUL character, or a method of an object that is not called.",
            fix="Leave the NUL out; call methods, as in data.items().",
        )
    if not field.is_body and ("\r" in text or "\n" in text):
        raise RenderingError(
            f"{field.name} contains a line break, which would start another header.",
            fix="Put it on one line, or take the line breaks out of the data.",
        )
