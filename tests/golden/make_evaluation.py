"""Writes evaluation.json: what the official evaluators make of tests/evaluation/cases.py.

    python tests/golden/make_evaluation.py FOLDER

FOLDER holds checkouts of jayleicn/moment_detr, line/lighthouse, showlab/UniVTG, minjoong507/BM-DETR and
Raymond-sci/EMB, each named OWNER+NAME. Their requirements (scikit-learn, tqdm, torch) must be installed.
Nothing of them is kept but the numbers.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import importlib
import io
import json
import math
import sys
import warnings
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.evaluation import cases

FOLDERS = {
    "qvhighlights": ("jayleicn+moment_detr", "standalone_eval.eval"),
    "lighthouse": ("line+lighthouse/training", "standalone_eval.eval"),
    "univtg": ("showlab+UniVTG", "eval.eval"),
    "bm-detr": ("minjoong507+BM-DETR", "standalone_eval.eval"),
}


@contextlib.contextmanager
def imported(folder: Path, name: str) -> Iterator[Any]:
    """A module of a checkout, forgotten afterwards: several have the same name."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))
        for module in set(sys.modules) - before:
            if module.split(".")[0] in ("standalone_eval", "eval", "util"):
                del sys.modules[module]


def of_detr(folder: Path, case: cases.Case) -> Any:
    """The evaluators that come from moment_detr's."""
    place, name = FOLDERS[case.protocol]
    with imported(folder / place, name) as module:
        ap, hl = module.compute_mr_ap, module.compute_hl_ap
        module.compute_mr_ap = lambda *a, **k: ap(*a, **{**k, "num_workers": 1})
        module.compute_hl_ap = lambda *a: hl(*a, num_workers=1)
        arguments = [copy.deepcopy(case.predictions), copy.deepcopy(case.ground_truth)]
        if case.protocol == "bm-detr":
            arguments.append(Namespace(dset_name=case.dataset, max_v_l=case.limit, clip_length=1))
        return module.eval_submission(*arguments, verbose=False)


def of_emb(folder: Path, case: cases.Case) -> Any:
    """EMB's scores; its loader cuts the ground truth to the video."""
    with imported(folder / "Raymond-sci+EMB", "util.runner_utils") as module:
        overlaps = []
        for query, prediction in zip(case.ground_truth, case.predictions, strict=True):
            start, end = query["relevant_windows"][0]
            truth = [max(0.0, start), min(end, query["duration"])]
            overlaps.append(module.calculate_iou(prediction["pred_relevant_windows"][0][:2], truth))
        scores = {
            f"r1i{level}": module.calculate_iou_accuracy(overlaps, level / 10)
            for level in (3, 5, 7)
        }
        return {"brief": scores | {"mIoU": sum(overlaps) / len(overlaps) * 100}}


def function_of(path: Path, name: str, scope: dict[str, Any]) -> Any:
    """One function (or method) of a script that wants a model and a GPU to be imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    wanted = next(
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name
    )
    wanted.decorator_list = []
    exec(compile(ast.Module([wanted], []), path.name, "exec"), scope)
    return scope[name]


def of_lighthouse_highlights(folder: Path, case: cases.Case) -> Any:
    """lighthouse's mAP of highlights, around a model that gives the scores."""
    scope: dict[str, Any] = {
        "np": np,
        "torch": torch,
        "defaultdict": defaultdict,
        "AverageMeter": None,
        "tqdm": lambda batches, desc: batches,
        "prepare_batch_inputs": lambda inputs, device: (inputs, None),
    }
    score = function_of(
        folder / "line+lighthouse/training/evaluate.py", "compute_hl_results", scope
    )
    batches = [
        ([query], {"scores": torch.tensor([prediction["pred_saliency_scores"]])})
        for query, prediction in zip(case.ground_truth, case.predictions, strict=True)
    ]
    options = Namespace(model_name="", dset_name=case.dataset, device="cpu")
    scores, _ = score(0, lambda scores: {"saliency_scores": scores}, batches, options)
    return {"brief": scores}


def of_univtg_highlights(folder: Path, case: cases.Case) -> Any:
    """UniVTG's mAP of highlights, a method of its data set."""
    score = function_of(folder / "showlab+UniVTG/main/dataset.py", "evaluate", {"torch": torch})
    labels = {
        query["vid"]: {"anno": query["label"], "match": query.get("match")}
        for query in case.ground_truth
    }
    names = list(labels)
    data = Namespace(
        dset_name="tvsum" if case.dataset == "tvsum" else "youtube",
        label=labels,
        get_video_id=names.__getitem__,
        get_saliency=lambda place: torch.Tensor(
            [1 if match > 0 else 0 for match in labels[names[place]]["match"]]
        ),
    )
    blob = [[torch.tensor(prediction["pred_saliency_scores"])] for prediction in case.predictions]
    return {"brief": score(data, blob)}


def evaluator_of(case: cases.Case) -> Callable[[Path, cases.Case], Any]:
    """Which official code scores a case."""
    if case.dataset in ("tvsum", "youtube_highlight"):
        return of_lighthouse_highlights if case.protocol == "lighthouse" else of_univtg_highlights
    return of_emb if case.protocol == "emb" else of_detr


def main() -> None:
    folder = Path(sys.argv[1])
    found = {}
    for name in cases.NAMES:
        case = cases.case(name)
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found[name] = evaluator_of(case)(folder, case)
    text = json.dumps(found, indent=1, default=float)
    if any(math.isnan(value) for value in numbers(json.loads(text))):
        print("note: some official numbers are NaN", file=sys.stderr)
    Path(__file__).with_name("evaluation.json").write_text(text + "\n", encoding="utf-8")


def numbers(value: Any) -> Iterator[float]:
    """All numbers of nested dictionaries."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from numbers(inner)
    else:
        yield value


if __name__ == "__main__":
    main()
