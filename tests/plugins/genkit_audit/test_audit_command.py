"""``genkit audit`` over a recipe, a run and the file of a network."""

import io
import json
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import genkit
from genkit.artifacts import DenoiserFile
from genkit.errors import Code, DataError, GenkitError, UsageError
from genkit_audit.audit_command import audit as command
from genkit_audit.picture import picture_of
from genkit_audit.prediction import StartLimits
from raising import raises_code

NETWORK = "run/01-denoiser/denoiser.safetensors"


@pytest.fixture
def audit(genkit_, workplace):
    """Run the command; return its JSON."""

    def call(*arguments):
        code, out, err = genkit_("audit", *arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    return call


def test_a_recipe_a_run_and_a_network_have_the_same_statistics(audit):
    (recipe,), (run,), (network,) = audit("recipe.toml"), audit("run"), audit(NETWORK)

    assert recipe["statistics"] == run["statistics"] == network["statistics"]
    assert recipe["start"] == run["start"] == network["start"]
    assert recipe["statistics"]["pairs"] == 640
    assert recipe["pairing"] == run["pairing"]
    assert network["pairing"] is None
    assert network["coupling"]["bijective"] is True


def test_predictions_are_those_of_the_statistics(audit):
    (found,) = audit(NETWORK, "--sigma-max", "5", "--tolerance", "0.05")

    statistics = DenoiserFile.outline(Path(NETWORK)).coupling.statistics
    start = found["start"]
    for corrections, name in enumerate(("noise", "corrected", "corrected-twice")):
        ratios = statistics.spread_of_samples(5.0, corrections)
        assert start[name]["ratios"] == pytest.approx(ratios)
        assert abs(start[name]["worst"] - 1) == pytest.approx(max(abs(r - 1) for r in ratios))
        frechet = statistics.frechet_of_start(5.0, corrections)
        assert start[name]["frechet"] == pytest.approx(frechet)
        lowest = statistics.lowest_sigma_max(corrections, tolerance=0.05)
        assert start[name]["lowest_sigma_max"] == pytest.approx(lowest)
    assert found["statistics"]["share_from_noise"] == statistics.share_from_noise


def test_pairs_are_described(audit):
    (found,) = audit("recipe.toml")

    pairing = found["pairing"]
    assert 0 < pairing["reduction"] < 1
    assert pairing["gap"] < 1e-6
    assert pairing["noises"] == 640
    assert pairing["gaussian"] is True
    assert pairing["entropy"] is None
    assert pairing["skew"] is not None  # the moons are two classes, and pairs look at no label
    assert pairing["skew"]["error"] > pairing["skew"]["limit"]


def test_pairs_within_classes_skew_none(audit):
    coupler = 'denoiser.coupler={ use = "partitioned", by = ["label"] }'

    (found,) = audit("recipe.toml", "--set", coupler)

    skew = found["pairing"]["skew"]
    assert skew["error"] < skew["limit"]


def test_entropic_pairs_have_an_entropy(audit):
    (found,) = audit("recipe.toml", "--set", 'denoiser.coupler={ use = "sinkhorn" }')

    assert 0 < found["pairing"]["entropy"] < 1
    assert found["pairing"]["noises"] < 640


def test_independent_noise_loses_nothing_in_first_order(audit):
    (found,) = audit("recipe.toml", "--set", 'denoiser.coupler={ use = "random" }')

    error = found["statistics"]["pairs"] ** -0.5
    assert np.abs(found["statistics"]["correlations"]).max() < 5 * error
    assert found["pairing"]["reduction"] == 0


@pytest.mark.parametrize(
    ("given", "pairs", "pools"), [(["--pairs", "300"], 300, 3), (["--pools", "8"], 1024, 8)]
)
def test_the_number_of_pairs_is_chosen(audit, given, pairs, pools):
    (found,) = audit("recipe.toml", *given)

    assert (found["statistics"]["pairs"], found["statistics"]["pools"]) == (pairs, pools)


def test_a_stage_that_reads_an_earlier_one_is_audited_in_its_run(audit):
    (found,) = audit("run", "--stage", "discriminator")

    assert found["subject"] == "run: discriminator"
    assert found["coupling"]["preserves_conditional_prior"] == ["realness"]
    with raises_code(UsageError, Code.NOT_FOUND, "discriminator", "fakes"):
        command("recipe.toml", stage="discriminator")


def test_text_states_what_json_does(genkit_, workplace):
    code, out, err = genkit_("audit", "recipe.toml")

    assert code == 0, err
    for words in (
        "640 pairs of 5 pools",
        "Start noise:",
        "Start corrected:",
        "Start corrected-twice:",
        "minimum",
        "N(0, I)",
    ):
        assert words in out


def test_the_preconditioner_that_the_text_states_fits_the_pairs(genkit_, audit, workplace):
    _, out, _ = genkit_("audit", "recipe.toml")
    (found,) = audit("recipe.toml")
    (line,) = [line for line in out.splitlines() if "preconditioner = " in line]
    table = tomllib.loads(line[line.index("preconditioner = ") :])["preconditioner"]

    stated = genkit.component("preconditioner", table.pop("use"), sigma_data=1.0, **table)

    assert not list(stated.check({}))
    assert stated.covariance == pytest.approx(found["statistics"]["covariance"], abs=5e-5)
    assert stated.covariance > 0.1  # the Hungarian algorithm pairs these moons


def test_images_that_do_not_vary_are_audited(audit, workplace):
    np.savez(workplace / "grey.npz", images=np.full((300, 1, 8, 8), 7, np.uint8))
    recipe = Path("recipe.toml").read_text(encoding="utf-8").partition('[[stage]]\nid = "fakes"')[0]
    grey = 'data = { use = "npz", path = "grey.npz", labels = false }'
    recipe = recipe.replace('data = { use = "moons", items = 500 }', grey)
    Path("grey.toml").write_text(recipe, encoding="utf-8")

    (found,) = audit("grey.toml")

    assert found["statistics"]["deviations"] == []
    assert found["start"]["noise"]["worst"] == 1
    assert found["start"]["corrected"]["lowest_sigma_max"] == 0


def test_independent_noise_of_a_file_has_nothing_to_correct(genkit_, workplace):
    settings = "--set", 'denoiser.coupler={ use = "random" }', "--set", 'name="plain"'
    code, _, err = genkit_("run", "recipe.toml", "--out", "plain", *settings)
    assert code == 0, err

    code, out, err = genkit_("audit", "plain/01-denoiser/denoiser.safetensors")

    assert code == 0, err
    assert "independent" in out


def test_a_covariance_is_stated_for_assigned_noise_only(genkit_, workplace):
    assert "Mean covariance" in genkit_("audit", "recipe.toml")[1]
    code, out, _ = genkit_("audit", "recipe.toml", "--set", 'denoiser.coupler="random"')
    assert code == 0
    assert "Share of the images' variance" in out
    assert "Mean covariance" not in out


def test_a_picture_of_constant_images_is_refused_with_the_reason():
    statistics = SimpleNamespace(deviations=())
    audits = [SimpleNamespace(subject="flat", statistics=statistics)]
    with raises_code(UsageError, Code.NOT_FOUND, "do not vary"):
        picture_of(audits, StartLimits(80.0, 0.02))


def test_a_picture_is_drawn(genkit_, workplace):
    code, _, err = genkit_("audit", NETWORK, "--picture", "audit.png")

    assert code == 0, err
    picture = Image.open(io.BytesIO(Path("audit.png").read_bytes()))
    assert picture.width > picture.height > 300
    assert np.asarray(picture.convert("L")).std() > 5


# --- bad input ------------------------------------------------------------------------------


def test_too_few_pairs_say_how_many_are_needed(workplace):
    with raises_code(DataError, Code.WRONG_LENGTH, 256, "2 pools"):
        command("recipe.toml", pools=1)


def test_a_file_without_a_coupling_says_so(workplace):
    network = DenoiserFile.load(Path(NETWORK))
    imported = DenoiserFile(network.table, network.spec, network.weights)
    imported.save(Path("imported.safetensors"))

    with raises_code(DataError, Code.NOT_FOUND, "imported.safetensors"):
        command("imported.safetensors")


@pytest.mark.parametrize(
    ("code", "target", "options"),
    [
        (Code.UNKNOWN_STAGE, "recipe.toml", {"stage": "fakes"}),
        (Code.CONFLICT, "recipe.toml", {"pairs": 300, "pools": 3}),
        (Code.CONFLICT, NETWORK, {"pairs": 300}),
        (Code.OUT_OF_RANGE, "recipe.toml", {"sigma_max": 0.0}),
        (Code.OUT_OF_RANGE, "recipe.toml", {"tolerance": 1.0}),
        (Code.UNKNOWN_CHOICE, "recipe.toml", {"picture": Path("audit.svg")}),
        (Code.OCCUPIED, "recipe.toml", {"picture": Path("taken.png")}),
        (Code.NOT_FOUND, "missing.safetensors", {}),
    ],
)
def test_wrong_arguments_are_refused(workplace, code, target, options):
    (workplace / "taken.png").write_bytes(b"")
    with raises_code(GenkitError, code):
        command(target, **options)
