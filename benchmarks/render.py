"""Pictures per second of the analytic renderer, beside Mitsuba where that is installed.

    python benchmarks/render.py [--pictures 30] [--samples 64]

Scenes are placed beforehand; the time is that of ``render`` alone, with the mask, without
writing files. Both renderers draw the same scenes in the same run.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context

import numpy as np

from datasets_builders.clevr import render_mitsuba
from datasets_builders.clevr.camera import CLEVR, TINY, Profile, scaled
from datasets_builders.clevr.render import render
from datasets_builders.clevr.scenes import place, sample_attributes


def scenes_of(profile: Profile, count: int) -> list[dict]:
    rng = np.random.default_rng(0)
    sizes = rng.integers(profile.min_objects, profile.max_objects, size=count, endpoint=True)
    return [place(rng, sample_attributes(rng, int(n)), profile)[0] for n in sizes]


def draw(draw_one: Callable, profile: Profile, scenes: list[dict]) -> float:
    """Seconds for all scenes, after one picture that fills the caches."""
    draw_one(scenes[0], profile)
    start = time.perf_counter()
    for scene in scenes:
        draw_one(scene, profile)
    return time.perf_counter() - start


def rate(draw_one: Callable, profile: Profile, scenes: list[dict], processes: int) -> float:
    """Pictures per second; each process draws its share, and the slowest one counts."""
    if processes == 1:
        return len(scenes) / draw(draw_one, profile, scenes)
    shares = [scenes[i::processes] for i in range(processes)]
    with get_context("spawn").Pool(processes) as pool:
        seconds = pool.map(partial(draw, draw_one, profile), shares, chunksize=1)
    return len(scenes) / max(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=30)
    parser.add_argument("--samples", type=int, default=64, help="light paths a pixel, Mitsuba")
    options = parser.parse_args()

    print("renderer   size      objects  processes  pictures/s  ms/picture")
    middle = scaled(CLEVR, 320, 240)
    ours = 0.0
    for profile in (CLEVR, middle, TINY):
        scenes = scenes_of(profile, options.pictures)
        for processes in (1, 2):
            speed = rate(render, profile, scenes, processes)
            report("analytic", profile, scenes, processes, speed)
            if profile is middle and processes == 1:
                ours = speed
    if importlib.util.find_spec("mitsuba") is None:
        print("mitsuba: not installed, not compared")
        return
    scenes = scenes_of(middle, max(1, options.pictures // 10))
    traced = partial(render_mitsuba.render, samples=options.samples)
    speed = rate(traced, middle, scenes, 1)
    report("mitsuba", middle, scenes, 1, speed)
    print(
        f"ratio at 320x240: analytic on one core {ours / speed:.0f} x Mitsuba "
        f"({options.samples} samples, all cores, {len(scenes)} pictures)"
    )


def report(name: str, profile: Profile, scenes: list[dict], processes: int, speed: float) -> None:
    size = f"{profile.width}x{profile.height}"
    objects = sum(len(scene["objects"]) for scene in scenes) / len(scenes)
    print(f"{name:9}  {size:8}  {objects:7.1f}  {processes:9}  {speed:10.1f}  {1e3 / speed:10.2f}")


if __name__ == "__main__":
    main()
