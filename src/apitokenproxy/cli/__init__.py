"""The command line: `apitokenproxy`. Thin: every command calls a public function."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from apitokenproxy.cli.app import app  # noqa: PLC0415 - click comes with the extra `server`
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("apitokenproxy"):
            raise
        sys.exit(f"apitokenproxy: {error.name} is not installed; run: pip install 'apitokenproxy[server]'")
    except KeyboardInterrupt:
        sys.exit(130)
    app(prog_name="apitokenproxy")
