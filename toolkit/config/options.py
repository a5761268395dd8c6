"""The keys of a config that belong to no builder: the same for every source, model and optimizer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from toolkit.types import Beta, Count, Degrees, Fraction, Hertz, NonNegative, Positive, Probability, Share, Size

MetricName = Literal["val_loss", "val_accuracy", "loss", "accuracy"]


class Options(BaseModel):
    """Frozen, strict, without room for an unknown key."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Augmentation(Options):
    """Random changes to the pictures or sounds of the training split, drawn anew in every epoch."""

    flip: Annotated[
        Literal["horizontal", "vertical", "both"] | None, Field(description="mirror half of the pictures")
    ] = None
    shift: Annotated[Share, Field(description="move by up to ± this share of height and width")] = 0
    zoom: Annotated[Share, Field(description="scale by a factor between 1 - zoom and 1 + zoom")] = 0
    rotation: Annotated[Degrees, Field(description="turn by up to ± this many degrees")] = 0
    crop: Annotated[
        tuple[Size, Size] | None,
        Field(description="[height, width] of a window that is kept, anywhere in the picture; null: all of it"),
    ] = None
    colour: Annotated[
        Share,
        Field(description="scale brightness, contrast and saturation by factors between 1 - colour and 1 + colour"),
    ] = 0
    erasing: Annotated[
        Probability, Field(description="probability that a rectangle of 2 to 20 % of the area is filled with mid-grey")
    ] = 0
    speed: Annotated[
        Share, Field(description="play faster by a factor between 1 - speed and 1 + speed; the pitch moves, too")
    ] = 0
    noise: Annotated[Share, Field(description="add white noise with an RMS of up to this share of the sound's")] = 0


class DataOptions(Options):
    """Keys of `data` that every source takes."""

    batch_size: Annotated[Size, Field(description="examples in a training batch")] = 32
    evaluation_batch_size: Annotated[Size, Field(description="examples in a batch of validation and evaluation")] = 64
    image_size: Annotated[
        tuple[Size, Size] | None, Field(description="[height, width] that pictures are resized to; null: as they are")
    ] = None
    sample_rate: Annotated[
        Hertz | None, Field(description="in Hz, that sounds are resampled to; null: as they are")
    ] = None
    vocabulary_size: Annotated[
        Size | None, Field(description="words that are kept, most frequent first; null: the data's own choice")
    ] = None
    max_tokens: Annotated[
        Size | None, Field(description="longer texts are cut to this many tokens; null: the data's own choice")
    ] = None
    buckets: Annotated[
        Size | None, Field(description="number of lengths that sounds and texts are padded to; null: 4")
    ] = None
    transcript_units: Annotated[
        Literal["characters", "words"] | None, Field(description="what transcripts are written in; null: characters")
    ] = None
    augmentation: Annotated[
        Augmentation | None,
        Field(description="random changes to the pictures or sounds of the training split; null: none"),
    ] = None
    max_bad_fraction: Annotated[
        Share, Field(description="share of a split's examples that may be unreadable before the run stops")
    ] = 0.01
    cache: Annotated[
        Literal["auto", "memory", "disk"],
        Field(description="where decoded examples are kept; auto: memory where they fit"),
    ] = "auto"


class OptimizerOptions(Options):
    """Keys of `optimizer` that every optimizer takes."""

    weight_decay: Annotated[
        Positive | None, Field(description="decoupled weight decay: each step takes rate × this share off the weights")
    ] = None
    clipnorm: Annotated[Positive | None, Field(description="largest norm of each weight's gradient")] = None
    clipvalue: Annotated[Positive | None, Field(description="largest absolute value in a gradient")] = None
    global_clipnorm: Annotated[Positive | None, Field(description="largest norm of all gradients together")] = None
    use_ema: Annotated[bool, Field(description="keep a moving average of the weights, and use it in the end")] = False
    ema_momentum: Annotated[Beta, Field(description="decay of that average; needs use_ema: true")] = 0.99
    gradient_accumulation_steps: Annotated[
        Size | None, Field(description="micro-batches whose gradients are averaged into one step; adam only")
    ] = None


class EarlyStopping(Options):
    """Stop when a metric no longer improves."""

    monitor: Annotated[MetricName, Field(description="the metric that is watched")] = "val_loss"
    patience: Annotated[Size, Field(description="epochs without improvement after which training stops")] = 5
    min_delta: Annotated[NonNegative, Field(description="a smaller change is no improvement")] = 0


class Plateau(Options):
    """Lower the learning rate when a metric no longer improves."""

    monitor: Annotated[MetricName, Field(description="the metric that is watched")] = "val_loss"
    patience: Annotated[Size, Field(description="epochs without improvement after which the rate is lowered")] = 3
    factor: Annotated[Fraction, Field(description="what the rate is multiplied by")] = 0.1
    min_delta: Annotated[NonNegative, Field(description="a smaller change is no improvement")] = 0
    min_rate: Annotated[NonNegative, Field(description="the rate is not lowered below this")] = 0


class Checkpoint(Options):
    """When the training is saved so that `--resume` can go on; also at the end of an epoch and on SIGTERM or Ctrl-C."""

    every_steps: Annotated[Size | None, Field(description="batches from checkpoint to checkpoint; null: any")] = None
    every_minutes: Annotated[Positive | None, Field(description="minutes from checkpoint to checkpoint; null: any")] = (
        10
    )
    keep: Annotated[Size, Field(description="checkpoints that are kept, the newest")] = 2


class TrainingOptions(Options):
    """The section `training`."""

    epochs: Annotated[Size, Field(description="passes over the training split")] = 10
    backend: Annotated[Literal["tensorflow", "jax", "torch"], Field(description="what Keras computes with")] = (
        "tensorflow"
    )
    precision: Annotated[
        Literal["float32", "mixed_bfloat16", "auto"],
        Field(
            description="mixed_bfloat16 computes in bfloat16 and keeps weights in float32; auto: where that is faster"
        ),
    ] = "float32"
    jit: Annotated[
        bool | Literal["auto"],
        Field(
            description="compile the train step (XLA; torch.compile under torch); JAX always does; auto: where faster"
        ),
    ] = False
    threads: Annotated[
        Annotated[int, Field(ge=1, le=1024)] | None,
        Field(description="CPU threads of one operation; null: the backend's own choice; not with jax"),
    ] = None
    deterministic: Annotated[
        bool, Field(description="the same bits in every run on a GPU, slower; on the CPU that is so anyway")
    ] = False
    best_metric: Annotated[
        MetricName, Field(description="the weights of the epoch that is best in this metric are kept")
    ] = "val_loss"
    early_stopping: Annotated[
        EarlyStopping | None, Field(description="stop when a metric no longer improves; null: never")
    ] = None
    plateau: Annotated[
        Plateau | None, Field(description="lower the rate when a metric no longer improves; null: never")
    ] = None
    checkpoint: Annotated[Checkpoint, Field(description="when the training is saved")] = Checkpoint()
    on_non_finite: Annotated[
        Literal["stop", "skip"],
        Field(description="what is done about a step whose loss or gradient is NaN or infinite; it changes no weight"),
    ] = "stop"
    max_skipped: Annotated[Count, Field(description="steps that may be skipped in a run; one more stops it")] = 10
    class_weights: Annotated[
        Literal["balanced"] | None, Field(description="balanced: rare classes count more in the loss")
    ] = None
    label_smoothing: Annotated[Share, Field(description="share of a label's weight spread over all classes")] = 0
    init_from: Annotated[
        str | None,
        Field(description="run directory whose weights training starts from, where it has the layer in the same shape"),
    ] = None
    freeze: Annotated[tuple[str, ...], Field(description="names of layers whose weights stay as they are")] = ()
    log_every: Annotated[Size, Field(description="batches between two rows of metrics.jsonl")] = 50
    watch: Annotated[
        Literal["gradients"] | None,
        Field(description="gradients: measure every layer's gradient in single steps, into gradients.jsonl; null: no"),
    ] = None
    watch_every: Annotated[Size, Field(description="batches from one watched step to the next, the first is one")] = 100
