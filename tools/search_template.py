"""Searches template networks on a dataset: each trial trains a network's decoder on cached maps, then all its weights.

python tools/search_template.py --run_dir=runs/template --dataset_dir=records/camvid --backbone_weights=imagenet \\
    --sampler=policy --num_trials=100

Writes RUN/config.json, RUN/cache/, RUN/study.db and, after every trial, the best network so far as RUN/genotype.json.
The same command goes on where it stopped. Given again while it runs, it joins in as one more worker. What proposes
networks, the limits and the early stops may change from run to run, for they change no score; RUN/config.json has the
latest. A policy alone learns from the first trial on: it goes on with its own options.
"""

from __future__ import annotations

import sys

from nas_seg import search_flags, template_search
from nas_seg.utils import app

search_flags.define(template_search.TemplateSearch)


def main() -> None:
    template_search.search(search_flags.read(template_search.TemplateSearch), [sys.executable, *sys.argv])


if __name__ == "__main__":
    app.run(main)
