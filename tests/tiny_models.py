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


def wide_qwen(folder: Path) -> Path:
    """A Qwen2.5-VL of 17 M parameters whose language model outweighs everything else; for text."""
    heads = {"num_attention_heads": 24, "num_key_value_heads": 12}
    return qwen2_5_vl(folder, hidden_size=384, intermediate_size=1536, num_hidden_layers=8, **heads)


def qwen3_vl(folder: Path, **text: Any) -> Path:
    """A tiny Qwen3-VL, features of both vision layers fed into the language model."""
    processor = qwen_processor(tf.Qwen3VLProcessor, "Qwen3VLVideoProcessor")
    # A feature added after the last layer at a visual position would reach no text token.
    language = qwen_text(processor.tokenizer, head_dim=16, num_hidden_layers=3, **text)
    del language["bos_token_id"]
    language["rope_parameters"]["mrope_interleaved"] = True
    config = tf.Qwen3VLConfig(
        text_config=language,
        vision_config=qwen_vision(num_position_embeddings=64, deepstack_visual_indexes=[0, 1]),
        tie_word_embeddings=True,
        **qwen_ids(processor.tokenizer),
    )
    torch.manual_seed(0)
    return save(tf.Qwen3VLForConditionalGeneration(config), processor, folder)


SMOL_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
SMOL_TOKENS = [
    "<|endoftext|>", "<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>", "<image>",
    "<global-img>", *(f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)),
]  # fmt: skip


def siglip(**more: Any) -> dict[str, Any]:
    """A two-layer vision tower for pictures of 32x32 in patches of 8."""
    return {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": 32, "patch_size": 8, **more,
    }  # fmt: skip


def llama_text(tokenizer: Any, model_type: str, end: str, **more: Any) -> dict[str, Any]:
    """A two-layer language model of width 64 with plain rotary embedding."""
    text = qwen_text(tokenizer, model_type=model_type, **more)
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0}
    text["eos_token_id"] = tokenizer.convert_tokens_to_ids(end)
    return text


def smol_parts(splitting: type[Any]) -> dict[str, Any]:
    """Tokenizer and image processor: a picture of 96x64 becomes 2x2 tiles and a thumbnail."""
    tokenizer = byte_level_tokenizer(
        SMOL_TOKENS,
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<|endoftext|>",
    )
    sizes = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}
    return {
        "tokenizer": tokenizer,
        "image_processor": splitting(**sizes),
        "chat_template": SMOL_TEMPLATE,
        "image_seq_len": 4,
    }


def idefics3(folder: Path) -> Path:
    """A tiny Idefics3, the class of the first SmolVLM models."""
    processor = tf.Idefics3Processor(**smol_parts(tf.Idefics3ImageProcessorPil))
    tokenizer = processor.tokenizer
    config = tf.Idefics3Config(
        text_config=llama_text(tokenizer, "llama", "<end_of_utterance>"),
        vision_config=siglip(),
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    return save(tf.Idefics3ForConditionalGeneration(config), processor, folder)


def smolvlm(folder: Path) -> Path:
    """A tiny SmolVLM2."""
    processor = processor_of(
        tf.SmolVLMProcessor,
        {"video_processor_type": "SmolVLMVideoProcessor", "num_frames": 4, "fps": 1},
        **smol_parts(tf.SmolVLMImageProcessorPil),
    )
    tokenizer = processor.tokenizer
    config = tf.SmolVLMConfig(
        text_config=llama_text(tokenizer, "llama", "<end_of_utterance>"),
        vision_config=siglip(),
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    return save(tf.SmolVLMForConditionalGeneration(config), processor, folder)


GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' }}{% if message['content'] is string %}"
    "{{ message['content'] | trim }}{% else %}{% for item in message['content'] %}"
    "{% if item['type'] == 'image' %}{{ '<start_of_image>' }}{% elif item['type'] == 'text' %}"
    "{{ item['text'] | trim }}{% endif %}{% endfor %}{% endif %}{{ '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def gemma3(folder: Path) -> Path:
    """A tiny Gemma 3: each picture is 4 tokens, one local and one global attention layer."""
    named = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    tokenizer = byte_level_tokenizer(
        ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>", *named.values()],
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        extra_special_tokens=named,
    )
    processor = tf.Gemma3Processor(
        image_processor=tf.Gemma3ImageProcessorPil(size={"height": 32, "width": 32}),
        tokenizer=tokenizer,
        chat_template=GEMMA_TEMPLATE,
        image_seq_length=4,
    )
    text = llama_text(tokenizer, "gemma3_text", "<eos>", head_dim=16, sliding_window=64)
    del text["rope_parameters"]
    text |= {"query_pre_attn_scalar": 16, "bos_token_id": tokenizer.bos_token_id}
    text |= {"layer_types": ["sliding_attention", "full_attention"], "initializer_range": 0.05}
    config = tf.Gemma3Config(
        text_config=text,
        vision_config=siglip(vision_use_head=False),
        mm_tokens_per_image=4,
        boi_token_index=tokenizer.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tokenizer.convert_tokens_to_ids("<end_of_image>"),
        image_token_index=tokenizer.convert_tokens_to_ids("<image_soft_token>"),
        eos_token_id=[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_of_turn>")],
    )
    torch.manual_seed(0)
    return save(tf.Gemma3ForConditionalGeneration(config), processor, folder)


INTERNVL_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "{{ '<IMG_CONTEXT>\n' }}{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def internvl(folder: Path) -> Path:
    """A tiny InternVL: a picture of 96x64 becomes tiles of 32x32 and a thumbnail, 4 tokens each."""
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = byte_level_tokenizer(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *named.values()],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=named,
    )
    processor = processor_of(
        tf.InternVLProcessor,
        {"video_processor_type": "InternVLVideoProcessor"},
        image_processor=tf.GotOcr2ImageProcessorPil(
            size={"height": 32, "width": 32}, crop_to_patches=True, max_patches=6
        ),
        tokenizer=tokenizer,
        chat_template=INTERNVL_TEMPLATE,
        image_seq_length=4,
    )
    config = tf.InternVLConfig(
        text_config=llama_text(tokenizer, "qwen2", "<|im_end|>"),
        vision_config=siglip(image_size=(32, 32), patch_size=(8, 8)),
        image_seq_length=4,
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
    )
    torch.manual_seed(0)
    return save(tf.InternVLForConditionalGeneration(config), processor, folder)


FAMILIES: dict[str, Callable[..., Path]] = {
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "idefics3": idefics3,
    "smolvlm": smolvlm,
    "gemma3": gemma3,
    "internvl": internvl,
}
"""Family -> builder of its tiny model folder."""


def missing(family: str) -> str | None:
    """Why a family cannot be built here, or None."""
    if family == "smolvlm" and importlib.util.find_spec("num2words") is None:
        return "SmolVLMProcessor needs the package num2words, which is not installed"
    return None
