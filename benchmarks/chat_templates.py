"""What transformers renders with the chat templates of known models, kept as tests/data/chat_templates.json.

Needs transformers and jinja2 (no torch): python benchmarks/chat_templates.py tests/data/chat_templates.json
The templates are those that the models were published with; the file keeps them beside what they give.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import transformers
from transformers.utils.chat_template_utils import render_jinja_template

QUESTION = {"role": "user", "content": "  Why?\n"}
CASES = {
    "question": [QUESTION],
    "turns": [QUESTION, {"role": "assistant", "content": " Because. "}, {"role": "user", "content": "Où? {{ 1 }}"}],
    "system": [{"role": "system", "content": "Be brief."}, QUESTION],
}


def main() -> None:
    path = Path(sys.argv[1])
    models = json.loads(path.read_text(encoding="utf-8"))["models"]
    for model in models.values():
        model["texts"] = {
            f"{name}{'+' if prompt else ''}": render(model, messages, prompt)
            for name, messages in CASES.items()
            for prompt in (False, True)
        }
    document = {"transformers": transformers.__version__, "cases": CASES, "models": models}
    path.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def render(model: dict[str, str], messages: list[dict[str, str]], prompt: bool) -> str | None:
    """The text, or None where the template refuses the conversation."""
    from jinja2.exceptions import TemplateError

    tokens = {"bos_token": model["bos_token"], "eos_token": model["eos_token"]}
    try:
        texts, _ = render_jinja_template(
            [messages], chat_template=model["template"], add_generation_prompt=prompt, **tokens
        )
    except TemplateError:
        return None
    return texts[0]


if __name__ == "__main__":
    main()
