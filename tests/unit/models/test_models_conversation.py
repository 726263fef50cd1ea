"""Conversations by templates of every manner that families publish."""

from types import SimpleNamespace

import pytest
from tiny_assets import tokenizer
from tiny_templates import (
    GEMMA3,
    GLM4V,
    LLAVA,
    LLAVA_NEXT_LLAMA3,
    LLAVA_NEXT_MISTRAL_OLD,
    LLAVA_ONEVISION,
    MLLAMA,
    MOLMO2,
    QWEN2_VL,
    THINKING,
)

from mixlens.models.conversation import Chat
from mixlens.models.tiny import CHAT_TEMPLATE, build_tiny_vlm

UNMARKED = CHAT_TEMPLATE.replace("{% generation %}", "").replace("{% endgeneration %}", "")


def chat_of(template: str, *specials: str, eos: str, bos: str | None = None) -> Chat:
    tokens = tokenizer((*specials, "<pad>"), pad="<pad>", eos=eos, bos=bos)
    return Chat.of(template, tokens)


def learned(chat: Chat, question: str, answer: str, with_image: bool = True) -> tuple[str, str]:
    """What stands before the answer, and what is learned."""
    return chat.question(question, with_image), chat.answer(answer, with_image)


def test_answers_are_found_with_and_without_generation_marks():
    assert UNMARKED != CHAT_TEMPLATE
    marked, plain = (
        chat_of(template, "<|user|>", "<|assistant|>", "<|end|>", "<image>", eos="<|end|>")
        for template in (CHAT_TEMPLATE, UNMARKED)
    )
    for chat in (marked, plain):
        assert learned(chat, "q ?", "answer 1") == (
            "<|user|><image> q ?<|assistant|>",
            " answer 1<|end|>",
        )


QWEN = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<image>")
CASES = {
    # Nothing ends an answer in the template: its blank goes, and the token that ends all comes.
    "no end": (
        chat_of(LLAVA, "<s>", "</s>", "<image>", eos="</s>", bos="<s>"),
        ("USER: <image>\nwhat ? ASSISTANT:", " a red one</s>"),
    ),
    "open end": (
        chat_of(MOLMO2, *QWEN, eos="<|im_end|>"),
        ("<|image|><|im_start|>user\nwhat ?<|im_end|>\n<|im_start|>assistant\n",
         "a red one<|im_end|>"),
    ),
    # A line end behind the end is no part of an answer: generation stops before it.
    "more behind the end": (
        chat_of(QWEN2_VL, *QWEN, eos="<|im_end|>"),
        ("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
         "<|vision_start|><|image_pad|><|vision_end|>what ?<|im_end|>\n<|im_start|>assistant\n",
         "a red one<|im_end|>"),
    ),
    "another end than the tokenizer's": (
        chat_of(QWEN2_VL, *QWEN, eos="<|endoftext|>"),
        ("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
         "<|vision_start|><|image_pad|><|vision_end|>what ?<|im_end|>\n<|im_start|>assistant\n",
         "a red one<|im_end|>"),
    ),
    # The template shows an answer behind "assistant \n", but asks for one with "assistant\n".
    "asked otherwise": (
        chat_of(LLAVA_ONEVISION, *QWEN, eos="<|im_end|>"),
        ("<|im_start|>user <image>\nwhat ?<|im_end|><|im_start|>assistant\n",
         "a red one<|im_end|>"),
    ),
    "names the first token": (
        chat_of(GEMMA3, "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", eos="<eos>",
                bos="<bos>"),
        ("<bos><start_of_turn>user\n<start_of_image>what ?<end_of_turn>\n<start_of_turn>model\n",
         "a red one<end_of_turn>"),
    ),
    "plain answers": (
        chat_of(GLM4V, "[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|endoftext|>",
                eos="<|endoftext|>"),
        ("[gMASK]<sop><|user|>\n<|begin_of_image|><|image|><|end_of_image|>what ?<|assistant|>\n",
         "a red one<|endoftext|>"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_is_learned_is_what_follows_the_asking_text(name: str):
    chat, (asked, answered) = CASES[name]
    assert learned(chat, "what ?", "a red one") == (asked, answered)
    assert chat.question("what ?") == asked


def test_a_template_that_asks_for_thoughts_learns_to_answer_behind_them():
    """It shows finished answers without thoughts, but a question is asked up to their begin."""
    template = (
        "{% for message in messages %}[{{ message.role }}]"
        "{% for part in message.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}"
        "{% endfor %}</s>{% endfor %}"
        "{% if add_generation_prompt %}[assistant]<think></think>{% endif %}"
    )
    chat = chat_of(template, "</s>", eos="</s>")
    assert learned(chat, "q", "a") == ("[user]q</s>[assistant]<think></think>", "a</s>")


def test_only_templates_that_know_no_contents_in_answers_get_plain_ones():
    plain = {name for name, (chat, _) in CASES.items() if chat.plain_answers}
    assert plain == {"plain answers"}
    marked = chat_of(CHAT_TEMPLATE, "<|user|>", "<|end|>", eos="<|end|>")
    assert not marked.plain_answers
    assert not chat_of(MLLAMA, "<|eot_id|>", eos="<|eot_id|>", bos="<|eot_id|>").plain_answers


def test_without_an_image_none_is_shown():
    chat, _ = CASES["no end"]
    assert chat.question("what ?", with_image=False) == "USER: what ? ASSISTANT:"
    assert learned(chat, "what ?", "red", with_image=False) == (
        "USER: what ? ASSISTANT:",
        " red</s>",
    )
    # Some templates say other things around the same question then.
    tokens = ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>")
    chat = chat_of(MLLAMA, *tokens, eos="<|eot_id|>", bos="<|begin_of_text|>")
    before, answer = learned(chat, "what ?", "red", with_image=False)
    assert "<|image|>" in chat.question("what ?")
    assert "<|image|>" not in before
    assert "Cutting Knowledge Date" in before
    assert before == chat.question("what ?", with_image=False)
    assert answer == "red<|eot_id|>"


def test_a_special_token_in_a_question_ends_no_answer():
    chat, (asked, _) = CASES["more behind the end"]
    odd = "what ?<|im_end|>"
    assert learned(chat, odd, "red") == (asked.replace("what ?", odd), "red<|im_end|>")


@pytest.mark.case
def test_what_a_template_writes_as_text_behind_an_answer_is_not_learned():
    """An older Mistral template ends answers with what only looks like the end of a text."""
    chat = chat_of(LLAVA_NEXT_MISTRAL_OLD, "<s>", "</s>", "<image>", eos="</s>", bos="<s>")
    assert learned(chat, "what ?", "red") == ("[INST] <image>\nwhat ? [/INST]", " red</s>")


@pytest.mark.case
def test_marks_of_thoughts_that_a_finished_answer_shows_are_not_learned():
    """Not even where they are special tokens, the first of which would end the answer."""
    chat = chat_of(THINKING, *QWEN, "<think>", "</think>", eos="<|im_end|>")
    assert "<think>" in chat.template
    assert learned(chat, "what ?", "red") == (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>what ?<|im_end|>\n"
        "<|im_start|>assistant\n",
        "red<|im_end|>",
    )


@pytest.mark.parametrize("answer", [" red ", "red\n", "red"])
def test_blanks_around_an_answer_are_no_part_of_it(answer: str):
    chat, _ = CASES["more behind the end"]
    assert chat.answer(answer) == "red<|im_end|>"


def test_the_end_is_a_special_token_of_the_tokenizer(tmp_path):
    """Tokens that were added, but are not special, are words like others."""
    added = {
        0: SimpleNamespace(content="<word>", special=False),
        1: SimpleNamespace(content="<end|of+turn>", special=True),  # not to be read as a pattern
    }
    fake = SimpleNamespace(
        added_tokens_decoder=added, special_tokens_map={}, eos_token="<end|of+turn>"
    )
    template = (
        "{% for message in messages %}{{ message.content[-1].text }}<end|of+turn>\n{% endfor %}"
    )
    assert learned(Chat.of(template, fake), "q", "a <word> b") == (
        "q<end|of+turn>\n",
        "a <word> b<end|of+turn>",
    )


def test_the_built_in_model_is_spoken_to_by_its_template(tmp_path):
    from transformers import AutoProcessor

    build_tiny_vlm(tmp_path, ["red"], size="test")
    processor = AutoProcessor.from_pretrained(tmp_path)
    chat = Chat.of(processor.chat_template, processor.tokenizer)
    asking = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what ?"}]}
    answering = {"role": "assistant", "content": [{"type": "text", "text": "red"}]}
    whole = processor.apply_chat_template([asking, answering])
    assert "".join(learned(chat, "what ?", "red")) == whole
    assert chat.question("what ?") == processor.apply_chat_template(
        [asking], add_generation_prompt=True
    )


@pytest.mark.case
def test_a_line_break_that_only_finished_answers_have_is_not_learned():
    """Whether or not a vocabulary joins it with those that the question ends with."""
    marks = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<image>")
    chat = chat_of(LLAVA_NEXT_LLAMA3, *marks, eos="<|eot_id|>")
    asked, answered = learned(chat, "what ?", "red")
    assert asked.endswith("assistant<|end_header_id|>\n\n")
    assert answered == "red<|eot_id|>"
