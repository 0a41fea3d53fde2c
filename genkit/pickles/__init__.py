"""Read pickles as data: nothing that one names is imported, and nothing is called."""

from genkit.pickles.arrays import array
from genkit.pickles.reader import read_pickle
from genkit.pickles.records import Call, Global, Persistent, described

__all__ = ["Call", "Global", "Persistent", "array", "described", "read_pickle"]
