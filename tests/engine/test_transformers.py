"""Folders shared with transformers, in both directions: logits, loss, gradients, generation."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers
from tiny_llama import small

import gristmill as gm
from gristmill.data.tokenizer import SPECIALS, train_tokenizer
from gristmill.models import Llama, LlamaConfig, from_pretrained

SHAPES = {
    "tied": {"vocab_size": 101, "hidden_size": 96, "intermediate_size": 130,
             "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2,
             "head_dim": 16, "tie_word_embeddings": True},
    "heads of 80, untied": {"vocab_size": 67, "hidden_size": 96, "intermediate_size": 96,
             "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2,
             "head_dim": 80, "tie_word_embeddings": False},
}  # fmt: skip


def same_function(ours, theirs):
    """Logits to 1e-4, the loss, and each tensor's gradient to 1e-4 of its norm."""
    ids = np.random.default_rng(0).integers(0, ours.config.vocab_size, (2, 33))
    with torch.no_grad():
        want = theirs(torch.tensor(ids)).logits.numpy()
    assert want.std() > 0.1
    assert np.abs(ours(ids).numpy() - want).max() <= 1e-4
    loss = ours.loss(ids[:, :-1], ids[:, 1:])
    loss.backward()
    reference = theirs(torch.tensor(ids), labels=torch.tensor(ids)).loss
    reference.backward()
    assert loss.item() == pytest.approx(reference.item(), abs=1e-5)
    theirs_by_name = dict(theirs.named_parameters())
    assert theirs_by_name.keys() == ours.state_dict().keys()
    for name, p in ours.named_parameters():
        g = theirs_by_name[name].grad.numpy()
        assert np.linalg.norm(p.grad.numpy() - g) <= 1e-4 * np.linalg.norm(g), name


@pytest.mark.parametrize("name", SHAPES)
def test_a_folder_of_ours_is_the_same_model_there(name, tmp_path):
    gm.manual_seed(3)
    ours = Llama(LlamaConfig(max_position_embeddings=64, **SHAPES[name]))
    for p in ours.parameters():
        p.copy_(p.numpy() * (3 if p.ndim == 2 else 1))
    ours.save_pretrained(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, attn_implementation="eager", torch_dtype=torch.float32
    )
    same_function(ours, theirs)


@pytest.mark.parametrize("name", SHAPES)
def test_a_folder_of_theirs_is_the_same_model_here(name, tmp_path):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(max_position_embeddings=64, **SHAPES[name])
    config._attn_implementation = "eager"
    theirs = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for p in theirs.parameters():
            p.mul_(3 if p.ndim == 2 else 1).add_(0 if p.ndim == 2 else 0.1 * torch.randn_like(p))
    theirs.save_pretrained(tmp_path)
    same_function(from_pretrained(tmp_path), theirs)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sharded_half_precision_folders_load_widened(tmp_path, dtype):
    config = transformers.LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False,
    )  # fmt: skip
    theirs = transformers.LlamaForCausalLM(config).to(getattr(torch, dtype))
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    ours = from_pretrained(tmp_path)
    for name, p in theirs.named_parameters():
        assert (ours.state_dict()[name].numpy() == p.detach().float().numpy()).all()


TEXT = "".join(f"def get_{n}(self):\n    return self.{n}\n\n\n" for n in ("one", "two", "three"))


def test_text_generation_of_transformers_agrees(tmp_path):
    """The folder of stage save: its tokenizer and weights, and the eos id in its configs."""
    tokenizer = train_tokenizer([TEXT * 4], 300)
    model = small(vocab_size=tokenizer.vocab_size, eos_token_id=tokenizer.eos)
    ids = np.array([tokenizer.encode(TEXT)[:65]], np.int32)
    optimizer = gm.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        model.loss(ids[:, :-1], ids[:, 1:]).backward()
        optimizer.step()
    model.save_pretrained(tmp_path)
    tokenizer.save(tmp_path)

    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.encode(TEXT) == tokenizer.encode(TEXT)
    assert theirs.convert_tokens_to_ids(list(SPECIALS)) == list(tokenizer.special.values())
    assert theirs.eos_token_id == tokenizer.eos
    generate = transformers.pipeline("text-generation", model=str(tmp_path), device="cpu")
    assert generate.model.generation_config.eos_token_id == tokenizer.eos
    prompt = "def get_one(self"
    (answer,) = generate(prompt, max_new_tokens=12, do_sample=False)
    want = tokenizer.decode(model.generate(tokenizer.encode(prompt), max_new_tokens=12))
    assert answer["generated_text"] == want
    assert want.startswith(prompt + "):\n    return self.")
