"""What every store of states must do: inherit from `StateStoreConformance`.

    class TestMine(StateStoreConformance):
        def make(self):
            return MyStore("a place that nobody has used before")

Every fact asks for a new, empty store.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_MANY = 40


class StateStoreConformance:
    """The facts, one a method. Override `make`, which returns something with `close()` as well."""

    def make(self) -> Any:
        """Return a store that nobody has used before."""
        raise NotImplementedError

    def test_what_is_written_is_read(self) -> None:
        """Bytes as they were, whatever they are; a name that is not there reads as None."""
        store = self.make()
        for name, value in (("a", b""), ("b/%_", bytes(range(256))), ("x" * 255, b"1" * 100_000)):
            assert store.state(name) is None
            assert store.write_state(name, value, 0)
            assert (store.state(name).name, store.state(name).value) == (name, value)
        store.close()

    def test_only_who_has_read_the_newest_may_write(self) -> None:
        """Every write gives it another number; a first write wins over another first one."""
        store = self.make()
        assert not store.write_state("a", b"early", 7)
        assert store.write_state("a", b"1", 0)
        assert not store.write_state("a", b"another first", 0)
        first = store.state("a")
        assert first.number
        assert store.write_state("a", b"2", first.number)
        assert not store.write_state("a", b"late", first.number)
        second = store.state("a")
        assert (second.value, second.number != first.number) == (b"2", True)
        store.close()

    def test_states_are_found_by_the_beginning_of_their_names(self) -> None:
        """In order; case counts, and what would be a pattern is not one."""
        store = self.make()
        for name in ("v/b", "v/a", "V/c", "w", "v%", "v/"):
            assert store.write_state(name, name.encode(), 0)
        assert _names(store.states("v/")) == ["v/", "v/a", "v/b"]
        assert _names(store.states("v%")) == ["v%"]
        assert _names(store.states("x")) == []
        assert len(store.states("")) == len(["v/b", "v/a", "V/c", "w", "v%", "v/"])
        store.close()

    def test_of_many_at_once_one_writes(self) -> None:
        """Nothing is lost: as many writes succeed as there are numbers."""
        store = self.make()
        assert store.write_state("n", b"0", 0)

        def count(_: int) -> None:
            while True:
                state = store.state("n")
                if store.write_state("n", str(int(state.value) + 1).encode(), state.number):
                    return

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(count, range(_MANY)))
        assert store.state("n").value == str(_MANY).encode()
        store.close()

    def test_values_do_not_show(self) -> None:
        """The repr of what a store returns can be logged."""
        store = self.make()
        store.write_state("n", b"material", 0)
        assert "material" not in repr(store.state("n")) + repr(store.states(""))
        store.close()


def _names(states: Sequence[Any]) -> list[str]:
    return [state.name for state in states]
