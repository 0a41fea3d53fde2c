"""Match errors by their codes and the names in them, so that the wording of messages can change."""

from __future__ import annotations

import re
from contextlib import contextmanager

import pytest

from genkit.testing import LawBroken


@contextmanager
def raises_code(error, code, *names):
    """Require an error with a code, whose message has the names as whole words."""
    with pytest.raises(error) as caught:
        yield caught
    codes = {mistake.problem.code for mistake in caught.value.mistakes}
    text = str(caught.value)
    absent = [n for n in map(str, names) if not re.search(rf"(?<!\w){re.escape(n)}(?!\w)", text)]
    assert code in codes, (codes, text)
    assert not absent, (absent, text)


@contextmanager
def breaks(law):
    """Require that a component breaks a law, given by its name.

    Behind ``"; "`` may follow what the message must contain: ``"noise-mean; embeddings 0"``.
    """
    with pytest.raises(LawBroken) as caught:
        yield caught
    name, _, seen = law.partition("; ")
    assert (caught.value.name, seen in str(caught.value)) == (name, True), str(caught.value)
