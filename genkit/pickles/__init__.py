"""Read pickles as data, without importing or calling anything that they refer to."""

from genkit.pickles.arrays import array
from genkit.pickles.reader import read_pickle
from genkit.pickles.records import Call, Global, Persistent, describe, mapping
from genkit.pickles.state_dict import read_state_dict
from genkit.pickles.torch_storage import TensorReader
from genkit.pickles.torch_zip import TorchZip

__all__ = [
    "Call",
    "Global",
    "Persistent",
    "TensorReader",
    "TorchZip",
    "array",
    "describe",
    "mapping",
    "read_pickle",
    "read_state_dict",
]
