"""Adapters on pruned networks, with the real peft: merged with the masks, and trained with them."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import gossamer
from gossamer.errors import ConfigurationError, GossamerWarning
from gossamer.integrations.peft import mask_adapters, merge

peft = pytest.importorskip("peft")

pytestmark = [
    # peft's and transformers' own.
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Already unmerged:UserWarning"),
    # Of parameters without a layer, in the oldest version.
    pytest.mark.filterwarnings("ignore:Unsupported layer type:UserWarning"),
]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def convolutions() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 9, 3))


def gpt2() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    configuration = transformers.GPT2Config(
        vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    model: nn.Module = transformers.GPT2LMHeadModel(configuration).eval()
    return model


def pruned(model: nn.Module, folder: Path) -> dict[str, Tensor]:
    """Prunes half of the weights without training; returns the masks."""
    for round in gossamer.rounds(model, folder=folder, stop=gossamer.Stop(rounds=1), cut=gossamer.Cut(per_round=0.5)):
        round.record(loss=1.0, untrained=True)
    return gossamer.load_masks(folder, 1)


def adapted(model: nn.Module, method: str = "LoraConfig", **options: Any) -> Any:
    found = peft.get_peft_model(model, getattr(peft, method)(**options))
    with torch.no_grad():
        for parameter in found.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn_like(parameter)
    return found


def inputs_of(model: nn.Module) -> dict[str, Tensor] | Tensor:
    if isinstance(model[0] if isinstance(model, nn.Sequential) else model, nn.Conv2d):
        return torch.randn(5, 2, 6, 6)
    return torch.randn(5, 6)


def outputs(model: nn.Module, inputs: Tensor) -> Tensor:
    found = model(inputs)
    return (found if isinstance(found, Tensor) else found.logits).detach()


def zeros(model: nn.Module, masks: dict[str, Tensor]) -> None:
    """Counted by numpy, for every mask."""
    for name, mask in masks.items():
        weight = model.get_parameter(name).detach().numpy()
        assert np.count_nonzero(weight[~mask.numpy()]) == 0
        assert np.count_nonzero(weight[mask.numpy()]) > 0
    gossamer.check(model, masks=masks)
    gossamer.check(model)


METHODS = {
    "lora": ("LoraConfig", {"r": 2}),
    "dora": ("LoraConfig", {"r": 2, "use_dora": True}),
    "loha": ("LoHaConfig", {"r": 2}),
    "lokr": ("LoKrConfig", {"r": 2}),
    "with a head": ("LoraConfig", {"r": 2, "modules_to_save": ["2"]}),
}


@pytest.mark.parametrize(("method", "options"), METHODS.values(), ids=METHODS)
def test_merging_keeps_the_zeros_and_tells_what_the_masks_took(
    method: str, options: dict[str, Any], tmp_path: Path
) -> None:
    model = network()
    masks = pruned(model, tmp_path)
    before = {name: model.get_parameter(name).detach().numpy().copy() for name in masks}
    trained = adapted(model, method, target_modules=["0"], **options)
    plain = peft_merged(trained)
    with pytest.warns(GossamerWarning, match="by norm") as told:
        merged = merge(trained)
    assert merged is model
    zeros(merged, masks)
    # What was kept is as peft merges it, and the share is that of an independent sum.
    change = {name: plain[name].numpy() - before[name] for name in masks}
    for name, mask in masks.items():
        assert np.array_equal(merged.get_parameter(name).detach().numpy(), plain[name].numpy() * mask.numpy())
    taken = np.sqrt(sum(float((change[name][~mask.numpy()].astype(float) ** 2).sum()) for name, mask in masks.items()))
    added = np.sqrt(sum(float((values.astype(float) ** 2).sum()) for values in change.values()))
    assert f"the masks took {taken / added:.1%} of" in str(told[0].message)
    # It is an ordinary pruned network, and goes on as one.
    model.requires_grad_(True)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model(torch.randn(4, 6)).square().sum().backward()
    optimizer.step()
    zeros(merged, masks)


def peft_merged(model: Any) -> dict[str, Tensor]:
    import copy

    return {name: value.clone() for name, value in copy.deepcopy(model).merge_and_unload().state_dict().items()}


def test_the_layers_of_gpt2_and_several_adapters(tmp_path: Path) -> None:
    """Their weights have the inputs first (`fan_in_fan_out`), and the embedding is tied with the head."""
    model = gpt2()
    masks = pruned(model, tmp_path)
    trained = adapted(model, target_modules=["c_attn", "c_fc"], r=2, fan_in_fan_out=True)
    trained.add_adapter("other", peft.LoraConfig(target_modules=["c_fc"], r=2, fan_in_fan_out=True))
    with pytest.warns(GossamerWarning, match="by norm"):
        merged = merge(trained, adapters=["default", "other"])
    zeros(merged, masks)
    assert merged.lm_head.weight is merged.transformer.wte.weight
    assert merged(input_ids=torch.arange(8)[None]).logits.isfinite().all()


def test_masks_of_a_folder_for_an_adapter_that_was_saved(tmp_path: Path) -> None:
    """Another process: the network comes from its round, the adapter from peft's folder."""
    model = network()
    masks = pruned(model, tmp_path / "run")
    trained = adapted(model, target_modules=["0"], r=2)
    trained.save_pretrained(str(tmp_path / "adapter"))
    expected = peft_merged(trained)
    base = network()
    gossamer.load_round(tmp_path / "run", -1, base)
    loaded = peft.PeftModel.from_pretrained(base, str(tmp_path / "adapter"))
    with pytest.warns(GossamerWarning, match="by norm"):
        merged = merge(loaded)
    zeros(merged, masks)
    assert torch.equal(merged.get_parameter("0.weight"), expected["0.weight"] * masks["0.weight"])
    # Without masks on the parameters (a network from a file of another kind) they come from the folder.
    other = network()
    other.load_state_dict(base.state_dict())
    loaded = peft.PeftModel.from_pretrained(other, str(tmp_path / "adapter"))
    with pytest.raises(ConfigurationError, match=r"no masks are attached to it.*masks=gossamer\.load_masks"):
        merge(loaded)
    with pytest.warns(GossamerWarning, match="by norm"):
        zeros(merge(loaded, masks=gossamer.load_masks(tmp_path / "run", -1)), masks)


@pytest.mark.filterwarnings("ignore:.*have adapters beside them:gossamer.GossamerWarning")
def test_a_network_that_was_pruned_while_its_adapters_were_trained(tmp_path: Path) -> None:
    model = peft.get_peft_model(network(), peft.LoraConfig(target_modules=["0"], r=2))
    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], lr=0.05)
    for round in gossamer.rounds(
        model,
        folder=tmp_path,
        scope=gossamer.Scope(exclude=["*lora*"]),
        stop=gossamer.Stop(rounds=2),
        cut=gossamer.Cut(per_round=0.5),
        state={"optimizer": optimizer},
    ):
        mask_adapters(model, round.masks)
        for _ in range(5):
            optimizer.zero_grad()
            (model(torch.ones(4, 6)) - 1).square().sum().backward()
            optimizer.step()
        round.record(loss=1.0)
    masks = gossamer.load_masks(tmp_path, 2)
    assert [*masks] == ["base_model.model.0.base_layer.weight", "base_model.model.2.weight"]
    inputs = torch.randn(5, 6)
    expected = outputs(model, inputs)
    merged = merge(model)
    zeros(merged, {"0.weight": masks["base_model.model.0.base_layer.weight"]})
    torch.testing.assert_close(outputs(merged, inputs), expected)


def test_the_adapters_own_masks_go_with_them(tmp_path: Path) -> None:
    model = peft.get_peft_model(network(), peft.LoraConfig(target_modules=["0"], modules_to_save=["2"], r=2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GossamerWarning)
        masks = pruned(model, tmp_path)
        assert any("lora_A" in name for name in masks)
        merged = merge(model)
    gossamer.check(merged, masks={"0.weight": masks["base_model.model.0.base_layer.weight"]})


MASKED = {
    "lora": (network, ["0"], "LoraConfig", {"r": 2}),
    "all layers": (network, ["0", "2"], "LoraConfig", {"r": 2, "lora_alpha": 5}),
    "bias": (network, ["0"], "LoraConfig", {"r": 2, "lora_bias": True}),
    "loha": (network, ["0"], "LoHaConfig", {"r": 2}),
    "lokr": (network, ["0"], "LoKrConfig", {"r": 2}),
    "convolution": (convolutions, ["0"], "LoraConfig", {"r": 2}),
    "with a head": (network, ["0"], "LoraConfig", {"r": 2, "modules_to_save": ["2"]}),
}


@pytest.mark.parametrize(("make", "targets", "method", "options"), MASKED.values(), ids=MASKED)
def test_masked_adapters_compute_what_they_merge_to(
    make: Any, targets: list[str], method: str, options: dict[str, Any], tmp_path: Path
) -> None:
    model = make()
    inputs = inputs_of(model)
    assert isinstance(inputs, Tensor)
    masks = pruned(model, tmp_path)
    trained = adapted(model, method, target_modules=targets, **options)
    dense = outputs(trained, inputs)
    # The oracle: what peft merges, multiplied by the masks with numpy.
    expected = make()
    multiplied = {name: value * masks[name] if name in masks else value for name, value in peft_merged(trained).items()}
    expected.load_state_dict(multiplied)
    mask_adapters(trained)
    found = outputs(trained, inputs)
    torch.testing.assert_close(found, outputs(expected, inputs))
    assert not torch.allclose(found, dense, atol=1e-3)
    # Training them is training that network: the same gradient of the loss.
    optimizer = torch.optim.SGD([weight for weight in trained.parameters() if weight.requires_grad], lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        trained(inputs).square().sum().backward()
        optimizer.step()
    after = outputs(trained, inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        merged = merge(trained)
    torch.testing.assert_close(outputs(merged, inputs), after)
    zeros(merged, masks)


def test_masked_adapters_of_gpt2(tmp_path: Path) -> None:
    model = gpt2()
    masks = pruned(model, tmp_path)
    trained = adapted(model, target_modules=["c_attn", "c_fc", "wpe"], r=2, fan_in_fan_out=True)
    mask_adapters(trained)
    inputs = torch.arange(8)[None]
    expected = outputs(trained, inputs)
    merged = merge(trained)
    zeros(merged, masks)
    torch.testing.assert_close(outputs(merged, inputs), expected)


@pytest.mark.parametrize("kind", ["attention", "experts"])
def test_layers_around_which_adapters_are_merged_and_not_masked(kind: str, tmp_path: Path) -> None:
    """Of nn.MultiheadAttention peft makes the weight a tensor that is no parameter; those of stacked experts are
    parameters without a layer. What could be masked beside them is told apart from what could not."""
    if kind == "attention":
        model: nn.Module = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0)
        options: dict[str, Any] = {"target_modules": ["self_attn", "linear1"]}
        inputs = torch.randn(4, 3, 8)
    else:
        transformers = pytest.importorskip("transformers")
        configuration = transformers.MixtralConfig(
            vocab_size=11,
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            num_local_experts=4,
        )
        model = transformers.MixtralForCausalLM(configuration).eval()
        options = {"target_modules": ["q_proj"], "target_parameters": ["experts.gate_up_proj", "experts.down_proj"]}
        inputs = torch.arange(8)[None]
    masks = pruned(model, tmp_path)
    trained = adapted(model, r=2, **options)
    outputs(trained, inputs)
    if kind == "attention":
        for call in (merge, mask_adapters):
            with pytest.raises(ConfigurationError, match=r"peft replaces the weights of self_attn.*masks=gossamer"):
                call(trained)
    with pytest.raises(ConfigurationError, match="may do more than add a product"):
        mask_adapters(trained, masks)
    with pytest.warns(GossamerWarning, match="by norm"):
        merged = merge(trained, masks)
    zeros(merged, masks)


def test_masked_adapters_merged_in_place_and_switched_off(tmp_path: Path) -> None:
    model = network()
    pruned(model, tmp_path)
    inputs = torch.randn(5, 6)
    alone = outputs(model, inputs)
    trained = adapted(model, target_modules=["0"], r=2)
    dense = outputs(trained, inputs)
    handles = mask_adapters(trained)
    assert len(mask_adapters(trained)) == len(handles) == 1
    masked = outputs(trained, inputs)
    with trained.disable_adapter():
        torch.testing.assert_close(outputs(trained, inputs), alone)
    # In place: the zeros are gone, until they are enforced or the adapter is taken out again.
    trained.merge_adapter()
    with pytest.raises(gossamer.PrunedWeightError):
        gossamer.check(trained)
    torch.testing.assert_close(outputs(trained, inputs), dense)
    gossamer.enforce(trained)
    torch.testing.assert_close(outputs(trained, inputs), masked)
    trained.unmerge_adapter()
    gossamer.enforce(trained)
    torch.testing.assert_close(outputs(trained, inputs), masked)
    gossamer.check(trained)
    for handle in mask_adapters(trained):
        handle.remove()
    torch.testing.assert_close(outputs(trained, inputs), dense)


def test_what_cannot_be_masked_is_refused(tmp_path: Path) -> None:
    model = network()
    pruned(model, tmp_path)
    with pytest.raises(
        ConfigurationError, match=r"0 \(DoraLinearVariant\) may do more than add a product.*peft\.merge"
    ):
        mask_adapters(adapted(model, target_modules=["0"], r=2, use_dora=True))
    for method, options, said in (
        ("LoraConfig", {"r": 2, "lora_dropout": 0.1}, r"0 has a dropout of 0\.1.*lora_dropout=0"),
        ("LoHaConfig", {"r": 2, "rank_dropout": 0.2}, r"0 has a dropout of 0\.2"),
        ("OFTConfig", {"oft_block_size": 2}, r"\(Linear of oft\) may do more"),
    ):
        other = network()
        gossamer.load_round(tmp_path, -1, other)
        with pytest.raises(ConfigurationError, match=said):
            mask_adapters(adapted(other, method, target_modules=["0"], **options))


def test_what_cannot_be_merged_is_refused(tmp_path: Path) -> None:
    model = network()
    masks = pruned(model, tmp_path)
    for call in (merge, mask_adapters):
        with pytest.raises(ConfigurationError, match=r"a Sequential has no adapters that can be merged"):
            call(model)
        with pytest.raises(ConfigurationError, match=r"expected a model of peft"):
            call(None)  # type: ignore[arg-type]
    trained = adapted(model, target_modules=["0"], r=2)
    with pytest.raises(ConfigurationError, match=r"a mask for 7\.weight, which is no weight of Sequential"):
        merge(trained, masks={"7.weight": masks["0.weight"]})
    with pytest.raises(ConfigurationError, match=r"0\.weight holds torch\.float32 of shape \(8, 6\).*\(2, 2\)"):
        merge(trained, masks={"0.weight": torch.ones(2, 2, dtype=torch.bool)})
    assert hasattr(trained, "peft_config")  # Nothing was merged.


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_quantized_base_is_refused_with_the_way(tmp_path: Path) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    model = network()
    masks = pruned(model, tmp_path)
    model[0] = bitsandbytes.nn.Linear4bit(6, 8)
    model[0].to("cpu")
    trained = peft.get_peft_model(model, peft.LoraConfig(target_modules=["2"], r=2))
    with pytest.raises(ConfigurationError, match=r"0\.weight .*quantized.*"):
        merge(trained, masks=masks)
    with pytest.raises(ConfigurationError, match=r"0\.weight"):
        gossamer.rounds(model, folder=tmp_path / "other", stop=gossamer.Stop(rounds=1))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*have adapters beside them:gossamer.GossamerWarning")
def test_adapters_that_the_trainer_of_transformers_trains(tmp_path: Path) -> None:
    """Its checkpoints hold the adapters alone; the pruned network, and its masks, come from the round before."""
    transformers = pytest.importorskip("transformers")
    from gossamer.integrations.transformers import rounds

    rows = [{"input_ids": row, "labels": row} for row in torch.arange(512).remainder(11).view(64, 8)]

    class Killer(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
        def on_step_end(self, arguments: Any, state: Any, control: Any, **others: Any) -> None:
            if state.global_step == 5:
                raise KeyError("killed")

    def train(folder: Path, killed_in: int | None = None) -> Any:
        torch.manual_seed(0)
        options = peft.LoraConfig(target_modules=["c_attn", "c_fc"], r=2, fan_in_fan_out=True)
        model = peft.get_peft_model(gpt2(), options)

        def make_trainer() -> Any:
            arguments = transformers.TrainingArguments(
                output_dir=str(tmp_path / "unused"),
                num_train_epochs=2,
                per_device_train_batch_size=16,
                save_strategy="steps",
                save_steps=3,
                learning_rate=0.01,
                report_to=[],
                use_cpu=True,
                disable_tqdm=True,
                logging_strategy="no",
            )
            return transformers.Trainer(model, arguments, train_dataset=rows, eval_dataset=rows)

        for round, trainer in rounds(
            make_trainer,
            folder=folder,
            stop=gossamer.Stop(rounds=2),
            cut=gossamer.Cut(per_round=0.5),
            scope=gossamer.Scope(exclude=["*lora*"]),
        ):
            mask_adapters(model, round.masks)
            if killed_in == round.number:
                trainer.add_callback(Killer())
            trainer.train()
            round.record(**trainer.evaluate())
        return model

    model = train(tmp_path / "whole")
    for number in (0, 1):
        with pytest.raises(KeyError, match="killed"):
            train(tmp_path / "killed", number)
    train(tmp_path / "killed")
    for number in range(3):
        name = f"round-{number:02d}/model.safetensors"
        expected, found = load_file(tmp_path / "whole" / name), load_file(tmp_path / "killed" / name)
        assert all(torch.equal(expected[key], found[key]) for key in expected | found)
    inputs = torch.arange(8)[None]
    expected_outputs = outputs(model.eval(), inputs)
    merged = merge(model)
    gossamer.check(merged)
    torch.testing.assert_close(outputs(merged, inputs), expected_outputs)
