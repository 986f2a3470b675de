"""Whether more or less of a metric is better, told by the words of its name."""

import re
from typing import Literal

Better = Literal["higher", "lower"]

HIGHER = """
    accuracy acc f1 bleu correct precision recall sensitivity specificity auc auroc auprc roc map ap iou miou jaccard
    dice psnr ssim rouge rougel rougelsum meteor chrf comet r2 mcc kappa ndcg mrr hit hits match em correlation pearson
    spearman spearmanr pearsonr reward likelihood fscore pq stoi pesq
"""
LOWER = """
    loss losses error errors err perplexity ppl mse rmse mae mape smape rmsle wer cer ter der eer nll bce xent
    crossentropy misclassification fid lpips divergence kl brier ece regret bpc bpb bpd
"""
WORDS: dict[str, Better] = {**dict.fromkeys(HIGHER.split(), "higher"), **dict.fromkeys(LOWER.split(), "lower")}
"""What a metric is the measure of -> which is better."""

QUALIFIERS = """
    val valid validation eval evaluation dev test train training held out heldout holdout epoch epochs step steps batch
    iter mean avg average median sum total rate score scores value metric best last final ema swa top at k macro micro
    weighted balanced mask masked box bbox binary multiclass multilabel all overall online offline percent pct
"""
"""Words that say of what, when and how it was taken. They may follow the measure: `loss/val`, `f1_macro`."""

TURNING = """
    neg negative negated minus inverse inverted reciprocal non no not drop dropped decrease reduction increase
    improvement gain gap delta diff difference change ratio relative
"""
"""Words that turn the measure round, or make another one of it."""


def direction_of(metric: str) -> Better | None:
    """Whether a higher or a lower value is better; None if the name does not say so.

    The measure is the last word that is no qualifier: `eval_loss`, `val/acc`, `word_error_rate`, `top5_accuracy`,
    `hits@10`. What comes before it may be anything, except a measure of the other direction (`dice_loss`) or a word
    that turns the meaning (`neg_mean_squared_error`, which is better when it is higher).
    """
    words = _words(metric)
    while words and (words[-1] in QUALIFIERS.split() or words[-1].isdecimal()):
        words.pop()
    if not words or words[-1] not in WORDS or words[0].isdecimal() or {*TURNING.split()} & {*words}:
        return None
    directions = {WORDS[word] for word in words if word in WORDS}
    return directions.pop() if len(directions) == 1 else None


def is_within(allowed: float, before: float, after: float, better: Better) -> bool:
    """Whether a measured value is at most `allowed` worse than the one before; 0.95 less 0.94 is 0.01, for what is
    computed in binary. What runs record is compared as it is written (`Stop.allows`)."""
    loss = before - after if better == "higher" else after - before
    return round(loss - allowed, 12) <= 0


def _words(name: str) -> list[str]:
    """`evalLoss`, `eval-loss` and `eval/Loss` are the words eval and loss; `top5` is two, but `f1` is one."""
    words: list[str] = []
    for part in re.findall(r"[^\W_]+", name.replace("cross_entropy", "crossentropy")):
        known = part.lower() in WORDS
        pieces = [part] if known else re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|[^\W\d_]|\d+", part)
        words += [piece.lower() for piece in pieces]
    return words
