"""`tocsin template`: what mail looks like."""

from dataclasses import replace
from typing import Annotated

import typer

from tocsin_console.commands.parameters import JsonFlag
from tocsin_console.output import examples, print_block, print_facts, print_json, print_table, say
from tocsin_console.reading.inputs import read_pairs, read_text
from tocsin_console.reading.session import Session, in_session
from tocsin_schema.contract.addresses import parse_address
from tocsin_schema.errors import Scope, UsageError
from tocsin_schema.ledger import templates
from tocsin_schema.ledger.sending_profile_rules import checked_name
from tocsin_schema.ledger.templates import StoredTemplate, TemplateSource
from tocsin_workers.rendering.message import MessageSources
from tocsin_workers.rendering.tag_values import recipient_tags
from tocsin_workers.rendering.templates import MessageTemplate, compile_message

app = typer.Typer(help="Templates of mail, and their versions.", no_args_is_help=True)

PREVIEW_ADDRESS = "recipient@example.org"
"""Whom a preview is for where nothing else was said."""

_TAG = "{"

Name = Annotated[str, typer.Argument(metavar="NAME", help="The template's name.")]
TextFile = Annotated[str | None, typer.Option(metavar="F|-", help="File with the plain text; - is standard input.")]
HtmlFile = Annotated[str | None, typer.Option(metavar="F|-", help="File with the HTML; - is standard input.")]
ReplyTo = Annotated[str | None, typer.Option(metavar="A", help="Where answers go; tags allowed.")]
FromName = Annotated[str | None, typer.Option(metavar="N", help="The name shown beside the sender; tags allowed.")]
Version = Annotated[int | None, typer.Option(metavar="N", min=1, help="This version instead of the newest.")]


@app.command(
    "add",
    epilog=examples(
        "tocsin template add outage --subject 'Outage: {{ data.service }}' --text-file outage.txt",
        "tocsin template add loan --subject 'Due: {{ recipient.title }}' --text-file loan.txt --html-file loan.html",
    ),
)
def add(
    name: Name,
    *,
    subject: Annotated[str, typer.Option(metavar="S", help="The subject; tags allowed.")],
    text_file: TextFile = None,
    html_file: HtmlFile = None,
    reply_to: ReplyTo = None,
    from_name: FromName = None,
) -> None:
    """Add a template, checked before it is stored.

    Tags are {{ data.NAME }}, which all recipients of a job share, and {{ recipient.NAME }}, which individual jobs
    have for each recipient.
    """
    _refuse_two_from_standard_input(text_file, html_file)
    source = TemplateSource(
        subject=subject,
        text_body=None if text_file is None else read_text(text_file, "The text"),
        html_body=None if html_file is None else read_text(html_file, "The HTML"),
        from_name=from_name or None,
        reply_to_address=reply_to or None,
    )
    checked_name(name, "a template")
    _compiled(source)

    async def work(session: Session) -> None:
        await templates.add_template(session.connection, name, source)

    in_session(work)
    say(f"Template {name!r} added. See how it looks with `tocsin template preview {name}`.")


@app.command("list", epilog=examples("tocsin template list --json"))
def list_templates(as_json: JsonFlag = False) -> None:
    """List the templates in their newest versions."""

    async def work(session: Session) -> list[StoredTemplate]:
        return await templates.read_templates(session.connection)

    found = in_session(work)
    if as_json:
        for template in found:
            print_json(_as_json(template))
        return
    print_table(
        ("NAME", "VERSION", "SUBJECT", "BODIES", "CHANGED"),
        [(t.name, t.version, t.subject, _bodies(t), t.updated_at) for t in found],
    )


@app.command("show", epilog=examples("tocsin template show outage", "tocsin template show outage --version 1 --json"))
def show(name: Name, version: Version = None, as_json: JsonFlag = False) -> None:
    """Show a template as it was written."""
    template = _read(name, version)
    if as_json:
        print_json(_as_json(template))
        return
    print_facts(
        [
            ("Name", template.name),
            ("Version", template.version),
            ("Subject", template.subject),
            ("From name", template.from_name),
            ("Reply-To", template.reply_to_address),
            ("Tags", ", ".join(sorted(_compiled(template.source).variables)) or "none"),
            ("Changed", template.updated_at),
        ]
    )
    _print_bodies(template.text_body, template.html_body)


@app.command("set", epilog=examples("tocsin template set outage --text-file outage.txt"))
def change(
    name: Name,
    *,
    subject: Annotated[str | None, typer.Option(metavar="S", help="The subject; tags allowed.")] = None,
    text_file: TextFile = None,
    html_file: HtmlFile = None,
    no_text: Annotated[bool, typer.Option("--no-text", help="Take the plain text away.")] = False,
    no_html: Annotated[bool, typer.Option("--no-html", help="Take the HTML away.")] = False,
    reply_to: ReplyTo = None,
    from_name: FromName = None,
) -> None:
    """Make a new version of a template. What is left out stays; an empty --reply-to or --from-name takes it away.

    Jobs that are already taken in keep the version that they came with.
    """
    if (subject, text_file, html_file, reply_to, from_name) == (None,) * 5 and not (no_text or no_html):
        raise UsageError("Nothing to change was given.", fix="See `tocsin template set --help`.")
    if (no_text and text_file is not None) or (no_html and html_file is not None):
        raise UsageError("A body cannot be given and taken away at once.", fix="Leave one of the flags out.")
    _refuse_two_from_standard_input(text_file, html_file)
    text = None if text_file is None else read_text(text_file, "The text")
    html = None if html_file is None else read_text(html_file, "The HTML")

    async def work(session: Session) -> int:
        template = await templates.lock_template(session.connection, name)
        before = template.source
        source = replace(
            before,
            subject=before.subject if subject is None else subject,
            text_body=None if no_text else before.text_body if text is None else text,
            html_body=None if no_html else before.html_body if html is None else html,
            reply_to_address=before.reply_to_address if reply_to is None else reply_to or None,
            from_name=before.from_name if from_name is None else from_name or None,
        )
        _compiled(source)
        if source == before:
            return template.version
        return await templates.write_template(session.connection, template, source)

    say(f"Template {name!r} is now at version {in_session(work)}.")


@app.command(
    "preview",
    epilog=examples(
        "tocsin template preview outage --data service=E-mail",
        "tocsin template preview loan --recipient address=ann@example.org --recipient title=Dune",
    ),
)
def preview(
    name: Name,
    data: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="Data that all recipients share; may be repeated.")
    ] = None,
    recipient: Annotated[
        list[str] | None,
        typer.Option(metavar="K=V", help="Data of one recipient, with address and name; may be repeated."),
    ] = None,
    version: Version = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what a template becomes with some data. Nothing is sent."""
    shared = read_pairs(data or (), "--data")
    personal = read_pairs(recipient or (), "--recipient")
    template = _read(name, version)
    tags = recipient_tags(personal.pop("address", PREVIEW_ADDRESS), personal.pop("name", None), personal)
    message = _compiled(template.source).render(shared, tags)
    if as_json:
        print_json(
            {
                "name": template.name,
                "version": template.version,
                "subject": message.subject,
                "from_name": message.from_name,
                "reply_to": message.reply_to,
                "text": message.text,
                "html": message.html,
            }
        )
        return
    print_facts([("Subject", message.subject), ("From name", message.from_name), ("Reply-To", message.reply_to)])
    _print_bodies(message.text, message.html)


@app.command("remove", epilog=examples("tocsin template remove outage"))
def remove(name: Name) -> None:
    """Remove a template with all its versions, once no unfinished job uses it."""

    async def work(session: Session) -> None:
        await templates.remove_template(session.connection, name)

    in_session(work)
    say(f"Template {name!r} removed.")


def _read(name: str, version: int | None) -> StoredTemplate:
    async def work(session: Session) -> StoredTemplate:
        return await templates.read_template(session.connection, name, version)

    return in_session(work)


def _compiled(source: TemplateSource) -> MessageTemplate:
    """Compile what an operator wrote. Raises RenderingError, which names field and line, and UsageError."""
    if source.text_body is None and source.html_body is None:
        raise UsageError(
            "A template needs a body.", fix="Give --text-file or --html-file, or both.", scope=Scope.TEMPLATE
        )
    for field, text in (("subject", source.subject), ("from name", source.from_name)):
        if text is not None and ("\n" in text.rstrip("\r\n") or "\r" in text.rstrip("\r\n") or "\0" in text):
            raise UsageError(f"The {field} holds a line break.", fix="Write it on one line.", scope=Scope.TEMPLATE)
    if source.reply_to_address is not None and _TAG not in source.reply_to_address:
        parse_address(source.reply_to_address)
    return compile_message(
        MessageSources(
            subject=source.subject,
            text=source.text_body,
            html=source.html_body,
            from_name=source.from_name,
            reply_to=source.reply_to_address,
        )
    )


def _refuse_two_from_standard_input(text_file: str | None, html_file: str | None) -> None:
    if text_file == html_file == "-":
        raise UsageError("Standard input cannot be both text and HTML.", fix="Give one of them as a file.")


def _print_bodies(text: str | None, html: str | None) -> None:
    for heading, body in (("Text", text), ("HTML", html)):
        if body is not None:
            print_block(heading, body)


def _bodies(template: StoredTemplate) -> str:
    return " and ".join(
        kind for kind, body in (("text", template.text_body), ("HTML", template.html_body)) if body is not None
    )


def _as_json(template: StoredTemplate) -> dict[str, object]:
    return {
        "name": template.name,
        "version": template.version,
        "subject": template.subject,
        "text": template.text_body,
        "html": template.html_body,
        "from_name": template.from_name,
        "reply_to": template.reply_to_address,
        "created_at": template.created_at,
        "updated_at": template.updated_at,
    }
