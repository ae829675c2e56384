"""A denoiser in place of the guided filter, trained on dark photographs alone: does it earn its
bytes?

    python benchmarks/denoise.py -o reports/study/denoise/reporting.csv --half reporting

Needs sice-train (its dark frames, and none of a scene of sice-pairs, are trained on), sice-pairs
and bursts. A dark frame at half its size is nearly free of noise and of JPEG: made darker still,
given noise and JPEG, it is what the network sees; without them, after the same curve, what it
should return. No reference and no well-exposed frame is looked at. ``--supervised`` trains on the
references of two thirds of the choosing half instead and scores on the other third: the upper
bound of what such a network could learn. Figures are of the middle 256 × 256 pixels of each pair.
"""

import argparse
import io
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from tqdm import tqdm

from zdce import auto, datasets, metrics
from zdce.model import apply_curves
from zdce.postprocess import guided_filter, highlight_protection, luma
from zdce.study import statistics

DARK = (20, 92)  # grey levels: means of the frames that are trained on; auto leaves brighter ones
APART = 3  # frames beside those of a scored scene that are not trained on either
WIDTH, BANDS = 20, (1, 2, 4)  # channels of the network; distances of the wavelet's neighbours
BATCH, PATCH, RATE = 8, 64, 2e-3
AGREEMENT = ("psnr", "ssim", "psnr_matched", "ssim_matched")
INSIDE = (slice(128, 384), slice(128, 384))
WANTED = {"psnr_matched": 0.3, "ssim": 0.02, "ssim_matched": 0.02, "burst_noise": -0.01}


def bend(image: Tensor, r: Tensor) -> Tensor:
    """The curve of ``auto``, (N, 3, H, W) → the same; r: (N,)."""
    curves = (r.view(-1, 1, 1, 1) * highlight_protection(image)).expand_as(image)
    return apply_curves(image, curves, auto.ITERATIONS)


def opponent(image: Tensor) -> Tensor:
    """Luma, R − luma, B − luma."""
    y = luma(image)
    return torch.cat([y, image[:, :1] - y, image[:, 2:] - y], dim=1)


def colours(planes: Tensor) -> Tensor:
    y, red, blue = planes.split(1, dim=1)
    return torch.cat([y + red, y - (0.299 * red + 0.114 * blue) / 0.587, y + blue], dim=1)


def smooth(x: Tensor, apart: int) -> Tensor:
    """(1 2 1)/4 along both axes, of neighbours so many pixels apart (à trous)."""
    for axis in (2, 3):
        size = x.shape[axis]
        at = torch.arange(size)
        before, after = (at - apart).clamp_min(0), (at + apart).clamp_max(size - 1)
        x = x / 2 + (x.index_select(axis, before) + x.index_select(axis, after)) / 4
    return x


class Denoiser(nn.Module):
    """How much is kept of what the guided filter takes out, and of three wavelet bands of the rest.

    A share for luma and one for colour, each band and each second pixel, from a network that sees
    the curve's result at half size, the bands' strength and the curve's gain. Where the curve
    changes nothing, all is kept. 15,208 numbers, 61 KB.
    """

    def __init__(self) -> None:
        super().__init__()
        sizes, layers = (16, *4 * (WIDTH,), 2 + 2 * len(BANDS)), []
        for before, after in itertools.pairwise(sizes):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
            nn.init.kaiming_normal_(layers[-2].weight, nonlinearity="relu")
            nn.init.zeros_(layers[-2].bias)
        self.body = nn.Sequential(*layers[:-1])
        self.body[-1].weight.data *= 0.1
        start = (-0.5, -0.5, 0.5, 1.0, 2.0, 0.0, -0.5, 0.0)
        self.body[-1].bias.data[:] = torch.tensor(start)

    def forward(self, image: Tensor, r: Tensor, noise: Tensor) -> Tensor:
        """Dark (N, 3, H, W), sides even, r (N,), noise (N,) in grey levels → bright, denoised."""
        bright = bend(image, r)
        filtered = bend(guided_filter(image, auto.noise_table(r, noise)), r).detach()
        planes, rest = opponent(bright), opponent(filtered)
        bands = [planes - rest]
        for apart in BANDS:
            coarser = smooth(rest, apart)
            bands.append(rest - coarser)
            rest = coarser
        half = F.avg_pool2d(planes, 2)
        gain = (half[:, :1] + 0.01) / (F.avg_pool2d(luma(image), 2) + 0.01)
        strength = [torch.cat([b[:, :1].abs(), b[:, 1:].abs().mean(1, True)], 1) for b in bands]
        strength = [torch.log(1e-3 + F.avg_pool2d(s, 2)) / 3 + 1 for s in strength]
        finest = F.pixel_unshuffle(planes[:, :1], 2) - half[:, :1]
        level = [half[:, :1] - 0.5, half[:, 1:]]
        seen = torch.cat([finest, *level, *strength, torch.log2(gain) / 4], dim=1)
        kept = 1 - torch.sigmoid(-self.body(seen)) * ((gain - 1) / 3).clamp(0, 1).sqrt()
        kept = F.interpolate(kept, scale_factor=2, mode="bilinear", align_corners=False)
        for k, band in enumerate(bands):
            share = kept[:, [k, k + len(bands), k + len(bands)]]
            rest = rest + share * band
        return colours(rest)


def linear(x: np.ndarray) -> np.ndarray:
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def encoded(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0, 1)
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 1e-9) ** (1 / 2.4) - 0.055)


def degraded(frame: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A dark frame (H, W, 3) uint8 at half size, darker: with noise and JPEG, and without."""
    size = (frame.shape[1] // 2, frame.shape[0] // 2)
    light = linear(np.asarray(Image.fromarray(frame).resize(size, Image.LANCZOS)) / 255)
    mean = frame.mean()
    goal = np.exp(rng.uniform(np.log(max(8, 0.2 * mean)), np.log(min(80, mean))))
    low, high = 0.0, 1.0
    for _ in range(20):
        gain = (low + high) / 2
        dark = 255 * encoded(light[::4, ::4] * gain).mean() < goal
        low, high = (gain, high) if dark else (low, gain)
    light = light * gain
    coarse = rng.random() < 0.4  # as in bursts: demosaicking and resizing make noise coarse
    white = np.exp(rng.uniform(np.log(3e3), np.log(6e4 if coarse else 3e5)))  # electrons
    read = rng.uniform(1, 6) * (white / 8000) ** 0.25
    noise = rng.poisson(light * white) - light * white + rng.normal(0, read, light.shape)
    if coarse or rng.random() < 0.3:
        sigma = rng.uniform(0.5, 0.85)
        blurred = gaussian_filter(noise, (sigma, sigma, 0))
        noise = blurred * (noise.std() / blurred.std() if coarse else 1)
    pixels = np.round(255 * encoded(light + noise / white)).astype(np.uint8)
    kind = rng.random() + 0.3 * coarse
    if kind < 0.75:
        file, quality = io.BytesIO(), 75 if kind < 0.5 else int(rng.integers(60, 96))
        sampling = 2 if kind < 0.65 else 0
        Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=sampling)
        pixels = np.asarray(Image.open(file))
    return pixels, encoded(light).astype(np.float32)


def dark_frames() -> list[np.ndarray]:
    """Dark frames of sice-train that belong to no scene of sice-pairs, of either half."""
    scenes: dict[str, list[int]] = {}
    for sample in datasets.samples("sice-pairs"):
        numbers = [int(Path(path).stem) for path in (sample.path, sample.reference_path)]
        scenes.setdefault(sample.scene, []).extend(numbers)
    taken = {n for s in scenes.values() for n in range(min(s) - APART, max(s) + APART + 1)}
    free = [s for s in datasets.samples("sice-train") if int(Path(s.path).stem) not in taken]
    frames = (sample.image() for sample in tqdm(free, "frames"))
    return [frame for frame in frames if DARK[0] < frame.mean() < DARK[1]]


Example = tuple[np.ndarray, np.ndarray, float, float]  # seen, wanted, r, noise in grey levels


def examples(supervised: bool) -> list[Example]:
    """Photographs as the network sees them, and as they should be before the curve (supervised:
    after).
    """
    if supervised:
        pairs = [(s.image(), np.float32(s.reference() / 255)) for s in thirds(False)]
    else:
        rng = np.random.default_rng(2)
        pairs = [degraded(frame, rng) for frame in 2 * dark_frames()]
    curves = [auto.curve_of(torch.from_numpy(seen).permute(2, 0, 1)[None]) for seen, _ in pairs]
    return [(*p, *map(float, c)) for p, c in zip(pairs, curves, strict=True)]


def thirds(scored: bool) -> list[datasets.Sample]:
    """Pairs of the choosing half: every third scene is scored, the others are trained on."""
    pairs = datasets.samples("sice-pairs", part="choosing")
    every_third = sorted({pair.scene for pair in pairs})[2::3]
    return [pair for pair in pairs if (pair.scene in every_third) == scored]


def batch(data: list[Example], rng: np.random.Generator) -> tuple[Tensor, ...]:
    """Patches: what is seen, what is wanted, r, noise."""
    chosen, seen, wanted = [data[k] for k in rng.integers(0, len(data), BATCH)], [], []
    for before, after, _, _ in chosen:
        y, x = 2 * rng.integers(0, (before.shape[0] - PATCH) // 2 + 1, 2)
        turns, mirrored = rng.integers(0, 4), rng.integers(0, 2)
        for image, into in ((np.float32(before[y : y + PATCH, x : x + PATCH]) / 255, seen),
                            (after[y : y + PATCH, x : x + PATCH], wanted)):  # fmt: skip
            image = np.rot90(image[:, ::-1] if mirrored else image, turns)
            into.append(torch.from_numpy(image.copy()).permute(2, 0, 1))
    numbers = (torch.tensor([c[k] for c in chosen], dtype=torch.float32) for k in (2, 3))
    return torch.stack(seen), torch.stack(wanted), *numbers


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Mean SSIM in windows of 7 × 7."""
    mean_a, mean_b, aa, bb, ab = (F.avg_pool2d(x, 7, 1) for x in (a, b, a * a, b * b, a * b))
    both = mean_a * mean_b
    top = (2 * both + 1e-4) * (2 * (ab - both) + 9e-4)
    squares = mean_a**2 + mean_b**2
    return (top / ((squares + 1e-4) * (aa + bb - squares + 9e-4))).mean()


def train(data: list[Example], seed: int, steps: int, supervised: bool = False) -> Denoiser:
    """Adam, a warm-up of 100 steps and a cosine; loss: absolute error + 0.1 · (1 − SSIM)."""
    torch.manual_seed(seed)
    net, rng = Denoiser(), np.random.default_rng(seed)
    optimizer = torch.optim.Adam(net.parameters(), RATE, betas=(0.9, 0.99))
    for step in tqdm(range(steps), f"seed {seed}"):
        rate = RATE * min(1, (step + 1) / 100) * (1 + np.cos(np.pi * step / steps)) / 2
        optimizer.param_groups[0]["lr"] = rate + 1e-5
        seen, wanted, r, noise = batch(data, rng)
        found = net(seen, r, noise)
        if supervised:  # brightness is not what is learned
            means = [x.detach().mean((1, 2, 3), keepdim=True) + 0.02 for x in (wanted, found)]
            found = found * (means[0] / means[1]).clamp(0.3, 3)
        else:
            wanted = bend(wanted, r)
        loss = (found - wanted).abs().mean() + 0.1 * (1 - ssim(found, wanted))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


@torch.inference_mode()
def enhanced(pixels: np.ndarray, method: Denoiser | tuple, inside: tuple = ()) -> np.ndarray:
    """The part ``inside`` of a photograph, (H, W, 3) uint8, through a network, or through the
    guided filter at ``method[0]`` times its strength and a blur of ``method[1]`` pixels behind it.
    """
    r, estimated = auto.curve_of(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    image = torch.from_numpy(np.float32(pixels[inside]) / 255).permute(2, 0, 1)[None]
    if isinstance(method, Denoiser):
        after = method(image, r, estimated)
    else:
        noise = auto.noise_table(r, estimated) * method[0]
        after = bend(guided_filter(image, noise) if r else image, r)
        if method[1] and r:
            after = torch.from_numpy(gaussian_filter(after.numpy(), (0, 0, method[1], method[1])))
    return (after[0].permute(1, 2, 0) * 255 + 0.5).clamp(0, 255).to(torch.uint8).numpy()


def scores(method: Denoiser | tuple, name: str, seed: int | None, pairs: list) -> pd.DataFrame:
    """Figures by photograph of pairs and by scene of bursts."""
    rows, about = [], {"method": name, "seed": seed}
    seen: set[str] = set()
    for pair in pairs:
        before, reference = pair.image(), pair.reference()
        found = metrics.agreement(enhanced(before, method, INSIDE), reference[INSIDE])
        row = about | {"dataset": "sice-pairs", "scene": pair.scene, "photograph": pair.name}
        row |= {figure: found[figure] for figure in AGREEMENT}
        if pair.scene not in seen:
            kept = metrics.psnr(enhanced(reference, method, INSIDE), reference[INSIDE])
            row["good_kept"] = min(kept, 60)
        seen.add(pair.scene)
        rows.append(row)
    for scene, frames in datasets.bursts("bursts").items():
        noise = metrics.burst_noise([enhanced(f, method) for f in frames], relative=True)
        where = {"dataset": "bursts", "scene": scene, "photograph": scene}
        rows.append(about | where | {"burst_noise": noise})
    return pd.DataFrame(rows)


BASELINES = {"auto": (1.0, 0.0), "curve without filter": (0.0, 0.0), "half a pixel": (0.5, 0.5)}


def summary(table: pd.DataFrame, half: str) -> pd.DataFrame:
    """Each method's means, and how they differ from those of ``auto``, with intervals."""
    rows = []
    for label in table["method"].unique():
        for figure in (*AGREEMENT, "burst_noise", "good_kept"):
            mean = table.loc[table["method"] == label, figure].mean()
            less = vars(statistics.compare(table, figure, label, "auto"))
            about = {"half": half, "method": label, "figure": figure, "value": mean}
            rows.append(about | less | {"wanted": WANTED.get(figure)})
    return pd.DataFrame(rows).rename(columns={"mean": "difference"})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("-o", "--out", type=Path, required=True, help="CSV file to write")
    parser.add_argument("--half", default="choosing", choices=datasets.HALVES)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--weights", type=Path, help="folder of seed0.pt …; missing: trained")
    parser.add_argument("--supervised", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    every = datasets.samples("sice-pairs", part=options.half)
    pairs = thirds(True) if options.supervised else every
    name = "network shown references" if options.supervised else "network"
    tables = [scores(method, label, None, pairs) for label, method in BASELINES.items()]
    data: list[Example] = []
    for seed in range(options.seeds):
        file = options.weights / f"seed{seed}.pt" if options.weights else None
        if file and file.is_file():
            net = Denoiser()
            net.load_state_dict(torch.load(file))
        else:
            data = data or examples(options.supervised)
            net = train(data, seed, options.steps, options.supervised)
            if file:
                file.parent.mkdir(parents=True, exist_ok=True)
                torch.save(net.state_dict(), file)
        tables.append(scores(net, name, seed, pairs))
    found = summary(pd.concat(tables), "third of choosing" if options.supervised else options.half)
    found.loc[found["method"] == name, "steps"] = options.steps
    found.to_csv(options.out, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
