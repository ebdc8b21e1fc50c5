"""The pure parts of bench-model and bench-check: costs taken apart, figures that fit the program, what counts as worse."""
import json
import os
import subprocess
import sys

import pytest
from harness.stack import have
from harness.stubs import ROOT

BENCH = os.path.join(ROOT, "bench")
sys.path.insert(0, BENCH)

import check  # noqa: E402
from measure import figures, model_readme  # noqa: E402


def test_costs_are_taken_apart():
    true = {"commands": 0.1, "blocks": 20.0, "batches": 300.0}
    terms = {"whole": {"commands": 300000, "blocks": 293, "batches": 1}, "scattered": {"commands": 7000, "blocks": 7000, "batches": 24},
             "single": {"commands": 1500, "blocks": 1500, "batches": 1500}}
    totals = {run: sum(true[t] * n for t, n in by.items()) for run, by in terms.items()}
    found = figures.peel(totals, terms, [("commands", "whole"), ("blocks", "scattered"), ("batches", "single")])
    assert found == pytest.approx(true, rel=1e-3)
    totals["single"] = 0.0  # noise: what would be negative is nothing
    assert figures.peel(totals, terms, [("commands", "whole"), ("blocks", "scattered"), ("batches", "single")])["batches"] == 0


def embed(tmp_path, change):
    with open(os.path.join(BENCH, "model.json"), encoding="utf-8") as f:
        recorded = json.load(f)
    change(recorded["figures"])
    (tmp_path / "model.json").write_text(json.dumps(recorded))
    return subprocess.run([sys.executable, os.path.join(BENCH, "model_embed.py"), tmp_path / "out.c", os.path.join(ROOT, "cli/plan_figures.h"),
                           tmp_path / "model.json"], capture_output=True, text=True, check=False)


def test_figures_that_do_not_fit_the_program_are_named(tmp_path):
    assert embed(tmp_path, lambda f: None).returncode == 0
    assert ".pg_us_per_flush = " in (tmp_path / "out.c").read_text()
    for change, said in ((lambda f: f.pop("pg_us_per_flush"), "missing ['pg_us_per_flush']"),
                         (lambda f: f.update(phlogiston=1.0), "unknown ['phlogiston']")):
        done = embed(tmp_path, change)
        assert done.returncode == 1 and said in done.stderr


def recorded():
    with open(check.RECORDED, encoding="utf-8") as f:
        return json.load(f)


def test_what_is_worse_than_allowed_is_named():
    known = recorded()
    assert set(known["figures"]) == set(check.FIGURES)
    now = {name: figure["value"] for name, figure in known["figures"].items()}
    assert check.compare(now, known)[1] == []
    for name, (tolerance, title) in check.FIGURES.items():
        _, worse = check.compare({**now, name: now[name] * (1 + tolerance * 1.1)}, known)
        assert len(worse) == 1 and title in worse[0]
        lines, worse = check.compare({**now, name: now[name] * (1 - tolerance * 1.1)}, known)
        assert worse == [] and any("better" in line for line in lines)
        assert check.compare({**now, name: now[name] * (1 + tolerance * 0.9)}, known)[1] == []


def test_recorded_spreads_leave_room_for_no_false_alarm():
    for name, figure in recorded()["figures"].items():
        assert figure["spread"] * 2 <= check.FIGURES[name][0], name


@pytest.mark.skipif(not have("muster"), reason="muster is not built")
def test_readme_says_what_the_model_says():
    with open(os.path.join(BENCH, "model.json"), encoding="utf-8") as f:
        text = model_readme.text(json.load(f))
    with open(model_readme.README, encoding="utf-8") as f:
        said = f.read()
    assert text in said, "bench/model.py --readme writes README's figures anew"
