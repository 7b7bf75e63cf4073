"""The keys of a config that belong to no component: what each takes and means. Components' signatures say the rest."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Key:
    """`kind`: an annotation as text; `meaning`: one line; `example`: what to add where it is missing (or nothing)."""

    kind: str
    meaning: str
    example: str = ""


TOP = {
    "iters": Key("int", "Training iterations. `--iters` overrides.", "iters: 1000"),
    "batch_size": Key("int", "Photos an iteration and process. `--batch_size` overrides.", "batch_size: 4"),
    "train_dataset": Key(
        "dict",
        "The data set to train on.",
        "train_dataset: {type: Dataset, dataset_root: data/mine, train_path: train.txt, num_classes: 2}",
    ),
    "val_dataset": Key("dict", "The data set to evaluate on; classes, colours and bands are `train_dataset`'s."),
    "test_dataset": Key("dict", "Checked like the others, as PaddleSeg's configs may have it; no command reads it."),
    "model": Key("dict", "The model; `backbone:` in it is a node of its own.", "model: {type: UNet}"),
    "loss": Key(
        "dict", "One loss for each output of the model in training.",
        "loss: {types: [{type: CrossEntropyLoss}], coef: [1]}",
    ),
    "distill_loss": Key("dict", "Losses against a teacher, with `--teacher_config`."),
    "optimizer": Key(
        "dict", "One of Paddle's optimizers.", "optimizer: {type: SGD, momentum: 0.9, weight_decay: 4.0e-5}"
    ),
    "lr_scheduler": Key(
        "dict", "One of Paddle's schedules of the learning rate.",
        "lr_scheduler: {type: PolynomialDecay, learning_rate: 0.01, end_lr: 0, power: 0.9}",
    ),
    "test_config": Key("dict | None", "How `val` and `predict` apply the model, unless flags say otherwise."),
    "export": Key("dict | None", "What `export` does differently."),
    "to_static_training": Key("bool", "Train a compiled graph."),
    "seed": Key("int | None", "Seed of everything random; 42 by default. `--seed` overrides."),
    "freeze": Key("list[str]", "Parameters not to train: prefixes of their names (`backbone`), or patterns with `*`."),
    "imports": Key("list[str]", "Python modules of your own to import first, found from the working directory."),
}  # fmt: skip
_LOSS = {
    "types": Key("list[dict]", "Losses. A single one serves every output."),
    "coef": Key("list[float]", "Factor of each output's loss."),
    "ignore_index": Key("int", "The data set's by default; another value is an error."),
}
SECTIONS = {
    "loss": _LOSS,
    "distill_loss": _LOSS,
    "export": {
        "transforms": Key("list[dict]", "Transforms of the exported model; those of `val_dataset` by default."),
    },
    "test_config": {
        "aug_eval": Key("bool", "`val`: average over `scales` and flips."),
        "aug_pred": Key("bool", "`predict`: the same."),
        "scales": Key("float | list[float]", "Sizes to average over."),
        "flip_horizontal": Key("bool", "With augmentation: also the mirrored photo."),
        "flip_vertical": Key("bool", "With augmentation: also the upside-down photo."),
        "is_slide": Key("bool", "Apply the model window by window."),
        "crop_size": Key("list[int]", "Window width and height."),
        "stride": Key("list[int]", "Window step to the right and down."),
        "auc_roc": Key("bool", "`val`: also the area under the ROC curve."),
        "use_multilabel": Key("bool", "A pixel may have several classes."),
    },
}
