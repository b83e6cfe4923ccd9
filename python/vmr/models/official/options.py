"""The options of an official run: what of them vmr needs, held against the weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any, TypeVar

import msgspec
from torch import Tensor

from vmr.data.pack_spec import TEF, Normalise, Pack, Source, Text
from vmr.errors import InputError
from vmr.models.official.reading import Released
from vmr.settings import convert

T = TypeVar("T", bound="Options")

_TEF_COLUMNS = 2
_DATA = {"hl": "QVHighlights", "charades": "Charades-STA", None: "unknown data"}
# What BM-DETR's code puts behind the names of TACoS's videos.
_ENDS = {"tacos": (".avi.npy", "-cam-002.npz")}
_WIDTHS = {"slowfast": 2304, "clip": 512, "pann": 2048}


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Options that the codes of this family share, under their names and with their defaults.

    Attributes:
        nheads: Heads of each attention; the one thing that no shape says.
        hidden_dim, dim_feedforward, enc_layers, dec_layers, n_input_proj, num_queries, t_feat_dim,
            contrastive_hdim: Shapes; None where the options do not say.
        v_feat_dim: Columns of the video features: in opt.json without the two of the TEF, in the options
            that a checkpoint holds with them.
        a_feat_dim: Columns of the audio features, with the two of their own TEF.
        v_feat_dirs, t_feat_dir, a_feat_dir: Folders of features.
        ctx_mode: "video", "tef" or both.
    """

    nheads: int
    hidden_dim: int | None = None
    dim_feedforward: int | None = None
    enc_layers: int | None = None
    dec_layers: int | None = None
    n_input_proj: int | None = None
    num_queries: int | None = None
    t_feat_dim: int | None = None
    v_feat_dim: int | None = None
    a_feat_dim: int | None = None
    contrastive_hdim: int | None = None
    v_feat_dirs: list[str] | None = None
    t_feat_dir: str | None = None
    a_feat_dir: str | None = None
    ctx_mode: str = "video_tef"
    max_q_l: int | None = None
    max_v_l: int | None = None
    clip_length: float = 2.0
    no_norm_vfeat: bool = False
    no_norm_tfeat: bool = False
    dset_name: str | None = None
    train_path: str | None = None
    eval_path: str | None = None
    seed: int = 0
    dropout: float = 0.1
    input_dropout: float = 0.5
    use_txt_pos: bool = False
    pre_norm: bool = False
    position_embedding: str = "sine"
    span_loss_type: str = "l1"
    aux_loss: bool = True
    span_loss_coef: float = 10.0
    giou_loss_coef: float = 1.0
    label_loss_coef: float = 4.0
    lw_saliency: float = 1.0
    eos_coef: float = 0.1
    saliency_margin: float = 0.2
    contrastive_align_loss: bool = False
    contrastive_align_loss_coef: float = 0.0
    temperature: float = 0.07


class Shapes(msgspec.Struct, frozen=True, kw_only=True):
    """What the weights themselves say, under the options' names; None or 0 where they lack the tensor.

    Attributes:
        columns: Of the video features that they take, all of them.
    """

    columns: int | None
    hidden_dim: int | None
    dim_feedforward: int | None
    enc_layers: int
    dec_layers: int
    n_input_proj: int
    num_queries: int | None
    t_feat_dim: int | None
    contrastive_hdim: int | None

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Shapes:
        """Those of a state dict."""

        def size(name: str, axis: int) -> int | None:
            found = tensors.get(name)
            return None if found is None or found.dim() <= axis else found.shape[axis]

        def count(prefix: str) -> int:
            numbers = (re.match(rf"{re.escape(prefix)}\.(\d+)\.", name) for name in tensors)
            return 1 + max((int(found[1]) for found in numbers if found), default=-1)

        return cls(
            columns=size("input_vid_proj.0.LayerNorm.weight", 0),
            t_feat_dim=size("input_txt_proj.0.LayerNorm.weight", 0),
            hidden_dim=size("class_embed.weight", 1),
            dim_feedforward=size("transformer.encoder.layers.0.linear1.weight", 0),
            enc_layers=count("transformer.encoder.layers"),
            dec_layers=count("transformer.decoder.layers"),
            n_input_proj=count("input_vid_proj"),
            num_queries=size("query_embed.weight", 0),
            contrastive_hdim=size("contrastive_align_projection_query.weight", 0)
            or size("contrastive_align_vid_proj.weight", 0),
        )


def read_options(released: Released, kind: type[T]) -> T:
    """The options as a type.

    Raises:
        InputError: One that is needed is not there, or is of another type.
    """
    known = {field.encode_name for field in msgspec.structs.fields(kind)}
    # Others may be of types that no file of ours has (torch.device).
    given = {name: value for name, value in released.options.items() if name in known}
    if isinstance(given.get("v_feat_dirs"), str):
        given["v_feat_dirs"] = [given["v_feat_dirs"]]
    return convert(given, kind, released.said_by)


def plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those options that JSON has; the others as text."""

    def plain(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [plain(inner) for inner in value]
        return value if value is None or isinstance(value, bool | int | float | str) else str(value)

    return {str(name): plain(value) for name, value in options.items()}


def settled(released: Released, options: Options) -> Shapes:
    """The shapes of a checkpoint, where its options say the same.

    Raises:
        InputError: An option says another, with what would fit.
    """
    shapes = Shapes.of(released.tensors)
    found = []
    for name in Shapes.__struct_fields__:
        said, has = getattr(options, name, None), getattr(shapes, name)
        if said is not None and has and said != has:
            found.append(f"{name} is {said}, and {has} would fit")
    if (video := _video_width(options, shapes.columns)) is not None:
        found.append(video)
    if found:
        raise InputError(
            f"{released.said_by}: does not go with the weights of {released.path}: {'; '.join(found)}"
        )
    return shapes


def _video_width(options: Options, columns: int | None) -> str | None:
    """What is wrong with v_feat_dim; nothing where it fits the columns that the weights take."""
    if columns is None or options.v_feat_dim is None:
        return None
    audio = (options.a_feat_dim or 0) if options.a_feat_dir is not None else 0
    time = _TEF_COLUMNS if "tef" in options.ctx_mode else 0
    video = options.v_feat_dim if "video" in options.ctx_mode else 0
    # The options in a checkpoint have the TEF added already, those in opt.json do not.
    if columns in (video + audio, video + time + audio, options.v_feat_dim + audio):
        return None
    parts = [f"v_feat_dim is {options.v_feat_dim}"]
    parts += [f"the TEF {time}"] if time else []
    parts += [f"a_feat_dim {audio}"] if audio else []
    return (
        f"{', '.join(parts)}, and the weights take {columns} columns: v_feat_dim "
        f"{columns - time - audio} would fit"
    )


def refuse(
    released: Released, options: Options, rules: Iterable[tuple[str, Callable[[Any], bool]]]
) -> None:
    """Refuses options that vmr has no model for.

    Args:
        released: For messages.
        options: Which.
        rules: Names, and whether a value of it is supported.

    Raises:
        InputError: With the name and value of the first that is not.
    """
    for name, supported in rules:
        value = getattr(options, name)
        if not supported(value):
            raise InputError(
                f"{released.said_by}: {name}: {value!r} is an option of the official code that vmr does "
                "not have; no released checkpoint is known to use it"
            )


def feature_pack(options: Options, columns: int | None, who: str) -> Pack | None:
    """The features that a run was trained on, as its folders are; None where the options do not say.

    Args:
        options: Its options.
        columns: Of the video features that the weights take.
        who: Which code, for the reader.
    """
    if not options.v_feat_dirs:
        return None
    time = "tef" in options.ctx_mode
    normalise: Normalise = "none" if options.no_norm_vfeat else "l2"
    folders = {_short(folder): _last(folder) for folder in options.v_feat_dirs}
    if len(folders) < len(options.v_feat_dirs):
        return None  # folders of the same name, in several places
    names = list(folders) + ([TEF] if time else [])
    ends = _ENDS.get(options.dset_name or "", (".npz", ".npy"))
    files: dict[str, tuple[str, ...]] = {
        name: tuple(f"{folder}/{{vid}}{end}" for end in ends) for name, folder in folders.items()
    }
    if options.a_feat_dir is not None:
        name = _short(options.a_feat_dir)
        names += [name] + ([TEF] if time else [])
        files[name] = (f"{_last(options.a_feat_dir)}/{{vid}}.npy",)
    widths = {name: _WIDTHS.get(name) for name in files}
    left = None if columns is None else columns - _TEF_COLUMNS * names.count(TEF)
    if len(files) == 1:
        widths = dict.fromkeys(files, left)
    elif left != sum(width or 0 for width in widths.values()):
        widths = dict.fromkeys(files)
    text = None
    if options.t_feat_dir is not None:
        text = Text(
            files=(f"{_last(options.t_feat_dir)}/qid{{qid}}.npz",),
            dim=options.t_feat_dim,
            max_rows=options.max_q_l,
            normalise="none" if options.no_norm_tfeat else "l2",
        )
    return Pack(
        about=f"{who} on {_DATA.get(options.dset_name, options.dset_name)}: {', '.join(files)}",
        folders=(".", "features"),
        columns=tuple(names),
        sources={
            name: Source(files=places, dim=widths[name], normalise=normalise)
            for name, places in files.items()
        },
        seconds_per_row=options.clip_length,
        max_rows=options.max_v_l,
        text=text,
    )


def _last(folder: str) -> str:
    return PurePosixPath(folder).name or folder


def _short(folder: str) -> str:
    """slowfast of ../features/umt_slowfast_features/."""
    return _last(folder).removeprefix("umt_").removesuffix("_features")
