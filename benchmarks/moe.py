"""Mixture of experts beside a dense model of equal active parameters, same tokens, same steps.

    python benchmarks/moe.py --corpus ../shared/corpora/dev --output runs/one-hour --minutes 20

The dense model's minutes (or --steps) decide the steps; the mixture takes as many. Its experts
together with the router multiply a token by as many parameters as the dense feed-forward layer
does. Further options are those of one_hour.py, for both, e.g. to see in a minute that all of it
runs:

    --minutes 0.1 --batch-size 2 --sequence-length 128 --vocab-size 2000 --max-windows 4
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from gristmill.trainer.config_model import ModelConfig
from gristmill.trainer.metrics import read_metrics
from gristmill.trainer.model import count_parameters, count_product_parameters, resolve
from gristmill.trainer.presets import apply_preset

sys.path.insert(0, str(Path(__file__).parent))  # not there where PYTHONSAFEPATH is set
import one_hour


def main() -> str:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--preset", default="llama-3m")
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--experts-per-token", type=int, default=2)
    arguments, others = parser.parse_known_args()
    dense = resolve(apply_preset(ModelConfig(preset=arguments.preset)))
    width = dense.ffn_size // arguments.experts_per_token
    shared = ["--corpus", arguments.corpus, "--output", arguments.output]
    shared += ["--preset", arguments.preset, *others]
    one_hour.main([*shared, "--minutes", str(arguments.minutes)])
    folder = Path(arguments.output)
    steps = json.loads((folder / "dense" / "one_hour.json").read_text())["steps"]
    experts = ["--experts", str(arguments.experts), "--expert-ffn-size", str(width)]
    experts += ["--experts-per-token", str(arguments.experts_per_token)]
    one_hour.main([*shared, *experts, "--name", "experts", "--steps", str(steps)])
    lines = [f"{'':<10}{'parameters':>13}{'active':>13}{'bits/byte':>11}{'tokens/s':>11}"]
    for name in ("dense", "experts"):
        report = json.loads((folder / name / "pretrain_report.json").read_text())
        checkpoint = folder / name / report["checkpoint"] / "checkpoint.json"
        facts = json.loads(checkpoint.read_text())
        from gristmill.trainer.config import PretrainConfig, from_dict

        model = from_dict(PretrainConfig, facts["config"]).model
        speeds = sorted(r["tokens_per_second"] for r in read_metrics(folder / name))
        lines.append(
            f"{name:<10}{count_parameters(model, facts['vocab_size']):>13,}"
            f"{count_product_parameters(model, facts['vocab_size']):>13,}"
            f"{report['total']['bits_per_byte']:>11.4f}{speeds[len(speeds) // 2]:>11,.0f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(main() + "\n")
