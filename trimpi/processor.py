"""Processors: loading one from a model folder or the hub, and which of its tokens are visual."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, AutoImageProcessor, AutoProcessor, AutoTokenizer
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.processing_utils import ProcessorMixin

from trimpi.errors import UserError
from trimpi.model_folder import locate
from trimpi.recipe import ModelConfig

try:
    from transformers.video_processing_utils import VideoProcessorMixin
except ImportError:  # transformers 5.17: there a video processor is a kind of image processor
    from transformers.image_processing_base import (  # type: ignore[assignment]
        ImageProcessingMixin as VideoProcessorMixin,
    )

VISUAL_TOKENS: dict[str, str] = {
    "qwen2_vl": r"<\|(vision_start|vision_end|vision_pad|image_pad|video_pad)\|>",
    "qwen2_5_vl": r"<\|(vision_start|vision_end|vision_pad|image_pad|video_pad)\|>",
    "qwen3_vl": r"<\|(vision_start|vision_end|vision_pad|image_pad|video_pad)\|>",
    "idefics3": r"<image>|<fake_token_around_image>|<global-img>|<row_\d+_col_\d+>",
    "smolvlm": r"<image>|<video>|<fake_token_around_image>|<global-img>|<row_\d+_col_\d+>",
    "gemma3": r"<start_of_image>|<end_of_image>|<image_soft_token>",
    "internvl": r"<img>|</img>|<IMG_CONTEXT>|<video>",
}
"""By family (`model_type`): the whole names of all placeholder and boundary tokens of pictures."""

_ID_KEYS = r"(image|video|vision|boi|eoi).*token_(id|index)"


def hub_arguments(config: ModelConfig) -> dict[str, Any]:
    """Arguments that all `from_pretrained` calls share; remote code is never run."""
    return {"revision": config.revision or "main", "trust_remote_code": False}


def load_processor(path: str | Path, config: ModelConfig) -> Any:
    """The processor of a model: tokenizer (padding on the left), image processor, chat template.

    Raises:
        UserError: processor or chat template is missing, a package that the processor needs is
            not installed, or the recipe's pixel bounds do not fit this image processor.
    """
    name = locate(path)
    try:
        processor = _load(name, hub_arguments(config))
    except ImportError as error:
        line = " ".join(str(error).split())
        raise UserError(f"{name}: the processor needs a package: {line}") from None
    except UserError:
        raise
    except Exception as error:  # a faulty file shows as any kind of error
        line = " ".join(str(error).split())[:300]
        raise UserError(
            f"{name}: no processor can be loaded ({line}); a model folder needs "
            "processor_config.json (or preprocessor_config.json) and the tokenizer's files"
        ) from None
    if not isinstance(processor, ProcessorMixin) or not hasattr(processor, "image_processor"):
        raise UserError(f"{name}: has a tokenizer but no image processor; take a vision model")
    if processor.chat_template is None:
        processor.chat_template = processor.tokenizer.chat_template
    if processor.chat_template is None:
        raise UserError(f"{name}: no chat template; add chat_template.jinja of the instruct model")
    _try_template(processor, name)
    processor.tokenizer.padding_side = "left"
    if processor.tokenizer.pad_token is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    _bound_pixels(processor, config, name)
    return processor


def _try_template(processor: Any, name: str) -> None:
    message = {"role": "user", "content": [{"type": "text", "text": "a word"}]}
    try:
        rendered = processor.apply_chat_template([message], add_generation_prompt=True)
    except Exception as error:  # Jinja's, or what the template itself raises
        line = " ".join(str(error).split())[:300]
        raise UserError(
            f"{name}: the chat template does not render ({line}); take that of the instruct model"
        ) from None
    if "a word" not in str(rendered):
        raise UserError(
            f"{name}: the chat template leaves out what the user says; take that of the instruct "
            "model"
        )


def visual_token_ids(config: Any, tokenizer: Any) -> frozenset[int]:
    """Ids of all visual tokens: placeholders of patches and the marks around a picture.

    The paper's mask m_t (VM-CPT) leaves them out of the loss, and generation never emits them.

    Args:
        config: the model's configuration; an unknown family is read from its `*_token_id` keys.
        tokenizer: the model's tokenizer.

    Raises:
        UserError: no visual token can be found.
    """
    vocabulary = tokenizer.get_vocab()
    size = len(vocabulary)
    ids = {
        value
        for key, value in config.to_dict().items()
        if re.fullmatch(_ID_KEYS, key) and isinstance(value, int) and 0 <= value < size
    }
    pattern = re.compile(VISUAL_TOKENS.get(config.model_type, r"(?!)"))
    ids |= {index for token, index in vocabulary.items() if pattern.fullmatch(token)}
    if not ids:
        raise UserError(
            f"model type {config.model_type!r}: its visual tokens are unknown; known families: "
            f"{', '.join(VISUAL_TOKENS)}"
        )
    return frozenset(ids)


def _bound_pixels(processor: Any, config: ModelConfig, name: str) -> None:
    bounds = {"shortest_edge": config.min_pixels, "longest_edge": config.max_pixels}
    if not any(bounds.values()):
        return
    kind = type(processor.image_processor)
    if "max_pixels" not in getattr(kind.valid_kwargs, "__annotations__", {}):
        raise UserError(
            f"{name}: its image processor is not sized by area, so model.min_pixels and "
            "model.max_pixels do not apply; drop them from the recipe"
        )
    size = processor.image_processor.size
    processor.image_processor.size = {key: bounds[key] or size[key] for key in bounds}


class KeptVideoProcessor(VideoProcessorMixin):
    """Settings of a video processor, carried from folder to folder but not run.

    Several families demand a video processor, whose classes need torchvision. Policies hold
    pictures only, so without torchvision this stands in and the settings survive a save.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = dict(settings)
        self.num_frames, self.fps = settings.get("num_frames"), settings.get("fps")

    def to_dict(self) -> dict[str, Any]:
        """The settings as they were found."""
        return dict(self.settings)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: videos need the real class."""
        raise UserError("videos are not supported without torchvision; install torchvision")


def _load(name: str, arguments: dict[str, Any]) -> Any:
    settings: dict[str, Any] = {}
    if importlib.util.find_spec("torchvision") is None:
        settings, _ = ProcessorMixin.get_processor_dict(name, **arguments)
        if settings.get("processor_class"):
            kind = getattr(transformers, settings["processor_class"])
        else:
            kind = PROCESSOR_MAPPING[type(AutoConfig.from_pretrained(name, **arguments))]
        if "video_processor" in kind.get_attributes():
            parts = {
                "image_processor": AutoImageProcessor.from_pretrained(name, **arguments),
                "tokenizer": AutoTokenizer.from_pretrained(name, **arguments),
                "video_processor": KeptVideoProcessor(settings.get("video_processor") or {}),
            }
            ordered = [parts[attribute] for attribute in kind.get_attributes()]
            return without_video(kind).from_args_and_dict(ordered, settings)
    return AutoProcessor.from_pretrained(name, **arguments)


def without_video(kind: type[Any]) -> type[Any]:
    """The processor class `kind` (name and behaviour kept) that takes a `KeptVideoProcessor`."""

    def check(self: Any, argument_name: str, argument: Any) -> Any:
        if argument_name == "video_processor":
            return VideoProcessorMixin
        return kind.check_argument_for_proper_class(self, argument_name, argument)

    return type(kind.__name__, (kind,), {"check_argument_for_proper_class": check})
