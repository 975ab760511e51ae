"""The fixed set of chat templates, as data: the marks around every message, and the same as Jinja.

In the marks `{}` stands for the content, `<bos>` and `<eos>` for the tokenizer's own tokens. The
Jinja text gives in `transformers` what `gristmill.data.chat.render` gives, character for character;
no Jinja ever runs here. Sources: the cards of the models that each one is named after, as known to
llama.cpp (src/llama-chat.cpp) and transformers.
"""

from __future__ import annotations

from dataclasses import dataclass

BOS, EOS = "<bos>", "<eos>"


@dataclass(frozen=True)
class Template:
    """Marks of one template. What the model writes is `answer`; all else is given to it."""

    name: str
    special: tuple[str, ...]  # marks that are one token each, beside <bos> and <eos>
    begin: str  # before the first message
    system: str  # around the system message; where `inside`, within the first user message
    user: str
    prompt: str  # before an answer
    answer: str  # around an answer; counts in the loss
    after: str  # behind an answer
    stop: tuple[str, ...]  # tokens that end an answer
    jinja: str
    inside: bool = False
    alternate: bool = False  # user and assistant take turns; anything else is an error
    trim: bool = False  # contents lose the white space around them


_ALTERNATE = (
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}"
)
_SPLIT_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}"
    "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
)

CHATML = Template(
    name="chatml",
    special=("<|im_start|>", "<|im_end|>"),
    begin="",
    system="<|im_start|>system\n{}<|im_end|>\n",
    user="<|im_start|>user\n{}<|im_end|>\n",
    prompt="<|im_start|>assistant\n",
    answer="{}<|im_end|>",
    after="\n",
    stop=("<|im_end|>",),
    jinja="{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
)

_HEADER = "<|start_header_id|>{role}<|end_header_id|>\n\n"
LLAMA3 = Template(
    name="llama3",
    special=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    begin=BOS,
    system=_HEADER.replace("{role}", "system") + "{}<|eot_id|>",
    user=_HEADER.replace("{role}", "user") + "{}<|eot_id|>",
    prompt=_HEADER.replace("{role}", "assistant"),
    answer="{}<|eot_id|>",
    after="",
    stop=("<|eot_id|>",),
    trim=True,
    jinja="{% for message in messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
)

LLAMA2 = Template(
    name="llama2",
    special=(),
    begin="",
    system="<<SYS>>\n{}\n<</SYS>>\n\n",
    user="<bos>[INST] {} [/INST]",
    prompt="",
    answer=" {} <eos>",
    after="",
    stop=(EOS,),
    inside=True,
    alternate=True,
    trim=True,
    jinja=_SPLIT_SYSTEM + "{% for message in loop_messages %}" + _ALTERNATE + ""
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\n' + system_message.strip() + '\n<</SYS>>\n\n'"
    " + message['content'].strip() %}"
    "{% else %}{% set content = message['content'].strip() %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + content + ' ' + eos_token }}{% endif %}"
    "{% endfor %}",
)

MISTRAL = Template(
    name="mistral",
    special=(),
    begin=BOS,
    system="{}\n\n",
    user="[INST] {} [/INST]",
    prompt="",
    answer=" {}<eos>",
    after="",
    stop=(EOS,),
    inside=True,
    alternate=True,
    jinja=_SPLIT_SYSTEM + "{{ bos_token }}{% for message in loop_messages %}" + _ALTERNATE + ""
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = system_message + '\n\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + content + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + content + eos_token }}{% endif %}"
    "{% endfor %}",
)

ZEPHYR = Template(
    name="zephyr",
    special=(),
    begin="",
    system="<|system|>\n{}<eos>\n",
    user="<|user|>\n{}<eos>\n",
    prompt="<|assistant|>\n",
    answer="{}<eos>",
    after="\n",
    stop=(EOS,),
    jinja="{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
)

ALPACA = Template(
    name="alpaca",
    special=(),
    begin="",
    system="{}\n\n",
    user="### Instruction:\n{}\n\n",
    prompt="### Response:\n",
    answer="{}<eos>",
    after="\n\n",
    stop=(EOS,),
    jinja="{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\n\n' }}"
    "{% elif message['role'] == 'user' %}{{ '### Instruction:\n' + message['content'] + '\n\n' }}"
    "{% else %}{{ '### Response:\n' + message['content'] + eos_token + '\n\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}",
)

PLAIN = Template(
    name="plain",
    special=(),
    begin="",
    system="System:\n{}\n\n",
    user="User:\n{}\n\n",
    prompt="Assistant:\n",
    answer="{}<eos>",
    after="\n",
    stop=(EOS,),
    jinja="{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ 'System:\n' + message['content'] + '\n\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'User:\n' + message['content'] + '\n\n' }}"
    "{% else %}{{ 'Assistant:\n' + message['content'] + eos_token + '\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:\n' }}{% endif %}",
)

TEMPLATES: dict[str, Template] = {
    template.name: template for template in (CHATML, LLAMA3, LLAMA2, MISTRAL, ZEPHYR, ALPACA, PLAIN)
}
