"""``genkit compare``: tables of real runs, scores that may not be compared, and bad input."""

from __future__ import annotations

import csv
import io
import json
import shutil

import pytest
from rich.console import Console

import genkit

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("coarse_pictures")]

FACTS = {"extractor": "pixels", "samples": "512", "reference": "200"}


def compared(genkit_, *arguments):
    """Return the JSON of a comparison and what was printed on stderr."""
    code, out, err = genkit_("compare", *arguments, "--json")
    assert code == 0, err
    return json.loads(out), err


def refused(genkit_, *arguments):
    code, out, err = genkit_("compare", *arguments)
    assert code == 2
    assert [*json.loads(out)] == ["mistakes"] if "--json" in arguments else out == ""
    assert err.startswith("Error: ")
    assert "Traceback" not in err
    return err


# --- tables of real runs --------------------------------------------------------------------


def test_rows_are_those_of_the_runs(genkit_, runs):
    found, err = compared(genkit_, "runs/edm", "runs/edm-aot")
    assert err == ""
    assert [table["stages"] for table in found["tables"]] == ["scores", "sweep"]
    for table in found["tables"]:
        (score,) = table["scores"]
        for name in ("edm", "edm-aot"):
            (path,) = (runs / name).glob(f"*-{table['stages']}/scores.json")
            rows = [row for row in table["rows"] if row["run"] == name]
            expected = json.loads(path.read_text())["rows"]
            assert [row["scores"][score]["mean"] for row in rows] == [r[score] for r in expected]
            assert [row["nfe"] for row in rows] == [row["nfe"] for row in expected]
            assert [{**row["settings"]} for row in rows] == [
                {k: v for k, v in row.items() if k == "schedule.steps"} for row in expected
            ]


def test_settings_that_differ_are_those_of_the_resolved_recipes(genkit_, runs):
    found, _ = compared(genkit_, "runs/edm", "runs/edm-aot")
    (setting,) = found["settings"]
    assert setting["setting"] == "denoiser.coupler"
    assert setting["values"]["edm"] == {"use": "random"}
    assert setting["values"]["edm-aot"]["use"] == "hungarian"
    assert "tolerance" in setting["values"]["edm-aot"]  # a default


def test_the_terminal_has_a_row_for_each_cell(genkit_, runs):
    code, out, _ = genkit_("compare", "runs/edm", "runs/edm-aot")
    assert code == 0
    assert "Stage sweep" in out
    (heads,) = [line for line in out.splitlines() if "schedule.steps" in line]
    assert "equivalents" in heads
    rows = [line.split() for line in out.splitlines() if line.startswith(("edm ", "edm-aot "))]
    assert [row[0] for row in rows] == ["edm", "edm-aot", *["edm"] * 3, *["edm-aot"] * 3]
    assert [row[1] for row in rows[2:]] == ["2", "3", "4"] * 2
    (setting,) = [line.split() for line in out.splitlines() if line.startswith("denoiser")]
    assert setting[:3] == ["denoiser.coupler", "random", "hungarian"]


def test_a_narrow_terminal_cuts_no_number(genkit_, make, monkeypatch):
    rows = [
        make.row(123456, a_long_name=0.12345, another_long_name=1.5, **{"a_long_name_std": 0.1})
    ]
    for name in ("a-long-name-of-a-run", "another-long-name"):
        make.run(name, (rows, {"a_long_name": FACTS}))
    monkeypatch.setattr("genkit_compare.compare_command.console", lambda: Console(width=40))
    out = genkit_("compare", "a-long-name-of-a-run", "another-long-name")[1]
    lines = [line for line in out.splitlines() if line.startswith("another-long-name")]
    cells = [cell for line in lines for cell in line.split()[1:]]  # in several tables
    assert cells == ["0.12", "±", "0.10", "1.5", "123456", "-", "-"]
    assert "another_long_name" in out  # a name that one types is not broken


def test_a_stage_of_a_run_is_compared_alone(genkit_, runs):
    found, _ = compared(genkit_, "runs/edm/sweep", "runs/edm-aot/04-sweep")
    (table,) = found["tables"]
    assert [row["run"] for row in table["rows"]] == ["edm"] * 3 + ["edm-aot"] * 3
    found, _ = compared(genkit_, "runs/edm/sweep", "runs/edm-aot")
    assert [table["stages"] for table in found["tables"]] == ["sweep"]


def test_two_stages_of_one_run_are_told_apart(genkit_, make):
    make.run("a", ([make.row(fid=1.0)], {"fid": FACTS}), stage="few")
    place = make.run("b", ([make.row(fid=2.0)], {"fid": FACTS}), stage="few")
    found, _ = compared(genkit_, "a/few", "b/few")
    assert [row["run"] for row in found["tables"][0]["rows"]] == ["a", "b"]
    make.run("b", ([make.row(fid=2.0)], {"fid": FACTS}), stage="many")
    shutil.rmtree(place / "02-few")
    found, _ = compared(genkit_, "a/few", "b/many")
    assert [row["run"] for row in found["tables"][0]["rows"]] == ["a/few", "b/many"]
    assert found["tables"][0]["stages"] == "few, many"


def test_csv_has_a_line_for_each_row_with_the_settings_of_its_run(genkit_, runs):
    code, out, _ = genkit_("compare", "runs/edm", "runs/edm-aot", "--csv")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 8
    assert {(row["run"], row["recipe.denoiser.coupler"].partition(" ")[0]) for row in rows} == {
        ("edm", "random"),
        ("edm-aot", "hungarian"),
    }
    assert [row["schedule.steps"] for row in rows if row["stage"] == "scores"] == ["", ""]
    assert list(rows[0])[:4] == ["stage", "run", "schedule.steps", "frechet_pixels"]


def test_markdown_is_written_to_a_file(genkit_, runs, tmp_path):
    code, out, _ = genkit_("compare", "runs/edm", "runs/edm-aot", "--markdown", "--out", "a.md")
    assert (code, out) == (0, "")
    text = (tmp_path / "a.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("| edm")]
    assert len(table) == 8
    assert "| denoiser.coupler | random | hungarian" in text


def test_spread_and_minimum_stand_beside_the_mean(genkit_, make):
    rows = [make.row(fid=1.8234, fid_std=0.0316, fid_min=1.79, kid=0.001)]
    for name in ("a", "b"):
        make.run(name, (rows, {"fid": FACTS, "kid": FACTS}))
    found, _ = compared(genkit_, "a", "b")
    assert found["tables"][0]["scores"] == ["fid", "kid"]
    assert found["tables"][0]["rows"][0]["scores"] == {
        "fid": {"mean": 1.8234, "standard_deviation": 0.0316, "minimum": 1.79},
        "kid": {"mean": 0.001, "standard_deviation": None, "minimum": None},
    }
    out = genkit_("compare", "a", "b")[1]
    assert "1.823 ± 0.032" in out
    assert "min" not in out
    out = genkit_("compare", "a", "b", "--markdown")[1]
    assert "| fid min |" in out
    assert "| 1.79 |" in out
    assert "kid min" not in out
    lines = list(csv.DictReader(io.StringIO(genkit_("compare", "a", "b", "--csv")[1])))
    assert (lines[0]["fid_std"], lines[0]["fid_min"]) == ("0.0316", "1.79")


def test_the_cost_is_shown_with_what_makes_it_incomparable(genkit_, make):
    scores = [make.row(fid=1.0)], {"fid": FACTS}
    make.run("a", scores, cost=[make.cost()])
    make.run("b", scores, cost=[make.cost()])
    make.run("c", scores, cost=[make.cost(gflop_per_call=4.0, device="cuda, H100")])
    make.run("old", scores)
    out = genkit_("compare", "a", "b")[1]
    assert "GFLOP" not in out
    assert "device" not in out
    out = genkit_("compare", "a", "c", "old")[1]
    (heads,) = [line for line in out.splitlines() if "equivalents" in line]
    assert "GFLOP/image" in heads
    assert "device" in heads
    (line,) = [line for line in out.splitlines() if line.startswith("old")]
    assert line.split() == ["old", "1", "9", "-", "-", "-", "-"]
    row = compared(genkit_, "a", "c")[0]["tables"][0]["rows"][0]
    assert (row["nfe_equivalents"], row["seconds_per_image"]) == (9.0, 0.25)


def test_costs_of_other_rows_are_left_out(genkit_, make):
    rows = [{"schedule.steps": k, **make.row(fid=1.0)} for k in (1, 2)]
    make.run("a", (rows, {"fid": FACTS}), cost=[make.cost()])
    make.run("b", (rows, {"fid": FACTS}), cost=[make.cost(), make.cost(nfe_equivalents=11.0)])
    rows = compared(genkit_, "a", "b")[0]["tables"][0]["rows"]
    assert [row["nfe_equivalents"] for row in rows] == [None, None, 9.0, 11.0]


def test_the_rows_of_a_real_run_have_their_cost(genkit_, runs):
    found, _ = compared(genkit_, "runs/edm", "runs/edm-aot")
    for table in found["tables"]:
        for row in table["rows"]:
            assert row["nfe_equivalents"] == pytest.approx(row["nfe"])
            assert row["seconds_per_image"] > 0


# --- scores that may not be compared ---------------------------------------------------------


@pytest.mark.parametrize(
    ("fact", "other"),
    [
        ("extractor", "inception sha256:1"),
        ("samples", "1,024"),
        ("reference", "moons sha256:2"),
        ("protocol", None),
        ("of a plugin's own", "x"),
    ],
)
def test_scores_of_other_facts_are_refused_with_both_values(genkit_, make, fact, other):
    facts = {**FACTS, "protocol": "clipped", "of a plugin's own": "y"}
    make.run("a", ([make.row(fid=1.0)], {"fid": facts}))
    changed = {name: value for name, value in {**facts, fact: other}.items() if value}
    make.run("b", ([make.row(fid=1.0)], {"fid": changed}))
    err = refused(genkit_, "a", "b")
    assert f"{fact} must be the same, got {facts[fact]} in a and" in err
    assert f"{other or 'none recorded'} in b" in err


def test_a_metric_with_other_settings_is_refused(genkit_, runs):
    recipe = runs.parent / "recipe.toml"
    recipe.write_text((runs / "edm" / "recipe.toml").read_text())
    for name, steps in (("a", 4), ("b", 8), ("c", 4)):
        listed = [2, 3] if name == "c" else [2]
        metric = {"use": "truncation", "count": 4, "steps": listed}
        metrics = [{**metric, "schedule": {"use": "edm", "steps": steps}}]
        settings = {"scores.metrics": metrics, "sweep.vary.schedule.steps": [2]}
        genkit.run_recipe(recipe, out=shutil.copytree(runs / "edm", name), settings=settings)
    for other in ("b", "c"):  # another schedule, and another list of steps
        found, err = compared(genkit_, "a", other)
        assert [table["stages"] for table in found["tables"]] == ["sweep"]
        assert "truncation_2 of scores: metric must be the same" in err


def test_only_the_score_that_differs_is_left_out(genkit_, make):
    for name, samples in (("a", "512"), ("b", "1024")):
        facts = {"fid": {**FACTS, "samples": samples}, "kid": FACTS}
        make.run(name, ([make.row(fid=1.0, kid=2.0)], facts))
    found, err = compared(genkit_, "a", "b")
    assert [table["scores"] for table in found["tables"]] == [["kid"]]
    assert found["left_out"][0]["score"] == "fid"
    assert "samples must be the same, got 512 in a and 1024 in b" in err
    assert "Not compared: fid" in genkit_("compare", "a", "b", "--markdown")[1]
    err = refused(genkit_, "a", "b", "--score", "fid")
    assert "samples must be the same" in err


@pytest.mark.parametrize("fact", ["samples.denoiser", "samples.x", "values", "measured.x"])
def test_what_was_scored_may_differ(genkit_, make, fact):
    for name in ("a", "b"):
        make.run(name, ([make.row(fid=1.0)], {"fid": {**FACTS, fact: name}}))
    assert compared(genkit_, "a", "b")[0]["left_out"] == []


def test_minima_of_other_numbers_of_sets_are_left_out(genkit_, make):
    rows = [make.row(fid=2.0, fid_std=0.1, fid_min=1.9)]
    for name, sets in (("a", "3"), ("b", "3 of 9: the first 6 of 18 samples"), ("c", "9")):
        make.run(name, (rows, {"fid": {**FACTS, "sets": sets}}))
    assert "fid min" in genkit_("compare", "a", "b", "--markdown")[1]
    out = genkit_("compare", "a", "c", "--markdown")[1]
    assert "2.00 ± 0.10" in out
    assert "fid min" not in out


def test_a_score_that_one_run_has_alone_is_shown_with_a_dash(genkit_, make):
    make.run("a", ([make.row(fid=1.0)], {"fid": FACTS}))
    make.run("b", ([make.row(fid=1.0, kid=2.0)], {"fid": FACTS, "kid": FACTS}))
    line = next(t for t in genkit_("compare", "a", "b")[1].splitlines() if t.startswith("a "))
    assert line.split()[:3] == ["a", "1", "-"]


def test_runs_without_a_comparable_score_in_common_are_refused(genkit_, make):
    facts = {"fid": FACTS, "kid": FACTS}
    make.run("a", ([make.row(fid=1.0)], {"fid": {**FACTS, "samples": "1024"}}))
    make.run("b", ([make.row(fid=1.0, kid=2.0)], facts))
    err = refused(genkit_, "a", "b")
    assert "samples must be the same" in err
    assert "only b has this score" in err
    make.run("c", ([make.row(kid=1.0)], {"kid": FACTS}))
    assert "only b has this score" in refused(genkit_, "b", "c", "--score", "fid")


# --- settings ----------------------------------------------------------------------------------


def test_a_stage_of_one_run_alone_is_one_setting_and_others_are_looked_into(genkit_, make):
    scores = [make.row(fid=1.0)], {"fid": FACTS}
    data = {"use": "moons", "items": 100}
    make.run("a", scores, data=data, table={"data": data, "images": 1})
    make.run("b", scores, data={**data, "items": 200}, table={"data": {**data, "items": 200}})
    table = {"data": {"use": "digits"}, "network": {"use": "unet"}, "guidance": [{"use": "x"}]}
    make.run("c", scores, data=data, table=table, extra={"use": "train", "images": 3})
    found, _ = compared(genkit_, "a", "b", "c")
    settings = {one["setting"]: list(one["values"].values()) for one in found["settings"]}
    assert settings == {
        "data.items": [100, 200, 100],
        "extra": [None, None, {"use": "train", "images": 3}],
        "denoiser.images": [1, 100, 100],
        "denoiser.network": [{"use": "mlp", "width": 8}] * 2 + [{"use": "unet"}],
        "denoiser.data": [None, None, {"use": "digits"}],
        "denoiser.guidance": [None, None, [{"use": "x"}]],
    }


def test_tables_without_a_component_are_looked_into(genkit_, make):
    scores = [make.row(fid=1.0)], {"fid": FACTS}
    make.run("a", scores, table={"vary": {"steps": [1]}})
    make.run("b", scores, table={"vary": {"steps": [1], "guidance": {"weight": [0, 1]}}})
    make.run("c", scores)
    found, _ = compared(genkit_, "a", "b", "c")
    settings = {one["setting"]: list(one["values"].values()) for one in found["settings"]}
    assert settings == {
        "denoiser.vary.steps": [[1], [1], None],
        "denoiser.vary.guidance.weight": [None, [0, 1], None],
    }


def test_equal_recipes_have_no_table_of_settings(genkit_, make):
    for name in ("a", "b"):
        make.run(name, ([make.row(fid=1.0)], {"fid": FACTS}))
    assert "All settings are the same." in genkit_("compare", "a", "b")[1]


# --- bad input ---------------------------------------------------------------------------------


def test_what_is_no_run_is_refused_with_the_nearest(genkit_, runs):
    (runs / "notes").mkdir()
    assert "got 0;" in refused(genkit_)
    assert "got 1;" in refused(genkit_, "runs/edm")
    assert 'did you mean "runs/edm-aot"' in refused(genkit_, "runs/edm", "runs/edm-aop")
    assert "got runs/notes" in refused(genkit_, "runs/edm", "runs/notes")
    assert "runs/edm, runs/edm-aot" in refused(genkit_, "runs/edm", "runs")
    assert 'did you mean "sweep"' in refused(genkit_, "runs/edm", "runs/edm-aot/swep")
    assert "with scores are: scores, sweep" in refused(genkit_, "runs/edm", "runs/edm-aot/samples")


@pytest.mark.parametrize(
    "again", ["runs/edm", "runs/edm/", "runs/../runs/edm", "runs/edm/sweep", "link"]
)
def test_one_run_twice_is_refused(genkit_, runs, again):
    (runs.parent / "link").symlink_to(runs / "edm")
    assert "twice" in refused(genkit_, "runs/edm", again)
    assert "twice" in refused(genkit_, "runs/edm/sweep", "runs/edm/04-sweep")


def test_an_unfinished_run_without_scores_is_refused(genkit_, runs):
    state = runs / "edm" / "01-denoiser" / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "finished": False}))
    assert "denoiser is unfinished" in refused(genkit_, "runs/edm", "runs/edm-aot")
    assert "denoiser is unfinished" in refused(genkit_, "runs/edm/sweep", "runs/edm-aot")


def test_an_unfinished_run_is_compared_by_the_scores_that_it_has(genkit_, runs):
    state = runs / "edm" / "04-sweep" / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "finished": False}))
    found, err = compared(genkit_, "runs/edm", "runs/edm-aot")
    assert [table["stages"] for table in found["tables"]] == ["scores"]
    assert found["left_out"][0]["stage"] == "sweep"
    assert "only edm-aot has a finished stage" in err


def test_a_run_that_never_scores_is_refused(genkit_, make):
    make.run("a", ([make.row(fid=1.0)], {"fid": FACTS}))
    make.run("b")
    assert "add a stage evaluate or sweep" in refused(genkit_, "a", "b")


def test_runs_without_a_stage_in_common_are_refused(genkit_, make):
    make.run("a", ([make.row(fid=1.0)], {"fid": FACTS}), stage="few")
    make.run("b", ([make.row(fid=1.0)], {"fid": FACTS}), stage="many")
    assert "a: few; b: many" in refused(genkit_, "a", "b")


def test_a_score_that_no_run_has_is_refused(genkit_, make):
    for name in ("a", "b"):
        make.run(name, ([make.row(frechet=1.0)], {"frechet": FACTS}))
    assert 'did you mean "frechet"' in refused(genkit_, "a", "b", "--score", "frechett")


@pytest.mark.parametrize(
    "content",
    ["{", '{"rows": 3}', *(f'{{"rows": [{{"nfe": 9, "fid": {fid}}}]}}' for fid in ('"x"', "NaN"))],
)
def test_damaged_scores_are_refused(genkit_, make, content):
    for name in ("a", "b"):
        folder = make.run(name, ([make.row(fid=1.0)], {"fid": FACTS}))
    (folder / "02-scores" / "scores.json").write_text(content)
    files = {"finished": True, "files": {"scores.json": len(content)}}
    (folder / "02-scores" / "state.json").write_text(json.dumps(files))
    assert "scores.json" in refused(genkit_, "a", "b")


def test_a_damaged_cost_is_refused(genkit_, make):
    scores = [make.row(fid=1.0)], {"fid": FACTS}
    make.run("a", scores)
    make.run("b", scores, cost=[{"nfe": 3}])
    assert "cost.json" in refused(genkit_, "a", "b")


@pytest.mark.parametrize(
    "options",
    [
        ["--json", "--csv"],
        ["--out", "a.json"],
        ["--json", "--out", "absent/a.json"],
        ["--json", "--out", "."],
        ["--json", "--out", "runs/edm/recipe.toml"],
        ["--plot", "taken.png"],
        ["--plot", "a.pdf"],
        ["--plot", "absent/a.png"],
    ],
)
def test_options_that_cannot_be_obeyed_are_refused(genkit_, runs, options):
    (runs.parent / "taken.png").touch()
    before = sorted(runs.parent.rglob("*"))
    err = refused(genkit_, "runs/edm", "runs/edm-aot", *options)
    assert err.startswith("Error: --")
    assert sorted(runs.parent.rglob("*")) == before
