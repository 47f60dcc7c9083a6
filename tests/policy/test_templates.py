"""Path templates: whole decoded segments, in as many steps as the template has."""

from typing import Any, ClassVar

import pytest

from apitokenproxy.errors import ConfigurationError
from apitokenproxy.policy.template import compile_template

MATCHES: dict[str, tuple[str, tuple[str, ...], dict[str, str] | None]] = {
    "literal": ("/a/b", ("a", "b"), {}),
    "shorter": ("/a/b", ("a",), None),
    "longer": ("/a/b", ("a", "b", "c"), None),
    "name": ("/a/{x}", ("a", "b"), {"x": "b"}),
    "name of nothing": ("/a/{x}", ("a", ""), None),
    "two names": ("/{x}/{y}", ("a", "b"), {"x": "a", "y": "b"}),
    "rest": ("/a/**", ("a", "b", "c"), {}),
    "rest of nothing": ("/a/**", ("a",), {}),
    "rest of all": ("/**", (), {}),
    "name before rest": ("/{x}/**", ("a", "b"), {"x": "a"}),
    "root": ("/", (), {}),
    "root and more": ("/", ("a",), None),
    "trailing slash": ("/a/", ("a", ""), {}),
    "trailing slash missing": ("/a/", ("a",), None),
    "a decoded slash is no boundary": ("/a/b", ("a/b",), None),
    "a decoded slash in a name": ("/{x}", ("a/b",), {"x": "a/b"}),
    "a decoded slash in a name is not two": ("/{x}/{y}", ("a/b",), None),
    "dots and stars are themselves": ("/a.b", ("axb",), None),
    "not decoded": ("/%61", ("a",), None),
    "case": ("/A", ("a",), None),
    "part of a segment": ("/a", ("ab",), None),
    "letters of all kinds": ("/é", ("é",), {}),
}


@pytest.mark.parametrize(("template", "reading", "found"), MATCHES.values(), ids=MATCHES)
def test_a_template_matches_whole_segments(template: str, reading: tuple[str, ...], found: Any) -> None:
    """And says what its names stand for."""
    assert compile_template(template).match(reading) == found


@pytest.mark.parametrize("template", ["a", "", "/a*", "/*", "/{a}b", "/{}", "/{a-b}", "/**/a", "/a**", "/{a", "/{1}"])
def test_a_template_that_is_not_understood_is_refused(template: str) -> None:
    """Rather than taken as a literal that never matches."""
    with pytest.raises(ConfigurationError) as refusal:
        compile_template(template)
    assert str(refusal.value).startswith(f"path {template!r}")


def test_a_name_is_used_once() -> None:
    """Which of two would count?"""
    with pytest.raises(ConfigurationError, match="uses a name twice"):
        compile_template("/{a}/{a}")


class Counting(tuple[str, ...]):
    """A reading that counts how often it is looked at."""

    __slots__ = ()
    looks: ClassVar[int] = 0

    def __getitem__(self, place: Any) -> Any:
        Counting.looks += 1
        return super().__getitem__(place)


@pytest.mark.parametrize("segments", [10, 1000, 8000])
def test_matching_takes_as_many_steps_as_the_template_has_segments(segments: int) -> None:
    """However long the path: there is no backtracking."""
    Counting.looks = 0
    template = compile_template("/{a}/b/{c}/**")
    assert template.match(Counting(["a", "b"] * segments)) == {"a": "a", "c": "a"}
    assert Counting.looks == 3
