"""The stage ``train``, for denoisers, discriminators and classifiers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

import torch

from genkit.artifacts import Coupling, NetworkFile
from genkit.blame import require_type
from genkit.designs import designs, references
from genkit.errors import DataError, Problem, UsageError
from genkit.interfaces import (
    AnyCoupler,
    Augmentation,
    Average,
    Callback,
    Context,
    Dataset,
    Design,
    Network,
    Objective,
    Optimizer,
    Stage,
    Stages,
    Trained,
    TrainingState,
)
from genkit.networks import NetworkInputs, build_module
from genkit.parts.precision import Precision, multiplying_in
from genkit.random import seeded
from genkit.settings import setting
from genkit.train.ahead import reserve_core
from genkit.train.pairing import PairStream
from genkit.train.trainer import Compute, Trainer
from genkit.types import Batch, DataSpec
from genkit_stages.callbacks import Callbacks
from genkit_stages.coupling import coupling_of
from genkit_stages.guided import guided_denoisers, guided_digest
from genkit_stages.loss_by_sigma import bound_by_sigma
from genkit_stages.pictures import draw_training
from genkit_stages.size_checks import MOST_BATCH, pool_problems
from genkit_stages.train_checks import (
    callback_problems,
    class_problems,
    problems_of,
    skewed_conditions,
    skewed_noise,
)
from genkit_stages.training import Loop, restore


@dataclass(frozen=True, kw_only=True)
class Train(Stage):
    """Train a network on pairs of images and noise, and save its averaged weights."""

    source = "EDM, arXiv 2206.00364, appendix F; pools after arXiv 2403.05069"
    shared = True
    renamed = MappingProxyType(
        {
            "lr": 'optimizer = { use = "adam", learning_rate = ... }',
            "learning_rate": 'optimizer = { use = "adam", learning_rate = ... }',
            "learning_rate_ramp": 'optimizer = { use = "adam", learning_rate_ramp = ... }',
            "learning_rate_decay": 'optimizer = { use = "adam", learning_rate_decay = ... }',
            "adam_beta2": 'optimizer = { use = "adam", beta2 = ... }',
            "adam_betas": 'optimizer = { use = "adam", beta2 = ... }',
            "weight_decay": 'optimizer = { use = "adamw", weight_decay = ... }',
            "gradient_clip": 'optimizer = { use = "adam", gradient_clip = ... }',
            "ema_half_life": 'average = { use = "ema", half_life = ... }',
            "ema_ramp_up": 'average = { use = "ema", ramp_up = ... }',
            "ema_rampup": 'average = { use = "ema", ramp_up = ... }',
            "ema_lengths": 'average = { use = "power-ema", lengths = [...] }',
            "ema_snapshot_images": 'average = { use = "power-ema", snapshot_images = ... }',
            "accept_label_blind": "accept_conditional_skew = true",
        }
    )

    data: Dataset = setting(doc="training data", inherit="data")
    network: Network = setting(doc="network to train")
    objective: Objective = setting(doc="training loss")
    coupler: AnyCoupler = setting(
        doc="assignment of noise samples to images", use={"use": "random"}
    )
    augmentation: Augmentation | None = setting(None, doc="random transformation of the images")
    images: int = setting(
        doc="number of training images, including repetitions", at_least=1, at_most=10**12
    )
    batch_size: int = setting(
        256, doc="batch size of an optimizer step", at_least=1, at_most=MOST_BATCH
    )
    micro_batch: int | None = setting(
        None,
        doc="number of images per forward and backward pass, to save memory; default: the batch",
        at_least=1,
    )
    pool_size: int | None = setting(
        None,
        doc="number of images coupled together; by default the batch size",
        at_least=1,
        at_most=10**7,
    )
    images_per_class: int | None = setting(
        None,
        doc="number of consecutive images of a class in a pool, for coupling within many classes",
        at_least=1,
    )
    pools_ahead: int = setting(
        2,
        doc="number of pools coupled ahead of training",
        at_least=1,
        at_most=1000,
        affects_result=False,
    )
    optimizer: Optimizer = setting(doc="optimizer and learning rate", use={"use": "adam"})
    average: Average = setting(doc="average of the weights for later stages", use={"use": "ema"})
    precision: Precision = setting(
        "float32",
        doc="precision of the network's arithmetic; tf32 is float32 with convolutions in TF32 on "
        "NVIDIA GPUs, and the same as float32 elsewhere",
    )
    compile: bool = setting(False, doc="compile the network with torch.compile")
    channels_last: bool = setting(False, doc="store images as NHWC, for faster convolutions")
    checkpoint_seconds: float = setting(
        60.0, doc="time between checkpoints, in seconds", at_least=0, affects_result=False
    )
    callbacks: tuple[Callback, ...] = setting(
        (), doc="observers of the training run, such as previews and scores", affects_result=False
    )
    accept_conditional_skew: bool = setting(
        False, doc="allow a coupler whose noise is not N(0, I) given the class or other condition"
    )
    accept_skewed_noise: bool = setting(
        False, doc="allow a coupler whose noise is not N(0, I); sampling starts from N(0, I)"
    )

    @property
    def output(self) -> type[NetworkFile]:
        return self.network.output

    @property
    def pool(self) -> int:
        """Number of images coupled together."""
        return self.batch_size if self.pool_size is None else self.pool_size

    def spec(self) -> DataSpec:
        """Return the specification of the augmented data.

        Raises:
            DataError: the data is missing or corrupt.
        """
        spec = require_type(self.data, "spec", self.data.spec(), DataSpec)
        augmentation = self.augmentation
        return replace(spec, augment_labels=augmentation.augment_labels if augmentation else 0)

    def design(self, earlier: Stages) -> Design:
        denoisers = guided_denoisers(self.data, self.network, self.objective, earlier)
        gradient_only = self.objective.gradient_only
        return Design(self.network, self.spec(), denoisers=denoisers, gradient_only=gradient_only)

    def check(self, earlier: Stages) -> Iterator[Problem]:
        try:
            spec = self.spec()
        except DataError:
            spec = None  # reported by the check of the data
        yield from self._sizes(spec)
        contained = designs(references(self.network), earlier)
        yield from problems_of(
            self.network,
            self.objective,
            self.coupler,
            self.augmentation,
            spec,
            contained,
            self.average,
            earlier,
        )
        if not self.accept_skewed_noise:
            yield from skewed_noise(self.coupler)
        if not self.accept_conditional_skew and spec is not None:
            yield from skewed_conditions(self.network, self.objective, self.coupler, spec)
        if spec is not None and (spec.classes or not self.network.class_conditional):
            design, networks = Design(self.network, spec), designs(earlier, earlier)
            yield from callback_problems(self.callbacks, design, networks)

    def _sizes(self, spec: DataSpec | None) -> Iterator[Problem]:
        """Yield a problem for each inconsistency between settings that are numbers of images."""
        if self.micro_batch and self.micro_batch > self.batch_size:
            yield Problem(
                ("micro_batch",),
                f"must be at most batch_size = {self.batch_size}, got {self.micro_batch}",
                f"write at most {self.batch_size}",
            )
        if spec is not None:
            key = "batch_size" if self.pool_size is None else "pool_size"
            yield from pool_problems(spec, self.images, (key, self.pool), self.pools_ahead)
        if self.images_per_class is not None:
            yield from class_problems(self.images_per_class, self.coupler, self.pool, spec)

    def work(self, earlier: Stages) -> float:
        return 3.0 * self.images

    def run(self, context: Context) -> None:
        if self.batch_size < context.world.size:
            raise UsageError(
                f"batch_size must be at least the number of processes, {context.world.size}, got "
                f"{self.batch_size}; write a larger batch_size, or start fewer processes"
            )
        # First, since it takes memory, and so that an error does not come after the training.
        digest = (
            guided_digest(self.data, self.network, self.objective, context)
            if context.world.is_main
            else None
        )
        spec, stream = self.spec(), self.stream(context, self.images)
        coupling = coupling_of(self.network, context, stream, self.pools_ahead)
        trainer = self.trainer(context, spec)
        pending = restore(trainer, context.record)
        if trainer.images == 0 and context.world.is_main:
            self._log_bound(context, stream)
        context.advance(trainer.images, self.images, "images", step=trainer.steps)
        with reserve_core(), multiplying_in(self.precision):
            Loop(
                context=context,
                trainer=trainer,
                objective=self.objective,
                stream=stream,
                batch_size=self.batch_size,
                pools_ahead=self.pools_ahead,
                checkpoint_seconds=self.checkpoint_seconds,
                callbacks=Callbacks(
                    context=context,
                    callbacks=self.callbacks,
                    total=self.images,
                    state=lambda: self._state(context.record.stage, spec, trainer, coupling),
                    settle=stream.settle,
                ),
                pending=pending,
                file=lambda: self._file(context, spec, trainer, coupling),
                draw=partial(draw_training, context.record, math.prod(spec.shape)),
            ).run()
        contained = {name: context.read(name, NetworkFile) for name in references(self.network)}
        file = self._file(context, spec, trainer, coupling)
        context.record.save(replace(file, contained=contained, denoiser_digest=digest))
        context.world.barrier()

    def _log_bound(self, context: Context, stream: PairStream) -> None:
        """Log the lowest possible loss at each noise level, if it is known."""
        generator = context.generator("loss bound")
        bound = bound_by_sigma(self.network, self.objective, stream, generator)
        if bound:
            context.record.log({"images": 0, "loss_bound_by_sigma": bound})

    def _state(
        self, stage: str, spec: DataSpec, trainer: Trainer, coupling: Coupling
    ) -> TrainingState:
        """Return the state of training, with the networks themselves rather than copies."""
        network, averaged = (
            Trained(self.network, spec, module, coupling, stage=stage)
            for module in (trainer.model, trainer.average.model)
        )
        return TrainingState(trainer.images, self.images, network, averaged)

    def _file(
        self, context: Context, spec: DataSpec, trainer: Trainer, coupling: Coupling
    ) -> NetworkFile:
        """Return the file of the averaged network, without the networks that it contains."""
        return self.output(
            table=context.describe(self.network),
            spec=spec,
            weights=trainer.average.model.state_dict(),
            images=trainer.images,
            coupling=coupling,
            gradient_only=self.objective.gradient_only,
        )

    def stream(self, context: Context, total: int) -> PairStream:
        """Return a stream of the first ``total`` training pairs.

        Raises:
            DataError: the data is missing or corrupt.
        """
        return PairStream(
            require_type(self.data, "load", self.data.load(context), Batch),
            self.coupler,
            self.coupler.bind(context),
            self.augmentation,
            self.pool,
            total,
            context.generator,
            self.images_per_class,
            # Bounds of the gap are computed in float64, which mps does not support.
            context.device if context.device.type == "cuda" else torch.device("cpu"),
        )

    def trainer(self, context: Context, spec: DataSpec) -> Trainer:
        """Return the trainer of a newly initialized network.

        Args:
            context: context of the stage.
            spec: specification of the data, see :meth:`spec`.
        """
        compute = Compute(
            precision=self.precision,
            channels_last=self.channels_last,
            compiled=self.compile,
            micro_batch=self.micro_batch,
        )
        contained = {name: context.network(name) for name in references(self.network)}
        with seeded(context.seed("weights")):
            model = build_module(self.network, NetworkInputs(context.device, given=contained), spec)
        return Trainer(
            context, model, self.objective, self.optimizer, self.average, spec.shape, compute
        )
