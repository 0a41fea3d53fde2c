from __future__ import annotations

from genkit.pickles import Call, Global, Persistent, describe


def test_a_message_never_shows_a_whole_tree():
    held: list[object] = ["x" * 10**6] * 1000
    call = Call(Global("a" * 1000, "b"), tuple(held))
    for node in (held, call, Persistent(held), Global("a" * 1000, "b"), "x" * 10**6, None, 1.5):
        assert len(describe(node)) < 250
