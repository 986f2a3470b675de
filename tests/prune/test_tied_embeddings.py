"""Networks of transformers that tie the head to the embedding: one weight, counted, pruned and stored once."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import gossamer
from gossamer import Scope

transformers = pytest.importorskip("transformers")


def gpt2() -> Any:
    configuration = transformers.GPT2Config(
        vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(configuration)


def t5() -> Any:
    configuration = transformers.T5Config(
        vocab_size=11, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    return transformers.T5ForConditionalGeneration(configuration)


def bert() -> Any:
    configuration = transformers.BertConfig(
        vocab_size=11,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
    )
    return transformers.BertForMaskedLM(configuration)


TABLES = {gpt2: "transformer.wte.weight", t5: "shared.weight", bert: "bert.embeddings.word_embeddings.weight"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("embeddings", [False, True])
@pytest.mark.parametrize("make", TABLES, ids=lambda make: make.__name__)
def test_the_head_and_the_embedding_are_one_weight_to_the_end(make: Any, embeddings: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, scope = make(), Scope(embeddings=embeddings)
    tied = TABLES[make]
    assert [name for name in gossamer.prunable_weights(model, scope) if "lm_head" in name or name == tied] == [tied]
    tokens = torch.arange(8)[None]
    for round in gossamer.rounds(
        model, folder=tmp_path / "run", scope=scope, stop=gossamer.Stop(rounds=1), cut=gossamer.Cut(per_round=0.5)
    ):
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        for _ in range(2):
            optimizer.zero_grad()
            model(input_ids=tokens, labels=tokens).loss.backward()
            optimizer.step()
        model.tie_weights()  # As Trainers do after they have moved or loaded a model.
        round.record(loss=1.0)
    masks = gossamer.load_masks(tmp_path / "run", -1)
    assert sum(int(mask.sum()) for mask in masks.values()) == -(-sum(mask.numel() for mask in masks.values()) // 2)
    assert list(load_file(tmp_path / "run" / "round-01" / "model.safetensors")).count(tied) == 1
    loaded = make()
    gossamer.load_round(tmp_path / "run", -1, loaded)
    loaded.tie_weights()
    gossamer.check(loaded)
    head: nn.Linear = loaded.get_output_embeddings()
    assert head.weight is loaded.get_parameter(tied)
    assert torch.equal(head.weight != 0, masks[tied])
    # Saved and loaded by its own library, which ties it anew.
    loaded.save_pretrained(tmp_path / "saved")
    again = type(model).from_pretrained(tmp_path / "saved")
    gossamer.check(again, masks=masks)
    assert again.get_output_embeddings().weight is again.get_input_embeddings().weight
