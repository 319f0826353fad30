"""The commands about quality against a reference: perplexity, compare, recommend."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from gguf_eval.cli import options
from gguf_eval.cli.engine import EngineOptions
from gguf_eval.cli.printing import answer
from gguf_eval.cli.unfold import unfolded
from gguf_eval.errors import UsageError

if TYPE_CHECKING:
    from gguf_eval.runtime.settings import EngineSettings
    from gguf_eval.study.stages.text import TextModel

StudyFile = Annotated[Path, Argument(help="A study file.")]


@options.app.command()
@unfolded
def perplexity(
    models: Annotated[list[str], Argument(help=options.MODELS_HELP)],
    *,
    text: Annotated[str, Option("--text", "-f", help="A text file, or wikitext2.")] = "wikitext2",
    ctx: Annotated[int, Option("--ctx", "-c", min=8, help="Tokens of a window.")] = 512,
    chunks: Annotated[int | None, Option(min=1, help="Windows at most.")] = None,
    stride: Annotated[int | None, Option(min=1, help="Overlap windows; score this many.")] = None,
    reference: Annotated[str, Option(help="A model to compute the divergence from.")] = "",
    exact: Annotated[bool, Option("--exact", help="Run the reference beside each model.")] = False,
    batch_size: Annotated[int, Option("--batch-size", "-b", min=8, help="Tokens of one decode.")] = 512,
    threads: options.Threads = None,
    engine: EngineOptions,
    cache_dir: Annotated[Path | None, Option(help="Where stored references are kept.")] = None,
    mirror: Annotated[Path | None, Option(help="A local copy of the hub's Parquet files.")] = None,
    json_output: options.Json = False,
) -> None:
    """Perplexity as llama-perplexity counts it, and with --reference the KL divergence from another model."""
    from gguf_eval.analysis.divergence import summarise_text
    from gguf_eval.files import cache as caches
    from gguf_eval.report.progress import console_observer
    from gguf_eval.report.quality import print_texts
    from gguf_eval.runtime.settings import EngineSettings
    from gguf_eval.study.doctor import check_offload
    from gguf_eval.study.perplexity import run_texts
    from gguf_eval.study.stages.state import TextRequest
    from gguf_eval.tasks.texts import find_text

    folder = caches.cache_dir(cache_dir)
    [(keys, values), *more] = engine.cache_types
    if more:
        raise UsageError(f"perplexity needs one pair of KV cache types; found {len(more) + 1}: run it once for each")
    check_offload(engine.offload)
    settings = EngineSettings(engine.offload, keys, values, engine.flash_attention, engine.max_memory_bytes)
    request = TextRequest(
        text=find_text(text, fetch=options.fetch_from(mirror), folder=folder / "texts"),
        references=folder / "references",
        n_ctx=ctx,
        chunks=chunks,
        stride=stride,
        batch_size=batch_size,
        threads=threads,
        exact=exact,
    )
    candidates = [_text_model(model, cache_dir, settings) for model in models]
    base = _text_model(reference, cache_dir, settings) if reference else None
    with console_observer() as observer:
        records = run_texts(candidates, request, base, observer, folder / "logs" / "perplexity.log")
    summaries = [(name, summarise_text(record)) for name, record in records]
    document = [{"model": name, **asdict(summary)} for name, summary in summaries]
    answer(json_output, document, partial(print_texts, summaries))


def _text_model(reference: str, cache: Path | None, engine: EngineSettings) -> TextModel:
    from gguf_eval.files.cache import cache_dir, model_sha256
    from gguf_eval.files.kinds import check_continues_text
    from gguf_eval.study.stages.text import TextModel

    path = options.model_source_path(reference, cache)
    check_continues_text(path)
    return TextModel(path.stem, path, model_sha256(path, cache=cache_dir(cache)), engine)


@options.app.command()
def compare(
    study: StudyFile,
    points: Annotated[
        list[str] | None,
        Argument(help="Points to compare with the first of them; all with the reference.", show_default=False),
    ] = None,
    margin: options.Margin = 1.0,
    json_output: options.Json = False,
) -> None:
    """Compare points of a study, of any size, on the items both answered: differences, flips and verdicts."""
    from gguf_eval.analysis.versus import find_point, versus, versus_references
    from gguf_eval.report.quality import print_comparisons
    from gguf_eval.store.read import read_study

    record = read_study(study)
    named = [find_point(record, name) for name in points or []]
    if len(named) > 1:
        found = versus(record, named[1:], named[0], margin=margin / 100)
    else:
        found = versus_references(record, named, margin=margin / 100)
    answer(json_output, [asdict(entry) for entry in found], partial(print_comparisons, found))


@options.app.command()
def recommend(
    study: StudyFile,
    max_memory: Annotated[str, Option(help="Memory at most: 6GB, as reports count, or 6GiB.")] = "",
    min_tps: Annotated[float | None, Option(min=0.0, help="Tokens a second of generation at least.")] = None,
    max_loss: Annotated[float | None, Option(min=0.0, help="Points lost from the model's reference at most.")] = None,
    ctx: Annotated[int | None, Option("--ctx", "-c", min=1, help="Predict the memory for so many tokens.")] = None,
    margin: options.Margin = 1.0,
    json_output: options.Json = False,
) -> None:
    """Say which point of a study to run under limits, over all sizes and levels, why, and how sure that is."""
    from gguf_eval.analysis.advice import Limits, advise
    from gguf_eval.analysis.memory_at import predict_memory
    from gguf_eval.report.quality import print_advice
    from gguf_eval.store.read import read_study
    from gguf_eval.study.doctor import build_features

    limits = Limits(options.memory_bytes(max_memory), min_tps, None if max_loss is None else max_loss / 100)
    record = read_study(study)
    predicted = {}
    if ctx is not None:
        features = build_features()
        found = {point.id: predict_memory(point, ctx, features) for point in record.points}
        predicted = {number: size for number, size in found.items() if size is not None}
    advice = advise(record, limits, margin=margin / 100, context=ctx, predicted_bytes=predicted)
    answer(json_output, asdict(advice), partial(print_advice, advice))
