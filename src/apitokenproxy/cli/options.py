"""What several commands share."""

import os

import click

config_option = click.option(
    "-c",
    "--config",
    default="apitokenproxy.toml",
    show_default=True,
    metavar="FILE",
    help="The configuration file.",
)


def give_up_output() -> None:
    """Let what is left to be printed go nowhere: it would be tried again, and complained about, at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def printable(text: str) -> str:
    """Return a text in which what would act on a terminal, or look like another line, is escaped."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def examples(*lines: str) -> str:
    """Return the end of a help text: the lines as they are, where click would fill paragraphs."""
    return "\n".join(["\b", "Examples:" if len(lines) > 1 else "Example:", *(f"  {line}" for line in lines)])
