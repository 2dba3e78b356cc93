"""The settings of the editing methods, with the defaults of each."""

from dataclasses import asdict, dataclass, replace

from interp.errors import UsageError, unknown

MOMENT_SHARE = 0.2
"""MEMIT's lambda in units of d_mlp, since E[k^T C^-1 k] = d_mlp whatever the model. The paper's 15,000 is 0.9 of GPT-J's d_mlp; on the
default model a tenth to a third holds facts better."""

METHODS = ("rome", "rome-original", "memit", "alphaedit")


@dataclass(frozen=True, kw_only=True)
class EditSettings:
    """How values are optimised and written.

    Contexts: ``contexts`` sampled texts of each of the ``context_lengths`` (in tokens) are put before the prompt, besides none.
    ``value_contexts`` of them, the bare prompt among them, take part in the optimisation (None: all).
    Value: Adam with ``learning_rate`` takes ``steps`` forward passes (one update fewer) and stops early below ``stop_loss_nats``; the
    loss is the target's negative log-likelihood plus ``kl_weight`` times the divergence on the essence prompt plus ``decay`` times
    |delta| / |v0|^2; delta is held within ``clamp`` times |v0|. At each step the stream at the positions after the subject is disturbed
    by Gaussian noise of ``noise`` times its root mean square, so that the value does not lean on the words of one template. Where the
    target is not likely in the contexts then, up to ``quiet_steps`` updates without noise follow, until it is (LIKELY). With
    ``as_heard`` each prompt gets the share of delta that its key will hear, not all of it. Of subjects that end as this one does the
    ``overhearers`` that hear most of the edit take part with their shares, and ``overhearing_weight`` times the divergence of what they
    predict from what they did before joins the loss. With ``enough_probability`` delta is then shortened, to half at least, as far as
    the target keeps that probability in the contexts.
    Writing: ``averaged`` uses the key and value averaged over contexts everywhere, not the bare prompt's; with ``subject_contexts``
    the average is also over "{subject} is a" in each context; ``context_weight`` times the covariance of those keys is added to the
    second moment, so that the edit answers to each of them alike, and ``near_miss_weight`` times the second moment of the keys of
    ``near_misses`` subjects that end as this one does, so that it does not answer to them. ``keep_weight`` times the key of each fact
    that is to be kept is added too, for MEMIT and AlphaEdit in units of a new fact's key. The second moment is blended with a
    multiple of the identity by ``shrinkage`` (None: as few tokens ask for). ``moment_weight`` is MEMIT's lambda (None: MOMENT_SHARE
    times d_mlp); ``null_threshold`` and ``ridge`` are AlphaEdit's. ``min_tokens`` is what a second moment must have seen at least.
    """

    contexts: int = 10
    context_lengths: tuple[int, ...] = (5, 10)
    value_contexts: int | None = None
    steps: int = 20
    learning_rate: float = 0.5
    stop_loss_nats: float = 0.05
    kl_weight: float = 0.0625
    decay: float = 0.5
    clamp: float = 4.0
    noise: float = 0.0
    quiet_steps: int = 0
    enough_probability: float | None = None
    averaged: bool = True
    subject_contexts: bool = False
    context_weight: float = 0.0
    near_misses: int = 0
    near_miss_weight: float = 0.0
    as_heard: bool = False
    overhearers: int = 0
    overhearing_weight: float = 0.0
    keep_weight: float = 0.0
    shrinkage: float | None = None
    moment_weight: float | None = None
    null_threshold: float = 0.02
    ridge: float = 10.0
    min_tokens: int = 5000

    def __post_init__(self) -> None:
        for name, good, valid in (
            ("contexts", self.contexts >= 0, "0 or more"),
            ("context_lengths", all(length >= 1 for length in self.context_lengths), "1 or more tokens each"),
            ("value_contexts", self.value_contexts is None or self.value_contexts >= 1, "1 or more, or None for all"),
            ("context_weight", self.context_weight >= 0, "0 or more"),
            ("near_misses", self.near_misses >= 0, "0 or more"),
            ("near_miss_weight", self.near_miss_weight >= 0, "0 or more"),
            ("overhearers", self.overhearers >= 0, "0 or more"),
            ("overhearing_weight", self.overhearing_weight >= 0, "0 or more"),
            ("keep_weight", self.keep_weight >= 0, "0 or more"),
            (
                "enough_probability",
                self.enough_probability is None or 0 < self.enough_probability < 1,
                "between 0 and 1, both excluded, or None",
            ),
            ("noise", self.noise >= 0, "0 or more"),
            ("quiet_steps", self.quiet_steps >= 0, "0 or more"),
            ("steps", self.steps >= 1, "1 or more"),
            ("learning_rate", self.learning_rate > 0, "above 0"),
            ("kl_weight", self.kl_weight >= 0, "0 or more"),
            ("decay", self.decay >= 0, "0 or more"),
            ("clamp", self.clamp > 0, "above 0"),
            ("shrinkage", self.shrinkage is None or 0 <= self.shrinkage <= 1, "0 to 1"),
            ("moment_weight", self.moment_weight is None or self.moment_weight > 0, "above 0, or None"),
            ("null_threshold", self.null_threshold > 0, "above 0"),
            ("ridge", self.ridge > 0, "above 0"),
            ("min_tokens", self.min_tokens >= 1, "1 or more"),
        ):
            if not good:
                raise UsageError(f"{name} is {getattr(self, name)}; valid: {valid}")

    def plain(self) -> dict[str, int | float | str | bool | None]:
        """The settings as plain values by name."""
        values = asdict(self)
        values["context_lengths"] = ",".join(str(length) for length in self.context_lengths)
        return values


_PAPER = EditSettings()
_MEMIT = replace(_PAPER, contexts=5, context_lengths=(10,), clamp=0.75, keep_weight=1.0)
_BY_METHOD = {
    "rome": replace(
        _PAPER,
        value_contexts=4,
        steps=30,
        noise=1.1,
        quiet_steps=10,
        subject_contexts=True,
        context_weight=0.1,
        near_misses=64,
        near_miss_weight=0.03,
        as_heard=True,
        overhearers=3,
        overhearing_weight=1.0,
        keep_weight=0.01,
    ),
    "rome-original": replace(_PAPER, averaged=False, shrinkage=0.0),
    "memit": _MEMIT,
    "alphaedit": _MEMIT,
}


ENOUGH_IN_SEQUENCE = 0.95
"""The target's probability that is enough for one of many edits: what is written beyond it only adds to what they do together."""


def settings_of(method: str) -> EditSettings:
    """The defaults of a method. Raises UsageError for an unknown one."""
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    return _BY_METHOD[method]


def sequence_settings_of(method: str) -> EditSettings:
    """The defaults of a method where many facts are edited one after another.

    Each value of ``rome`` is found in fewer steps under less noise, which makes it shorter, held within 3 |v0|, shortened to less than
    one fact alone needs, and a fact that resists is not insisted on: what is written adds up over many. Raises UsageError for an
    unknown method.
    """
    settings = settings_of(method)
    if method != "rome":
        return settings
    return replace(
        settings,
        value_contexts=6,
        steps=20,
        noise=0.8,
        quiet_steps=0,
        clamp=3.0,
        enough_probability=ENOUGH_IN_SEQUENCE,
    )
