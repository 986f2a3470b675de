"""What a machine of a cluster does with a run, without the cluster."""

from gossamer.compare.runner import _remote_run


def test_a_remote_run_returns_exit_code_and_output() -> None:
    run = _remote_run(1)
    code, output = run(["tasks"], None)
    assert code == 0
    assert "lenet-300-100" in output
    code, output = run(["compress", "no-such-task", "--rounds", "1", "--out", "never"], (0, ""))
    assert (code, output.partition(" 'no-such-task'")[0]) == (2, "error: there is no task")
    # What its dense network failed with, it fails with.
    assert run(["tasks"], (2, "error: diverged")) == (2, "error: diverged")
