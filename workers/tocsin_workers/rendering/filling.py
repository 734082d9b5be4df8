"""One job's template, filled in for one recipient after the other: what has no tags is not touched again.

What is filled is what `MessageTemplate.render` gives. Whatever goes wrong is left to that to say, or to bear.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from minijinja import TemplateError

from tocsin_workers.rendering.bodies import BodyForm
from tocsin_workers.rendering.cutting import GAP, cut
from tocsin_workers.rendering.message import FilledBody, FilledMessage, filled
from tocsin_workers.rendering.tag_values import TagObject, tag_object
from tocsin_workers.rendering.templates import (
    HEADER_PREFIX,
    HTML,
    MAX_BODY_CHARACTERS,
    MAX_HEADER_CHARACTERS,
    TEXT,
    bounded_environment,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from minijinja import Environment

    from tocsin_workers.rendering.templates import MessageTemplate, TemplateField

_OWN_HEADERS = ("subject", "from_name", "reply_to", "to")
_ALL_BUT_HTML = "all but html"

_OUR_NAMES = re.compile(r"\b(?:data|recipient)\b", re.ASCII)
_READ_BY_NAME = re.compile(rf"\b(?:data|recipient)\.(?!(?:{'|'.join(dir(dict))})\b)[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class _IrregularError(Exception):
    """A template cannot be cut; or what its pieces became is not what they promised, too long, or no header."""


class MessageFiller:
    """Fills in the message of an individual job for its recipients. Filling changes nothing in it."""

    def __init__(self, template: MessageTemplate, data: Mapping[str, object]) -> None:
        """Cut the templates. `data` is what the recipients of the job share."""
        self._template = template
        self._data = tag_object(data)
        try:
            self._cut: _CutMessage | None = _CutMessage(template.fields, self._data)
        except (_IrregularError, TemplateError):
            self._cut = None

    def fill(self, recipient: dict[str, object]) -> FilledMessage:
        """Return the message for these values, from `recipient_values`. Raises RenderingError."""
        if self._cut is not None:
            try:
                return self._cut.fill(recipient)
            except Exception:  # noqa: BLE001, S110  rendered as a whole, it is borne or told in words
                pass
        return filled(self._template.render(self._data, TagObject(recipient)))


class _CutMessage:
    """A message's templates, cut into what is constant and what two renderings make: one of HTML, one of the rest."""

    def __init__(self, fields: Sequence[TemplateField], data: TagObject) -> None:
        """Raise _IrregularError for what cannot be cut."""
        environment = bounded_environment()
        by_name = {field.name: field for field in fields}
        names = [*_OWN_HEADERS, *(name for name in by_name if name.startswith(HEADER_PREFIX))]
        headers = [by_name.get(name) for name in names]
        self._names = [name.removeprefix(HEADER_PREFIX) for name in names]
        self._values = [None if field is None else field.constant for field in headers]
        self._places = [place for place, field in enumerate(headers) if field is not None and field.constant is None]
        has_constant_callers = all(place < len(_OWN_HEADERS) for place in self._places)
        self._callers = self._callers_of(self._values) if has_constant_callers else None
        header_sources = [_uncut(environment, by_name[names[place]]) for place in self._places]
        self._text, text_sources = _cut_body(environment, by_name.get(TEXT))
        self._html, html_sources = _cut_body(environment, by_name.get(HTML))
        self._render_text = _Rendering(environment, _ALL_BUT_HTML, header_sources, text_sources, data)
        self._render_html = _Rendering(environment, HTML, [], html_sources, data)

    def fill(self, recipient: dict[str, object]) -> FilledMessage:
        """Return the message. Raises whatever the engine and its filters do, or _IrregularError."""
        *personal, text = self._render_text.split(recipient)
        [html] = self._render_html.split(recipient)
        values = self._values
        if personal:
            values = values.copy()
            for place, value in zip(self._places, personal, strict=True):
                if len(value) > MAX_HEADER_CHARACTERS or "\n" in value or "\r" in value:
                    raise _IrregularError
                values[place] = value
        return FilledMessage(
            values[0],
            _filled_body(self._text, text),
            _filled_body(self._html, html),
            values[1],
            values[2],
            values[3],
            self._callers_of(values) if self._callers is None else self._callers,
        )

    def _callers_of(self, values: Sequence[str | None]) -> tuple[tuple[str, str], ...]:
        """Return the caller's headers of all header fields."""
        pairs = zip(self._names[len(_OWN_HEADERS) :], values[len(_OWN_HEADERS) :], strict=True)
        return tuple((name, value) for name, value in pairs if value is not None)


class _Rendering:
    """Header fields and the pieces of a body that are rendered at once, with a gap between one and the next."""

    def __init__(
        self,
        environment: Environment,
        name: str,
        header_sources: Sequence[str],
        body_sources: Sequence[str],
        data: TagObject,
    ) -> None:
        self._render = environment.render_template
        self._name = name
        self._headers = len(header_sources)
        self._gaps = len(header_sources) + max(len(body_sources) - 1, 0)
        self._is_needed = bool(header_sources or body_sources)
        source = GAP.join([*header_sources, GAP.join(body_sources)])
        # The engine reads plain dicts three times as fast.
        self._takes_dicts = _reads_by_name_only(source)
        self._data = dict(data) if self._takes_dicts else data
        environment.add_template(name, source)

    def split(self, recipient: dict[str, object]) -> list[str]:
        """Return what the header fields became, and at last the body's pieces, with a gap between one and the next.

        Raises _IrregularError where a value holds a gap.
        """
        if not self._is_needed:
            return [""]
        tags = recipient if self._takes_dicts else TagObject(recipient)
        rendered = self._render(self._name, data=self._data, recipient=tags)
        if rendered.count(GAP) != self._gaps:
            raise _IrregularError
        return rendered.split(GAP, self._headers)


def _reads_by_name_only(source: str) -> bool:
    """Whether all that is done with `data` and `recipient` is to read values by names that no dict's methods have.

    `data.clear()` and `data["items"]` are what TagObject is for. Whatever is not known here may be such, even a word
    of the text.
    """
    return _OUR_NAMES.search(_READ_BY_NAME.sub(" ", source)) is None


def _uncut(environment: Environment, field: TemplateField) -> str:
    """Return the source of a header field, which may be rendered together with others."""
    _pieces(environment, field)
    return field.source


def _cut_body(environment: Environment, field: TemplateField | None) -> tuple[BodyForm | None, list[str]]:
    """Return the lines without tags, and the sources of what stands between them."""
    if field is None:
        return None, []
    pieces = [field.constant] if field.constant is not None else _pieces(environment, field)
    return BodyForm(pieces[::2]), pieces[1::2]


def _pieces(environment: Environment, field: TemplateField) -> list[str]:
    def is_template(source: str) -> bool:
        try:
            environment.undeclared_variables_in_str(source)
        except TemplateError:
            return False
        return True

    pieces = cut(field.source, is_template, may_set=field.is_body)
    if pieces is None:
        raise _IrregularError
    return pieces


def _filled_body(form: BodyForm | None, own: str) -> FilledBody | None:
    if form is None:
        return None
    if form.characters + len(own) > MAX_BODY_CHARACTERS:
        raise _IrregularError
    return FilledBody(form, own)
