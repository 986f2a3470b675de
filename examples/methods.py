"""Every retraining method in a loop of your own: `round.schedule` says which learning rate each step of a round takes.

    python examples/methods.py weight-rewind runs/ticket

Two things are all that a loop needs: train for `len(schedule)` steps, and take the learning rate of step `schedule[i]`
of your own schedule (or, for a linear restart, `schedule.rates(...)`, which works for every method). Rewinding weights
is gossamer's: it counts the optimizer's steps and keeps what it needs.
"""

import sys
from pathlib import Path

import torch
from torch import nn

import gossamer

STEPS = 120


def learning_rate(step: int) -> float:
    """My own schedule: up for 10 steps, then 0.1, and a tenth of that for the last third."""
    return 0.1 * min(1.0, (step + 1) / 10) * (0.1 if step >= STEPS * 2 // 3 else 1.0)


def main(method: str, folder: Path) -> list[gossamer.RoundRecord]:
    torch.manual_seed(0)
    inputs = torch.randn(512, 20)
    targets = inputs[:, :4].argmax(1)
    model = nn.Sequential(nn.Linear(20, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    records = []
    for round in gossamer.rounds(
        model,
        folder=folder,
        target_sparsity=0.9,
        cut=gossamer.Cut(per_round=0.5),
        # k = 12: retrain for the other 108 steps, with the weights of step 12 if they are rewound
        retraining=gossamer.Retraining(method, rewind_to_step=12),
        state={"optimizer": optimizer},
    ):
        model.train()
        for rate in round.schedule(STEPS).rates(learning_rate):
            for group in optimizer.param_groups:
                group["lr"] = rate
            batch = torch.randint(len(inputs), (64,))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[batch]), targets[batch]).backward()
            optimizer.step()
        model.eval()
        records.append(round.record(accuracy=(model(inputs).argmax(1) == targets).float().mean().item()))
        print(f"{records[-1].compression:5.1f}x  {records[-1].val:.1%}")
    return records


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
