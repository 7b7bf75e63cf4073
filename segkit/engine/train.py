"""Training: `train` is the loop, `prepare` builds what it needs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from segkit import build, io, optim
from segkit.config import Config
from segkit.data.check import quick_check
from segkit.data.scan import Scan
from segkit.dist import is_main, rank, world_size
from segkit.engine import accelerate, checkpoint, evidence, settings
from segkit.engine.checkpoint import Checkpointer, Progress, TrainState
from segkit.engine.class_weights import with_class_weights
from segkit.engine.dashboard import Dashboard, wanted
from segkit.engine.device import init_distributed, seed_everything, set_up_device
from segkit.engine.distill import Teacher
from segkit.engine.ema import WeightAverage
from segkit.engine.freeze import freeze
from segkit.engine.loader import TrainLoader, train_loader
from segkit.engine.loss import total_loss
from segkit.engine.loss_scaler import LossScaler
from segkit.engine.memory import tune_by_step
from segkit.engine.onednn import convolutions
from segkit.engine.run_lock import only_run_in
from segkit.engine.start import load_pretrained, note_device, say_start
from segkit.engine.stop import Stopped, StopRequest
from segkit.engine.sync_batch_norm import synchronise
from segkit.engine.trainlog import TrainLog
from segkit.engine.validate import Validator
from segkit.errors import InputError, enough_memory
from segkit.log import logger
from segkit.options import TrainOptions


@dataclass
class Run:
    """Everything that the loop uses."""

    cfg: Config
    options: TrainOptions
    dataset: Any
    state: TrainState
    step: Step
    checkpointer: Checkpointer
    validator: Validator | None
    dashboard: Dashboard
    progress: Progress
    resumed: Path | None
    seen: list[Scan]


def train(cfg: Config, options: TrainOptions | None = None) -> paddle.nn.Layer:
    """Train as `cfg` and `options` say, and return the model (with averaged weights under `use_ema`).

    SIGTERM and Ctrl-C save a checkpoint, print the line that resumes and raise `Stopped`.
    """
    with ExitStack() as stack:
        # The optimizer's state is kept under parameter names: a name space of its own makes them the same in every run.
        stack.enter_context(paddle.utils.unique_name.guard())
        run = prepare(cfg, options or TrainOptions(), stack)
        stop = stack.enter_context(StopRequest())
        log = open_log(run, stack)
        compiled = run.cfg.to_static_training
        stack.enter_context(convolutions(not run.options.no_onednn, run.options.precision, compiled))
        if unevaluated(run):  # it was stopped between a checkpoint and the end of its evaluation
            evaluate(run, log, run.resumed)
        batches = open_batches(run, stack)
        for iteration in range(run.progress.iteration + 1, run.cfg.iters + 1):
            if enough(run):
                break
            losses = run.step(next_batches(run, batches, log), iteration, log)
            run.progress.iteration = iteration
            run.progress.position = list(batches.position)
            due = iteration % run.options.log_iters == 0 or iteration == run.cfg.iters
            if due:
                run.dashboard.train(iteration, log.report(iteration, run.step.check(losses, iteration), run.step.lr))
            run.step.schedule()
            if run.checkpointer.due(iteration):
                save_and_evaluate(run, log)
            number = stop.agreed(due)
            if number:
                leave(run, number)
    return finish(run)


def prepare(cfg: Config, options: TrainOptions, stack: ExitStack) -> Run:
    """Check everything that can be checked, build, and put a checkpoint back if one is to be resumed. `save_dir` is
    kept for this run until `stack` is closed."""
    cfg = settings.with_flags(cfg, options)
    options = settings.settle(options, cfg)
    shown = wanted(options) if is_main() else []
    device = set_up_device(options.device, options.precision, options.deterministic)
    init_distributed()
    accelerate.channels_last(options.data_format, options.precision, device)
    accelerate.check_cinn(options.cinn, cfg.to_static_training, device)
    save_dir = Path(options.save_dir)
    io.prepare_folder(save_dir)
    stack.enter_context(only_run_in(save_dir))
    checkpoint.tidy(save_dir)
    resume = checkpoint.find(options.resume_model, save_dir) if options.resume_model else None
    info = build.data_info(cfg)
    settings.check_best_metric(options.best_metric, info.class_names)
    dataset = build.build_dataset(cfg, "train", use_multilabel=options.use_multilabel)
    validator = Validator(cfg, options) if options.do_eval else None
    seen = quick_check(train=dataset, val=validator and validator.dataset)
    cfg = with_class_weights(cfg, dataset, options.seed, resume)
    seed_everything(options.seed)
    model = build.build_model(cfg)
    if resume is None:
        load_pretrained(cfg, model, options.offline)
    build.at_place(cfg, "freeze", lambda: freeze(model, cfg.freeze))
    model = synchronise(model, device)
    node = cfg.data["lr_scheduler"]
    updates = accelerate.fused(cfg.data["optimizer"], device)
    scheduler = build.at_place(cfg, "lr_scheduler", lambda: optim.build_scheduler(node, cfg.iters))
    optimizer = build.at_place(cfg, "optimizer", lambda: optim.build_optimizer(updates, scheduler, model))
    state = TrainState(model, optimizer, WeightAverage(model) if options.use_ema else None)
    progress = Progress(seed=options.seed, optimizer=type(optimizer).__name__)
    if resume is not None:
        progress = checkpoint.restore(resume, state)
        options = dataclasses.replace(options, seed=progress.seed)
        for _ in range(progress.iteration):
            scheduler.step()
        logger.info("resumed from %s at iteration %d of %d", resume, progress.iteration, cfg.iters)
    elif options.resume_model:
        logger.info("--resume_model auto: %s holds no checkpoint yet, training starts from the beginning", save_dir)
    note_device(progress, options)
    step = Step(cfg, options, state, device, getattr(dataset, "files", ()))
    step.restore(progress)
    if resume is None:
        checkpoint.move_aside(save_dir)
    else:
        checkpoint.go_on_from(resume, progress.iteration, save_dir)
    if is_main():
        cfg.save(save_dir / "config.yml")
    checkpointer = Checkpointer(save_dir, cfg, options.save_interval, options.keep_checkpoint_max)
    dashboard = Dashboard(save_dir, shown, progress.iteration, progress.evaluated)
    return Run(cfg, options, dataset, state, step, checkpointer, validator, dashboard, progress, resume, seen)


class Step:
    """One optimizer step: `accumulate_steps` batches forward and backward, then the update."""

    def __init__(self, cfg: Config, options: TrainOptions, state: TrainState, device: str, pairs: Sequence[Any] = ()):
        self.options = options
        self.state = state
        self._pairs = pairs
        self.losses = build.build_losses(cfg)
        self.teacher = Teacher(cfg, options) if options.teacher_config else None
        self.forward: Any = state.model
        self.on_gpu = device.startswith("gpu")
        # On the CPU auto_cast does nothing; bf16 is then that of oneDNN's convolutions.
        self.amp = self.on_gpu and options.precision != "fp32"
        if self.amp and options.amp_level == "O2":
            self.forward, state.optimizer = paddle.amp.decorate(
                models=state.model, optimizers=state.optimizer, level="O2", dtype=self.dtype
            )
        if cfg.to_static_training:
            self.forward = accelerate.compiled(self.forward, options.cinn)
        if world_size() > 1:
            self.forward = paddle.DataParallel(self.forward)
        self.scaler = LossScaler(init_loss_scaling=2.0**15) if options.precision == "fp16" else None
        self.search = accelerate.Search(device, options.deterministic)
        self._bad: Any = None
        self._paths: list[str] = []
        self._batches: list[dict[str, Any]] = []

    @property
    def dtype(self) -> str:
        return {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}[self.options.precision]

    @property
    def lr(self) -> float:
        """The learning rate of the iteration in work."""
        return float(self.state.optimizer.get_lr())

    def restore(self, progress: Progress) -> None:
        """Put back the loss scale of a resumed run."""
        if self.scaler is not None and progress.scaler:
            self.scaler.load_state_dict(progress.scaler)

    def __call__(self, batches: list[dict[str, Any]], iteration: int, log: TrainLog) -> dict[str, paddle.Tensor]:
        """Train on these batches; the losses stay on the device."""
        # Dropout and the like depend on (seed, iteration, rank) alone, so that a resumed run draws the same.
        seed_everything(int(np.random.SeedSequence([self.options.seed, iteration, rank()]).generate_state(1)[0]))
        sums: dict[str, paddle.Tensor] = {}
        count = len(batches)
        self._batches = batches
        for number, batch in enumerate(batches):
            self._paths += batch["path"]
            last = number == count - 1
            waiting = nullcontext() if last or world_size() == 1 else self.forward.no_sync()
            with waiting, self.search.over(batch["image"]), enough_memory(lambda batch=batch: _too_big(batch)):
                parts = self._backward(batch, count)
            for name, value in parts.items():
                sums[name] = sums[name] + value / count if name in sums else value / count
        self._update()
        finite = paddle.isfinite(sums["loss"])
        self._bad = ~finite if self._bad is None else self._bad | ~finite
        if not self.on_gpu:
            self.check(sums, iteration)
            tune_by_step()
        log.step()
        return sums

    def _backward(self, batch: dict[str, Any], count: int) -> dict[str, paddle.Tensor]:
        level, dtype = self.options.amp_level, self.dtype
        with paddle.amp.auto_cast(level=level, dtype=dtype) if self.amp else nullcontext():
            outputs = self.forward(batch["image"])
        total, parts = total_loss(outputs, self.losses, batch, self.state.model)
        if self.teacher is not None:
            total, parts = self.teacher.add(total, parts, outputs, batch)
        loss = total / count if count > 1 else total
        if self.scaler is not None:
            loss = self.scaler.scale(loss)
        loss.backward()
        return {"loss": total.detach(), **(parts if len(parts) > 1 else {})}

    def _update(self) -> None:
        if self.scaler is not None:
            self.scaler.step(self.state.optimizer)
            self.scaler.update()
        else:
            self.state.optimizer.step()
        self.state.optimizer.clear_grad(set_to_zero=False)
        if self.state.ema is not None:
            self.state.ema.update(self.state.model)

    def check(self, losses: dict[str, paddle.Tensor], iteration: int) -> dict[str, float]:
        """The losses as numbers. A loss that was not finite since the last check ends the run: the message names
        the iteration, the files and the learning rate."""
        paths, self._paths = self._paths, []
        if bool(self._bad):
            files = ", ".join(dict.fromkeys(paths[-evidence.MOST :]))
            folder = Path(self.options.save_dir) / f"not_finite_{iteration}{f'_rank_{rank()}' if rank() else ''}"
            kept = evidence.keep(folder, self._batches, paths, self._pairs)
            raise InputError(
                f"the loss is not finite at iteration {iteration} (learning rate {self.lr:g}, files since the last "
                f"check: {files}). Lower the learning rate, add warmup_iters or grad_clip, or look at these files"
                + (f": copies of them, and what the network was fed, are in {folder}." if kept else ".")
            )
        return {name: float(value) for name, value in losses.items()}

    def schedule(self) -> None:
        """Go on to the next iteration's learning rate."""
        self.state.optimizer._learning_rate.step()


def _too_big(batch: dict[str, Any]) -> str:
    count, *shape = batch["image"].shape
    return (
        f"--batch_size: the memory does not suffice for a training step (got {count} images of "
        f"{'x'.join(map(str, shape))}). Lower --batch_size (with --accumulate_steps the optimizer sees as many as "
        "before), crop to a smaller size, or on a GPU add --precision bf16."
    )


def open_log(run: Run, stack: ExitStack) -> TrainLog:
    """The log, closed with `stack`; says what is about to be trained."""
    per_epoch = max(len(run.dataset) * run.options.repeats / (run.cfg.batch_size * world_size()), 1e-9)
    log = TrainLog(
        Path(run.options.save_dir), run.cfg.iters, (run.progress.iteration, run.progress.evaluated),
        per_epoch / run.options.accumulate_steps, run.cfg.batch_size * run.options.accumulate_steps,
    )  # fmt: skip
    stack.callback(log.close)
    stack.callback(run.dashboard.close)
    say_start(run.cfg, run.options, (run.dataset, run.validator and run.validator.dataset), run.seen, run.state.model)
    log.best(run.options.best_metric, run.progress.best_score)
    if run.resumed is None:
        run.dashboard.settings({"batch_size": run.cfg.batch_size, "iters": run.cfg.iters, "seed": run.options.seed,
                                "model": run.cfg.data["model"]["type"], "lr": run.step.lr})  # fmt: skip
    return log


def open_batches(run: Run, stack: ExitStack) -> TrainLoader:
    """The batches from where `progress` stands, closed with `stack`."""
    batches = train_loader(
        run.dataset,
        batch_size=run.cfg.batch_size,
        num_workers=run.options.num_workers,
        seed=run.options.seed,
        repeats=run.options.repeats,
        start=run.progress.start(run.cfg.batch_size * world_size()),
    )
    stack.callback(batches.close)
    run.state.model.train()
    return batches


def next_batches(run: Run, batches: TrainLoader, log: TrainLog) -> list[dict[str, Any]]:
    """The batches of one iteration. A sample that cannot be read ends the run, what was trained so far is saved."""
    begin = time.perf_counter()
    try:
        found = [next(batches) for _ in range(run.options.accumulate_steps)]
    except InputError:
        if run.progress.iteration and not checkpoint.is_whole(run.checkpointer.folder(run.progress.iteration)):
            logger.info("saved what was trained: go on with --resume_model %s", save(run))
        raise
    log.read(time.perf_counter() - begin)
    return found


def save_and_evaluate(run: Run, log: TrainLog) -> None:
    """Write the checkpoint, then evaluate and keep the best where asked."""
    begin = time.perf_counter()
    folder = save(run)  # before the evaluation, which may fail or be cut short
    if run.validator is not None:
        evaluate(run, log, folder)
    log.pause(time.perf_counter() - begin)


def enough(run: Run) -> bool:
    """Whether early stopping says so; a resumed run may have been there already."""
    patience = run.options.early_stop_intervals
    if run.validator is None or patience is None or run.progress.evaluations_without_gain < patience:
        return False
    logger.info("early stop: %d evaluations without a better %s", patience, run.options.best_metric)
    return True


def unevaluated(run: Run) -> bool:
    """Whether a resumed run's checkpoint still waits for its evaluation. A run with nothing left to do is an
    `InputError`."""
    here, iters = run.progress.iteration, run.cfg.iters
    waits = run.resumed is not None and run.validator is not None and run.progress.evaluated < here
    waits = waits and run.checkpointer.due(here)
    if here >= iters and not waits:
        raise InputError(
            f"{run.resumed}: this run is finished: it stands at iteration {here} of {iters}. Raise --iters to train on."
        )
    return waits


def evaluate(run: Run, log: TrainLog, folder: Path) -> None:
    """Evaluate, keep the best model, and write the outcome into the checkpoint `folder` if it is this run's own."""
    progress, model = run.progress, run.state.model
    with run.state.ema.applied_to(model) if run.state.ema is not None else nullcontext():
        metrics = run.validator(model)
        model.train()
        score = settings.metric_value(metrics, run.options.best_metric)
        if progress.best_score is None or score > progress.best_score:
            progress.best_score, progress.best_iteration = score, progress.iteration
            progress.evaluations_without_gain = 0
            run.checkpointer.save_best(model.state_dict(), progress)
        else:
            progress.evaluations_without_gain += 1
        run.validator.panels(run.dashboard, model, progress.iteration)
        model.train()
    log.write("eval", progress.iteration, run.validator.row(metrics))
    run.dashboard.evaluate(progress.iteration, metrics)
    run.dashboard.flush()
    logger.info(
        "[EVAL] The best model so far (%s %.4f) is that of iteration %d.",
        run.options.best_metric, progress.best_score, progress.best_iteration,
    )  # fmt: skip
    log.best(run.options.best_metric, progress.best_score)
    progress.evaluated = progress.iteration
    if folder.resolve().parent == run.checkpointer.save_dir.resolve():
        checkpoint.update(folder, progress)  # last, so that what is cut short here is done again


def save(run: Run) -> Path:
    """Write the checkpoint of this iteration, after everything that was said until it."""
    run.dashboard.flush()
    if run.step.scaler is not None:
        run.progress.scaler = {key: np.asarray(value).tolist() for key, value in run.step.scaler.state_dict().items()}
    return run.checkpointer.save(run.state, run.progress)


def leave(run: Run, number: int) -> None:
    """Save, say how to go on, and end with the signal's exit code."""
    folder = run.checkpointer.folder(run.progress.iteration)
    if not checkpoint.is_whole(folder):
        save(run)
    logger.info(
        "stopped at iteration %d. To go on, run the same command with --resume_model %s", run.progress.iteration, folder
    )
    raise Stopped(number)


def finish(run: Run) -> paddle.nn.Layer:
    """The trained model in evaluation mode, after a word on where everything is."""
    if run.state.ema is not None:
        run.state.model.set_state_dict(run.state.ema.weights())
    run.dashboard.graph(run.state.model, [1, run.dataset.img_channels, 256, 256])
    run.state.model.eval()
    folder = "best_model" if run.validator is not None else f"iter_{run.progress.iteration}"
    logger.info("done: the weights are in %s", run.checkpointer.save_dir / folder)
    return run.state.model
