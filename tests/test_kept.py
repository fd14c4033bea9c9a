"""Codes and patches that keep a share of the activations: host/sparsetune/kept.py, `--kept`."""

from __future__ import annotations

from pathlib import Path

import pytest
from gradient_cases import train_all
from patch_cases import filtered
from small_models import RELU, Net
from sparsetune.budget import kept_use
from sparsetune.cli import main
from sparsetune.compile import lean_program
from sparsetune.errors import SparsetuneError
from sparsetune.graph import Graph
from sparsetune.kept import kept_share, with_fewer_kept, with_kept
from sparsetune.plan import UpdatePlan, default_plan, load_plan
from sparsetune.rules import with_rules_of
from sparsetune.tflite import parse_tflite

Patch = tuple[int, bool, bool]
CODED = 2


def net_of_maps() -> Net:
    """Maps of 16, 16 and 8 rows with 16, 12 and 8 channels in front of 1x1 filters, which keep them
    and nothing else; the second feeds a stride; then two of 4 rows."""
    net = Net((1, 16, 16, 16), seed=3)
    net.conv(12, 1, activation=RELU, zero=-128)
    net.conv(8, 1, activation=RELU, zero=-128)
    net.depthwise(1, 3, stride=2, activation=RELU, zero=-128)
    net.conv(16, 1, activation=RELU, zero=-128)
    net.depthwise(1, 3, stride=2, activation=RELU, zero=-128)
    net.conv(12, 1, activation=RELU, zero=-128)
    net.flatten()
    net.dense(5, scale=0.03)
    return net


def graph_of_maps() -> Graph:
    return parse_tflite(net_of_maps().to_bytes())


def plan_of_maps(graph: Graph) -> UpdatePlan:
    plan = train_all(graph)
    kinds = {op.index: op.kind for op in graph.operators}
    return UpdatePlan(tuple(p for p in plan.layers if kinds[p.operator] != "DEPTHWISE_CONV_2D"))


def patches(plan: UpdatePlan) -> dict[int, Patch]:
    return {p.operator: (p.patch, p.weights_only, p.wide) for p in plan.layers if p.patch > 1}


def codes(plan: UpdatePlan) -> set[int]:
    return {p.operator for p in plan.layers if p.kept_bits == CODED}


def measured(graph: Graph, plan: UpdatePlan) -> float:
    kept, exact = kept_use(lean_program(graph, plan))
    return 100 * kept / exact


SQUARES, ROWS, LARGE = (2, True, False), (2, True, True), (4, True, False)


@pytest.mark.parametrize(
    ("percent", "coded", "wanted"),
    [
        (100, set(), {}),
        (65, {0}, {}),
        (40, {0, 1}, {}),
        (30, {0, 1, 3}, {}),
        (20, {0, 1, 3, 5}, {0: SQUARES}),
        (12, {0, 1, 3, 5}, {0: SQUARES, 1: SQUARES}),
        (10, {0, 1, 3, 5}, {0: SQUARES, 1: SQUARES, 3: SQUARES}),
        (7, {0, 1, 3, 5}, {0: LARGE, 1: SQUARES, 3: SQUARES, 5: ROWS}),
    ],
)
def test_what_costs_least_comes_first(
    percent: float, coded: set[int], wanted: dict[int, Patch]
) -> None:
    """Codes before patches, of these large maps before small ones, and of all what keeps most;
    operators 1 and 3 feed a stride, so that they never have patches of 4."""
    graph = graph_of_maps()
    plan = with_kept(graph, plan_of_maps(graph), percent)
    assert (codes(plan), patches(plan)) == (coded, wanted)
    assert measured(graph, plan) <= percent


def test_what_feeds_a_stride_never_has_patches_of_four() -> None:
    """However little is to be kept: its gradients differ from one position to the next."""
    graph = graph_of_maps()
    least = patches(with_fewer_kept(graph, plan_of_maps(graph), 1))
    assert least == {0: LARGE, 1: SQUARES, 3: SQUARES, 5: ROWS}


def test_shares_are_those_of_the_program() -> None:
    graph = graph_of_maps()
    whole = plan_of_maps(graph)
    for percent in (100, 50, 30, 20, 8):
        plan = with_kept(graph, whole, percent)
        assert kept_share(graph, plan) == pytest.approx(measured(graph, plan))
    over = filtered(graph, 2)
    assert kept_share(graph, over) == pytest.approx(measured(graph, over))


def test_part_of_the_channels_counts_as_it_lies() -> None:
    """Rows of channels are padded to words."""
    graph = graph_of_maps()
    plan = default_plan(graph, 5, 0.6)
    for percent in (100, 60, 35, 12):
        grown = with_kept(graph, plan, percent)
        assert measured(graph, grown) <= percent
        assert kept_share(graph, grown) == pytest.approx(measured(graph, grown))


def test_what_patches_cannot_keep() -> None:
    graph = graph_of_maps()
    plan = plan_of_maps(graph)
    with pytest.raises(SparsetuneError, match="--kept 2: codes and patches leave .* at least"):
        with_kept(graph, plan, 2)
    for percent in (0, -3, 101, float("nan")):
        with pytest.raises(SparsetuneError, match="not in"):
            with_kept(graph, plan, percent)
    least = kept_share(graph, with_fewer_kept(graph, plan, 2))
    assert patches(with_kept(graph, plan, least)) == patches(with_fewer_kept(graph, plan, 2))


def test_other_plans_get_as_many() -> None:
    """What ways out are tried with."""
    graph = graph_of_maps()
    for percent in (30, 12):
        wanted = with_kept(graph, plan_of_maps(graph), percent)
        other = with_rules_of(graph, default_plan(graph, 5), wanted)
        assert codes(other) and (patches(other) or percent > 20)
        assert all(weights_only for _, weights_only, _ in patches(other).values())
        assert kept_share(graph, other) <= kept_share(graph, wanted)


# On the command line ----------------------------------------------------------------------------


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, plan = tmp_path / "model.tflite", tmp_path / "plan.json"
    model.write_bytes(net_of_maps().to_bytes())
    words = ["plan", str(model), "--last", "7", "--ratio", "1"]
    assert main([*words, "--kept", "12", "-o", str(plan)]) == 0
    text = capsys.readouterr().out
    assert "patches of 2, weights only" in text and "keeps 2 bits" in text
    grown = load_plan(plan)
    share = measured(parse_tflite(model.read_bytes()), grown)
    assert share <= 12 and f"({share:.0f} %)" in text


@pytest.mark.parametrize(
    ("more", "says"),
    [(["--kept", "30", "--patch", "2"], "leave out --patch"), (["--kept", "1"], "at least"),
     (["--kept", "0"], "not in (0, 100]")],
)  # fmt: skip
def test_what_the_command_line_refuses(
    more: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model.tflite"
    model.write_bytes(net_of_maps().to_bytes())
    assert main(["plan", str(model), "--last", "4", *more]) == 1
    assert says in capsys.readouterr().err


def test_a_plan_file_has_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, plan = tmp_path / "model.tflite", tmp_path / "plan.json"
    model.write_bytes(net_of_maps().to_bytes())
    assert main(["plan", str(model), "--last", "4", "-o", str(plan)]) == 0
    image = tmp_path / "model.img"
    build = ["build", str(model), "--plan", str(plan), "--kept", "30", "-o", str(image)]
    assert main(build) == 1 and not image.exists()
    assert "leave out --kept" in capsys.readouterr().err
