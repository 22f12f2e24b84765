"""The report's section on answer confidence, from planted summaries."""

from dataclasses import asdict
from pathlib import Path

import pytest
from test_calibration import CHAINS, chain

from thinksteer import store
from thinksteer.calibration import counts, exits, reliability, strength, used
from thinksteer.confidence_report import confidence_section, confidence_summaries

LOOP = chain("d", [True, True], degenerate=True)
PNG = b"\x89PNG"


def save(root: Path, name: str, chains: list, steering: dict | None = None) -> None:
    kept = used(chains)
    about = {"records": Path(name).name, "steering": steering or {}, "counts": counts(chains)}
    if kept:
        about |= {"by_share": [asdict(at) for at in exits(kept)[0]], "reliability": asdict(reliability(kept))}
    path = root / "confidence" / f"{name}.summary.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    store.write_json(path, about)
    for figure in ("trajectories", "exits", "reliability"):
        path.with_name(f"{Path(name).name}.{figure}.png").write_bytes(PNG + f"{name}.{figure}".encode())


def line(title: str, chains: list) -> dict:
    points = [asdict(strength(0.0, CHAINS, ())), asdict(strength(0.5, chains, CHAINS))]
    return {"title": title, "points": points}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Responses, of which one is a loop, and steering by 0.5 after which a is wrong and c is right."""
    steered = [chain("a", [False, False]), CHAINS[1], chain("c", [False, True])]
    save(tmp_path, "responses/m/d", [*CHAINS, LOOP])
    folder = "steering/m/d/up"
    save(tmp_path, f"{folder}/0.0", CHAINS, {"weight": 0.0})
    save(tmp_path, f"{folder}/0.5", steered, {"weight": 0.5})
    save(tmp_path, "steering/m/d/loops/0.5", [LOOP], {"weight": 0.5})
    save(tmp_path, "responses/other/d", CHAINS)
    sweeps = {"sweeps": [line("up", steered)], "random": [line("up.random0", CHAINS)]}
    store.write_json(tmp_path / "confidence" / folder / "summary.json", {"control": "up"} | sweeps)
    for name in ("summary", "layer3.exits"):
        (tmp_path / "confidence" / folder / f"{name}.png").write_bytes(PNG + name.encode())
    return tmp_path


def test_tables_say_what_the_summaries_do(root: Path):
    section = confidence_section(root, "m", store.reports_path(root))
    stopped, calibration, steered = section.tables
    rows = {row[0]: row[1:] for row in stopped.rows}
    assert list(rows) == ["responses/d", "steering/d/up/0.0", "steering/d/up/0.5"]  # no row without a chain that counts
    assert rows["responses/d"][:2] == (3, 1)
    assert rows["responses/d"][-1].value == pytest.approx(2 / 3) and rows["responses/d"][2].value == 0
    assert [column.title for column in stopped.columns][3:] == ["0 %", "20 %", "40 %", "60 %", "80 %", "90 %", "100 %"]
    found = reliability(CHAINS)
    (row,) = [row for row in calibration.rows if row[0] == "responses/d"]
    assert row[3:] == (found.confidence, found.accuracy, found.error, found.error_if_calibrated, found.brier)
    assert [row[:4] for row in steered.rows] == [("up", 0.5, 3, 0), ("up.random0", 0.5, 3, 0)]
    assert steered.rows[0][7].value == pytest.approx(0) and steered.rows[0][8].value == pytest.approx(-35 / 3)
    assert (store.reports_path(root) / "m.confidence_steered.md").read_text().count("| up") == 2


def test_figures_are_those_of_unsteered_records_and_of_all_weights_together(root: Path):
    pictures = confidence_section(root, "m", store.reports_path(root)).pictures
    shown = [one.png.removeprefix(PNG).decode() for one in pictures]
    expected = ["responses/m/d.exits", "responses/m/d.reliability", "responses/m/d.trajectories"]
    assert sorted(shown) == sorted([*expected, "layer3.exits", "summary"])


def test_only_the_summaries_of_one_model_are_read(root: Path):
    names = [path.name for path in confidence_summaries(root, "m")]
    assert sorted(names) == [
        "0.0.summary.json",
        "0.5.summary.json",
        "0.5.summary.json",
        "d.summary.json",
        "summary.json",
    ]
    assert confidence_summaries(root, "nobody") == []
