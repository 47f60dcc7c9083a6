"""The house: which module may import which, what `import apitokenproxy` does, and what is public.

The tables below are the arrows of docs/architecture.md. A module or an import that they do not name
fails here, so that the picture and the code change together.
"""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import apitokenproxy

HOUSE = Path(apitokenproxy.__file__).parent
MODULES = sorted(HOUSE.rglob("*.py"))

SHARED = {
    "_colour",
    "asking",
    "authorities",
    "errors",
    "interfaces",
    "loading",
    "messages",
    "places",
    "quiet",
    "rotation",
    "sealing",
    "upstream",
    "wire",
}
PARTS = {"audit", "credentials", "forwarders", "guard", "identity", "limits", "policy", "secrets"}

EXACT = {
    "errors": set(),
    "quiet": set(),
    "traces": set(),
    "wire": set(),
    "messages": {"errors", "traces", "wire"},
    "interfaces": {"_colour", "messages"},
    "finishing": {"_colour", "errors", "messages"},
    "_colour": {"errors"},
    "asking": {"authorities", "errors", "messages", "quiet"},
    "authorities": set(),
    "sealing": {"errors", "messages"},
    "loading": {"_colour", "errors"},
    "places": {"errors"},
    "rotation": {"_colour", "errors", "interfaces", "loading", "messages"},
    "upstream": {"errors", "interfaces", "messages", "places", "rotation"},
    "exchange": {"errors", "interfaces", "messages"},
    "route": {"exchange", "finishing", "guard", "messages", "rotation", "upstream"},
    "routes": {"_colour", "credentials", "forwarders", "rotation", "route", "secrets", "upstream"},
    "pipeline": {"errors", "exchange", "guard", "interfaces", "messages", "route"},
    "token_endpoint": {"errors", "exchange", "finishing", "interfaces", "messages"},
    "adapters": {"_colour", "errors", "interfaces", "messages"},
    "testing": {"_colour", "errors", "identity", "interfaces", "messages"},
    "settings": {"errors", "upstream"},
    "proxy": (SHARED - {"asking", "authorities", "loading", "places", "quiet", "sealing", "wire"})
    | (PARTS - {"credentials"})
    | {"adapters", "config", "pipeline", "routes", "settings", "token_endpoint"},
}
"""What stands between the parts, and what it imports: no more and no less."""

AT_MOST = {
    **dict.fromkeys(PARTS, SHARED),
    "credentials": SHARED | {"finishing"},
    "durations": {"errors"},
    "config": {"config_tables", "durations", "errors", "limits", "messages", "policy", "upstream"},
    "config_tables": {"credentials", "durations", "identity", "messages", "rotation"},
    "served": {"config", "proxy"},
    "cli": {"config", "credentials", "durations", "identity", "limits", "policy", "proxy", "secrets", "served"}
    | (SHARED - {"asking", "authorities", "loading", "messages", "wire", "_colour"}),
    "__init__": SHARED | PARTS | {"proxy"},
    "__main__": {"cli"},
}
"""Parts know the seams and nothing of each other; config and cli stand on top."""

FOREIGN = {
    "adapters/httpx.py": {"httpx"},
    "asking.py": {"httpx"},
    "authorities.py": {"truststore"},
    "cli/app.py": {"click"},
    "cli/check.py": {"click"},
    "cli/demo.py": {"click", "httpx", "uvicorn"},
    "cli/options.py": {"click"},
    "cli/sealing.py": {"click"},
    "cli/secrets.py": {"click"},
    "cli/serve.py": {"click", "uvicorn"},
    "cli/token_changes.py": {"click"},
    "cli/token_derivation.py": {"click"},
    "cli/token_options.py": {"click"},
    "cli/token_tables.py": {"click"},
    "cli/tokens.py": {"click"},
    "credentials/assertion.py": {"joserfc"},
    "credentials/auth_flow.py": {"httpx"},
    "credentials/httpx_auth.py": {"httpx"},
    "credentials/sigv4.py": {"botocore"},
    "forwarders/httpx.py": {"httpx"},
    "identity/jwks.py": {"joserfc"},
    "identity/jwt.py": {"joserfc"},
    "identity/migrations/env.py": {"alembic"},
    "identity/migrations/versions/0001_client_tokens.py": {"alembic", "sqlalchemy"},
    "identity/migrations/versions/0002_states.py": {"alembic", "sqlalchemy"},
    "identity/postgres.py": {"psycopg", "sqlalchemy"},
    "identity/schema.py": {"alembic", "sqlalchemy"},
    "identity/sql.py": {"sqlalchemy"},
    "identity/sqlite.py": {"sqlalchemy"},
    "identity/tables.py": {"sqlalchemy"},
    "secrets/aws_calls.py": {"boto3", "botocore"},
    "secrets/azure.py": {"azure"},
    "secrets/gcp.py": {"google", "requests"},
    "secrets/keyring.py": {"keyring"},
    "sealing.py": {"cryptography"},
    "secrets/vault.py": {"hvac"},
    "secrets/vault_calls.py": {"hvac", "requests", "urllib3"},
    "secrets/vault_login.py": {"hvac"},
}
"""Every module that imports a package of others, attrs aside, and which."""

EVERYWHERE = {"attrs"}


def _unit(path: Path) -> str:
    """Return the folder or module of ours that a file belongs to."""
    return path.relative_to(HOUSE).parts[0].removesuffix(".py")


def _imports(path: Path) -> Iterator[str]:
    """Yield every module that a file imports, also inside functions, as dotted names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively; write the whole name"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _ours(path: Path) -> set[str]:
    """Return the other units of ours that a file imports."""
    names = [name.split(".") for name in _imports(path)]
    units = {parts[1] for parts in names if parts[0] == "apitokenproxy" and len(parts) > 1}
    known = {_unit(module) for module in MODULES}
    return {unit if unit in known else "apitokenproxy" for unit in units} - {_unit(path)}


def _foreign(path: Path) -> set[str]:
    """Return the packages of others that a file imports."""
    return {name.split(".")[0] for name in _imports(path)} - set(sys.stdlib_module_names) - {"apitokenproxy"}


def test_every_module_stands_in_the_picture() -> None:
    """A new module or folder is drawn in docs/architecture.md and in the tables above."""
    assert {_unit(path) for path in MODULES} <= {*EXACT, *AT_MOST}
    assert {_unit(path) for path in MODULES} >= PARTS | set(EXACT)


@pytest.mark.parametrize("unit", sorted(EXACT))
def test_the_arrows_between_the_stages(unit: str) -> None:
    """What holds the parts together imports exactly what the picture says."""
    imported = set().union(*(_ours(path) for path in MODULES if _unit(path) == unit))
    assert imported == EXACT[unit]


@pytest.mark.parametrize("unit", sorted(AT_MOST))
def test_parts_do_not_know_each_other(unit: str) -> None:
    """A part imports the seams, and nothing from another part's folder."""
    strays = {
        (str(path.relative_to(HOUSE)), other)
        for path in MODULES
        if _unit(path) == unit
        for other in _ours(path) - AT_MOST[unit]
    }
    assert strays == set()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_packages_of_others_are_imported_where_the_picture_says(path: Path) -> None:
    """An optional package is imported by the one module that needs it; httpx and httpcore by forwarders."""
    assert _foreign(path) - EVERYWHERE == FOREIGN.get(str(path.relative_to(HOUSE)), set())


IMPORT_WITH_THE_CORE_ALONE = """
import sys

CORE = {"attr", "attrs", "httpcore", "httpx"}
OF_THE_CORE = {"anyio", "certifi", "h11", "idna", "sniffio", "typing_extensions"}
ALLOWED = CORE | OF_THE_CORE | {"apitokenproxy"} | set(sys.stdlib_module_names)

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in ALLOWED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
import asyncio, attrs, concurrent.futures, httpcore, httpx, logging.handlers, sqlite3, tomllib

happened = []
def listen(event, arguments):
    if event == "open":
        if not str(arguments[0]).endswith((".py", ".pyc")):
            happened.append((event, str(arguments[0])))
    elif event.split(".")[0] in {"socket", "subprocess", "sqlite3", "shutil", "tempfile", "_thread", "pty"}:
        happened.append((event, ""))
    elif event in {"os.mkdir", "os.rename", "os.remove", "os.fork", "os.exec", "os.putenv", "os.system", "os.chmod"}:
        happened.append((event, ""))

before = set(sys.modules)
sys.addaudithook(listen)
sys.dont_write_bytecode = True
import apitokenproxy
assert happened == [], happened
import threading
assert threading.active_count() == 1, threading.enumerate()
print("optional:", sorted({name.split(".")[0] for name in set(sys.modules) - before} - ALLOWED))
"""


def test_importing_needs_only_the_core_and_does_nothing() -> None:
    """`import apitokenproxy` works without any extra, opens no file or socket and starts no thread."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT_WITH_THE_CORE_ALONE], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "optional: []\n", "")


def test_public_names_exist_and_say_what_they_mean() -> None:
    """Every name in __all__ is there, is ours and has a docstring."""
    for name in apitokenproxy.__all__:
        value = getattr(apitokenproxy, name)
        assert value.__module__.split(".")[0] == "apitokenproxy", name
        assert (value.__doc__ or "").strip(), name
        # attrs writes a docstring of its own only for what has none.
        assert not value.__doc__.startswith(f"{name}("), name


def test_nothing_else_is_public() -> None:
    """What `apitokenproxy` shows beside __all__ are its own modules, and none of them by a private name."""
    shown = {name for name in vars(apitokenproxy) if not name.startswith("_")}
    modules = {_unit(path) for path in MODULES}
    assert shown - set(apitokenproxy.__all__) <= modules
    assert [name for name in apitokenproxy.__all__ if name.startswith("_")] == []
    assert sorted(set(apitokenproxy.__all__)) == apitokenproxy.__all__


def test_star_import_brings_what_all_names() -> None:
    """`from apitokenproxy import *` brings __all__ and nothing more."""
    namespace: dict[str, object] = {}
    exec("from apitokenproxy import *", namespace)  # noqa: S102 - what a user types
    assert sorted(set(namespace) - {"__builtins__"}) == apitokenproxy.__all__


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_every_module_says_what_it_is(path: Path) -> None:
    """Each module opens with a docstring, and stays below 300 lines; errors.py is one long table."""
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text))
    if path.name not in {"errors.py", "messages.py"}:
        assert len(text.splitlines()) <= 300


@pytest.mark.parametrize("name", ["errors", "interfaces", "messages", "testing"])
def test_modules_that_others_build_on_are_documented(name: str) -> None:
    """Every public class and function in the modules for authors of parts has a docstring."""
    module = importlib.import_module(f"apitokenproxy.{name}")
    nodes = ast.walk(ast.parse(Path(module.__file__ or "").read_text()))
    definitions = [node for node in nodes if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    public = [node for node in definitions if not node.name.startswith("_")]
    assert [node.name for node in public if not ast.get_docstring(node)] == []
