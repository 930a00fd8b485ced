"""Patterns: masks against independent definitions, plans against masks, comparing, printing, combining."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_tools import Case, case_id, cases, static_cases
from torch import Tensor

from graphrec.kernels.attention.foldings import fold
from graphrec.kernels.patterns import (
    BlockLists,
    Blocks,
    Causal,
    FromStart,
    Full,
    Global,
    Halo,
    KeyPadding,
    Neighborhood,
    Packed,
    Pattern,
    PerHead,
    PooledCausal,
    Regions,
    Segments,
    Streaming,
    Strided,
    TilePlan,
    Tokens,
    Window,
    Windows,
    decode,
    encode,
    stripes,
)


def from_tiles(plan: TilePlan, group: int, transposed: bool) -> Tensor:
    """The mask that a plan describes, from its rows or from their transpose."""
    seen = torch.zeros(
        plan.q_len + 1, plan.k_len + 1, dtype=torch.bool
    )  # the last row and column take the padding
    rows, keys = plan.q_rows.long(), plan.k_rows.long()
    full = torch.ones(rows.shape[1], keys.shape[1], dtype=torch.bool)
    outer = len(keys) if transposed else len(rows)
    ptr, other, slots = (
        (plan.t_ptr, plan.t_row, plan.t_slot) if transposed else (plan.ptr, plan.col, plan.slot)
    )
    for tile in range(outer):
        for entry in range(int(ptr[group * outer + tile]), int(ptr[group * outer + tile + 1])):
            q_tile, k_tile = (int(other[entry]), tile) if transposed else (tile, int(other[entry]))
            slot = int(slots[entry])
            bits = (
                full
                if slot < 0
                else ((plan.bits[slot].unsqueeze(-1) >> torch.arange(32)) & 1).bool().view_as(full)
            )
            seen[rows[q_tile][:, None], keys[k_tile]] |= bits
    return seen[:-1, :-1]


def batched(mask: Tensor) -> Tensor:
    return mask.view((1,) * (4 - mask.dim()) + tuple(mask.shape))


@pytest.mark.parametrize("case", cases(), ids=case_id)
def test_tiles_describe_the_mask(case: Case) -> None:
    pattern, q_len, k_len = case
    mask, plan = batched(pattern.mask(q_len, k_len)), pattern.tiles(q_len, k_len, 16, 32)
    for b in range(pattern.batch):
        for h in range(pattern.heads):
            group = b * plan.batch_step + h * plan.head_step
            assert torch.equal(from_tiles(plan, group, False), mask[b, h])
            assert torch.equal(from_tiles(plan, group, True), mask[b, h])
    assert plan.pairs == int(mask.sum())
    assert plan.density == pytest.approx(float(mask.double().mean()))


@pytest.mark.parametrize("case", cases(), ids=case_id)
def test_blocks_describe_the_mask(case: Case) -> None:
    pattern, q_len, k_len = case
    plan = pattern.blocks(q_len, k_len)
    size = (pattern.batch, pattern.heads, *plan.q_index.shape, plan.k_index.shape[-1])
    inner = (torch.ones(1, dtype=torch.bool) if plan.mask is None else plan.mask).expand(size)
    count = torch.zeros(pattern.batch, pattern.heads, q_len + 1, k_len + 1, dtype=torch.int64)
    b, h = torch.arange(pattern.batch).view(-1, 1, 1, 1, 1), torch.arange(pattern.heads).view(1, -1, 1, 1, 1)
    count.index_put_(
        (b, h, plan.q_index.unsqueeze(-1), plan.k_index.unsqueeze(-2)), inner.long(), accumulate=True
    )
    assert torch.equal(count[..., :q_len, :k_len], batched(pattern.mask(q_len, k_len)).long())
    assert torch.equal(plan.q_index.flatten()[plan.inverse], torch.arange(q_len))


@pytest.mark.parametrize("case", cases(), ids=case_id)
def test_text_makes_the_pattern_again(case: Case) -> None:
    pattern, q_len, k_len = case
    again = decode(*encode(pattern))
    assert torch.equal(again.mask(q_len, k_len), pattern.mask(q_len, k_len))
    assert repr(again) == repr(pattern)
    if pattern.static:
        assert eval(repr(pattern), {**globals()}) == pattern
        assert hash(again) == hash(pattern)


@pytest.mark.parametrize("case", static_cases(), ids=case_id)
def test_extent_covers_every_visible_pair(case: Case) -> None:
    pattern, q_len, k_len = case
    if isinstance(pattern, PerHead):
        pattern = pattern.parts[0]
    seen = pattern.mask(q_len, k_len).nonzero()
    steps = pattern.origin + pattern.coordinates(q_len)[seen[:, 0]] - pattern.coordinates(k_len)[seen[:, 1]]
    assert (steps.abs().amax(0) <= torch.tensor(pattern.extent(q_len, k_len))).all()


def neighborhood_by_hand(size: int, kernel: int, dilation: int, stride: int, causal: bool) -> Tensor:
    """One axis of NATTEN's rule, key by key: the window of the leader of a query's stride group."""
    seen = torch.zeros(size, size, dtype=torch.bool)
    for q in range(size):
        keys = list(range(q % dilation, size, dilation))
        inner = q // dilation
        if causal:
            leader = min(inner // stride * stride + stride - 1, len(keys) - 1)
            chosen = keys[max(leader - kernel + 1, 0) : inner + 1]
        else:
            leader = min(inner // stride * stride + stride // 2, len(keys) - 1)
            start = min(max(leader - kernel // 2, 0), len(keys) - kernel)
            chosen = keys[start : start + kernel]
        seen[q, chosen] = True
    return seen


@settings(max_examples=60)
@given(st.data())
def test_neighborhood_follows_natten(data: st.DataObject) -> None:
    masks, options = [], []
    for _ in range(data.draw(st.integers(1, 3))):
        size = data.draw(st.integers(1, 7))
        kernel = data.draw(st.integers(1, size))
        option = (
            size,
            kernel,
            data.draw(st.integers(1, size // kernel)),
            data.draw(st.integers(1, kernel)),
            data.draw(st.booleans()),
        )
        options.append(option)
        masks.append(neighborhood_by_hand(*option))
    truth = masks[0]
    for mask in masks[1:]:
        truth = torch.kron(truth.int(), mask.int()).bool()
    shape, kernel, dilation, stride, causal = zip(*options, strict=True)
    assert torch.equal(
        Neighborhood(shape, kernel, dilation, stride, causal).mask(math.prod(shape), math.prod(shape)), truth
    )


def swin_mask(height: int, width: int, window: int, shift: int) -> tuple[Tensor, Tensor]:
    """Swin's own way: roll, cut and number the regions. Returns each window's members and their regions."""
    index = torch.arange(height * width).view(height, width)
    region = torch.zeros(height, width, dtype=torch.int64)
    cuts = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
    for row, rows in enumerate(cuts):
        for column, columns in enumerate(cuts):
            region[rows, columns] = 3 * row + column

    def cut(image: Tensor) -> Tensor:
        return (
            image.view(height // window, window, width // window, window)
            .transpose(1, 2)
            .reshape(-1, window**2)
        )

    return cut(index.roll((-shift, -shift), (0, 1))), cut(region)


@pytest.mark.parametrize(
    ("height", "width", "window", "shift"), [(8, 12, 4, 2), (14, 14, 7, 3), (6, 6, 3, 1)]
)
def test_shifted_windows_follow_swin(height: int, width: int, window: int, shift: int) -> None:
    members, region = swin_mask(height, width, window, shift)
    length = height * width
    together = torch.zeros(length, length, dtype=torch.bool)
    apart = torch.zeros(length, length, dtype=torch.bool)
    for ids, parts in zip(members, region, strict=True):
        together[ids[:, None], ids] = True
        apart[ids[:, None], ids] = parts[:, None] != parts
    soft = Windows((height, width), window, shift, border="-100")
    q = torch.arange(length)
    assert torch.equal(soft.mask(length, length), together)
    found = soft.penalty(q[:, None], q, length, length)
    assert found is not None
    assert torch.equal(found, apart)
    assert torch.equal(Windows((height, width), window, shift).mask(length, length), together & ~apart)


def test_equal_formulations_agree() -> None:
    def same(one: object, other: object, q_len: int, k_len: int | None = None) -> None:
        k_len = q_len if k_len is None else k_len
        assert torch.equal(one.mask(q_len, k_len), other.mask(q_len, k_len)), (one, other)  # type: ignore[attr-defined]

    same(Neighborhood((5, 6), (5, 6)), Full(), 30)
    same(Neighborhood((6, 6), 3, stride=3), Windows((6, 6), 3), 36)
    same(Neighborhood((9,), 4, causal=True), Window(3, 0), 9)
    same(Streaming(0, 30), Causal(), 30)
    same(Streaming(30, 1), Causal(), 30)
    same(Streaming(2, 5), Causal() & (Window(4, 0) | Window(40, 0) & Tokens(torch.tensor([[0, 1]] * 30))), 30)
    same(Window(3, 0), Window(3, 3) & Causal(), 20)
    same(Halo((8, 8), 4, 0), Windows((8, 8), 4), 64)
    same(Halo((8, 8), 4, 4), Full(), 64)
    same(Segments((4, 4, 4)), Windows((12,), 4), 12)
    same(Windows((6,), 3, order="grid"), Strided(2), 6)
    same(Strided(1), Full(), 6, 9)
    same(Global(6), Full(), 6, 9)
    same(stripes((6, 8), 1, 0), Windows((6, 8), (6, 1)), 48)
    same(
        BlockLists(torch.tensor([[0, -1], [0, 1], [1, 1]]), 4),
        Blocks(torch.tensor([[1, 0], [1, 1], [0, 1]]).bool(), 4),
        11,
        8,
    )
    same(PerHead(Causal(), Causal()) & Full(), PerHead(Causal(), Causal()), 5)
    same(KeyPadding(torch.ones(1, 9, dtype=torch.bool)), Full(), 4, 9)
    same(Packed(torch.tensor([0, 2, 5])), Segments((2, 3)), 5)


def test_a_packed_batch_equals_its_members() -> None:
    mask = (Packed((0, 3, 5, 9)) & Causal()).mask(9, 9)
    assert torch.equal(mask, torch.block_diag(*(torch.ones(n, n).tril() for n in (3, 2, 4))).bool())


def test_zero_borders_count_the_missing_keys() -> None:
    shape, window = (5, 6), (4, 4)
    pattern = Windows(shape, window, shift=(1, 2), border="zero")
    found = pattern.phantoms(30)
    assert found is not None
    steps, exist = found
    assert torch.equal(exist.sum(1) + pattern.mask(30, 30).sum(1), torch.full((30,), 16))
    halo = Halo((4, 4), 2, 1, border="zero")
    steps, exist = halo.phantoms(16) or (torch.empty(0), torch.empty(0))
    assert torch.equal(exist.sum(1) + halo.mask(16, 16).sum(1), torch.full((16,), 16))
    assert steps.abs().amax() <= 2
    assert Windows((4, 4), 2, border="zero").phantoms(16) is None


def test_plans_are_remembered_by_value() -> None:
    assert Windows((8, 8), 4).tiles(64, 64) is Windows((8, 8), (4, 4)).tiles(64, 64)
    assert Window(1, 1).tiles(64, 64) is not Window(1, 2).tiles(64, 64)
    held = torch.zeros(1, 1, dtype=torch.int64)
    assert BlockLists(held, 64) != BlockLists(held, 64)


def test_lists_of_an_empty_batch_have_an_empty_mask() -> None:
    assert BlockLists(torch.zeros(0, 2, 3, 1, dtype=torch.int64), 4).mask(12, 12).shape == (0, 2, 12, 12)


def test_work_grows_with_what_is_visible() -> None:
    plans = [Window(64, 0).tiles(length, length) for length in (2048, 4096)]
    assert plans[1].col.numel() <= 2.1 * plans[0].col.numel()
    assert len(plans[1].bits) == len(plans[0].bits)
    assert Neighborhood((56, 56), 7).tiles(3136, 3136).tile_density < 0.15
    assert Windows((56, 56), 7).tiles(3136, 3136).tile_density == pytest.approx(1 / 64)
    assert Streaming(64, 256).tiles(16384, 16384).tile_density < 0.03


def test_repr_is_short() -> None:
    assert repr(Neighborhood((28, 28), 7)) == "Neighborhood((28, 28), 7)"
    assert repr(Neighborhood([28, 28], [7, 7], dilation=2)) == "Neighborhood((28, 28), 7, dilation=2)"
    assert repr((Window(2, 2) | Global(1)) & Causal()) == "(Window(2, 2) | Global(1)) & Causal()"
    assert repr(Tokens(torch.zeros(3, 2).long())) == "Tokens(<int64 1x1x3x2>)"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Neighborhood((6, 6), 7), "kernel=7"),
        (lambda: Neighborhood((6, 6), 3, dilation=3), "dilation=3"),
        (lambda: Neighborhood((6, 6), (3, 3, 3)), r"kernel=\(3, 3, 3\) has 3 entries, the grid has 2 axes"),
        (lambda: Neighborhood((6,), 2, stride=3), "stride=3 must not exceed kernel=2"),
        (lambda: Windows((8, 8), 3, shift=3), "shift=3"),
        (lambda: Windows((8, 8), 3, order="grid"), "must divide its axis of 8"),
        (lambda: Windows((8, 8), 3, border="-100"), "must divide its axis of 8"),
        (lambda: Windows((8, 8), 9), "window=9"),
        (lambda: Windows((8, 8), 4, border="wrap"), "border='wrap'"),
        (lambda: Windows((2, 2, 2, 2), 2), "one to three axes"),
        (lambda: Halo((8, 8), 4, -1), "halo=-1"),
        (lambda: Window(-1, 0), "left=-1"),
        (lambda: Streaming(1, 0), "recent=0"),
        (lambda: Strided(0), "stride=0"),
        (lambda: Segments((3,), (1, 2)), "k_lengths has 2 segments"),
        (lambda: Packed((1, 2)), "must start with 0"),
        (lambda: Tokens(torch.zeros(2, 2)), "integers"),
        (lambda: Tokens(torch.zeros(2).long()), r"shape \(2,\)"),
        (lambda: Blocks(torch.zeros(2, 2)), "must be bool"),
        (lambda: KeyPadding(torch.zeros(2, 2)), "must be bool"),
        (lambda: PerHead(), "one pattern for each head"),
        (
            lambda: PerHead(Full(), Full()) & PerHead(Full(), Full(), Full()),
            r"different numbers of heads.*\[2, 3\]",
        ),
        (lambda: Windows((4, 4), 2, shift=1, border="-100") & Full(), "no meaning inside a combination"),
        (lambda: Neighborhood((6, 6), 3).mask(35, 36), r"36 positions, there are 35 queries"),
        (lambda: Segments((3, 4)).mask(8, 8), "add up to 7"),
        (lambda: Tokens(torch.tensor([[7]])).mask(1, 7), "0 to 6"),
        (lambda: BlockLists(torch.tensor([[2]]), 4).mask(4, 8), "0 to 1"),
        (lambda: BlockLists(torch.tensor([[0]]), 4).mask(5, 8), "must list 2 blocks"),
        (lambda: Blocks(torch.ones(1, 1).bool(), 4).mask(5, 8), r"\(2, 2\)"),
        (lambda: KeyPadding(torch.ones(1, 4).bool()).mask(4, 5), "covers 4 keys"),
        (lambda: Full().tiles(4, 4, 64, 48), "bn=48"),
        (lambda: decode("__import__('os')"), "no pattern"),
        (lambda: decode("Causal(offset=t0)"), "no pattern"),
        (lambda: Causal().plot(), "q_len must be given"),
        (lambda: Causal().plot(3, query=3), "query=3 must be 0 to 2"),
        (lambda: Causal().plot(3, query=-1), "query=-1 must be 0 to 2"),
        (lambda: Causal().mask(-1, 3), "q_len=-1 must be at least 0"),
        (lambda: Causal().mask(2, 2.5), "k_len=2.5 must be a whole number"),  # type: ignore[arg-type]
        (lambda: Causal(1.5), "offset=1.5 must be a whole number"),  # type: ignore[arg-type]
        (lambda: Window(1.5, 2), "left=1.5 must be a whole number"),  # type: ignore[arg-type]
        (lambda: Strided("2"), "stride='2' must be a whole number"),  # type: ignore[arg-type]
        (lambda: Global(True), "count=True must be a whole number"),
        (lambda: PooledCausal(2.0), "pool=2.0 must be a whole number"),  # type: ignore[arg-type]
        (lambda: Packed(torch.tensor([0.0, 2.5, 5.0])), "lengths=2.5 must be a whole number"),
        (lambda: Neighborhood((9, 9), 3.0), "kernel=3.0 must be a whole number, or one for each axis"),
        (lambda: Neighborhood(9, 3), "shape=9 must be a tuple"),  # type: ignore[arg-type]
        (lambda: PerHead(Causal(), 3), "PerHead takes patterns, got int"),  # type: ignore[arg-type]
    ],
)
def test_mistakes_are_named(make: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()  # type: ignore[operator]


def test_pictures(tmp_path: object) -> None:
    ax = Neighborhood((6, 6), 3).plot()
    assert ax.get_title() == "Neighborhood((6, 6), 3)"
    assert ax.images[0].get_array().shape == (36, 36)
    one = Neighborhood((6, 6), 3).plot(query=0)
    assert int((one.images[0].get_array() > 0).sum()) == 9
    assert PerHead(Causal(), Full()).plot(5).images[0].get_array().shape == (5, 5)
    assert (Packed((0, 3, 5)) & Causal()).plot().images[0].get_array().shape == (5, 5)
    own = Causal(offset=2).plot(3, 5, query=0).images[0].get_array()
    assert own.argmax() == 2  # where the query itself stands among the keys
    late = Causal(offset=-5).plot(9, 4, query=8).images[0].get_array()  # more queries than keys
    assert late.tolist() == [[1, 1, 1, pytest.approx(1.3)]]


def test_no_segments() -> None:
    assert Segments(()).mask(0, 0).shape == (0, 0)


def test_pooled_causal_never_shows_the_future() -> None:
    assert torch.equal(PooledCausal(1).mask(9, 9), Causal().mask(9, 9))
    seen = PooledCausal(3, offset=2).mask(8, 4)
    for q, k in ((q, k) for q in range(8) for k in range(4)):
        assert bool(seen[q, k]) == all(place <= q + 2 for place in range(3 * k, 3 * k + 3))


def test_regions_by_hand() -> None:
    draw = torch.Generator().manual_seed(0)
    chosen = torch.rand(12, 12, generator=draw) < 0.3
    seen = Regions((9, 11), (4, 3), chosen).mask(99, 99)

    def number(place: int) -> int:
        return place // 11 // 4 * 4 + place % 11 // 3

    for q, k in ((q, k) for q in range(99) for k in range(99)):
        assert seen[q, k] == chosen[number(q), number(k)]
    per_query = chosen[torch.tensor([number(place) for place in range(99)])]
    assert torch.equal(Regions((9, 11), (4, 3), per_query).mask(99, 99), seen)


def test_from_start_is_the_pattern_of_the_shorter_sequence() -> None:
    pattern = Streaming(2, 3) | Global(1) & Causal()
    seen = FromStart(pattern, torch.tensor([0, 4])).mask(10, 10)
    assert torch.equal(seen[0, 0], pattern.mask(10, 10))
    assert torch.equal(seen[1, 0, 4:, 4:], pattern.mask(6, 6))
    assert not seen[1, 0, :, :4].any()


@pytest.mark.parametrize(
    "pattern",
    [Full(), Causal(), Window(3, 2), Streaming(2, 3), Strided(3), Global(2) | Window(1, 0), PooledCausal(2)],
    ids=repr,
)
def test_moved_shows_the_last_rows(pattern: Pattern) -> None:
    k_len = 6 if isinstance(pattern, PooledCausal) else 12
    assert torch.equal(pattern.moved(9).mask(3, k_len), pattern.mask(12, k_len)[9:])
    assert torch.equal(pattern.moved(4).moved(5).mask(3, k_len), pattern.mask(12, k_len)[9:])


def test_distances_alone_or_places_too() -> None:
    assert not (Causal() & Window(3, 0) & Strided(2)).anchored
    assert (Causal() & Streaming(2, 3)).anchored
    assert PerHead(Causal(), Streaming(2, 3)).anchored
    with pytest.raises(ValueError, match="has no offset"):
        Neighborhood((3, 3), 3).moved(1)
    with pytest.raises(ValueError, match="has no offset"):
        FromStart(Segments((2, 3)), torch.tensor([0]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Regions((4, 4), 5, torch.ones(1, 1, dtype=torch.bool)), "region=5"),
        (lambda: Regions((4, 4), 2, torch.ones(4, 3, dtype=torch.bool)), r"shape \(1, 1, 4, 3\)"),
        (lambda: Regions((4, 4), 2, torch.ones(4, 4)), "got torch.float32"),
        (lambda: Regions((4, 4), 2, torch.ones(4, 4).bool()).mask(15, 16), "there are 15 queries"),
        (lambda: Blocks(torch.ones(2, 2).bool(), 4, 0), "k_block=0"),
        (lambda: PooledCausal(0), "pool=0"),
        (lambda: FromStart(Causal(), torch.zeros(2)), "start must be integer"),
    ],
)  # fmt: skip
def test_new_patterns_name_what_is_wrong(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "pattern",
    [
        Windows((8,), (4,), (3,)),
        Windows((6, 8), (3, 4), (1, 2), border="-100"),
        Windows((6, 8), (3, 4), order="grid"),
        Windows((4, 6, 8), (2, 3, 4), (1, 0, 3)),
    ],
    ids=repr,
)
def test_a_folding_puts_positions_where_its_reshape_does(pattern: Windows) -> None:
    length = math.prod(pattern.shape)
    folding, plan = pattern.folding(length), pattern.blocks(length, length)
    assert folding is not None
    positions = torch.arange(length).view(1, 1, -1, 1)
    assert torch.equal(fold(positions, folding, plan.q_index.shape).flatten(), plan.q_index.flatten())
    assert torch.equal(plan.q_index.flatten()[plan.inverse], torch.arange(length))
    mask = pattern.mask(length, length)[plan.q_index.unsqueeze(-1), plan.q_index.unsqueeze(-2)]
    assert mask.all() if plan.mask is None else torch.equal(plan.mask[0, 0], mask)
