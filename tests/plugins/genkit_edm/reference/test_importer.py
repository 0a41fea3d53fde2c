from __future__ import annotations

import collections
import copy
import json
import pickle
import sys
import types

import numpy as np
import pytest
import torch

from genkit.errors import Code, DataError
from genkit_edm.reference.importer import EdmImporter
from genkit_edm.reference.networks import from_reference
from genkit_edm.reference.snapshot import read_snapshot
from raising import raises_code


@pytest.fixture(scope="module")
def small(edm_files):
    """Weights, preconditioning and arguments of a small network."""
    return edm_files.made_up()


def written(folder, content, name="network-snapshot-000012.pkl"):
    (folder / name).write_bytes(content)
    return folder / name


def same_bits(one, other):
    assert one.keys() == other.keys()
    for name, values in one.items():
        assert np.asarray(values).dtype == np.asarray(other[name]).dtype
        assert np.asarray(values).shape == np.asarray(other[name]).shape
        assert np.asarray(values).tobytes() == np.asarray(other[name]).tobytes(), name


def golden_case(edm_golden, name):
    tensors, metadata = edm_golden(name)
    prefix = "weights."
    weights = {
        key.removeprefix(prefix): value.numpy()
        for key, value in tensors.items()
        if key.startswith(prefix)
    }
    return tensors, weights, metadata["precond"], json.loads(metadata["arguments"])


@pytest.mark.parametrize("name", ["denoiser_ddpmpp", "denoiser_ncsnpp"])
def test_a_snapshot_assembled_by_hand_is_read_to_the_bit(edm_golden, edm_files, tmp_path, name):
    tensors, weights, precond, arguments = golden_case(edm_golden, name)
    tree = edm_files.snapshot(weights, precond, arguments)
    path = written(tmp_path, edm_files.emitted(tree))
    found = read_snapshot(path)
    same_bits(found.weights, weights)
    assert (found.precond, found.arguments) == (precond, arguments)

    imported = EdmImporter().read(path)
    theirs = {key: torch.from_numpy(value) for key, value in weights.items()}
    same_bits(imported.weights, from_reference(theirs, precond, arguments)[2])
    model = imported.network.build(imported.spec).eval()
    model.load_state_dict(imported.weights)
    labels = tensors["class_labels"].argmax(1) if "class_labels" in tensors else None
    with torch.no_grad():
        denoised = model(tensors["x"], tensors["sigma"], labels, tensors["augment_labels"])
    torch.testing.assert_close(denoised, tensors["denoised"], rtol=1e-5, atol=1e-5)


def test_a_training_state_is_read_to_the_bit(edm_files, small, tmp_path):
    path = written(tmp_path, edm_files.training_state(*small), "training-state-000500.pt")
    same_bits(read_snapshot(path).weights, small[0])
    imported = EdmImporter().read(path)
    assert imported.images == 500_000
    (note,) = imported.notes
    assert "not averaged" in note


@pytest.mark.parametrize(
    ("name", "images"),
    [("network-snapshot-200000.pkl", 200_000_000), ("edm-cifar10-32x32-cond-vp.pkl", 0)],
)
def test_the_name_tells_how_long_it_was_trained(edm_files, small, tmp_path, name, images):
    path = written(tmp_path, edm_files.emitted(edm_files.snapshot(*small)), name)
    imported = EdmImporter().read(path)
    assert (imported.images, imported.notes) == (images, ())


class Persistent(torch.nn.Module):
    """Is pickled as the reference's classes are."""

    def __init__(self, **kwargs):
        super().__init__()
        self._init_args, self._init_kwargs = (), copy.deepcopy(kwargs)

    def __reduce__(self):
        told = {"type": "class", "version": 6, "module_src": "import os", "state": self.__dict__}
        return reconstruct, ({**told, "class_name": type(self).__name__},)


class EDMPrecond(Persistent):
    pass


def reconstruct(told):
    raise AssertionError("this was called")


reconstruct.__module__ = "torch_utils.persistence"
reconstruct.__qualname__ = reconstruct.__name__ = "_reconstruct_persistent_obj"


@pytest.fixture
def persistence(monkeypatch):
    """The reference's module, as Python's pickle looks it up."""
    package, module = types.ModuleType("torch_utils"), types.ModuleType("torch_utils.persistence")
    package.persistence = module
    module._reconstruct_persistent_obj = reconstruct
    monkeypatch.setitem(sys.modules, "torch_utils", package)
    monkeypatch.setitem(sys.modules, "torch_utils.persistence", module)


def as_module(weights, arguments):
    """Return a module whose state dictionary is ``weights``."""
    root = EDMPrecond(**arguments)
    for name, values in weights.items():
        *path, last = name.split(".")
        here = root
        for part in path:
            if part not in dict(here.named_children()):
                inside = torch.nn.ModuleDict() if part in ("enc", "dec") else Persistent()
                here.add_module(part, inside)
            here = getattr(here, part) if hasattr(here, part) else here[part]
        value = torch.from_numpy(values)
        if last in ("resample_filter", "freqs"):
            here.register_buffer(last, value)
        else:
            setattr(here, last, torch.nn.Parameter(value))
    root.register_buffer("passing", torch.zeros(3), persistent=False)
    return root


@pytest.mark.parametrize("protocol", range(3, pickle.HIGHEST_PROTOCOL + 1))
def test_a_snapshot_that_torch_pickled(small, tmp_path, persistence, protocol):
    weights, _, arguments = small
    root = as_module(weights, arguments)
    snapshot = {"ema": root, "loss_fn": Persistent(), "dataset_kwargs": collections.OrderedDict()}
    path = written(tmp_path, pickle.dumps(snapshot, protocol))
    same_bits(read_snapshot(path).weights, weights)
    same_bits(read_snapshot(path).weights, root.state_dict())
    with pytest.raises(AssertionError, match="this was called"):  # the control
        pickle.loads(path.read_bytes())  # noqa: S301


class EasyDict(dict):
    """Is pickled as dnnlib's is."""


EasyDict.__module__, EasyDict.__qualname__ = "dnnlib.util", "EasyDict"


@pytest.mark.parametrize("protocol", range(3, pickle.HIGHEST_PROTOCOL + 1))
def test_an_edm2_snapshot_that_python_pickled(small, tmp_path, persistence, monkeypatch, protocol):
    package, module = types.ModuleType("dnnlib"), types.ModuleType("dnnlib.util")
    package.util, module.EasyDict = module, EasyDict
    monkeypatch.setitem(sys.modules, "dnnlib", package)
    monkeypatch.setitem(sys.modules, "dnnlib.util", module)
    weights, _, arguments = small
    root = as_module(weights, arguments).half()
    snapshot = EasyDict(encoder=Persistent(), dataset_kwargs=EasyDict(path="x"), ema=root)
    path = written(tmp_path, pickle.dumps(snapshot, protocol))
    halved = {name: np.float32(values.astype(np.float16)) for name, values in weights.items()}
    found = read_snapshot(path)
    same_bits(found.weights, halved)
    assert found.encoder == "Persistent"


def test_a_training_state_that_torch_saved(small, tmp_path, persistence):
    weights, _, arguments = small
    root = as_module(weights, arguments)
    optimizer = torch.optim.Adam(root.parameters())
    path = tmp_path / "training-state-000001.pt"
    torch.save({"net": root, "optimizer_state": optimizer.state_dict()}, path)
    same_bits(read_snapshot(path).weights, weights)


def test_a_training_state_of_edm2_is_refused(small, tmp_path, persistence):
    """EDM2's checkpoints hold the state of the network, and not what builds it."""
    weights, _, arguments = small
    net = as_module(weights, arguments)
    path = tmp_path / "training-state-0000001.pt"
    torch.save({"state": {"cur_nimg": 1024}, "net": net.state_dict()}, path)
    with raises_code(DataError, Code.WRONG_KIND):
        read_snapshot(path)


EDM2_NAME = "network-snapshot-0002097-0.050.pkl"


def test_an_edm2_snapshot_is_read_to_the_bit(edm_golden, edm_files, tmp_path):
    tensors, metadata = edm_golden("edm2_uncond")
    stored = {k.removeprefix("weights."): v.half() for k, v in tensors.items() if k[0] == "w"}
    arguments = json.loads(metadata["arguments"])
    tree = edm_files.edm2_snapshot({k: v.numpy() for k, v in stored.items()}, "Precond", arguments)
    imported = EdmImporter().read(written(tmp_path, edm_files.emitted(tree), EDM2_NAME))
    wide = {name: value.float() for name, value in stored.items()}
    same_bits(imported.weights, from_reference(wide, "Precond", arguments)[2])
    mine, theirs = (
        torch.cat([value.flatten() for value in weights.values()]).sort().values
        for weights in (imported.weights, wide)
    )
    assert torch.equal(mine, theirs)
    model = imported.network.build(imported.spec).eval()
    model.load_state_dict(imported.weights)
    with torch.no_grad():
        denoised = model(tensors["x"], tensors["sigma"])
    # float16 rounds the weights by up to 5e-4.
    assert (denoised - tensors["denoised"]).norm() / tensors["denoised"].norm() < 1e-3


@pytest.mark.parametrize(
    ("name", "images", "length"),
    [
        (EDM2_NAME, 2_097_152, 0.05),
        ("edm2-img64-s-1073741-0.075.pkl", 2**30, 0.075),
        ("edm2-img512-xxl-uncond-0939524-0.015.pkl", 939_524_096, 0.015),
        ("network-snapshot-0002097.pkl", 2_097_152, None),
        ("network-snapshot-0000000-0.050.pkl", 0, 0.05),
        ("network-snapshot-0000042-0.050.pkl", 42_000, 0.05),  # of no multiple of 1024
        ("edm2-img64-s.pkl", 0, None),
        ("network-snapshot-2097-0.050.pkl", 0, None),
    ],
)
def test_the_name_of_an_edm2_snapshot_has_its_time_and_length(
    edm_files, tmp_path, name, images, length
):
    tree = edm_files.edm2_snapshot(*edm_files.made_up_edm2())
    imported = EdmImporter().read(written(tmp_path, edm_files.emitted(tree), name))
    assert (imported.images, imported.ema_length, imported.notes) == (images, length, ())


def test_an_edm2_snapshot_of_latents_has_a_note(edm_files, tmp_path):
    tree = edm_files.edm2_snapshot(*edm_files.made_up_edm2(), encoder="StabilityVAEEncoder")
    imported = EdmImporter().read(written(tmp_path, edm_files.emitted(tree), EDM2_NAME))
    (note,) = imported.notes
    assert "StabilityVAEEncoder" in note


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda items: items.pop("ema"), (Code.WRONG_KIND,)),
        (lambda items: items.update(encoder=5), (Code.WRONG_KIND, 5)),
        (
            lambda items: parts(items)["_init_kwargs"].update(clip_act=None),
            (Code.CONFLICT, "clip_act", "256.0"),
        ),
        (
            lambda items: parts(items, "unet")["_parameters"].items.pop("out_gain"),
            (Code.NOT_FOUND, "unet.out_gain"),
        ),
        (
            lambda items: parts(items)["_modules"].items.pop("logvar_linear"),
            (Code.NOT_FOUND, "logvar_linear.weight"),
        ),
    ],
)
def test_an_edm2_snapshot_that_does_not_fit_is_refused(edm_files, tmp_path, change, reason):
    tree = edm_files.edm2_snapshot(*edm_files.made_up_edm2())
    change(tree.items)
    path = written(tmp_path, edm_files.emitted(tree), EDM2_NAME)
    with raises_code(DataError, *reason) as error:
        EdmImporter().read(path)
    assert str(error.value).startswith(str(path))


def test_an_iddpm_snapshot_keeps_its_table(edm_golden, edm_files, tmp_path):
    _, weights, precond, arguments = golden_case(edm_golden, "denoiser_iddpm_adm")
    path = written(tmp_path, edm_files.emitted(edm_files.snapshot(weights, precond, arguments)))
    table = EdmImporter().read(path).network.preconditioner.table
    assert table == tuple(weights["u"][-2::-1].tolist())


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_types_become_float32_without_rounding(edm_files, small, tmp_path, dtype):
    weights, precond, arguments = small
    coarse = {name: values.astype(np.float16) for name, values in weights.items()}
    stored = {name: values.astype(dtype) for name, values in coarse.items()}
    path = written(tmp_path, edm_files.emitted(edm_files.snapshot(stored, precond, arguments)))
    same_bits(
        read_snapshot(path).weights,
        {name: values.astype(np.float32) for name, values in coarse.items()},
    )


def test_float64_is_not_rounded(edm_files, small, tmp_path):
    weights, precond, arguments = small
    fine = {name: values.astype(np.float64) / 3 for name, values in weights.items()}
    path = written(tmp_path, edm_files.emitted(edm_files.snapshot(fine, precond, arguments)))
    with raises_code(DataError, Code.OUT_OF_RANGE, "float32"):
        read_snapshot(path)


FIRST = "model.map_layer0.weight"


def parts(tree, *path):
    """Return the state of the module at a path."""
    state = tree["ema"].args[0]["state"]
    for name in path:
        state = state["_modules"].items[name].args[0]["state"]
    return state


def weight(tree):
    """Return the arguments of a parameter's tensor, as a list that can be changed, and its call."""
    call = parts(tree, "model", "map_layer0")["_parameters"].items["weight"].args[0]
    return call, list(call.args)


def changed(position, value):
    def change(tree):
        call, args = weight(tree)
        args[position] = value
        call.args = tuple(args)

    return change


def told(**changes):
    return lambda tree: tree["ema"].args[0].update(changes)


def arguments(**changes):
    return lambda tree: parts(tree)["_init_kwargs"].update(changes)


def attributes(**changes):
    return lambda tree: parts(tree, "model").update(changes)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda tree: tree.pop("ema"), (Code.WRONG_KIND,)),
        (lambda tree: tree.update(ema=None), (Code.WRONG_KIND, None)),
        (
            lambda tree: tree.update(ema=tree["dataset_kwargs"]),
            (Code.WRONG_KIND, "a dict of length 2"),
        ),
        (told(type="module"), (Code.WRONG_KIND, "version 6")),
        (told(version=5), (Code.WRONG_KIND, "version 6")),
        (told(class_name=None), (Code.INVALID_NAME, None)),
        (told(class_name="XPrecond"), (Code.UNKNOWN_CHOICE, "'XPrecond'")),
        (told(state=[]), (Code.WRONG_TYPE, "a list of length 0")),
        (lambda tree: parts(tree).pop("_init_args"), (Code.MISSING_KEY, "EDMPrecond")),
        (lambda tree: parts(tree).update(_init_args=(8,)), (Code.MISSING_KEY, "EDMPrecond")),
        (lambda tree: parts(tree).update(_init_kwargs=None), (Code.WRONG_TYPE, None)),
        (lambda tree: parts(tree).update(img_channels=3), (Code.CONFLICT, "argument 1")),
        (arguments(channel_mult=b"x"), (Code.WRONG_TYPE, "channel_mult", "a bytes of length 1")),
        (arguments(model_type=["SongUNet"]), (Code.UNKNOWN_CHOICE, "['SongUNet']")),
        (arguments(model_channels=2**62), (Code.UNREADABLE,)),
        (arguments(model_chanels=8), (Code.UNKNOWN_KEY, "model_chanels", '"model_channels"')),
        (arguments(num_blocks=10**9), (Code.OUT_OF_RANGE,)),
        (arguments(num_blocks=2), (Code.NOT_FOUND, "model.enc.8x8_block1")),
        (arguments(model_channels=8), (Code.WRONG_SHAPE,)),
        (attributes(_parameters=5), (Code.WRONG_TYPE, 5)),
        (lambda tree: parts(tree, "model").pop("_buffers"), (Code.NOT_FOUND, "Part", "_buffers")),
        (
            lambda tree: parts(tree, "model")["_modules"].items.update({"a.b": None}),
            (Code.INVALID_NAME,),
        ),
        (attributes(_non_persistent_buffers_set=5), (Code.WRONG_TYPE, 5)),
        (
            lambda tree: parts(tree, "model")["_parameters"].items.update(x=1),
            (Code.WRONG_KIND, "model.x", "got 1"),
        ),
        (
            lambda tree: parts(tree, "model")["_modules"].items.pop("map_layer0"),
            (Code.NOT_FOUND, FIRST),
        ),
        (changed(0, None), (Code.WRONG_KIND, None)),
        (changed(1, 1), (Code.OUT_OF_RANGE,)),
        (changed(1, -1), (Code.WRONG_TYPE, "offset")),
        (changed(2, (16, 5)), (Code.OUT_OF_RANGE, "strides")),
        (changed(2, (16,)), (Code.WRONG_LENGTH, "strides")),
        (changed(2, (2**40, 2**40)), (Code.OUT_OF_RANGE,)),
        (changed(2, 5), (Code.WRONG_TYPE, "shape")),
        (changed(3, (4, 0)), (Code.DUPLICATE, "strides")),
        (changed(3, (1, 1)), (Code.DUPLICATE, "strides")),
        (changed(3, (-4, 1)), (Code.WRONG_TYPE, "strides")),
    ],
)
def test_what_does_not_fit_is_refused_with_its_reason(edm_files, small, tmp_path, change, reason):
    tree = copy.deepcopy(edm_files.snapshot(*small))
    change(tree)
    path = written(tmp_path, edm_files.emitted(tree))
    with raises_code(DataError, *reason) as error:
        EdmImporter().read(path)
    assert str(error.value).startswith(str(path))


def test_modules_that_hold_each_other_are_bounded(small, tmp_path, persistence):
    """Each of 25 modules holds the next one twice, so that there would be 2^25 names."""
    root = inside = as_module(small[0], small[2])
    for _ in range(25):
        after = Persistent()
        inside.one = inside.other = after
        inside = after
    path = written(tmp_path, pickle.dumps({"ema": root}))
    with raises_code(DataError, Code.UNSAFE, "20000"):
        read_snapshot(path)
