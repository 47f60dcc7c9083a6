"""What several commands share."""

import click

config_option = click.option(
    "-c",
    "--config",
    default="apitokenproxy.toml",
    show_default=True,
    metavar="FILE",
    help="The configuration file.",
)


def printable(text: str) -> str:
    """Return a text in which what would act on a terminal, or look like another line, is escaped."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def examples(*lines: str) -> str:
    """Return the end of a help text: the lines as they are, where click would fill paragraphs."""
    return "\n".join(["\b", "Examples:" if len(lines) > 1 else "Example:", *(f"  {line}" for line in lines)])
