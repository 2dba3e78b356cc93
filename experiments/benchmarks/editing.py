"""One ROME edit: ours, and its value found by full forwards as in the code of Meng et al. (2022)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from experiments.benchmarks.config import SEED, Edited
from experiments.benchmarks.harness import Side, check_equal, measure
from experiments.benchmarks.rows import Row, timed_row
from experiments.benchmarks.sides import OURS, first
from experiments.benchmarks.tracing import in_words
from interp.editing.contexts import sample_contexts
from interp.editing.edit import Edit
from interp.editing.edit_facts import edit_facts
from interp.editing.matrix import output_matrix
from interp.editing.rewrite import Rewrite, rewrite_of
from interp.editing.second_moments import SecondMoment, second_moments
from interp.editing.settings import EditSettings, settings_of
from interp.runner.model import Model

NAIVE = "full forwards"
TOLERANCE = 1e-3
"""Greatest distance of two updates of the matrix over the reference's norm. Adam divides by the size of the gradient, so a coordinate whose
gradient is all rounding moves as far as any other, and single rows may differ by more."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EditWork:
    """One fact, one layer, one second moment, made before anything is timed."""

    model: Model
    edited: Edited
    moment: SecondMoment
    contexts: tuple[str, ...]

    @classmethod
    def of(cls, model: Model, edited: Edited) -> "EditWork":
        """The second moment is of a few tokens: any will do, for its inverse costs the same."""
        settings = settings_of("rome-original")
        (moment,) = second_moments(model, edited.layer, "sampled", max_tokens=edited.tokens, seed=SEED)
        return cls(model=model, edited=edited, moment=moment, contexts=sample_contexts(model, settings, SEED))

    def settings(self, method: str) -> EditSettings:
        """Those of the method, for a second moment of few tokens."""
        return replace(settings_of(method), min_tokens=1, shrinkage=0.05)

    @property
    def rewrite(self) -> Rewrite:
        """The fact as tokens."""
        return rewrite_of(self.model, self.edited.fact, self.contexts)


def ours(work: EditWork, method: str) -> Side:
    """Our edit, all of it but the texts of the contexts, which the authors' code, too, draws once: tokens, keys, value, update."""

    def call() -> Edit:
        return edit_facts(
            work.model,
            work.edited.fact,
            method,
            layers=work.edited.layer,
            moments=work.moment,
            contexts=work.contexts,
            settings=work.settings(method),
            allow_known=True,
        )

    def read(edit: Edit) -> dict[str, Tensor]:
        (change,) = edit.layers
        return {"update": change.left @ change.right}

    return Side(row=f"edit_{method}", name=OURS, call=call, read=read)


def whole_distance(found: Tensor, reference: Tensor) -> float:
    """The norm of the difference of two matrices over that of the second."""
    return float((found - reference).norm() / reference.norm())


def naive(work: EditWork) -> Side:
    """The authors' way: at every step all rows from the first token to the last, through all layers, with all logits."""
    return Side(row="edit", name=NAIVE, call=lambda: full_forward_edit(work), read=lambda found: {"update": found})


def full_forward_edit(work: EditWork) -> Tensor:
    """The update [d_model d_mlp]: the averaged key in its direction, the bare prompt's key in its size."""
    rewrite, layer = work.rewrite, work.edited.layer
    matrix = output_matrix(work.model, layer)
    module = work.model.hf.get_submodule(matrix.path)
    ids, mask = _padded([*(tokens.ids for tokens in rewrite.prompts), rewrite.essence.ids])
    places = torch.tensor([*rewrite.positions, rewrite.essence_position])
    keys, values = _read(work.model, module, ids, mask, places)
    delta = _optimised(work, module, rewrite, (ids, mask, places), values[0])
    moment = work.moment.shrunk(work.settings("rome-original").shrinkage).float()
    direction = torch.linalg.solve(moment, keys[:-1].mean(0))
    direction = direction / direction.norm()
    return torch.outer(delta / (keys[0] @ direction), direction)


def _optimised(
    work: EditWork, module: nn.Module, rewrite: Rewrite, rows: tuple[Tensor, Tensor, Tensor], start: Tensor
) -> Tensor:
    """Adam on a change of the module's output at the subject's last token of every row; the last row is the essence prompt."""
    settings, (ids, mask, places) = work.settings("rome-original"), rows
    target = torch.tensor(rewrite.target.ids)
    columns = torch.tensor(rewrite.columns)
    every = torch.arange(len(ids))
    delta = torch.zeros_like(start, requires_grad=True)
    adam = torch.optim.Adam([delta], lr=settings.learning_rate)
    before: Tensor | None = None

    def add(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        changed = output.clone()
        changed[every, places] += delta
        return changed

    for step in range(settings.steps):
        handle = module.register_forward_hook(add)
        try:
            with torch.enable_grad():
                logits = work.model.hf(input_ids=ids, attention_mask=mask, use_cache=False).logits.log_softmax(-1)
                answered = logits[every[:-1, None], columns].gather(-1, target.expand(len(columns), -1)[..., None])
                essence = logits[-1, places[-1]]
                before = essence.detach() if before is None else before
                divergence = (essence.exp() * (essence - before)).sum()
                decay = delta.norm() / start.norm() ** 2
                loss = -answered.mean() + settings.kl_weight * divergence + settings.decay * decay
        finally:
            handle.remove()
        if float(loss.detach()) < settings.stop_loss_nats or step == settings.steps - 1:
            break
        (delta.grad,) = torch.autograd.grad(loss, [delta])
        adam.step()
        with torch.no_grad():
            delta.mul_((settings.clamp * start.norm() / delta.norm()).clamp(max=1.0))
    return delta.detach()


def _padded(rows: list[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
    """Ids padded on the right, and what of them is text."""
    ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    return ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long()


def _read(model: Model, module: nn.Module, ids: Tensor, mask: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """The keys and the values of every row at its place."""
    seen: list[Tensor] = []

    def record(module: nn.Module, args: Any, output: Tensor) -> None:
        every = torch.arange(len(ids))
        seen.extend((first(args)[every, places], output[every, places]))

    handle = module.register_forward_hook(record)
    try:
        with torch.no_grad():
            model.hf(input_ids=ids, attention_mask=mask, use_cache=False)
    finally:
        handle.remove()
    return seen[0].clone(), seen[1].clone()


def rows(model: Model, edited: Edited, goals: Mapping[str, Mapping[str, Any]]) -> Iterator[Row]:
    """Both variants beside full forwards: the original one, which must give the same update, and the default."""
    work = EditWork.of(model, edited)
    baseline = naive(work)
    same, default = ours(work, "rome-original"), ours(work, "rome")
    far = check_equal(same, baseline, TOLERANCE, whole_distance)  # and a warm-up
    timings = measure([same, default], baseline, edited.rounds, seed=SEED, warm_up=0)
    curve = len(default.call().curves[0].loss_nats)
    for side in (same, default):
        goal = goals[side.row]
        text = _note(work, far) if side is same else _note_of_default(curve)
        names = (OURS, baseline.key)
        chosen = {key: timing for key, timing in timings.items() if key in (side.key, baseline.key)}
        title = f"{goal['title']}, layer {edited.layer} of {model.atlas.n_layers}"
        row = timed_row(side.row, title, goal, chosen, names, {}, far, text)
        yield row if side is same else replace(row, agreement=None)


def least_share(work: EditWork) -> float:
    """The multiplications that a step cannot do without, over those of full forwards.

    Those of the positions from the subject's last token on, in the blocks after the edited one, and of the logits of the target and of one
    place of the essence prompt; not padded, and without what attention adds.
    """
    rewrite = work.rewrite
    tokens = [*rewrite.prompts, rewrite.essence]
    places = [*rewrite.positions, rewrite.essence_position]
    n_layers = work.model.atlas.n_layers
    unembed = work.model.atlas.d_vocab * work.model.atlas.d_model
    block = sum(p.numel() for p in work.model.hf.get_submodule(work.model.atlas.blocks[0].block).parameters())
    whole = len(tokens) * max(map(len, tokens)) * (n_layers * block + unembed)
    left = sum(len(row) - place for row, place in zip(tokens, places, strict=True)) * (n_layers - 1 - work.edited.layer)
    read = len(rewrite.prompts) * len(rewrite.target.ids) + 1
    return (left * block + read * unembed) / whole


def _note(work: EditWork, far: float) -> str:
    n_rows, steps = len(work.contexts) + 1, work.settings("rome-original").steps
    return (
        f"{in_words(torch.get_num_threads())}. Ours is a whole `edit_facts` with the second moment given. The other is plain Hugging "
        f"Face with a hook: {n_rows} rows, {steps} forwards and a backward after each but the last, all logits. Their updates of the "
        f"matrix differ by {far:.1e} of the norm (allowed {TOLERANCE:.0e}). Of the multiplications of full forwards "
        f"{least_share(work):.2f} depend on the change in this recipe; ours run in oneDNN where the "
        "CPU suits it, the other in MKL."
    )


def _note_of_default(n_forwards: int) -> str:
    return (
        f"{in_words(torch.get_num_threads())}. The same fact by the default method with its own settings: {n_forwards} forwards. "
        "Contexts are given on both sides; they are drawn once a model (2 s) and kept."
    )
