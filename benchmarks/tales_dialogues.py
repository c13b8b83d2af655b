"""How well a model answers in dialogues about the built-in tales: what `alm quickstart --chat` prints, with more cases.

    python benchmarks/tales_dialogues.py alm-quickstart-chat/runs/chat [--cases 200] [--temperature 0.2] [--show]

The cases are those of `alm.corpus.sources.tales.judge`, which says what is judged. No dialogue asks for their pairs of
hero and trouble.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from alm.corpus.sources.tales.judge import cases, judge
from alm.quickstart.chat import JUDGED, TEMPERATURE, answer, chat_model, scored


def main() -> None:
    """Judge runs on dialogues."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--cases", type=int, default=JUDGED)
    parser.add_argument("--temperature", type=float, default=TEMPERATURE)
    parser.add_argument("--show", action="store_true", help="print every answer that is wrong, and its faults")
    arguments = parser.parse_args()
    given = cases(arguments.cases)
    for run in arguments.runs:
        model = chat_model(run, device_name="cpu")
        found = scored(model, given, temperature=arguments.temperature)
        print(f"{run}  {found.right} of {found.count}  by kind: {found.by_kind}  faults: {found.faults}")
        for number, case in enumerate(given if arguments.show else ()):
            text, has_ended = answer(model, case.messages, seed=number, temperature=arguments.temperature)
            if faults := judge(case, text, has_ended=has_ended):
                print("-" * 100, case.messages[-1].content, text, f"  {', '.join(faults)}", sep="\n")


if __name__ == "__main__":
    main()
