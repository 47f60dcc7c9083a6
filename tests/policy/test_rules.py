"""What rules decide: a deny wins, nothing matching is a denial, and what cannot be known counts against the caller."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_calls import ACME, allow, allows, deny, operation, verdict, where

from apitokenproxy import Caller, Denial, Grant, Rule
from apitokenproxy.errors import ConfigurationError
from apitokenproxy.policy.rules import Rules

# --- what matches ---------------------------------------------------------------------------

TERMS: dict[str, tuple[dict[str, Any], dict[str, Any], bool]] = {
    "nothing said": ({}, {}, True),
    "the method": ({"methods": ["GET", "HEAD"]}, {"method": "HEAD"}, True),
    "another method": ({"methods": ["GET"]}, {"method": "POST"}, False),
    "the upstream": ({"upstream": "api"}, {"upstream": "api"}, True),
    "another upstream": ({"upstream": "api"}, {"upstream": "other"}, False),
    "the tenant": ({"tenants": ["x", "acme"]}, {}, True),
    "another tenant": ({"tenants": ["x"]}, {}, False),
    "the subject": ({"subjects": ["ada"]}, {}, True),
    "another subject": ({"subjects": ["bob"]}, {}, False),
    "all scopes": ({"scopes": ["read", "write"]}, {}, True),
    "one scope too few": ({"scopes": ["read", "admin"]}, {}, False),
    "the path": ({"path": "/repos/{owner}/**"}, {"path": "/repos/octo/x/y"}, True),
    "another path": ({"path": "/repos/{owner}"}, {"path": "/repos/octo/x"}, False),
    "the path in another case": ({"path": "/Repos"}, {"path": "/repos"}, False),
    "path and attribute": (
        {"path": "/{org}", "where": where(path__org="caller.attributes.org")},
        {"path": "/octo"},
        True,
    ),
    "path and another attribute": (
        {"path": "/{org}", "where": where(path__org="caller.attributes.org")},
        {"path": "/hub"},
        False,
    ),
    "path and one of several": (
        {"path": "/{org}", "where": where(path__org="caller.attributes.orgs")},
        {"path": "/hub"},
        True,
    ),
    "several and a text": ({"where": where(caller__attributes__orgs="hub")}, {}, True),
    "several and a list": ({"where": where(caller__attributes__orgs=["x", "hub"])}, {}, True),
    "several and others": ({"where": where(caller__attributes__orgs=["x", "y"])}, {}, False),
    "tenant and text": ({"where": where(caller__tenant="acme")}, {}, True),
    "tenant and path": ({"path": "/{t}", "where": where(caller__tenant="path.t")}, {"path": "/acme"}, True),
    "subject and list": ({"where": where(caller__subject=["bob", "ada"])}, {}, True),
    "two conditions, one of which fails": (
        {"where": where(caller__tenant="acme", caller__subject="bob")},
        {},
        False,
    ),
}


@pytest.mark.parametrize(("terms", "what", "matches"), TERMS.values(), ids=TERMS)
def test_a_rule_matches_by_all_of_its_terms(terms: dict[str, Any], what: dict[str, Any], matches: bool) -> None:
    """What is left out matches anything; what is there must hold, in an allow and in a deny alike."""
    assert allows([allow(**terms)], **what) is matches
    assert allows([allow(), deny(**terms)], **what) is not matches


UNKNOWN = ["missing", "number", "blank", "mixed", "none"]


@pytest.mark.parametrize("attribute", UNKNOWN)
@pytest.mark.parametrize("side", ["left", "right"])
def test_what_cannot_be_known_matches_no_allow_and_every_deny(attribute: str, side: str) -> None:
    """An attribute that is missing or is not text: nobody gains by it."""
    known, unknown = "caller.tenant", f"caller.attributes.{attribute}"
    terms = {"where": {unknown: known} if side == "left" else {known: unknown}}
    assert not allows([allow(**terms)])
    assert not allows([allow(), deny(**terms)])


def test_two_unknowns_are_not_equal() -> None:
    """Nothing is not the same as nothing."""
    terms = {"where": where(caller__attributes__missing="caller.attributes.other")}
    assert not allows([allow(**terms)])
    assert not allows([allow(), deny(**terms)])


def test_a_caller_without_subject_is_nobodys_subject() -> None:
    """An empty subject is unknown, also where the path is empty."""
    nobody = Caller(tenant="acme")
    terms = {"path": "/{who}", "where": where(path__who="caller.subject")}
    assert not allows([allow(**terms)], nobody, path="/ada")
    assert not allows([allow(**terms)], nobody, path="/")


# --- what wins ------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_deny_wins_in_any_order(order: tuple[int, ...]) -> None:
    """Where it stands among the rules makes no difference."""
    rules = [allow("one"), deny("no", path="/secret/**"), allow("two", path="/secret/{x}")]
    ordered = [rules[place] for place in order]
    assert not allows(ordered, path="/secret/x")
    assert allows(ordered, path="/public")


def test_nothing_matching_is_a_denial() -> None:
    """No rules, no rule for the upstream, or none that fits."""
    for rules in ([], [allow(upstream="other")], [allow(methods=["POST"])], [deny()]):
        assert not allows(rules)


def test_a_deny_is_tried_on_every_reading_and_an_allow_on_the_plain_one() -> None:
    """A path that some backend could read as a forbidden one is forbidden; one that only some backend
    could read as allowed is not allowed.
    """
    assert not allows([allow(), deny(path="/admin")], path="/x;admin", others=("/admin",))
    assert not allows([allow(path="/public")], path="/x", others=("/public",))


# --- what is told ---------------------------------------------------------------------------


def test_a_grant_names_its_rule() -> None:
    """The first allow that matches, with the caller and the operation it is for."""
    what = operation()
    granted = Rules([allow("first", tenants=["x"]), allow("second"), allow("third")]).decide(ACME, what)
    assert granted == Grant(ACME, what, "second")


def test_a_denial_names_the_rule_that_denies() -> None:
    """The audit record says which rule it was."""
    assert verdict([allow(), deny("no-admin")]) == Denial("rule no-admin denies it", "no-admin")


def test_a_denial_for_want_of_an_allow_says_what_did_not_match() -> None:
    """Each allow with the first of its terms that failed, in a word; no value of the request."""
    rules = [
        allow("a", methods=["POST"]),
        allow("b", tenants=["x"]),
        allow("c", subjects=["x"]),
        allow("d", scopes=["x"]),
        allow("e", path="/other"),
        allow("f", where=where(caller__attributes__org="hub")),
    ]
    denied = verdict(rules, path="/s3cret-path")
    assert isinstance(denied, Denial)
    reason = "a: method, b: tenant, c: subject, d: scopes, e: path, f: caller.attributes.org"
    assert denied.reason == f"no rule allows it; what did not match: {reason}"


def test_a_denial_for_an_upstream_without_allows_says_so() -> None:
    """The commonest mistake of a beginner."""
    denied = verdict([allow(upstream="other")])
    assert denied == Denial("no rule allows anything on api")


def test_a_long_reason_is_cut() -> None:
    """A thousand rules do not make a record of pages."""
    denied = verdict([allow(f"rule-{number}", methods=["POST"]) for number in range(1000)])
    assert isinstance(denied, Denial)
    assert len(denied.reason) == 300


# --- properties -----------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "{x}", "{y}"])
PATHS = st.builds(
    lambda parts, rest: "/" + "/".join([*dict.fromkeys(parts), *(["**"] if rest else [])]),
    st.lists(NAMES, max_size=3),
    st.booleans(),
)
RULES = st.builds(
    lambda effect, methods, path, tenants, upstream: {
        "effect": effect,
        "methods": methods,
        "path": path,
        "tenants": tenants,
        "upstream": upstream,
    },
    st.sampled_from(["allow", "deny"]),
    st.sampled_from([None, ["GET"], ["POST"]]),
    st.none() | PATHS,
    st.sampled_from([None, ["acme"], ["x"]]),
    st.sampled_from([None, "api", "other"]),
)
ASKED = st.fixed_dictionaries(
    {
        "path": st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=1, max_size=4).map(lambda p: "/" + "/".join(p)),
        "method": st.sampled_from(["GET", "POST"]),
        "upstream": st.sampled_from(["api", "other"]),
    }
)


def numbered(rules: list[dict[str, Any]]) -> list[Rule]:
    return [Rule(f"r{number}", **terms) for number, terms in enumerate(rules)]


@given(st.lists(RULES, max_size=5), RULES, ASKED)
def test_one_more_deny_never_lets_more_through(rules: list[dict[str, Any]], more: dict[str, Any], asked: Any) -> None:
    """Adding a deny, or taking an allow away, only narrows."""
    before = allows(numbered(rules), **asked)
    assert allows(numbered([*rules, more | {"effect": "deny"}]), **asked) <= before
    if rules and rules[0]["effect"] == "allow":
        assert allows(numbered(rules[1:]), **asked) <= before


@given(st.lists(RULES, max_size=5), st.randoms(use_true_random=False), ASKED)
def test_the_order_of_rules_does_not_matter(rules: list[dict[str, Any]], random: Any, asked: Any) -> None:
    """Rules may be sorted as people like to read them."""
    shuffled = numbered(rules)
    random.shuffle(shuffled)
    assert allows(shuffled, **asked) == allows(numbered(rules), **asked)


@given(st.lists(RULES, max_size=5), ASKED)
def test_rules_decide_as_their_definition_says(rules: list[dict[str, Any]], asked: Any) -> None:
    """Against the definition, written down plainly: some allow matches and no deny does."""

    def matches(terms: dict[str, Any]) -> bool:
        segments = asked["path"][1:].split("/")
        return (
            terms["upstream"] in {None, asked["upstream"]}
            and (terms["methods"] is None or asked["method"] in terms["methods"])
            and (terms["tenants"] is None or "acme" in terms["tenants"])
            and (terms["path"] is None or plainly_matches(terms["path"], segments))
        )

    matching = [terms["effect"] for terms in rules if matches(terms)]
    assert allows(numbered(rules), **asked) == ("allow" in matching and "deny" not in matching)


def plainly_matches(template: str, segments: list[str]) -> bool:
    parts = template[1:].split("/") if template != "/" else []
    if parts and parts[-1] == "**":
        parts, segments = parts[:-1], segments[: len(parts) - 1]
    return len(parts) == len(segments) and all(
        bool(segment) if part.startswith("{") else part == segment
        for part, segment in zip(parts, segments, strict=True)
    )


# --- bad rules ------------------------------------------------------------------------------

REFERENCES = "use path.NAME, caller.tenant, caller.subject or caller.attributes.NAME"

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no id": ({"id": ""}, "a rule needs an id, so that the audit record can name it"),
    "effect": ({"effect": "permit"}, "rule r: effect is 'permit'; it must be 'allow' or 'deny'"),
    "no methods": ({"methods": []}, "rule r: methods is empty; leave it out to match any"),
    "small method": ({"methods": ["get"]}, "rule r: method 'get' must be in capitals, as GET is"),
    "text for list": ({"tenants": "acme"}, "a rule's methods, tenants, subjects and scopes are lists, as ['acme']"),
    "no scopes": ({"scopes": []}, "rule r: scopes is empty; leave it out to match any"),
    "path": ({"path": "repos"}, "rule r: path 'repos' must begin with a slash"),
    "unknown reference": (
        {"where": {"caller.name": "x"}},
        f"rule r: where 'caller.name' is not known; {REFERENCES}",
    ),
    "unknown reference on the right": (
        {"where": {"caller.tenant": "caller.atributes.org"}},
        f"rule r: where 'caller.atributes.org' is not known; {REFERENCES}",
    ),
    "name that the path has not": (
        {"path": "/{a}", "where": {"path.b": "x"}},
        "rule r: where 'path.b' needs {b} in the path",
    ),
    "nothing to compare with": (
        {"where": {"caller.tenant": []}},
        "rule r: where 'caller.tenant' compares with nothing",
    ),
}


@pytest.mark.parametrize(("terms", "sentence"), BAD.values(), ids=BAD)
def test_a_bad_rule_is_one_sentence(terms: dict[str, Any], sentence: str) -> None:
    """It names the rule and says what to do."""
    settings = {"id": "r", "effect": "allow"} | terms
    with pytest.raises(ConfigurationError) as refusal:
        Rule(settings.pop("id"), **settings)
    assert str(refusal.value) == sentence


def test_rules_must_differ_and_name_upstreams_that_are_there() -> None:
    """A typo in an upstream's name would otherwise be a rule that never matches."""
    with pytest.raises(ConfigurationError, match="another rule has this id"):
        Rules([allow("same"), deny("same")])
    with pytest.raises(ConfigurationError, match="there is no upstream 'gihub'; there are: api, github"):
        Rules([allow(upstream="gihub")], upstreams=["github", "api"])
