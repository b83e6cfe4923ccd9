"""What every trainable model is: features in, one loss, predictions out, and a folder to keep it in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import msgspec
import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from vmr.errors import InputError
from vmr.models import stored
from vmr.progress import Progress, silent
from vmr.settings import convert

if TYPE_CHECKING:
    import os

    from vmr.data.dataset import Batch, MomentDataset
    from vmr.evaluation.predictions import Prediction
    from vmr.models.stored import About


class ModelConfig(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
):
    """The hyper-parameters of a model; a subclass a model, whose tag is the model's name.

    Attributes:
        video_dim: Columns of the video features; None takes those of the features it is trained on.
        text_dim: Columns of the text features; None likewise.
    """

    video_dim: int | None = None
    text_dim: int | None = None


class Loss(NamedTuple):
    """A loss and its parts.

    Attributes:
        total: Scalar, the weighted sum of the terms; what to call ``backward`` on.
        terms: Scalars by name, before their weights.
    """

    total: Tensor
    terms: dict[str, Tensor]


class MomentModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="vmr",
    tags=["video-moment-retrieval"],
):
    """A model that finds moments in the features of a video.

    A training step, in a loop of one's own as in vmr's::

        outputs = model(**model.inputs(batch))
        model.loss(outputs, batch).total.backward()

    and an answer::

        predictions = model.decode(outputs, batch)

    A subclass has ``forward`` on tensors with lengths, and what the ``loss_...`` methods and
    :meth:`decode` ask for. Terms of a loss are sums divided by counts that follow from the batch alone,
    so that a batch may be cut into parts, over processes or one after the other, without changing it.

    Args:
        config: The hyper-parameters, with both widths.

    Attributes:
        config: Them.
        about: What the weights were trained on, and what they reached; None for new ones.

    Raises:
        InputError: A width is missing.
    """

    kind: ClassVar[str]
    config_type: ClassVar[type[ModelConfig]]
    wants_pooled: ClassVar[bool] = False
    """Whether batches must hold the sentence as one vector."""
    reads_negatives: ClassVar[bool] = False
    """Whether it takes the negative queries of a batch."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        # Words and numbers of a config that was written in Python were not looked at yet.
        convert(msgspec.to_builtins(config), type(config), self.kind)
        self.config = config
        self.about: About | None = None

    @property
    def widths(self) -> tuple[int, int]:
        """Columns of the video and of the text features.

        Raises:
            InputError: The config leaves one open.
        """
        video, text = self.config.video_dim, self.config.text_dim
        if video is None or text is None:
            raise InputError(
                f"{self.kind}: expected video_dim and text_dim, the columns of the features; got "
                f"{video} and {text}"
            )
        return video, text

    def check_widths(self, video: Tensor, text: Tensor) -> None:
        """Refuses features [..., video_dim] and tokens [..., text_dim] that it was not made for.

        Raises:
            InputError: With the width of the first that is another.
        """
        for name, features, width in zip(
            ("video", "text"), (video, text), self.widths, strict=True
        ):
            if features.shape[-1] != width:
                raise InputError(
                    f"{self.kind}: expected {name} features of {width} columns, got "
                    f"{features.shape[-1]}: it was made for other features"
                )

    def check_tokens(self, batch: Batch) -> None:
        """Refuses a batch without tokens, or with features that it was not made for.

        Raises:
            InputError: As said, or as :meth:`check_widths`.
        """
        if batch.text is None:
            raise InputError(
                f"{self.kind}: expected the tokens of sentences, got a pack without them"
            )
        self.check_widths(batch.video, batch.text)

    # ---- what a subclass says -----------------------------------------------------------------------

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """What ``forward`` takes of a batch, by argument name."""
        return {
            "video": batch.video,
            "video_lengths": batch.video_lengths,
            "text": batch.text,
            "text_lengths": batch.text_lengths,
        }

    def shared(self, batch: Batch) -> dict[str, Any]:
        """More arguments of ``forward``: what all queries about one video share, computed once.

        Args:
            batch: Queries about one video, as all batches that the answer is used for.
        """
        return {}

    def loss_weights(self) -> dict[str, float]:
        """The weight of each term of the loss."""
        raise NotImplementedError

    def loss_counts(self, batch: Batch) -> dict[str, Tensor]:
        """What each term's sum is divided by: scalars that follow from the batch alone.

        The count of a batch is the sum of its parts' counts.
        """
        raise NotImplementedError

    def loss_sums(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """Each term of the loss, summed over what :meth:`loss_counts` counts: scalars."""
        raise NotImplementedError

    def decode(self, outputs: Any, batch: Batch) -> list[Prediction]:
        """The moments and clip scores of each query of a batch, in seconds, best first."""
        raise NotImplementedError

    def fit(self, dataset: MomentDataset, progress: Progress = silent) -> None:
        """Called once before the first step, for what is counted rather than learned."""

    # ---- what all have --------------------------------------------------------------------------------

    def loss(self, outputs: Any, batch: Batch, counts: Mapping[str, Tensor] | None = None) -> Loss:
        """The loss of a batch, or of a part of one.

        Args:
            outputs: What ``forward`` gave.
            batch: The batch it gave it for.
            counts: What the terms are divided by, where ``batch`` is a part of a larger one: the sum of
                :meth:`loss_counts` over all parts. The losses of the parts then add up to the whole's.
        """
        if counts is None:
            counts = self.loss_counts(batch)
        sums = self.loss_sums(outputs, batch)
        terms = {name: total / counts[name].clamp(min=1e-12) for name, total in sums.items()}
        weights = self.loss_weights()
        total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        return Loss(total, terms)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        **push_options: Any,
    ) -> str | None:
        """Writes weights, hyper-parameters and a model card: model.safetensors, config.json, README.md.

        Each file is replaced as a whole; config.json and the card are the weights' own, so they are
        written first.

        Args:
            save_directory: The folder; it is made where it is not there.
            repo_id: The repository on the hub; None for the folder's name.
            push_to_hub: Uploads the folder too.
            push_options: Passed on to ``push_to_hub``.

        Returns:
            The address of the commit on the hub, if one was made.

        Raises:
            CacheError: A file cannot be written.
        """
        folder = stored.write(self, save_directory)
        if push_to_hub:
            return str(self.push_to_hub(repo_id or folder.name, **push_options))
        return None

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        device: torch.device | str = "cpu",
    ) -> MomentModel:
        """A model from a folder that :meth:`save_pretrained` wrote, or from the hub.

        ``MomentModel.from_pretrained`` takes a checkpoint of any model; a subclass takes its own.

        Args:
            name_or_path: The folder, the result folder of a training run (its best weights), or
                "owner/name" on the hub.
            revision: Branch, tag or commit on the hub.
            token: For a private repository; None takes the one that is logged in.
            cache_dir: Where downloads are kept; None for the hub library's own place.
            local_files_only: Takes what was downloaded before, and asks nobody.
            device: Where the weights go.

        Returns:
            The model, in evaluation mode.

        Raises:
            InputError: There is no such checkpoint, it is damaged, it is another model's, or it was
                written by a newer vmr.
        """
        from vmr.models.registry import model_type

        folder = stored.locate(
            name_or_path,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
        written = stored.read_config(folder)
        # A model of the user's own is not in the registry, and is asked for by its class.
        own = getattr(cls, "kind", None) == written.kind
        kind = cls if own else model_type(written.kind, str(folder))
        if not issubclass(kind, cls):
            raise InputError(
                f"{folder}: expected a checkpoint of {cls.kind}, got one of {kind.kind}; "
                f"MomentModel.from_pretrained takes either"
            )
        model = kind(written.model(kind.config_type))
        stored.load_tensors(model, stored.read_tensors(folder), str(folder / stored.WEIGHTS))
        model.about = written.about
        return model.to(device).eval()

    @classmethod
    def from_official(
        cls,
        path: str | os.PathLike[str],
        opt: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    ) -> MomentModel:
        """A model from a checkpoint that the authors of a system released.

        ``MomentModel.from_official`` takes that of any system that vmr knows; a subclass takes its own.
        Arguments, result and errors are those of :func:`vmr.models.official.from_official`.
        """
        from vmr.models.official import from_official

        return from_official(path, opt, wanted=cls)
