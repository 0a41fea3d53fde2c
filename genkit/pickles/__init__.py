"""Pickles are read as data: nothing that one names is imported, and nothing is called.

A pickle is a program for a small stack machine, and two of its opcodes import and call whatever it
asks for. This machine is another: where Python's would import or call, it notes down what was
asked, as a :class:`Global` or a :class:`Call`. What comes out is a tree of plain values and notes.
"""

from genkit.pickles.arrays import array
from genkit.pickles.machine import Limits
from genkit.pickles.nodes import Call, Global, Persistent, described
from genkit.pickles.reader import read_next, read_pickle

__all__ = [
    "Call",
    "Global",
    "Limits",
    "Persistent",
    "array",
    "described",
    "read_next",
    "read_pickle",
]
