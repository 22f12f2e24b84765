"""Generating with transformers: continuous batching over any causal LM that caches plain keys and values (Qwen2/3,
Llama, Mistral, ...); recurrent-depth models run in step (`engines.recurrent`).

Rows run in phases of growing cache width. A row that outgrows a phase's columns is taken out and prefilled again in a
later phase, together with the others that did; so short responses never pay for the width of long ones, and the memory
budget always holds as many rows as the phase's width allows.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from thinksteer import models
from thinksteer.confidence import Chain, Tree
from thinksteer.engines import Loading
from thinksteer.engines.attention import replaced
from thinksteer.engines.batch import Batch, Row
from thinksteer.engines.cache import ATTENTION, LayerShape, SlotCache, grouped_attention, layer_shapes
from thinksteer.engines.outcome import Outcome, eos_ids
from thinksteer.engines.probe import probe
from thinksteer.engines.progress import Progress
from thinksteer.engines.recurrent import bytes_per_token, in_step
from thinksteer.engines.sampling import check
from thinksteer.models import ModelRef
from thinksteer.records import EVERYWHERE, Condition, Edit, InputError, Request, Response, Sampling
from thinksteer.recurrent import is_recurrent
from thinksteer.steering import Gate, applied, conditions
from thinksteer.thinking import Follower, Marks, Template

CPU_CACHE_GIB = 1.0
CUDA_CACHE_SHARE = 0.7  # of the memory that is free once the model is loaded; the rest is for activations
SLACK = 8  # columns / SLACK are free after every compaction; places / SLACK may be free before the batch is refilled


class HFEngine:
    """Generates with transformers. `cache_gib` bounds the key-value cache, `max_batch` the rows that run together."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        template: Template,
        cache_gib: float | None = None,
        max_batch: int = 256,
        first_columns: int = 256,
    ) -> None:
        self.model, self.tokenizer, self.template = model.eval(), tokenizer, template
        self.cache_bytes = _cache_bytes(model) if cache_gib is None else int(cache_gib * 2**30)
        self.max_batch, self.first_columns = max_batch, first_columns
        self.marks = Marks.of(template, tokenizer)
        self.eos_ids = eos_ids(model.generation_config.eos_token_id, tokenizer)
        self.device, self.dtype = models.runs_on(model)
        self.threads = torch.get_num_threads() if self.device == "cpu" else None
        self.cache = f"{self.cache_bytes / 2**30:.2f} GiB"

    @classmethod
    def load(cls, ref: ModelRef, loading: Loading) -> Self:
        if max(loading.tensor_parallel_size, loading.pipeline_parallel_size, loading.data_parallel_size) > 1:
            raise InputError("--engine hf takes no parallel sizes: leave them out or use --engine vllm")
        tokenizer = models.load_tokenizer(ref, loading.trust_remote_code)
        model = models.load_model(
            ref, loading.device, loading.dtype, loading.trust_remote_code, loading.mean_recurrence
        )
        return cls(model, tokenizer, ref.template, max_batch=loading.max_num_seqs)

    def close(self) -> None:
        del self.model

    def generate(
        self, requests: Iterable[Request], sampling: Sampling, edits: Sequence[Edit] = ()
    ) -> Iterator[Response]:
        """Responses in the order in which they finish. Edits act on all positions they hold for, prompts included.

        The model is steered until the iterator ends or is closed. InputError for parameters out of range, a prompt
        longer than the model reads, a request that the cache budget cannot hold, attention this engine lacks, or logits
        that are not finite.
        """
        check(sampling)
        sampling = replace(sampling, eos_ids=self.eos_ids)
        gated = conditions(edits)
        rows = [
            Row(
                request,
                list(request.prompt_ids),
                len(request.prompt_ids) + sampling.max_tokens,
                Gate(gated, Follower(len(request.prompt_ids), self.marks)),
            )
            for request in requests
        ]
        limit = getattr(self.model.config, "max_position_embeddings", None)
        for row in rows:
            if not row.ids:
                raise InputError(f"request {row.request.id!r} has an empty prompt")
            if limit is not None and len(row.ids) > limit:
                size = f"the prompt of {row.request.id!r} has {len(row.ids)} tokens, the model reads {limit}"
                raise InputError(f"{size}: shorten the question or leave it out")
        if not rows:
            return
        run = Run(self, sampling, edits)
        longest = max(row.stop for row in rows) + run.outcome.forced_room
        finished = self._in_step if is_recurrent(self.model) else self._in_slots
        with Progress(len(rows), sampling.max_tokens + run.outcome.forced_room) as run.progress:
            for row in finished(run, rows, longest, edits):
                yield run.response(row)

    def probe(
        self, chains: Iterable[Chain], answers: Sequence[tuple[int, ...]], edits: Sequence[Edit] = ()
    ) -> Iterator[tuple[Chain, Tensor]]:
        """See `Engine.probe`; in the order of the chains. InputError for recurrent-depth models, too."""
        if is_recurrent(self.model):
            raise InputError(f"{type(self.model).__name__} is of recurrent depth: its chains cannot be probed yet")
        yield from probe(self.model, list(chains), Tree(answers), edits, self.marks)

    def _in_step(self, run: "Run", rows: list[Row], longest: int, edits: Sequence[Edit]) -> Iterator[Row]:
        together = min(self.max_batch, max(1, self.cache_bytes // (longest * bytes_per_token(self.model))))
        with applied(self.model, edits) as masks:
            yield from in_step(self.model, rows, together, run.sampling, masks, run.settle)

    def _in_slots(self, run: "Run", rows: list[Row], longest: int, edits: Sequence[Edit]) -> Iterator[Row]:
        with replaced(self.model, ATTENTION, grouped_attention) as cached, applied(self.model, edits) as masks:
            yield from self._phases(run, rows, layer_shapes(cached, longest), longest, masks)

    def _phases(
        self,
        run: "Run",
        rows: list[Row],
        shapes: list[LayerShape],
        longest: int,
        masks: dict[Condition, Tensor],
    ) -> Iterator[Row]:
        final = -(-longest * SLACK // (SLACK - 1))  # wide enough that no row outgrows it
        columns, per_token = min(self.first_columns, final), sum(shape.bytes_per_token for shape in shapes)
        if self.cache_bytes < final * per_token:
            raise InputError(
                f"one response may need {final * per_token / 2**30:.2f} GiB of cache, the budget is "
                f"{self.cache_bytes / 2**30:.2f} GiB; lower --max_length or raise the cache budget"
            )
        while rows:
            # Rows need room to grow, else they would leave at once.
            fits = [row for row in rows if columns == final or len(row.ids) <= columns // 2]
            rows = [row for row in rows if columns < final and len(row.ids) > columns // 2]
            if fits:
                slots = min(self.max_batch, len(fits), self.cache_bytes // (columns * per_token))
                batch = Batch(self.model, SlotCache(shapes, slots, columns), run.sampling, masks)
                rows += yield from run.phase(batch, deque(fits))
                del batch  # its cache is freed before the next phase's is made
            columns = min(2 * columns, final)


class Run:
    """One call of `generate`: what happens to rows between the steps of a batch."""

    progress: Progress

    def __init__(self, engine: HFEngine, sampling: Sampling, edits: Sequence[Edit]) -> None:
        self.engine, self.sampling = engine, sampling
        self.ends = engine.eos_ids | sampling.stop_ids
        self.outcome = Outcome(engine.tokenizer, engine.template, engine.marks, self.ends, sampling)
        self.everywhere = any(edit.where == EVERYWHERE for edit in edits)

    def phase(self, batch: Batch, waiting: deque[Row]) -> Iterator[Row]:
        """Runs rows in a batch until none is left; yields those that are done, returns those that outgrew it."""
        outgrown: list[Row] = []
        while waiting or batch.live:
            if batch.full:
                outgrown += batch.take_out(longer_than=batch.cache.columns - batch.cache.columns // SLACK)
                batch.drop_done()
                batch.move_window(batch.column - batch.begin)
            places = batch.cache.slots if waiting else len(batch.rows)
            if places - batch.live >= places / SLACK:
                batch.drop_done()
                free = min(batch.cache.slots - len(batch.rows), len(waiting))
                if free:
                    yield from self.settle(batch.admit([waiting.popleft() for _ in range(free)]))
                if outgrown and not waiting and batch.live <= batch.cache.slots / SLACK:
                    outgrown += batch.take_out(longer_than=0)  # the last few finish faster among the next phase's rows
            if batch.live:
                yield from self.settle(batch.step())
        return outgrown

    def settle(self, drawn: Iterable[tuple[Row, int]]) -> Iterator[Row]:
        """Appends the drawn tokens; yields the rows that this ended."""
        for row, token in drawn:
            row.ids.append(token)
            if token not in self.ends and len(row.ids) == row.stop and row.forced_at is None:
                self._force(row)
            row.done = token in self.ends or len(row.ids) == row.stop
            if row.done:
                self.progress.finish(id(row.request), row.drawn)
                yield row
            else:
                self.progress.update(id(row.request), row.drawn)

    def _force(self, row: Row) -> None:
        forced = self.outcome.forced_ids(row.request, row.ids[len(row.request.prompt_ids) :])
        if forced:
            row.forced_at = row.drawn
            row.ids += forced
            row.stop = len(row.ids) + self.sampling.forced_tokens

    def response(self, row: Row) -> Response:
        steered = row.fed if self.everywhere else row.gate.count_to(row.ids, row.fed)
        return self.outcome.response(row.request, row.ids[len(row.request.prompt_ids) :], row.forced_at, steered)


def _cache_bytes(model: PreTrainedModel) -> int:
    if model.device.type == "cuda":
        return int(torch.cuda.mem_get_info(model.device)[0] * CUDA_CACHE_SHARE)
    return int(CPU_CACHE_GIB * 2**30)
