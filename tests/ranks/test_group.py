"""What ranks tell one another, in real processes over gloo; and that one process by itself asks nobody."""

import json
from pathlib import Path

import pytest
import torch
from processes import run, succeeded

from gossamer.errors import ConfigurationError
from gossamer.ranks.group import Ranks, current

TALK = """
    import json
    from gossamer.ranks.group import current
    from gossamer.errors import CheckpointError, RankError

    ranks = current()
    said = {"rank": [ranks.rank, ranks.size], "first": ranks.from_first({"a": [1, 0.1, float("inf")], "from": rank})}
    said["all"] = ranks.gather("x" * rank)
    said["sum"] = ranks.sum(torch.tensor([0.1 * (rank + 1), 1.0], dtype=torch.float64)).tolist()
    said["mean"] = ranks.mean({"a": torch.full((2,), float(rank))})["a"].tolist()
    columns = torch.arange(6.0).view(2, 3).t() * (rank == 0)
    numbers = torch.tensor([1 - rank], dtype=torch.int64)
    ranks.put_from_first([columns, numbers])
    said["put"] = [columns.tolist(), numbers.tolist()]
    ranks.barrier()
    ranks.require_same("masks", {"weight": "abc", "number": 1})
    try:
        ranks.require_same("masks", {"weight": "abc", "number": int(rank == 1)})
    except RankError as error:
        said["differs"] = str(error)
    try:
        with ranks.together():
            if rank == 1:
                raise CheckpointError("the disk is full")
    except CheckpointError as error:
        said["failed"] = str(error)
    try:
        with ranks.together():
            1 / (rank - 1)
    except (RankError, ZeroDivisionError) as error:
        said["broken"] = [type(error).__name__, str(error)]
    print(json.dumps(said))
"""


def test_values_tensors_and_errors_go_round(tmp_path: Path) -> None:
    found = [json.loads(text) for text in succeeded(tmp_path, 2, TALK)]
    message = "rank 1 has others than rank 0 (number: 1, and 0 there)"
    for rank, said in enumerate(found):
        assert said["rank"] == [rank, 2]
        assert said["first"] == {"a": [1, 0.1, float("inf")], "from": 0}
        assert said["all"] == ["", "x"]
        assert said["sum"] == [0.1 + 0.2, 2.0]
        assert said["mean"] == [0.5, 0.5]
        assert said["put"] == [[[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]], [1]]
        assert message in said["differs"]
        assert said["failed"] == ("the disk is full" if rank == 1 else "rank 1: the disk is full")
        kind, text = said["broken"]
        assert kind == ("ZeroDivisionError" if rank == 1 else "RankError")
        assert "division by zero" in text


def test_a_rank_that_is_gone_is_one_clear_line(tmp_path: Path) -> None:
    program = """
        from gossamer.errors import RankError
        from gossamer.ranks.group import current

        ranks = current()
        ranks.barrier()
        if rank == 1:
            os._exit(9)
        try:
            with ranks.together():
                pass
        except RankError as error:
            print(error)
    """
    ended = run(tmp_path, 2, program)
    assert [one.returncode for one in ended] == [0, 9]
    assert "another process of this training is gone or does not answer" in ended[0].stdout
    assert ended[0].stdout.count("\n") == 1


def test_one_process_sends_nothing() -> None:
    alone = current()
    tensor = torch.ones(2)
    assert alone == Ranks(0, 1)
    assert not alone.several
    assert alone.from_first({"a": (1, 2)}) == {"a": (1, 2)}
    assert alone.gather("x") == ["x"]
    assert alone.sum(tensor) is tensor
    alone.require_same("masks", {"a": object()})
    with pytest.raises(ZeroDivisionError), alone.together():
        raise ZeroDivisionError


def test_processes_that_do_not_know_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigurationError, match=r"process 1 of 2 .*init_process_group"):
        current()
