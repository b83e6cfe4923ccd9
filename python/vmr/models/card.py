"""The model card that goes with a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from huggingface_hub import ModelCard, ModelCardData

if TYPE_CHECKING:
    from vmr.models.base import MomentModel
    from vmr.models.stored import About, Origin


def model_card(model: MomentModel) -> str:
    """The card as Markdown: what the model is, its data, its metrics, its command."""
    about = model.about
    size = sum(parameter.numel() for parameter in model.parameters())
    head = ModelCardData(library_name="vmr", tags=["video-moment-retrieval", model.kind])
    lines = [
        f"# {about.name if about else model.kind}",
        "",
        f"A {model.kind} model of [vmr](https://pypi.org/project/vmr/) with {size:,} parameters: it "
        "finds the moments of a video that a sentence describes.",
        "",
        "```python",
        "import vmr",
        "",
        'model = vmr.MomentModel.from_pretrained("THIS FOLDER OR REPOSITORY")',
        "```",
        "",
        "`vmr predict --checkpoint THIS ANNOTATIONS --features DIR --out FILE` writes its answers as "
        "official jsonl; `vmr retrieve VIDEO -q SENTENCE --checkpoint THIS` answers on a video.",
    ]
    if about is None:
        lines += ["", "What the weights were trained on is not known."]
    else:
        if about.pack is not None:
            told = about.pack.about or "see `about.pack` in config.json"
            lines += ["", "## Data", "", f"Features. {told}."]
            lines += [f"- {split}: {said}" for split, said in about.data.items()]
        lines += _trained(about) if about.origin is None else _released(about.origin)
    return str(ModelCard(f"---\n{head.to_yaml()}\n---\n\n" + "\n".join(lines) + "\n"))


def _trained(about: About) -> list[str]:
    """What vmr's own training reached, and how."""
    lines = ["", "## Metrics", ""]
    lines += [f"Protocol {about.protocol}.", ""] if about.protocol else []
    for split, metrics in about.metrics.items():
        lines += [f"| {split} | |", "|---|---|"]
        lines += [f"| {key} | {value} |" for key, value in metrics.items() if value is not None]
        lines += [""]
    return [
        *lines,
        "## Command",
        "",
        f"    {about.command}",
        "",
        f"Seed {about.seed}; the weights have seen {about.steps:,} steps.",
    ]


def _released(origin: Origin) -> list[str]:
    """Where weights come from that others trained."""
    epoch = "" if origin.epoch is None else f", epoch {origin.epoch}"
    return [
        "",
        "## Origin",
        "",
        f"Trained by the code of [{origin.code}](https://github.com/{origin.code}) and converted from "
        f"`{origin.file}`{epoch}. The licence of the weights is theirs.",
        "",
        f"    sha256 {origin.sha256}",
        "",
        "Options of its run:",
        "",
        "| option | value |",
        "|---|---|",
        *(f"| {name} | {_cell(value)} |" for name, value in sorted(origin.options.items())),
    ]


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
