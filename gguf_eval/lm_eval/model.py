"""The harness's model class over the runtime: batched, prefix-shared, every answer cached as it is finished."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import CacheHook, TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from gguf_eval.errors import EngineError, ModelFileError, UsageError
from gguf_eval.files.cache import cache_dir, model_parts, model_sha256
from gguf_eval.files.header import read_header
from gguf_eval.files.source import model_source
from gguf_eval.llama.log import keep_log, take_warnings
from gguf_eval.lm_eval.arguments import parse_arguments
from gguf_eval.lm_eval.caching import answer_identity, claim
from gguf_eval.lm_eval.generation import parse_generation
from gguf_eval.runtime.chat import ChatEncoder, ChatTemplates
from gguf_eval.runtime.generation import GenerationRequest, Generator
from gguf_eval.runtime.placement import DEFAULT_CONTEXT, open_model
from gguf_eval.runtime.rows import NOT_FINITE
from gguf_eval.runtime.scoring import Score, Scorer, TokenRequest
from gguf_eval.runtime.settings import ContextSettings

_log = logging.getLogger("lm_eval.gguf-eval")  # below the harness's logger, which it shows

_DOCUMENT_GROUP_TOKENS = 1 << 14
"""Documents of rolling likelihood are scored in groups of about so many tokens, each cached when it is done."""

_Encoded = tuple[tuple[str, str] | None, list[int], list[int]]
"""The harness's own form: (strings, or None for a part of a document), context tokens, continuation tokens."""


class GgufEvalLM(TemplateLM):  # type: ignore[misc]
    """A GGUF file as a model of lm-evaluation-harness, by the name of ``gguf-eval``."""

    def __init__(self, **arguments: Any) -> None:
        """Load the model that `gguf_eval.lm_eval.arguments.ModelArguments` names; raises `GgufEvalError`."""
        super().__init__()
        self.arguments = parse_arguments(arguments)
        keep_log(self.arguments.log_file)
        cache = cache_dir(self.arguments.cache_dir)
        self.path, warnings = model_source(self.arguments.path, cache=cache, show=_announce)
        for warning in warnings:
            _log.warning(warning)
        self.identity = answer_identity(model_sha256(self.path, cache=cache), self.arguments)
        engine = self.arguments.engine
        wanted = ContextSettings(n_ctx=self.arguments.n_ctx or DEFAULT_CONTEXT, batch_size=self.arguments.batch_size)
        self.model = open_model(self.path, engine, wanted)
        for warning in take_warnings():
            _log.warning("llama.cpp: %s", warning)
        self.day = date.fromisoformat(self.arguments.date) if self.arguments.date else date.today()
        self.chat = ChatTemplates(read_header(model_parts(self.path)[0]).metadata, self.model, self.day)
        self._template: str | None = None
        self.scorer = Scorer(
            self.model,
            max_tokens=self.arguments.n_ctx,
            batch_size=self.arguments.batch_size,
            threads=self.arguments.threads,
            engine=engine,
        )
        self.generator = Generator(
            self.model,
            max_tokens=self.arguments.n_ctx,
            parallel=self.arguments.parallel,
            batch_size=self.arguments.batch_size,
            threads=self.arguments.threads,
            engine=engine,
        )

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: Mapping[str, Any] | None = None) -> GgufEvalLM:
        """Make the model from ``name=value,...``; the harness's batch_size, max_batch_size and device aren't needed."""
        from lm_eval.utils import simple_parse_args_string

        return cls(**simple_parse_args_string(arg_string))

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: Mapping[str, Any], additional_config: Mapping[str, Any] | None = None
    ) -> GgufEvalLM:
        """The same from a mapping."""
        return cls(**arg_dict)

    def set_cache_hook(self, cache_hook: CacheHook) -> None:
        """Take the harness's response cache; raises `UsageError` where it holds another model's answers."""
        claim(cache_hook.dbdict, self.identity)
        super().set_cache_hook(cache_hook)

    def get_model_info(self) -> dict[str, Any]:
        """What the harness writes beside its results."""
        told = {"chat_template_date": self.day.isoformat()} if self.chat.tell_date else {}
        return {"model_sha": self.identity, "model_num_parameters": -1, "model_dtype": self.path.name, **told}

    @property
    def max_length(self) -> int:
        """Longest input in tokens."""
        return self.scorer.max_tokens

    @property
    def max_gen_toks(self) -> int:
        """Longest answer in tokens where the task does not say."""
        return self.arguments.max_gen_toks

    @property
    def eot_token_id(self) -> int:
        """The end-of-sequence token, or what stands for an empty context where there is none."""
        token = self.model.eos_token
        return self.model.prefix_token if token is None else token

    @property
    def prefix_token_id(self) -> int:
        """Stands for an empty context."""
        given = self.arguments.prefix_token_id
        return self.model.prefix_token if given is None else given

    @property
    def tokenizer_name(self) -> str:
        """Tells the harness's cache of rendered requests apart by model file, and by the day where they tell it."""
        told = f"-{self.day}" if self.chat.tell_date else ""
        return f"{self.path.stem}-{self.identity[:16]}{told}"

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Token ids; control tokens spelt out in the text are read as such, as transformers reads them.

        Unless told, BOS is added where the file asks for it and the text does not begin with it already.
        """
        if add_special_tokens is None:
            add_special_tokens = self.arguments.add_bos_token
        if add_special_tokens is None:
            add_special_tokens = not string.startswith(self.model.token_text(self.prefix_token_id))
        elif add_special_tokens and not self.model.adds_bos:
            return [self.prefix_token_id, *self.model.tokenize(string, add_special=False, parse_special=True)]
        return self.model.tokenize(string, add_special=add_special_tokens, parse_special=True)

    def _loglikelihood_tokens(
        self, requests: Sequence[_Encoded], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        answers: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        for context, continuation in ((request[1], request[2]) for request in requests):
            self._warn_of_truncation(len(context), len(continuation))
        with tqdm(total=len(requests), desc="Running loglikelihood requests", disable=disable_tqdm) as bar:
            for done in self.scorer.stream([self._request(request) for request in requests]):
                for place, score in done.items():
                    answers[place] = _answer(score)
                    strings = requests[place][0]
                    if strings is not None:
                        self.cache_hook.add_partial("loglikelihood", strings, answers[place])
                bar.update(len(done))
        return answers

    def _request(self, request: _Encoded) -> TokenRequest:
        _, context, continuation = request
        return TokenRequest(tuple(context or [self.prefix_token_id]), tuple(continuation))

    def _warn_of_truncation(self, context: int, continuation: int) -> None:
        surplus = context + continuation - 1 - self.max_length
        if surplus > 0:
            _log.warning(
                "Combined length of context (%d) and continuation (%d) exceeds model's maximum length (%d). "
                "Truncating %d tokens from the left.", context, continuation, self.max_length, surplus,
            )  # fmt: skip

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole documents, in windows of the model's context that predict each token once."""
        totals: list[float] = []
        texts = [request.args[0] for request in requests]
        with tqdm(total=len(texts), desc="Running loglikelihood_rolling requests", disable=disable_tqdm) as bar:
            for group in self._document_groups(texts):
                windows = [(None, *window) for document in group for window in document]
                answers = iter(self._loglikelihood_tokens(windows, disable_tqdm=True))
                for document in group:
                    total = sum(next(answers)[0] for _ in document)
                    if not math.isfinite(total):
                        raise EngineError(f"a document can't be scored: {NOT_FINITE}")
                    self.cache_hook.add_partial("loglikelihood_rolling", (texts[len(totals)],), total)
                    totals.append(total)
                bar.update(len(group))
        return totals

    def _document_groups(self, texts: Iterable[str]) -> Iterable[list[list[tuple[list[int], list[int]]]]]:
        """The windows, (context, continuation), of each document; documents in groups of a few batches."""
        group: list[list[tuple[list[int], list[int]]]] = []
        size = 0
        for text in texts:
            tokens = self.tok_encode(text)
            windows = get_rolling_token_windows(tokens, self.prefix_token_id, self.max_length, context_len=1)
            group.append([make_disjoint_window(window) for window in windows])
            size += len(tokens)
            if size >= _DOCUMENT_GROUP_TOKENS:
                yield group
                group, size = [], 0
        if group:
            yield group

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """Continue each context until one of its stop strings, the model's own end, or its limit of tokens."""
        prepared = [self._generation(request.args[0], request.args[1], n) for n, request in enumerate(requests)]
        texts = [""] * len(requests)
        unfinished = 0
        with tqdm(total=len(requests), desc="Running generate_until requests", disable=disable_tqdm) as bar:
            for done in self.generator.stream(prepared):
                for place, answer in done.items():
                    if answer.unscored_reason and answer.finish_reason in ("length", "context"):
                        unfinished += 1
                    elif answer.unscored_reason:
                        raise EngineError(f"a request can't be answered: {answer.unscored_reason}")
                    texts[place] = answer.text
                    self.cache_hook.add_partial("generate_until", requests[place].args, answer.text)
                bar.update(len(done))
        if unfinished:
            _log.warning(
                "%d of %d answers are empty: the thought before them did not end within the limit of tokens. "
                "The harness judges them all the same; raise max_gen_toks.", unfinished, len(texts),
            )  # fmt: skip
        return texts

    def _generation(self, context: str, given: Mapping[str, Any], number: int) -> GenerationRequest:
        """What to write, for the harness's ``gen_kwargs``; the context is cut from the left to leave room."""
        wanted = parse_generation(given, self.max_gen_toks)
        room = self.max_length - wanted.max_tokens
        if room < 1:
            raise UsageError(
                f"answers of {wanted.max_tokens} tokens are asked for and the context has {self.max_length}; "
                "lower max_gen_toks or raise n_ctx"
            )
        tokens = self.tok_encode(context) or [self.prefix_token_id]
        if len(tokens) > room:
            _log.warning(
                "Left truncation applied. Original sequence length was %d, truncating to last %d tokens. "
                "Some content will be lost.", len(tokens), room,
            )  # fmt: skip
        return GenerationRequest(
            prompt=tuple(tokens[-room:]),
            max_tokens=wanted.max_tokens,
            stop=wanted.stop,
            temperature=wanted.temperature,
            top_p=wanted.top_p,
            # A request that is repeated is to be answered differently each time.
            seed=self.arguments.seed + number,
        )

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The model file's template, or the one of that name; raises `UsageError` where there is none."""
        if chat_template is False or chat_template is None:
            return None
        self._template = self.chat.select(chat_template if isinstance(chat_template, str) else None)
        self._warn_of_place(self._template)
        return self._template

    def _warn_of_place(self, template: str) -> None:
        """The harness puts a choice directly after the assistant's header, also where the template would not."""
        try:
            place = ChatEncoder(self.model, template, self.chat.tokens, self.day).answer_place()
            missing = f"{place.lead!r} before an answer" if place.dropped or place.lead.strip() else ""
        except UsageError:
            missing = "a thought before an answer"
        except ModelFileError:  # refuses the question it is tried with
            missing = ""
        if missing:
            _log.warning(
                "The chat template writes %s; the harness scores choices without it. "
                "'gguf-eval run --chat on' scores them where the template puts them, or refuses.", missing,
            )  # fmt: skip

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as the model was trained to read it; without the prompt its last message is left open."""
        template = self._template or self.chat.select(None)
        return self.chat.render(template, chat_history, add_generation_prompt=add_generation_prompt)


def _answer(score: Score) -> tuple[float, bool]:
    if score.unscored_reason:
        raise EngineError(f"a request can't be scored: {score.unscored_reason}; raise n_ctx or leave the item out")
    if not math.isfinite(score.logprob):  # the harness would count its first choice
        raise EngineError(f"a request can't be scored: {NOT_FINITE}")
    return score.logprob, score.greedy


def _announce(title: str) -> Any:
    import contextlib

    _log.info(title)
    return contextlib.nullcontext()
