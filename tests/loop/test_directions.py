"""Names of metrics that say which direction is better, and names that do not."""

from pathlib import Path

import pytest
from torch import nn

import gossamer
from gossamer.errors import ConfigurationError
from gossamer.loop.stop import Stop

HIGHER = """
    accuracy acc val_acc val/acc valAcc eval_accuracy eval/acc val.acc acc@1 Acc1 top5_accuracy accuracy_top5 f1
    f1_macro F1 eval_f1 bleu bleu4 eval_rougeL rouge1 hits@10 recall@5 mAP mAP50 IoU mIoU val/mIoU roc_auc AUROC PSNR
    r2_score exact_match dog/accuracy dice_score balanced_accuracy mean_average_precision
"""
LOWER = """
    loss eval_loss val/loss loss/val evalLoss val-loss mse_loss loss_1 error top1_error error_rate err perplexity
    eval/perplexity ppl nll WER word_error_rate mean_absolute_error RMSE cross_entropy fid_score kl_divergence
"""
UNKNOWN = """
    surprise score val runtime eval_samples_per_second samples_per_epoch top1 loss_scale dice_loss accuracy_loss
    loss_accuracy neg_mean_squared_error negative_loss accuracy_drop error_reduction 1-acc entropy lossy
"""


@pytest.mark.parametrize("name", HIGHER.split())
def test_higher_is_better(name: str) -> None:
    assert Stop(max_drop=0.1, metric=name).direction(name) == "higher"


@pytest.mark.parametrize("name", LOWER.split())
def test_lower_is_better(name: str) -> None:
    assert Stop(max_drop=0.1, metric=name).direction(name) == "lower"


@pytest.mark.parametrize("name", UNKNOWN.split())
def test_names_that_do_not_say_it_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name!r} is better; pass better='higher' or better='lower'"):
        Stop(max_drop=0.1, metric=name)
    assert Stop(max_drop=0.1, metric=name, better="lower").direction(name) == "lower"


@pytest.mark.parametrize(("name", "best"), [("eval_loss", 2), ("val/acc", 0)])
def test_a_run_is_judged_in_that_direction(name: str, best: int, tmp_path: Path) -> None:
    model = nn.Linear(5, 5)
    for round in gossamer.rounds(model, folder=tmp_path, stop=gossamer.Stop(rounds=2, max_drop=0.1)):
        round.record(untrained=True, **{name: 1.0 - round.number / 2})
    assert int((model.weight != 0).sum()) == (25, 20, 16)[best]
