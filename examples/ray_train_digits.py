"""One training on several workers of a Ray cluster, with Ray Train, on scikit-learn's handwritten digits.

    python examples/ray_train_digits.py /shared/runs/digits --workers 2 --address auto

Without `--address` it starts a cluster on this machine. The folder has to be one that all machines see under the same
name. A worker that dies is replaced by Ray Train, with all the others, and the run goes on after the last finished
round; so does the same command, whatever ended it. Either ends with the same bits at the same number of workers. Needs
gossamer[tasks] and ray[train] on every machine.
"""

import argparse
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train.torch import TorchConfig, TorchTrainer, get_device, prepare_model
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import gossamer

EPOCHS, ROUNDS = 5, 4
TRAINED = 1400
"""Images that are trained with; those behind them measure."""


def network() -> nn.Module:
    """A network for images of 8x8 pixels."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10)
    )


def train(settings: dict[str, Any]) -> None:
    """What every worker does: the whole program, with the same folder."""
    rank, workers = ray.train.get_context().get_world_rank(), ray.train.get_context().get_world_size()
    torch.manual_seed(rank)  # The network is that of rank 0 in all of them.
    device = get_device()
    bunch = load_digits()
    images = (torch.from_numpy(bunch.images).float().unsqueeze(1) / 8 - 1).to(device)
    targets = torch.from_numpy(bunch.target).to(device)
    examples = TensorDataset(images[:TRAINED], targets[:TRAINED])
    model = network().to(device)
    for round in gossamer.rounds(
        model,
        folder=settings["folder"],
        stop=gossamer.Stop(rounds=settings["rounds"]),
        cut=gossamer.Cut(per_round=0.5),
    ):
        distributed = prepare_model(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
        sampler = DistributedSampler(examples, workers, rank)
        batches = DataLoader(examples, batch_size=32, sampler=sampler)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=EPOCHS * len(batches))
        for epoch in range(EPOCHS):
            sampler.set_epoch(epoch)
            for inputs, labels in batches:
                optimizer.zero_grad()
                functional.cross_entropy(distributed(inputs), labels).backward()
                optimizer.step()
                schedule.step()
        model.eval()
        with torch.no_grad():
            right = model(images[TRAINED + rank :: workers]).argmax(1) == targets[TRAINED + rank :: workers]
        model.train()
        # Each of its share of the examples: the mean is recorded.
        record = round.record(accuracy=right.float().mean())
        ray.train.report({"round": record.round, "accuracy": record.val})
        if rank == 0:
            print(f"{record.compression:5.1f}x  {record.val:.1%}")


def main() -> None:
    """Starts the workers, and waits for their end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--address", help="of the cluster, such as auto; without it one is started here")
    parser.add_argument("--gpus", action="store_true", help="a GPU for every worker, and NCCL")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="after the dense one")
    parser.add_argument("--retries", type=int, default=3, help="how often dead workers are replaced")
    given = parser.parse_args()
    folder = given.folder.resolve()
    ray.init(address=given.address)
    trainer = TorchTrainer(
        train,
        train_loop_config={"folder": str(folder), "rounds": given.rounds},
        torch_config=TorchConfig(backend="nccl" if given.gpus else "gloo"),
        scaling_config=ray.train.ScalingConfig(num_workers=given.workers, use_gpu=given.gpus),
        # Ray Train's own notes; what is to be kept is in the run's folder.
        run_config=ray.train.RunConfig(
            storage_path=str(folder.parent),
            name=f"{folder.name}-ray",
            failure_config=ray.train.FailureConfig(max_failures=given.retries),
        ),
    )
    trainer.fit()
    ray.shutdown()
    print(f"gossamer show {folder}")


if __name__ == "__main__":
    main()
