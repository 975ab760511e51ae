"""`gristmill doctor`: what is active on this machine, and why."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser


def run(args: argparse.Namespace) -> int:
    del args
    from gristmill.doctor import report

    print(report())
    return 0
