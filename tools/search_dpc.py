"""Searches dense prediction cells on a dataset: proxy trials on cached features of a frozen backbone.

Writes RUN/config.json, RUN/cache/, RUN/study.db and, after every trial, the best cell so far as RUN/genotype.json.
The same command goes on where it stopped. Given again while it runs, it joins in as one more worker. The sampler, its
options and --early_stop may change from run to run, for they change no score; RUN/config.json has the latest. A policy
alone learns from the first trial on: it goes on with its own options.
"""

from __future__ import annotations

import sys

from nas_seg import dpc_search, search_flags
from nas_seg.utils import app

search_flags.define(dpc_search.DPCSearch)


def main() -> None:
    dpc_search.search(search_flags.read(dpc_search.DPCSearch), [sys.executable, *sys.argv])


if __name__ == "__main__":
    app.run(main)
