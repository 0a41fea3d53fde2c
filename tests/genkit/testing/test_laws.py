from __future__ import annotations

import subprocess
import sys

from genkit.independent import Random
from genkit.testing import LawBroken


def test_it_imports_without_pytest():
    code = "import sys, genkit.testing; sys.exit('pytest' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_broken_law_says_who_and_what():
    error = LawBroken(Random(), "works: it works", "it does not")
    assert str(error) == "Random() breaks the law works: it works; seen: it does not"
    assert isinstance(error, AssertionError)
