"""Train the embedded model from scratch: python -m scripts.train_tiny_reasoner

Reads   nothing: questions and chains of thought are made on the fly (thinksteer/arithmetic.py).
Writes  --output: a Hugging Face Qwen2 folder; beside it <output>.training/ with the checkpoint to resume from, the loss
        curve as numbers and as a picture. Run the same command again after an interruption and it goes on.
"""

import argparse
import json
import math
import time
from itertools import islice
from pathlib import Path
from statistics import fmean

import matplotlib.pyplot as plt
import torch
from tokenizers import pre_tokenizers
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from thinksteer import cli
from thinksteer.arithmetic import FORCED_ANSWER, training_texts
from thinksteer.files import load_torch
from thinksteer.records import InputError

BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
USER, ASSISTANT, OPEN, CLOSE = "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}<｜User｜>{{ message.content }}"
    "{% elif message.role == 'assistant' %}<｜Assistant｜>{{ message.content }}{{ eos_token }}{% else %}"
    "{{ message.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<｜Assistant｜>{% endif %}"
)
BATCH_TOKENS = 4096  # including padding
CHUNK = 256 * BATCH_TOKENS  # tokens drawn at once, sorted by length and cut into batches
WARMUP, DECAY_TO, PEAK = 100, 0.02, 3e-3  # steps, share of the peak, learning rate
SAVE_EVERY = 200  # steps


def build_tokenizer() -> Qwen2Tokenizer:
    """Qwen2's byte-level BPE in which every word of the model's own world is one token; any other text is bytes.

    A word's merges add one byte at a time from its left. Words begin with a space, a capital or a mark, which stand
    nowhere else but behind a space, and words with a space merge first: the merges of one word never break another.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    split = Qwen2Tokenizer(vocab={byte: index for index, byte in enumerate(alphabet)}, merges=[])._tokenizer
    words = set()
    for question, response in islice(training_texts(seed=0), 5000):
        for text in (question, response.replace(OPEN, "\n").replace(CLOSE, "\n"), FORCED_ANSWER.replace(CLOSE, "\n")):
            words.update(word for word, _ in split.pre_tokenizer.pre_tokenize_str(text))
    words = sorted(words, key=lambda word: (not word.startswith("Ġ"), word))
    words = [word for word in words if word.strip("Ċ").isalnum() or word in ("ĊĊ", "\\boxed")]
    merges = dict.fromkeys((word[:i], word[i]) for word in words for i in range(1, len(word)))
    vocab = [PAD, BOS, EOS, USER, ASSISTANT, OPEN, CLOSE, *alphabet, *("".join(merge) for merge in merges)]
    tokenizer = Qwen2Tokenizer(
        vocab={token: index for index, token in enumerate(vocab)},
        merges=list(merges),
        unk_token=None,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        extra_special_tokens=[USER, ASSISTANT],
        padding_side="left",
    )
    tokenizer.add_tokens([OPEN, CLOSE])  # not special: decoding keeps them, as in the DeepSeek distillations
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def build_model(tokenizer: Qwen2Tokenizer, layers: int, hidden: int, heads: int, seed: int) -> Qwen2ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=320,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        initializer_range=0.04,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen2ForCausalLM(config)
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=0.6,
        top_p=0.95,
        top_k=0,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
    )
    return model


def draw_batches(tokenizer: Qwen2Tokenizer, seed: int, chunk: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of one chunk: `(ids [B, T], is_response [B, T])`, right padded, rows of a batch of like length."""
    rows, total = [], 0
    texts = training_texts(f"{seed} {chunk}")
    while total < CHUNK:
        pairs = list(islice(texts, 64))
        prompts = tokenizer([f"{BOS}{USER}{question}{ASSISTANT}" for question, _ in pairs]).input_ids
        responses = tokenizer([response + EOS for _, response in pairs]).input_ids
        rows += [(len(prompt), prompt + response) for prompt, response in zip(prompts, responses, strict=True)]
        total += sum(map(len, prompts)) + sum(map(len, responses))
    rows.sort(key=lambda row: len(row[1]))
    batches, batch = [], []
    for row in rows:
        if (len(batch) + 1) * len(row[1]) > BATCH_TOKENS:
            batches.append(_collate(batch, tokenizer.pad_token_id))
            batch = []
        batch.append(row)
    batches.append(_collate(batch, tokenizer.pad_token_id))
    order = torch.randperm(len(batches), generator=torch.Generator().manual_seed(chunk)).tolist()
    return [batches[index] for index in order]


def _collate(rows: list[tuple[int, list[int]]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(len(ids) for _, ids in rows)
    ids = torch.tensor([ids + [pad] * (width - len(ids)) for _, ids in rows])
    prompts = torch.tensor([prompt for prompt, _ in rows])
    positions = torch.arange(width)
    return ids, (positions >= prompts[:, None]) & (ids != pad)


def learning_rate(step: int, steps: int) -> float:
    if step < WARMUP:
        return PEAK * (step + 1) / WARMUP
    done = (step - WARMUP) / max(1, steps - WARMUP)
    return PEAK * (DECAY_TO + (1 - DECAY_TO) * 0.5 * (1 + math.cos(math.pi * done)))


def train_step(model, optimizer, ids, is_response) -> float:
    # Right padding and causal attention: real tokens never see padding, so no mask is needed.
    hidden = model.model(ids).last_hidden_state[:, :-1]  # [B, T - 1, D]
    predicts = is_response[:, 1:]
    loss = cross_entropy(model.lm_head(hidden[predicts]), ids[:, 1:][predicts])
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def draw_loss(losses: list[float], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4))
    smooth = [fmean(losses[max(0, i - 24) : i + 1]) for i in range(len(losses))]
    axes.semilogy(losses, alpha=0.3)
    axes.semilogy(smooth)
    axes.set(xlabel="step", ylabel="loss on the response (nats per token)", title="tiny-reasoner")
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("--output", type=Path, default=Path("artifacts/models/tiny-reasoner"))
    parser.add_argument("--tokens", type=cli.finite_float, default=10e6, help="training tokens, padding included")
    parser.add_argument("--layers", type=cli.positive_int, default=6)
    parser.add_argument("--hidden", type=cli.positive_int, default=128)
    parser.add_argument("--heads", type=cli.positive_int, default=8)
    parser.add_argument("--seed", type=cli.natural_int, default=0)
    parser.add_argument("--threads", type=cli.natural_int, default=0, help="CPU threads, 0: all cores")
    args = parser.parse_args()
    if args.tokens < BATCH_TOKENS:
        parser.error(f"--tokens {args.tokens:g}: one batch has {BATCH_TOKENS}, give as many at least")
    if args.heads % 2 or args.hidden % (2 * args.heads):
        parser.error(f"--heads {args.heads} --hidden {args.hidden}: give an even number of heads of an even size")
    return args


def main() -> None:
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, args.layers, args.hidden, args.heads, args.seed).to(device)
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True)

    work = args.output.with_name(args.output.name + ".training")
    work.mkdir(parents=True, exist_ok=True)
    steps, losses, chunk, seconds = int(args.tokens / BATCH_TOKENS), [], 0, 0.0
    if (work / "checkpoint.pt").exists():
        saved = load_torch((work / "checkpoint.pt").read_bytes(), str(work / "checkpoint.pt"))
        try:
            model.load_state_dict(saved["model"])
        except RuntimeError:
            unlike = "is of another size: give the flags it was begun with, or another --output"
            raise InputError(f"{work / 'checkpoint.pt'} {unlike}") from None
        optimizer.load_state_dict(saved["optimizer"])
        losses, chunk, seconds = saved["losses"], saved["chunk"], saved["seconds"]
    start = time.monotonic() - seconds
    bar = tqdm(total=steps, initial=len(losses), unit="step")
    while len(losses) < steps:
        for ids, is_response in draw_batches(tokenizer, args.seed, chunk)[: steps - len(losses)]:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(len(losses), steps)
            losses.append(train_step(model, optimizer, ids.to(device), is_response.to(device)))
            bar.update()
            bar.set_postfix(loss=f"{fmean(losses[-25:]):.3f}")
        chunk += 1
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "losses": losses}
        state |= {"chunk": chunk, "seconds": time.monotonic() - start}
        torch.save(state, work / "checkpoint.tmp")
        (work / "checkpoint.tmp").replace(work / "checkpoint.pt")
        draw_loss(losses, work / "loss.png")

    model.save_pretrained(args.output)
    tokenizer.save_pretrained(args.output)
    minutes = round((time.monotonic() - start) / 60, 1)
    summary = {"steps": steps, "last_loss": round(fmean(losses[-50:]), 4), "minutes": minutes}
    summary |= {"device": device, "seed": args.seed, "parameters": model.num_parameters()}
    (args.output / "training.json").write_text(json.dumps(summary, indent=1) + "\n")
    print(f"Wrote {args.output}: {summary}")


if __name__ == "__main__":
    cli.run(main)
