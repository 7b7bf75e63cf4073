"""What users of the peer toolkits get stuck on (shared/PAINS.md), row by row: the tests that show that it cannot happen.

An answer is a test (`file::name`), a row of tests/bad_input (`bad input: name`), or words of a page (`docs/x.md: words`).
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml

from segkit import io, log
from segkit.cli.main import main
from segkit.config import Config
from segkit.engine import convert, evaluate, train
from segkit.errors import InputError
from segkit.options import TrainOptions
from tests.bad_input.table import ROWS
from tests.tiny import make_data, tiny_config

ROOT = Path(__file__).resolve().parents[1]
PAINS = {
    1: ("test_datasets::test_values_out_of_range", "test_datasets::test_white_masks_are_warned_of_once",
        "test_check::test_the_look_before_a_training", "test_bands::test_labels_are_mapped_as_they_are_read",
        "bad input: label: a value above the classes"),
    2: ("test_infer::test_masks_are_those_of_predict_on_real_photos", "test_export::test_what_is_written",
        "test_export::test_a_graph_that_disagrees_is_refused"),
    3: ("test_pains::test_row_3_one_class_is_all_that_is_predicted", "test_evaluate::test_absent_classes_are_named",
        "test_stats::test_numbers_are_those_of_all_pixels"),
    4: ("test_export::test_the_older_format", "test_infer::test_paddlesegs_own_file",
        "test_backends::test_files_that_deploy_yaml_names"),
    5: ("test_datasets::test_white_masks_are_warned_of_once", "test_check::test_everything_ignored",
        "test_datasets::test_other_ignore_index_replaces_the_padding_of_transforms"),
    6: ("test_datasets_lists::test_separators", "test_datasets_lists::test_names_with_spaces_split_by_existing_files",
        "test_datasets_lists::test_one_and_three_fields_are_told_with_line_and_text"),
    7: ("test_io::test_label_kinds", "test_io::test_colour_labels", "test_datasets::test_colour_masks_need_a_palette"),
    8: ("test_io::test_exif_orientation_of_images_and_labels", "test_datasets::test_sizes_that_differ",
        "test_datasets::test_exif_turned_photo_with_a_mask_that_is_not"),
    9: ("test_loader::test_little_shared_memory_falls_back_to_pipes", "test_loader_workers::test_a_worker_that_dies_names_its_sample",
        "test_loader_workers::test_a_reader_that_hangs_names_its_sample", "test_loader::test_a_bug_keeps_its_type_and_traceback"),
    10: ("test_loader::test_impossible_settings",
         "test_loader::test_batch_larger_than_the_data_set_trains_with_one_warning"),
    11: ("test_pains::test_row_11_memory_that_does_not_suffice", "test_apply::test_windows_against_a_loop"),
    12: ("test_apply::test_windows_are_batched_and_bounded",
         "test_infer_windows::test_windows_hold_a_strip_of_the_scores_only"),
    13: ("test_chaos::test_killed_runs_end_as_if_never_stopped", "test_train::test_resumed_run_ends_with_the_same_weights"),
    14: ("test_pains::test_row_14_what_resume_takes", "bad input: resume: nowhere", "bad input: resume: a best model",
         "test_train_flags::test_nothing_left_to_train_and_another_optimizer"),
    15: ("test_evaluate::test_without_weights", "bad input: weights: none given"),
    16: ("test_pains::test_row_16_paddle2onnx_of_paddle_2", "test_export::test_formats_whose_packages_are_not_installed", "test_export::test_a_model_that_onnx_cannot_say",
         "test_backends::test_masks_are_those_of_predict"),
    17: ("test_backends::test_what_all_formats_write", "test_export::test_small_differences_of_scores_are_seen"),
    18: ("test_pains::test_row_18_building_imports_nothing_and_pins_nothing", "test_api::test_importing_is_light",
         "docs/versions.md: tests/matrix.py"),
    19: ("test_layers::test_doors_are_short", "test_cli::test_version", "test_machine::test_info_prints_and_gives_json"),
    20: ("bad input: machine: no VisualDL", "test_report::test_the_page_needs_nothing_and_escapes_names",
         "test_train::test_metrics_jsonl", "test_dashboard::test_a_scalar_and_an_image_come_back_over_http"),
    21: ("test_ranks::test_a_rank_that_fails_ends_all_with_its_message", "test_device::test_two_cpu_ranks",
         "test_ranks::test_only_the_main_rank_writes", "docs/distributed.md: nothing does that by itself"),
    22: ("test_train::test_folders", "test_train::test_log_lines", "test_train::test_the_config_in_the_folder_is_resolved"),
    23: ("test_predict::test_what_is_written", "test_predict::test_threshold_makes_unsure_pixels_255",
         "test_infer::test_threshold_of_the_file", "test_export::test_output_ops"),
    24: ("test_bands::test_a_model_of_13_bands", "test_bands::test_real_tiffs", "test_bands::test_deep_pngs_keep_their_values",
         "bad input: photo: four bands where three are asked for"),
    25: ("test_pains::test_row_25_a_gray_model_goes_all_the_way",),
    26: ("test_postprocess::test_transforms_and_undo_agree", "test_predict::test_a_folder_with_sub_folders"),
    27: ("test_models::test_any_size_and_the_same_answer_twice", "test_predict::test_every_model_takes_every_size"),
    28: ("bad input: config: classes in two places", "test_config::test_num_classes_may_stand_on_the_model_alone"),
    29: ("docs/faq.md: Sizes are [width, height]",
         "test_pains::test_row_29_width_comes_first"),
    30: ("test_config::test_values", "test_config::test_a_changed_type_keeps_what_fits",
         "bad input: config: --opts of an unknown key"),
    31: ("test_config::test_imports_register_a_users_own_model", "bad input: config: a misspelt model"),
    32: ("test_determinism::test_the_same_weights_whoever_reads", "test_device::test_deterministic_kernels_on_a_gpu",
         "docs/determinism.md: `--deterministic`"),
    33: ("test_class_weights::test_numbers_stand_in_the_saved_config_and_resume_takes_them",
         "docs/faq.md: `weight` inside a loss weighs the classes"),
    34: ("test_train_flags::test_the_best_by_one_class", "test_train::test_the_best_model_is_that_of_the_best_evaluation",
         "bad input: flag: a best metric of no class"),
    35: ("test_train::test_early_stop_counts_evaluations_without_gain",),
    36: ("test_convert_labelme::test_classes_are_those_of_all_files", "test_pains::test_row_36_labelme_is_not_imported",
         "test_convert_labelme::test_labels_txt_gives_the_order_and_strange_labels_are_listed"),
    37: ("test_weights::test_report_and_partial_load", "test_weights::test_weights_of_another_model",
         "bad input: weights: pretrained, offline"),
    38: ("test_long_runs::test_memory_and_files_stay_flat", "docs/measurements.md: flat from the eighth minute to the end"),
    39: ("test_long_runs::test_a_loss_that_is_not_finite_leaves_its_batch",
         "test_train_flags::test_a_loss_that_is_not_finite_names_iteration_files_and_rate"),
    40: ("test_train::test_dashboard", "test_predict::test_what_is_written",
         "test_pictures::test_polygons_are_read_back_pixel_for_pixel"),
    41: ("test_export::test_fixed_shape", "docs/deployment.md: TensorRT wants one size"),
    42: ("test_pains::test_row_42_names_in_any_script", "test_predict::test_a_folder_with_sub_folders",
         "docs/versions.md: nor were Windows, macOS and ARM"),
}  # fmt: skip
BUGS = {
    1: ("test_infer::test_what_is_written", "test_predict::test_names_that_differ_in_case_alone_do_not_collide"),
    2: ("test_security::test_paths_of_strangers_stay_in_the_output_folder",),
    3: ("test_losses::test_ignored_pixels_get_no_gradient", "test_losses::test_other_ignore_index"),
    4: ("test_losses_single::test_mixed_loss_defaults_and_mismatch", "parity/test_losses::test_order_of_mixed_losses_does_not_matter"),
    5: ("test_config::test_inherited_false_replaces_the_node",),
    6: ("test_chaos::test_killed_runs_end_as_if_never_stopped", "test_train::test_the_best_model_comes_along_into_another_folder"),
    7: PAINS[15],
    8: PAINS[10],
    9: ("test_datasets_lists::test_one_and_three_fields_are_told_with_line_and_text", "bad input: list: only comments"),
    10: ("test_convert_masks::test_masks_and_photos_without_each_other",),
    11: PAINS[25],
    12: ("test_io::test_channels", "test_bands::test_infrared_is_not_dropped_as_if_it_were_alpha"),
    13: ("test_export::test_what_is_written", "test_infer::test_masks_are_those_of_predict_on_real_photos"),
    14: PAINS[4],
    15: ("test_export::test_output_ops", "docs/deployment.md: TensorRT wants one size"),
    16: PAINS[12],
    17: ("test_io::test_colour_labels", "test_loader::test_image_and_label_of_different_sizes"),
    18: PAINS[27],
    19: ("test_cpp::test_masks_are_those_of_predict",),
    20: PAINS[28],
    21: (*PAINS[30], "test_pains::test_bug_21_values_with_an_equals_sign"),
    22: ("test_checkpoint::test_the_scale_of_the_loss_is_resumed",
         "docs/measurements.md: The GPU path: built, untested"),
    23: PAINS[32],
    24: PAINS[35],
    25: PAINS[18],
    26: ("test_transforms::test_image_and_label_stay_together", "test_transforms_single::test_scale_padding_invents_no_class"),
    27: ("test_train::test_average_of_weights", "test_train_flags::test_nothing_left_to_train_and_another_optimizer"),
}  # fmt: skip
OTHERS = {
    "misspelled top-level YAML keys ignored": ("bad input: config: a misspelt key",),
    "with several `_base_` files the first wins": ("test_config::test_a_later_base_wins_over_an_earlier_one",),
    "so a second read fails": ("test_config::test_a_saved_config_gives_the_same_config",),
    "multi-label": ("test_predict::test_several_labels_a_pixel", "test_evaluate::test_several_labels_a_pixel"),
    "gradient accumulation": ("test_train::test_accumulated_batches_count_as_one_large_batch",),
    "freezing": ("test_train_flags::test_frozen_parameters_stay",),
    "serving pipeline": ("test_serve_replies::test_masks_are_those_of_infer",),
    "slow CPU": ("test_backends::test_auto_chooses_remembers_and_says_so", "docs/faq.md: Training is slow"),
}
"""words of the page -> answers"""


@cache
def functions(path: Path) -> dict[str, bool]:
    """The functions of a file, and whether each can fail: it asserts, or expects an error or a warning."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name: any(map(_fails, ast.walk(node))) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def _fails(node: ast.AST) -> bool:
    if isinstance(node, ast.Assert):
        return not isinstance(node.test, ast.Constant)
    name = getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""
    return name.startswith("assert_") or name in ("raises", "warns")


def test_an_emptied_test_is_no_answer(tmp_path: Path) -> None:
    emptied = "def test_a():\n    main()\n    assert True\n"
    full = "def test_b():\n    with pytest.raises(InputError):\n        main()\n"
    (tmp_path / "a.py").write_text(emptied + full, encoding="utf-8")
    assert functions(tmp_path / "a.py") == {"test_a": False, "test_b": True}


@pytest.mark.parametrize(
    "answers",
    [pytest.param(answers, id=f"{kind} {row}") for kind, table in (("row", PAINS), ("bug", BUGS), ("also", OTHERS))
     for row, answers in table.items()],
)  # fmt: skip
def test_every_pain_has_its_answer(answers: tuple[str, ...]) -> None:
    names = {row.name for row in ROWS}
    assert answers
    for answer in answers:
        where, _, what = answer.partition("::" if "::" in answer else ": ")
        if where == "bad input":
            assert what in names
        elif where.startswith("docs/"):
            assert what in (ROOT / where).read_text(encoding="utf-8"), answer
        else:
            assert functions(ROOT / "tests" / f"{where}.py").get(what), f"{answer}: not there, or it checks nothing"


def test_no_pain_is_left_out(shared: Path) -> None:
    text = (shared / "PAINS.md").read_text(encoding="utf-8")
    assert [int(number) for number in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)] == list(PAINS)
    assert [int(number) for number in re.findall(r"^(\d+)\. ", text, re.MULTILINE)] == list(BUGS)
    assert all(" ".join(words.split()) in " ".join(text.split()) for words in OTHERS)


def options(folder: Path, **changes: object) -> TrainOptions:
    return TrainOptions(**{"save_dir": str(folder), "num_workers": 0, "device": "cpu", **changes})


def test_row_3_one_class_is_all_that_is_predicted(capsys) -> None:
    log.setup()
    counts = [[70, 0], [30, 0]]
    scores = {"num_images": 1, "mIoU": 0.35, "Acc": 0.7, "Kappa": 0.0, "mDice": 0.41, "class_names": ["ground", "cat"],
              "class_iou": [0.7, 0], "class_precision": [0.7, None], "class_recall": [1, 0], "absent_classes": []}  # fmt: skip
    evaluate.report({**scores, "confusion_matrix": counts})
    said = capsys.readouterr().err
    assert "every pixel is predicted as ground" in said and "segkit data check" in said
    for fine in ([[69, 1], [30, 0]], [[100, 0], [0, 0]]):  # two are predicted; one alone is labelled
        evaluate.report({**scores, "confusion_matrix": fine})
        assert "every pixel" not in capsys.readouterr().err


def test_row_11_memory_that_does_not_suffice(tmp_path: Path, monkeypatch) -> None:
    cfg = Config(tiny_config(make_data(tmp_path / "data", 4, 2), tmp_path / "c.yml", iters=2))

    def full(*_: object) -> None:
        raise MemoryError("(ResourceExhausted) Out of memory error on GPU 0.")

    with monkeypatch.context() as patch:
        patch.setattr(evaluate.apply.Applied, "classes", full)
        with pytest.raises(InputError, match=r"\.png: the memory does not suffice .*--is_slide --crop_size 512 512"):
            train.train(cfg, options(tmp_path / "a", do_eval=True))
    monkeypatch.setattr(train.Step, "_backward", full)
    with pytest.raises(
        InputError, match=r"does not suffice for a training step \(got 2 images of 3x.*Lower --batch_size"
    ):
        train.train(cfg, options(tmp_path / "b"))


def test_row_14_what_resume_takes(tmp_path: Path) -> None:
    """The run's folder, an iter folder or a file in it."""
    from segkit.engine import checkpoint

    cfg = Config(tiny_config(make_data(tmp_path / "data", 4, 2), tmp_path / "c.yml", iters=1))
    train.train(cfg, options(tmp_path / "out"))
    last = tmp_path / "out" / "iter_1"
    for given in (tmp_path / "out", last, last / "model.pdparams"):
        assert checkpoint.find(str(given), tmp_path / "new") == last


def test_row_16_paddle2onnx_of_paddle_2(monkeypatch) -> None:
    monkeypatch.setattr(convert, "_NEEDED", {"onnx": ()})  # whatever is installed here
    monkeypatch.setattr(convert, "version", lambda _: "1.3.1")
    with pytest.raises(InputError, match=r"got 1\.3\.1, expected 2\.0 or newer\)\. pip install -U 'paddle2onnx>=2"):
        convert.require_converters(("onnx",))
    convert.require_converters(("paddle",))


def test_row_18_building_imports_nothing_and_pins_nothing(tmp_path: Path) -> None:
    for name in ("paddle", "numpy", "cv2"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv = ['setup.py', '--name']; exec(open('setup.py').read(), {{'__file__': 'setup.py', '__name__': 'x'}})"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and "segkit" in done.stdout, done.stderr
    assert "paddle" not in re.search(r"install_requires=\[.*?\]", (ROOT / "setup.py").read_text(), re.DOTALL).group()
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        assert not re.search(r"==|<|~=", line), line


@pytest.fixture(scope="module")
def gray(tmp_path_factory) -> Path:
    """c.yml and a data set of one band; its photos are gray PNGs."""
    folder = tmp_path_factory.mktemp("gray")
    data = make_data(folder / "data", 4, 2)
    for path in (data / "images").glob("*.png"):
        io.write_png(path, io.read_image(str(path), 3)[..., 0])
    config = tiny_config(data, folder / "c.yml", iters=1)
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    for part in ("train_dataset", "val_dataset"):
        content[part]["img_channels"] = 1
        for node in content[part]["transforms"]:
            if node["type"] == "Normalize":
                node.update(mean=[0.5], std=[0.5])
    config.write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder


def test_row_25_a_gray_model_goes_all_the_way(gray: Path, tmp_path: Path) -> None:
    cpu = ["--device", "cpu"]
    out, images = str(tmp_path / "out"), str(gray / "data" / "images")
    assert (
        main(["train", "--config", str(gray / "c.yml"), "--save_dir", out, "--num_workers", "0", "--do_eval", *cpu])
        == 0
    )
    best = f"{out}/best_model"
    assert (
        main(
            ["predict", "--model_path", best, "--image_path", images, "--save_dir", f"{out}/masks", "--no_onednn", *cpu]
        )
        == 0
    )
    assert main(["export", "--model_path", best, "--save_dir", f"{out}/exported"]) == 0
    infer = ["infer", "--config", f"{out}/exported", "--image_path", images, "--save_dir", f"{out}/again"]
    assert main([*infer, "--backend", "paddle", "--enable_mkldnn", "False"]) == 0
    for path in sorted((tmp_path / "out" / "masks" / "mask").glob("*.png")):
        np.testing.assert_array_equal(io.read_label(str(path)), io.read_label(f"{out}/again/{path.name}"))


def test_row_29_width_comes_first() -> None:
    from segkit.transforms.resize import Resize

    sample = {"image": np.zeros((10, 20, 3), np.uint8), "path": "a.png", "geometry": []}
    assert Resize([64, 32])(sample, np.random.default_rng(0))["image"].shape == (32, 64, 3)
    with pytest.raises(InputError, match=r"target_size.*expected \[width, height\]"):
        Resize({"w": 64, "h": 32})


def test_row_36_labelme_is_not_imported() -> None:
    for path in (ROOT / "segkit").rglob("*.py"):
        assert not re.search(r"^\s*(from|import) labelme\b", path.read_text(encoding="utf-8"), re.MULTILINE), path


def test_row_42_names_in_any_script(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    path = tmp_path / "фото 猫" / "ünï côde 写真.png"
    io.write_png(path, image)
    np.testing.assert_array_equal(io.read_image(str(path), 3), image)


def test_bug_21_values_with_an_equals_sign(tmp_path: Path) -> None:
    config = tiny_config(make_data(tmp_path / "data", 2, 1), tmp_path / "c.yml")
    cfg = Config(config, ["train_dataset.class_names=[a=b,c=d]", "train_dataset.transforms.0.prob=0.5"][:1])
    assert cfg.data["train_dataset"]["class_names"] == ["a=b", "c=d"]
