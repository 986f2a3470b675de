"""Selection among weights of which every process holds a piece: the masks of one process, to the bit."""

from pathlib import Path

import pytest
from processes import succeeded

SELECT = """
    import itertools
    import numpy as np
    from torch import nn
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
    from torch.distributed.tensor.placement_types import _StridedShard
    import gossamer
    from gossamer.model.sharded import piece_of, sharded_like
    from gossamer.prune.select_each import keep_largest_of_each

    line = init_device_mesh("cpu", (size,))
    square = init_device_mesh("cpu", (2, size // 2), mesh_dim_names=("data", "tensor")) if size > 1 else line
    shapes = {"a": (7, 9), "b": (3, 8, 2), "c": (16, 4), "d": (1, 12)}
    layouts = {
        "rows": (line, [Shard(0)]),
        "columns": (line, [Shard(1)]),
        "copies": (line, [Replicate()]),
        "a square": (square, [Shard(0), Shard(1)][: square.ndim]),
        "twice": (square, [Shard(0), Shard(0)][: square.ndim]),
        "copies of pieces": (square, [Replicate(), Shard(1)][-square.ndim :]),
        "part of the processes": (square["tensor"] if size > 1 else line, [Shard(0)]),
    }
    if size > 2:
        layouts["strided"] = square, [_StridedShard(0, split_factor=size // 2), Shard(0)]

    def sharded(whole, layout, index):
        if layout == "mixed":
            # One of them in every process, as a whole.
            layout = [*layouts, None][index % (len(layouts) + 1)]
        if layout is None:
            return whole.clone()
        mesh, placements = layouts[layout]
        if layout == "strided":
            return strided(whole, mesh)
        return distribute_tensor(whole.clone(), mesh, placements)

    def strided(whole, mesh):
        # As FSDP over tensor parallelism makes it.
        holder = nn.Linear(1, 1)
        inner = distribute_tensor(whole.clone(), mesh["tensor"], [Shard(0)])
        holder.weight = nn.Parameter(inner, requires_grad=False)
        fully_shard(holder, mesh=mesh["data"], ignored_params={holder.bias})
        assert holder.weight.placements == tuple(layouts["strided"][1])
        return holder.weight.detach()

    def by_sorting(weights, kept, masks):
        scores = np.concatenate([w.double().abs().masked_fill(~masks[n], -1).reshape(-1) for n, w in weights.items()])
        chosen = np.zeros(len(scores), bool)
        chosen[np.argsort(-scores, kind="stable")[:kept]] = True
        parts = np.split(chosen, np.cumsum([w.numel() for w in weights.values()])[:-1])
        return {n: part.reshape(w.shape) for (n, w), part in zip(weights.items(), parts)}

    generator = torch.Generator().manual_seed(5)
    kinds = (torch.float32, torch.bfloat16, None, torch.float16, torch.float64)
    # Each layout with one type after the other, or with all of them.
    places = [*layouts, "mixed"]
    cases = itertools.product(kinds, places) if sys.argv[1] == "all" else zip(itertools.cycle(kinds), places)
    count = 0
    for kind, layout in cases:
        whole = {}
        for index, (name, shape) in enumerate(shapes.items()):
            # Masses of equal ones.
            values = (2 * torch.randn(shape, generator=generator, dtype=torch.float64)).round() / 4
            whole[name] = values.to(kind or (torch.float32, torch.bfloat16)[index % 2])
        there = {name: torch.rand(shape, generator=generator) < 0.8 for name, shape in shapes.items()}
        pieces = {name: sharded(w, layout, i) for i, (name, w) in enumerate(whole.items())}
        masks = {name: sharded(m, layout, i) for i, (name, m) in enumerate(there.items())}
        available = sum(int(mask.sum()) for mask in there.values())
        for kept in (0, available // 3, available) if sys.argv[1] == "all" else (available // 2,):
            found = gossamer.keep_largest(pieces, kept, masks)
            alone = gossamer.keep_largest(whole, kept, there)
            expected = by_sorting(whole, kept, there)
            for name, mask in found.items():
                assert np.array_equal(alone[name], expected[name])
                assert isinstance(mask, DTensor) == isinstance(pieces[name], DTensor)
                same = sharded_like(name, alone[name], pieces[name])
                assert torch.equal(piece_of(mask), piece_of(same)), (kind, layout, kept, name)
            count += 1
        for share in (0.4,) if count % 4 else (0, 0.4, 1):
            wanted = {name: int(share * int(mask.sum())) for name, mask in there.items()}
            each = keep_largest_of_each(pieces, wanted, masks)
            for name, mask in each.items():
                expected = by_sorting({name: whole[name]}, wanted[name], {name: there[name]})[name]
                same = sharded_like(name, torch.from_numpy(expected), pieces[name])
                assert torch.equal(piece_of(mask), piece_of(same)), (kind, layout, share, name)
    print(count)
"""


@pytest.mark.parametrize(
    ("ranks", "cases", "count"),
    [
        (2, "some", 8),
        *(
            pytest.param(ranks, "all", 15 * layouts, marks=[pytest.mark.slow, pytest.mark.processes])
            for ranks, layouts in ((1, 8), (2, 8), (4, 9))
        ),
    ],
)
def test_the_same_weights_are_kept_however_they_are_sharded(ranks: int, cases: str, count: int, tmp_path: Path) -> None:
    assert set(succeeded(tmp_path, ranks, SELECT, cases)) == {f"{count}\n"}
