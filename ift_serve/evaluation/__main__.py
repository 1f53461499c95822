"""``python -m ift_serve.evaluation``: lm-eval's own command with the model ``ift-serve`` among its backends."""

from __future__ import annotations

from ift_serve.evaluation.harness.registration import register


def main() -> None:
    """Run lm-eval's command."""
    from lm_eval.__main__ import cli_evaluate

    register()
    cli_evaluate()


if __name__ == "__main__":
    main()
