"""What fails in one rank before the rounds, such as a folder of data that is not there, ends all of them."""

import platform
from pathlib import Path

import pytest
from processes import run

import gossamer

PROGRAM = """
    import gossamer
    from pathlib import Path

    with gossamer.together():
        found = sorted(Path(sys.argv[1]).iterdir())
    print(len(found))
    with gossamer.together():
        (sorted(Path(f"data-{rank}").iterdir()) if sys.argv[2] == "one" else Path("nowhere").stat())
    print("not here")
"""


@pytest.mark.parametrize(("who", "named"), [("one", "rank 1 on {0}: "), ("both", "rank 0 on {0}, rank 1 on {0}: ")])
def test_a_rank_without_its_data_is_named_by_all(who: str, named: str, tmp_path: Path) -> None:
    for folder in ("shared", "data-0"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "example").touch()
    first, second = run(tmp_path, 2, PROGRAM, tmp_path / "shared", who)
    assert first.stdout == second.stdout == "1\n"
    # Torch puts the rank before every line of a traceback.
    last = [one.stderr.splitlines()[-1].partition("]: ")[2] for one in (first, second)]
    assert last[0] == last[1]
    missing = "data-1" if who == "one" else "nowhere"
    expected = f"{named.format(platform.node())}cannot read {missing} (No such file or directory); expected what every"
    assert expected in last[0]
    assert "run the same command again; all 2 processes end here" in last[0]
    assert (first.returncode, second.returncode) == (1, 1)
    assert "FileNotFoundError" in second.stderr, "the rank's own error is the cause"


def test_in_one_process_an_error_stays_what_it_is(tmp_path: Path) -> None:
    with gossamer.together():
        (tmp_path / "here").touch()
    with pytest.raises(FileNotFoundError), gossamer.together():
        (tmp_path / "nowhere").stat()
