"""Trainers on two processes of torchrun: one run, gone on with inside a round, with the same bits."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from loop.test_ranks import digests

pytestmark = [pytest.mark.slow, pytest.mark.processes]

BEGIN = """
    import os, random, sys
    import numpy as np
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset
    import gossamer

    torch.set_num_threads(1)
    folder, killed_at = sys.argv[1], int(sys.argv[2])
    rank = int(os.environ["RANK"])
    random.seed(rank); np.random.seed(rank)
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(64, 8, generator=generator)
    examples = TensorDataset(inputs, inputs[:, :3].argmax(1))

    def small():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))

    done = 0
    def one_epoch_more():
        "Rank 1 dies in the middle of the run, as if its machine had."
        global done
        done += 1
        if done == killed_at and rank == 1:
            os._exit(9)
"""

ACCELERATE = """
    import accelerate
    from gossamer.integrations.accelerate import rounds

    accelerator = accelerate.Accelerator(cpu=True)
    model = small()
    torch.manual_seed(10 + rank)
    for round, checkpoints in rounds(model, accelerator, folder=folder, stop=gossamer.Stop(rounds=2)):
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        loader = DataLoader(examples, 8, shuffle=True)
        prepared, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        for epoch in checkpoints.epochs(3):
            for batch, targets in loader:
                accelerator.backward(nn.functional.cross_entropy(prepared(batch), targets))
                optimizer.step()
                optimizer.zero_grad()
            one_epoch_more()
        round.record(loss=torch.rand(()).item())
"""

FSDP2 = """
    import accelerate
    from accelerate.state import DistributedType
    from gossamer.integrations.accelerate import rounds

    plugin = accelerate.FullyShardedDataParallelPlugin(
        fsdp_version=2, cpu_ram_efficient_loading=False, auto_wrap_policy="size_based_wrap", min_num_params=10,
        state_dict_type="SHARDED_STATE_DICT" if killed_at or "killed" in folder else "FULL_STATE_DICT",
    )
    accelerator = accelerate.Accelerator(cpu=True, fsdp_plugin=plugin)
    # Without GPUs it forgets the plugin; told that it is there, it does with gloo what it does with NCCL.
    accelerate.PartialState._shared_state["distributed_type"] = DistributedType.FSDP
    accelerator.state.distributed_type, accelerator.state.fsdp_plugin = DistributedType.FSDP, plugin
    assert accelerator.is_fsdp2
    model = small()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    try:
        rounds(model, accelerator, folder="never", target_sparsity=0.5)
        raise SystemExit("expected a refusal")
    except gossamer.ConfigurationError as error:
        assert "is to be sharded by FSDP2, and is not yet" in str(error)
    model, optimizer = accelerator.prepare(model, optimizer)
    torch.manual_seed(10 + rank)
    state = {"optimizer": optimizer}
    for round, checkpoints in rounds(model, accelerator, folder=folder, stop=gossamer.Stop(rounds=2), state=state):
        loader = accelerator.prepare(DataLoader(examples, 8, shuffle=True))
        for epoch in checkpoints.epochs(3):
            for batch, targets in loader:
                accelerator.backward(nn.functional.cross_entropy(model(batch), targets))
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
            one_epoch_more()
        if round.number:
            gossamer.check(model, optimizer)
        round.record(loss=torch.rand(()).item())
    assert all(type(parameter).__name__ == "DTensor" for parameter in model.parameters())
"""

LIGHTNING = """
    import lightning
    from gossamer.integrations.lightning import rounds

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = small()
        def training_step(self, batch, index):
            return nn.functional.cross_entropy(self.network(batch[0]), batch[1])
        def validation_step(self, batch, index):
            self.log("val_acc", (self.network(batch[0]).argmax(1) == batch[1]).float().mean() + torch.rand(()))
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.2, momentum=0.9)
        def on_validation_end(self):
            if not self.trainer.sanity_checking:
                one_epoch_more()

    def make_trainer(folder):
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        return lightning.Trainer(
            max_epochs=3, default_root_dir=folder, accelerator="cpu", devices=2, strategy="ddp", **quiet
        )

    module = Module()
    torch.manual_seed(10 + rank)
    for round, trainer in rounds(module, make_trainer, folder=folder, stop=gossamer.Stop(rounds=2)):
        trainer.fit(module, DataLoader(examples, 8, shuffle=True), DataLoader(examples, 32))
"""

TRANSFORMERS = """
    import transformers
    from gossamer.integrations.transformers import rounds

    small = {"n_positions": 16, "n_embd": 8, "n_layer": 1, "n_head": 2, "bos_token_id": 6, "eos_token_id": 6}
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=30, **small))
    rows = [{"input_ids": row, "labels": row} for row in torch.arange(512).remainder(30).view(32, 16)]

    class Count(transformers.TrainerCallback):
        def on_epoch_end(self, *arguments, **named):
            one_epoch_more()

    def make_trainer():
        arguments = transformers.TrainingArguments(
            output_dir="not-used", num_train_epochs=3, learning_rate=0.01, report_to=[], use_cpu=True,
            disable_tqdm=True, save_strategy="epoch", per_device_train_batch_size=4, ddp_backend="gloo",
        )
        return transformers.Trainer(model, arguments, train_dataset=rows, eval_dataset=rows, callbacks=[Count()])

    for round, trainer in rounds(make_trainer, folder=folder, stop=gossamer.Stop(rounds=2)):
        trainer.train()
        round.record(**trainer.evaluate())
"""

END = """
    # Without it torch's own threads may end a process by an abort.
    torch.distributed.destroy_process_group()
"""


def torchrun(folder: Path, program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    script = folder / "program.py"
    script.write_text(textwrap.dedent(BEGIN) + textwrap.dedent(program) + textwrap.dedent(END))
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*command, str(script), *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("package", "program"),
    [
        ("accelerate", ACCELERATE),
        pytest.param("accelerate", FSDP2, id="accelerate FSDP2"),
        ("lightning", LIGHTNING),
        ("transformers", TRANSFORMERS),
    ],
)
def test_two_processes_make_one_run(tmp_path: Path, package: str, program: str) -> None:
    pytest.importorskip(package)
    whole = torchrun(tmp_path, program, "whole", 0)
    assert whole.returncode == 0, whole.stderr
    # In round 1, of three epochs each.
    killed = torchrun(tmp_path, program, "killed", 5)
    assert killed.returncode != 0
    assert len([*(tmp_path / "killed").glob("round-*")]) == 1
    assert [*(tmp_path / "killed" / "trainer" / "round-01").iterdir()]
    again = torchrun(tmp_path, program, "killed", 0)
    assert again.returncode == 0, again.stderr
    found = digests(tmp_path / "whole")
    assert len(found) == 3
    for record in found.values():
        assert {"state.safetensors", "state-1.safetensors"} <= record["sha256"].keys()
    later = digests(tmp_path / "killed")
    # How long an evaluation took is among what a Trainer measures.
    for record in [*found.values(), *later.values()]:
        timed = [name for name in record["metrics"] if name.endswith(("_runtime", "_per_second"))]
        for name in timed:
            del record["metrics"][name]
    assert later == found
