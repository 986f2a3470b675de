"""`gossamer compare --forms`, on real runs."""

from pathlib import Path

import pytest
from small_run import printed

from gossamer.choice.choice import read_choices

pytestmark = pytest.mark.usefixtures("native_library")


@pytest.mark.slow
def test_the_last_networks_of_all_methods_are_scored_and_timed(tmp_path: Path) -> None:
    out = tmp_path / "grid"
    sizes = ("--target-sparsity", 0.5, "--per-round", 0.5, "--epochs", 1, "--seeds", 2)
    text = printed("compare", "digits", "--methods", "lr-rewind,lr-rewind+1x4", *sizes, "--out", out, "--forms")
    found = read_choices(out / "forms.json")
    forms = [(Path(one.run).parent.name, Path(one.run).name, one.round, one.form) for one in found.choices]
    seeds = ("seed-0", "seed-1")
    # The dense network of a seed is the same for both methods, and is there once.
    assert sorted(forms) == sorted(
        [
            *(("lr-rewind", seed, 0, f"dense {precision}") for seed in seeds for precision in ("fp32", "int8")),
            *(("lr-rewind", seed, 1, f"sparse {precision}") for seed in seeds for precision in ("fp32", "int8")),
            *(("lr-rewind+1x4", seed, 1, f"1x4 {precision}") for seed in seeds for precision in ("fp32", "int8")),
        ]
    )
    table = (out / "forms.md").read_text()
    assert table.splitlines()[0] in text
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 6
    assert all("| 2 |" in row for row in rows)
    assert any("lr-rewind+1x4: 1x4 int8" in row for row in rows)
    assert (out / "forms.png").stat().st_size > 10_000
    assert "lr-rewind" in (out / "forms.svg").read_text() or "dense" in (out / "forms.svg").read_text()
