"""The model card that goes with a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from huggingface_hub import ModelCard, ModelCardData

if TYPE_CHECKING:
    from vmr.models.base import MomentModel


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
        lines += [
            "",
            "## Data",
            "",
            f"Features. {about.pack.about or 'see `about.pack` in config.json'}.",
        ]
        lines += [f"- {split}: {said}" for split, said in about.data.items()]
        lines += ["", "## Metrics", ""]
        lines += [f"Protocol {about.protocol}.", ""] if about.protocol else []
        for split, metrics in about.metrics.items():
            lines += [f"| {split} | |", "|---|---|"]
            lines += [f"| {key} | {value} |" for key, value in metrics.items() if value is not None]
            lines += [""]
        lines += [
            "## Command",
            "",
            f"    {about.command}",
            "",
            f"Seed {about.seed}; the weights have seen {about.steps:,} steps.",
        ]
    return str(ModelCard(f"---\n{head.to_yaml()}\n---\n\n" + "\n".join(lines) + "\n"))
