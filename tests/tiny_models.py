"""Tiny random instances of the supported families, saved as model folders without any download.

Each builder trains a byte-level BPE tokenizer on a few sentences, writes image processor and chat
template in the form of its family, and saves random weights: about 0.2 M parameters.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from trimpi.processor import KeptVideoProcessor, without_video

CORPUS = [
    "Condition 1: is there a red object? Yes. Go to Condition 1.1.",
    "Condition 1.2: is there a large metal cylinder? No. The response is Case 3.",
    "Which response applies to the image under the policy Lumen Charter?",
    "Think inside <think> </think>, then give the answer in \\boxed{}.",
    "Give only the answer in \\boxed{Case 2}. gray blue green brown purple cyan yellow small",
] * 4

QWEN_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}"
    "{{ message['content'] }}<|im_end|>\n{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN_TOKENS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip


def byte_level_tokenizer(special: list[str], size: int = 420, **arguments: Any) -> Any:
    """A byte-level BPE tokenizer trained on `CORPUS`; every string can be encoded."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        additional_special_tokens=special,
        padding_side="left",
        **arguments,
    )


def processor_of(kind: type[Any], settings: dict[str, Any], **parts: Any) -> Any:
    """A processor of class `kind`; `settings` are those of its video processor."""
    if importlib.util.find_spec("torchvision"):
        video = getattr(tf, settings["video_processor_type"])(
            **{k: v for k, v in settings.items() if k != "video_processor_type"}
        )
        return kind(video_processor=video, **parts)
    return without_video(kind)(video_processor=KeptVideoProcessor(settings), **parts)


def save(model: Any, processor: Any, folder: Path) -> Path:
    """Save weights and processor; the initial scale is raised so that logits differ clearly."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def qwen_vision(**more: Any) -> dict[str, Any]:
    """What the vision towers of both Qwen families share: 8-pixel patches merged 2x2."""
    return {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 8,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 64, **more,
    }  # fmt: skip


def qwen_text(tokenizer: Any, **more: Any) -> dict[str, Any]:
    """A two-layer language model of width 64 with multimodal rotary embedding."""
    return {
        "vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 4096, "initializer_range": 0.2,
        "bos_token_id": None, "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"),
        "pad_token_id": tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3],
        },
        **more,
    }  # fmt: skip


def qwen_processor(kind: type[Any], video: str) -> Any:
    """Processor of the Qwen families: a picture of 96x64 becomes 24 visual tokens."""
    tokenizer = byte_level_tokenizer(QWEN_TOKENS, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    sizes = {"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2}
    area = {"shortest_edge": 16 * 16, "longest_edge": 512 * 512}
    return processor_of(
        kind,
        {"video_processor_type": video, **sizes},
        image_processor=tf.Qwen2VLImageProcessorPil(size=area, **sizes),
        tokenizer=tokenizer,
        chat_template=QWEN_TEMPLATE,
    )


def qwen_ids(tokenizer: Any) -> dict[str, int]:
    """The visual token ids that a Qwen configuration names."""
    return {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in (
            ("image", "image_pad"),
            ("video", "video_pad"),
            ("vision_start", "vision_start"),
            ("vision_end", "vision_end"),
        )
    }


def qwen2_5_vl(folder: Path, **text: Any) -> Path:
    """A tiny Qwen2.5-VL; `text` overrides keys of the language model's configuration."""
    processor = qwen_processor(tf.Qwen2_5_VLProcessor, "Qwen2VLVideoProcessor")
    config = tf.Qwen2_5_VLConfig(
        text_config=qwen_text(processor.tokenizer, **text),
        vision_config=qwen_vision(window_size=32, fullatt_block_indexes=[1]),
        tie_word_embeddings=True,
        **qwen_ids(processor.tokenizer),
    )
    torch.manual_seed(0)
    return save(tf.Qwen2_5_VLForConditionalGeneration(config), processor, folder)


FAMILIES: dict[str, Callable[..., Path]] = {"qwen2_5_vl": qwen2_5_vl}
"""Family -> builder of its tiny model folder."""


def missing(family: str) -> str | None:
    """Why a family cannot be built here, or None."""
    if family == "smolvlm" and importlib.util.find_spec("num2words") is None:
        return "SmolVLMProcessor needs the package num2words, which is not installed"
    return None
