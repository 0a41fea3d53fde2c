"""Snapshots in the layout of EDM's reference, assembled by hand; fixtures of many tests."""

from __future__ import annotations

import io
import os
import struct
import sys
import tomllib
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import settings

from genkit.cli import main
from genkit.errors import DataError
from genkit.pickles import Call, Global, Persistent

# The same examples in every run, and no limit on their time, which depends on the load.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")


def pytest_make_parametrize_id(config, val, argname):
    """Name bytes by their argument: a ZIP file holds its time, which differs between workers."""
    return argname if isinstance(val, bytes) else None


MAGIC, FORMAT = 0x1950A86A20F9469CFC6C, 1001
SYSTEM = {
    "protocol_version": FORMAT,
    "little_endian": True,
    "type_sizes": {"short": 2, "int": 4, "long": 4},
}
STORAGES = {"f2": "HalfStorage", "f4": "FloatStorage", "f8": "DoubleStorage"}
SOURCE = "import os\nos.mkdir('executed')\n"  # of a module: kept as text, or it would show


def emitted(node):
    """Return the pickle that a tree of plain values and notes stands for."""
    return b"\x80\x03" + b"".join(_opcodes(node)) + b"."


def _opcodes(node):
    if node is None:
        yield b"N"
    elif isinstance(node, bool):
        yield b"\x88" if node else b"\x89"
    elif isinstance(node, int):
        raw = node.to_bytes(node.bit_length() // 8 + 1, "little", signed=True)
        yield b"\x8a" + bytes([len(raw)]) + raw
    elif isinstance(node, float):
        yield b"G" + struct.pack(">d", node)
    elif isinstance(node, str):
        yield b"X" + struct.pack("<I", len(node.encode())) + node.encode()
    elif isinstance(node, bytes):
        yield b"B" + struct.pack("<I", len(node)) + node
    elif isinstance(node, (list, tuple)):
        yield b"("
        for item in node:
            yield from _opcodes(item)
        yield b"l" if isinstance(node, list) else b"t"
    elif isinstance(node, set):
        yield b"\x8f("
        for item in node:
            yield from _opcodes(item)
        yield b"\x90"
    elif isinstance(node, dict):
        yield b"}("
        yield from _pairs(node)
        yield b"u"
    elif isinstance(node, Global):
        yield f"c{node.module}\n{node.name}\n".encode()
    elif isinstance(node, Persistent):
        yield from _opcodes(node.id)
        yield b"Q"
    else:
        assert isinstance(node, Call)
        yield from _opcodes(node.function)
        yield from _opcodes(node.args)
        yield b"R("
        yield from _pairs(node.items)
        yield b"u"
        if node.state is not None:
            yield from _opcodes(node.state)
            yield b"b"


def _pairs(items):
    for key, value in items.items():
        yield from _opcodes(key)
        yield from _opcodes(value)


def ordered(**items):
    return Call(Global("collections", "OrderedDict"), (), items=items)


def storage_id(values, key="7"):
    kind = Global("torch", STORAGES[values.dtype.str[1:]])
    return ("storage", kind, key, "cpu", values.size, None)


def nested(values, known=None, keys=("7",), count=None, head=(MAGIC, FORMAT, SYSTEM)):
    """Return one storage as torch.save wrote it before 1.6, or what differs from that."""
    storage = Persistent(storage_id(values) if known is None else known)
    parts = b"".join(emitted(part) for part in (*head, storage, list(keys)))
    return parts + struct.pack("<q", values.size if count is None else count) + values.tobytes()


def plain_storage(values):
    return Call(Global("torch.storage", "_load_from_bytes"), (nested(values.reshape(-1)),))


def strides(shape):
    return tuple(int(np.prod(shape[k + 1 :])) for k in range(len(shape)))


def tensor(values, storage=plain_storage):
    shape = values.shape
    args = (storage(values), 0, shape, strides(shape), False, ordered())
    return Call(Global("torch._utils", "_rebuild_tensor_v2"), args)


def parameter(node):
    return Call(Global("torch._utils", "_rebuild_parameter"), (node, True, ordered()))


def persistent(class_name, state):
    told = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": class_name}
    function = Global("torch_utils.persistence", "_reconstruct_persistent_obj")
    return Call(function, ({**told, "state": state},))


def module(weights, class_name, storage=plain_storage, **attributes):
    """Return the note of a module whose parameters and buffers have the names of ``weights``."""
    parameters, buffers, modules = {}, {}, {}
    for name, values in weights.items():
        first, _, rest = name.partition(".")
        if rest:
            modules.setdefault(first, {})[rest] = values
        elif first in ("resample_filter", "freqs", "phases", "u"):
            buffers[first] = tensor(values, storage)
        else:
            parameters[first] = parameter(tensor(values, storage))
    parameters.setdefault("bias", None)
    state = {
        "training": False,
        "_parameters": ordered(**parameters),
        "_buffers": ordered(**buffers),
        "_non_persistent_buffers_set": set(),
        "_forward_hooks": ordered(),
        "_modules": ordered(
            **{name: module(inside, "Part", storage) for name, inside in modules.items()}
        ),
        **attributes,
    }
    if any(name[0].isdigit() for name in modules):  # the encoder or the decoder
        return Call(Global("torch.nn.modules.container", "ModuleDict"), (), state=state)
    return persistent(class_name, state)


def denoiser(weights, precond, arguments, storage=plain_storage):
    recorded = {"_init_args": (), "_init_kwargs": arguments}
    channels = {"img_channels": arguments["img_channels"]}
    return module(weights, precond, storage, **recorded, **channels)


def snapshot(weights, precond, arguments):
    """Return the tree of a network snapshot."""
    return {
        "ema": denoiser(weights, precond, arguments),
        "loss_fn": persistent("EDMLoss", {"P_mean": -1.2}),
        "augment_pipe": None,
        "dataset_kwargs": {"path": "cifar10.zip", "use_labels": False},
    }


def edm2_snapshot(weights, precond, arguments, encoder="StandardRGBEncoder"):
    """Return the tree of a network snapshot of EDM2."""
    items = {
        "encoder": persistent(encoder, {}),
        "dataset_kwargs": {"path": "img64.zip", "use_labels": True},
        "loss_fn": persistent("EDM2Loss", {"P_mean": -0.8}),
        "ema": denoiser(weights, precond, arguments),
    }
    return Call(Global("dnnlib.util", "EasyDict"), (), items=items)


def training_state(weights, precond, arguments):
    """Return the bytes of a training state: a zip file."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:

        def storage(values):
            key = str(len(file.namelist()))
            file.writestr(f"training-state-000001/data/{key}", values.tobytes())
            return Persistent(storage_id(values.reshape(-1), key)[:5])

        net = denoiser(weights, precond, arguments, storage)
        tree = {"net": net, "optimizer_state": {"state": {0: {}}, "param_groups": [{"lr": 1e-3}]}}
        file.writestr("training-state-000001/data.pkl", emitted(tree))
        file.writestr("training-state-000001/byteorder", "little")
    return content.getvalue()


def made_up(seed=0):
    """Return a small network of the reference: weights, preconditioning and arguments."""
    from genkit_edm.reference.names import build_layout
    from genkit_edm.reference.networks import network_from_reference

    arguments = {
        "img_resolution": 8,
        "img_channels": 1,
        "label_dim": 0,
        "model_type": "SongUNet",
        "model_channels": 4,
        "channel_mult": [1],
        "num_blocks": 1,
        "attn_resolutions": [],
        "embedding_type": "positional",
        "use_fp16": False,
    }
    settings, spec = network_from_reference("EDMPrecond", arguments)
    entries = build_layout(settings.build_network(spec), 8, learned_variance=False).entries
    return random_weights(entries, seed), "EDMPrecond", arguments


def made_up_edm2(seed=0, **changes):
    """Return a small network of EDM2's reference, in float16 as its snapshots are."""
    from genkit_edm.reference.names import build_edm2_layout
    from genkit_edm.reference.networks import network_from_reference

    arguments = {
        "img_resolution": 8,
        "img_channels": 1,
        "label_dim": 3,
        "use_fp16": True,
        "model_channels": 8,
        "channel_mult": [1, 2],
        "num_blocks": 1,
        "attn_resolutions": [4],
        "channels_per_head": 8,
        **changes,
    }
    settings, spec = network_from_reference("Precond", arguments)
    entries = build_edm2_layout(settings.build(spec), settings, 8).entries
    weights = random_weights(entries, seed)
    halved = {name: values.astype(np.float16) for name, values in weights.items()}
    return halved, "Precond", arguments


def random_weights(entries, seed):
    rng = np.random.default_rng(seed)
    return {
        name: np.asarray(rng.standard_normal(entry.shape, np.float32))
        for name, entry in entries.items()
    }


class Watch:
    """Records what Python's audit hooks report while something is read.

    Attributes:
        events: beginnings of the events that are recorded.
        seen: recorded events.
    """

    def __init__(self):
        self.source = None
        self.events = ()
        self.seen = []
        for codec in ("cp437", "raw-unicode-escape"):  # imported when they are first used
            b"x".decode(codec)
        sys.addaudithook(self.hear)

    def hear(self, event, args):
        own = event == "open" and str(args[0]) == str(self.source)
        if self.source is not None and event.startswith(self.events) and not own:
            self.seen.append((event, args))

    def outcome(self, read, source):
        """Return the reason for which a path or a pickle is refused; empty where it is read."""
        self.source = source
        try:
            read(source)
        except DataError as error:
            return str(error)
        finally:
            self.source = None
        return ""


@pytest.fixture(scope="session")
def _watch():
    return Watch()  # once: a hook stays as long as the process


@pytest.fixture
def watch(_watch):
    """Records the audit events of what is read."""
    _watch.events, _watch.seen = (), []
    return _watch


@pytest.fixture(scope="session")
def edm_files():
    """What assembles files in the reference's layout, from a tree or from weights."""
    return SimpleNamespace(
        edm2_snapshot=edm2_snapshot,
        emitted=emitted,
        made_up=made_up,
        made_up_edm2=made_up_edm2,
        nested=nested,
        snapshot=snapshot,
        storage_id=storage_id,
        tensor=tensor,
        training_state=training_state,
    )


@pytest.fixture
def genkit_(capsys):
    """Call the command line; returns exit code, stdout and stderr."""

    def call(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return stopped.value.code or 0, out, err

    return call


@pytest.fixture
def inside():
    """Read imported files in the process of the test."""
    from inside import reading_inside

    with reading_inside():
        yield


@pytest.fixture
def coarse_pictures():
    """Draw coarse pictures: they take most of the time of a tiny run."""
    from coarse import drawn_coarsely

    with drawn_coarsely():
        yield


def put_on_path(package, folder, monkeypatch):
    """Put a distribution on the path as an installer would, for other processes as well."""
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    name, version = project["name"], project["version"]
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    points = project["entry-points"]["genkit.plugins"].items()
    listed = "".join(f"{plugin} = {module}\n" for plugin, module in points)
    (info / "entry_points.txt").write_text(f"[genkit.plugins]\n{listed}")
    known = [os.environ[name] for name in ("PYTHONPATH",) if name in os.environ]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package), str(folder), *known]))
    monkeypatch.setattr("genkit.plugin.probe.cache_folder", lambda: folder / "cache")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.syspath_prepend(package)


@pytest.fixture(scope="session")
def installed():
    """Puts a distribution on the path: ``installed(package, folder, monkeypatch)``."""
    return put_on_path
