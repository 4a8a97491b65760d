"""Few-shot latency prediction on HAT's measured tables: moecast beside HAT's MLP, a random forest and the FLOPs line.

usage: few_shot.py [--rows N] [--draws N] [--hw NAME]     Markdown on stdout; needs scikit-learn and the tables
"""

import argparse
import pathlib
import sys
import warnings

import numpy

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "python" / "package"))

import moecast  # noqa: E402
import test_adaptation as tables  # noqa: E402
from moecast.adaptation import Correction  # noqa: E402

DEVICES = [
    "wmt14ende_cpu_raspberrypi",
    "wmt14ende_cpu_xeon",
    "wmt14ende_gpu_titanxp",
    "iwslt14deen_gpu_titanxp",
    "wmt19ende_gpu_titanxp",
]
SHOTS = [0, 3, 10, 20, 100]


def moecast_answer(columns, measured, few, rest):
    correction = Correction({k: v[few] for k, v in columns.items()}, measured[few])
    answer = correction.apply({k: v[rest] for k, v in columns.items()})
    covered = (answer["latency_low_s"] <= measured[rest]) & (measured[rest] <= answer["latency_high_s"])
    return answer["latency_s"], covered.mean()


def flops_line(columns, measured, few, rest):
    x = columns["flops"]
    if len(few) < 2:
        scale = (measured[few] / x[few]).mean() if len(few) else 1.0
        return scale * x[rest]
    slope, intercept = numpy.polyfit(x[few], measured[few], 1)
    return slope * x[rest] + intercept


def learned(make):
    def answer(features, measured, few, rest):
        if len(few) < 3:
            return numpy.full(len(rest), numpy.nan)
        scale = features[few].max(axis=0).clip(1e-9)
        model = make().fit(features[few] / scale, measured[few] / measured[few].mean())
        return model.predict(features[rest] / scale) * measured[few].mean()

    return answer


def peers():
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.neural_network import MLPRegressor

    return {
        "HAT's MLP (3 x 400)": learned(
            lambda: MLPRegressor(
                hidden_layer_sizes=(400, 400, 400), solver="lbfgs", alpha=1e-3, max_iter=400, random_state=1
            )
        ),
        "random forest": learned(lambda: RandomForestRegressor(200, random_state=1)),
    }


def judge(predicted, truth):
    if numpy.isnan(predicted).any():
        return numpy.nan, numpy.nan
    return numpy.mean(numpy.abs(predicted / truth - 1)), tables.rank_correlation(predicted, truth)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--hw", default="amd-epyc-2cpu")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    predictor = moecast.Predictor(options.hw, threads=1)
    print(
        "| device | rows given | "
        + " | ".join(f"{n}: MAPE, rank" for n in ["moecast", *peers(), "FLOPs line"])
        + " | covers |\n|---|---|"
        + "---|" * (3 + len(peers()))
    )
    for device in DEVICES:
        columns, measured = tables.hat_columns(predictor, device, options.rows, "sum")
        features = tables.hat_features(device, options.rows)
        for shots in SHOTS:
            results, covers = {}, []
            for draw in range(options.draws):
                order = numpy.random.default_rng(draw).permutation(len(measured))
                few, rest = order[:shots], order[shots:]
                mine, cover = moecast_answer(columns, measured, few, rest)
                covers.append(cover)
                results.setdefault("moecast", []).append(judge(mine, measured[rest]))
                for name, peer in peers().items():
                    results.setdefault(name, []).append(judge(peer(features, measured, few, rest), measured[rest]))
                results.setdefault("FLOPs line", []).append(
                    judge(flops_line(columns, measured, few, rest), measured[rest])
                )
            cells = []
            for pairs in results.values():
                mape, rank = numpy.mean(pairs, axis=0)
                cells.append(
                    "-" if numpy.isnan(rank) else f"{100 * mape:.1f} %, {rank:.3f}" if shots else f"-, {rank:.3f}"
                )
            print(f"| {device} | {shots} | " + " | ".join(cells) + f" | {100 * numpy.mean(covers):.0f} % |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
