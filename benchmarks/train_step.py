"""What a training step of the video DiT costs on one GPU, and what each optimization gains.

All in one run, on the same shapes: diffusers' network (bf16 weights), ours in plain PyTorch and
with the Triton kernels (float32 weights, bf16 products), 8-bit products apart. Every network is
compiled block by block. Parts, in order of value; each is bounded in time and writes as it goes:

  ladder     one optimization after another at --ladder-shape: step time, tokens/s, TFLOP/s, memory
  shapes     the first and the last of them at the other shapes, with CUDA graphs at the small one
  curves     200 losses of plain, fused and 8-bit training on the same batches
  eager      outputs and gradients against float32: compiled against eager
  machine    a product of 8192^3, a copy, attention backends, the network's own product shapes
  kernels    each fused operation against what the compiler makes of the plain one
  profile    the GPU's own kernels of a step, by kind

Convention: matrix products and full attention, three times the forward pass; MFU of 989.4 TFLOP/s.
"executed" counts the scores that attention computes again in its backward pass too.

Predicted for one H200 at 4 x 4352 (113 TFLOP by the convention): products 75 TFLOP at 650 to 700
TFLOP/s, 107 to 116 ms; attention 38 TFLOP, 76 ms with cuDNN and 145 ms with flash; elementwise 120
passes over the 57 MB of a (tokens, width) tensor in a dual-stream block at 14 us each where the
compiler fuses all it can, 35 ms in all against 20 ms at the least; AdamW 35 GB, 8 ms; weights and
gradients to bf16 and back 15 GB, 4 ms. So: attention -60 ms, norm and modulation -3, QK-norm and
positions into the attention's layout -7, gates -3, CUDA graph -1 (more at 32 x 256).

Run: python -m benchmarks.train_step --out OUT.json [--parts ladder shapes ...] [--seconds 560]
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.fp8_linear import Recipe, relative_error
from benchmarks.step_profile import profile_calls
from benchmarks.step_timer import PEAK_TFLOPS, Record, machine, time_calls
from benchmarks.step_variants import (
    SHAPES,
    TINY_SHAPES,
    Shape,
    Step,
    Variant,
    inputs,
    network_config,
    randomize,
    step_flops,
)
from modeling.attention import attend, attend_by
from modeling.attention_check import BACKENDS, AttentionChoice, choose_attention
from modeling.block_operations import PLAIN, BlockOperations
from modeling.dit import DiTConfig
from modeling.kernels.check import cases
from modeling.kernels.select import choose_kernels

PARTS = ("ladder", "shapes", "curves", "eager", "machine", "kernels", "profile")
_VARIANT_S = 45.0  # a variant: build, compile two kinds of block, measure
_EAGER_S = 20.0


class Bench:
    def __init__(self, record: Record, device: torch.device, *, tiny: bool, backend: str) -> None:
        self.record, self.device, self.tiny = record, device, tiny
        self.config: DiTConfig = network_config(tiny=tiny)
        self.shapes = TINY_SHAPES if tiny else SHAPES
        lengths = (1, 17, 64) if tiny else (1, 17, 64, 192, 320, 704, 1000)
        self.attention: AttentionChoice = choose_attention(
            device, torch.bfloat16, head_dim=self.config.attention_head_dim, lengths=lengths
        )
        kernels = choose_kernels("auto", device, torch.bfloat16)
        self.fused: BlockOperations = kernels.operations
        record.about |= {
            **machine(),
            "attention": self.attention.describe(),
            "kernels": f"{kernels.name}: {kernels.reason}",
        }
        print(f"attention: {self.attention.describe()}\nkernels: {kernels.name}, {kernels.reason}")
        self.plain = Variant(backend=backend)
        self.best = replace(self.plain, operations=self.fused, attention=self.attention)
        self.theirs = replace(self.plain, network="diffusers")
        self.theirs_fast = replace(self.theirs, no_mask=True, cudnn_first=True)

    def ladder(self, shape_name: str, fp8: bool) -> None:
        """Cumulative from `plain` on: each row adds one switch to the one above."""
        op = self.fused
        normed = PLAIN._replace(norm_modulate=op.norm_modulate)
        gated = normed._replace(gated_add=op.gated_add, gated_add_norm=op.gated_add_norm)
        by = replace(self.plain, attention=self.attention)
        on_gpu = self.device.type == "cuda"
        rows = [
            ("plain", self.plain),
            ("fused", self.best),
            ("diffusers", self.theirs),
            ("plain + attention", by),
            ("+ norm", replace(by, operations=normed)),
            ("+ gate", replace(by, operations=gated)),
            ("diffusers, no mask", self.theirs_fast),
            *([("fused, CUDA graph", replace(self.best, graph=True))] if on_gpu else []),
            *([("fused, fp8 tensorwise", replace(self.best, fp8="tensorwise"))] if fp8 else []),
            *([("fused, fp8 rowwise", replace(self.best, fp8="rowwise"))] if fp8 else []),
            ("plain, eager", replace(self.plain, compiled=False)),
            ("fused, eager", replace(self.best, compiled=False)),
            ("diffusers, eager", replace(self.theirs, compiled=False)),
        ]
        for name, variant in rows:
            self._measure(f"ladder {self.shapes[shape_name]}", name, variant, shape_name)

    def other_shapes(self, done: str, fp8: bool) -> None:
        for shape_name in ("small", "medium", "long"):
            if shape_name == done:
                continue
            part = f"shape {self.shapes[shape_name]}"
            rows = [
                ("fused", self.best),
                ("diffusers", self.theirs),
                ("diffusers, no mask", self.theirs_fast),
                ("plain", self.plain),
            ]
            if shape_name == "small" and self.device.type == "cuda":
                rows.append(("fused, CUDA graph", replace(self.best, graph=True)))
            if fp8:
                rows.append(("fused, fp8 tensorwise", replace(self.best, fp8="tensorwise")))
            for name, variant in rows:
                self._measure(part, name, variant, shape_name)

    def _measure(self, part: str, name: str, variant: Variant, shape_name: str) -> None:
        shape = self.shapes[shape_name]
        needs = _VARIANT_S if variant.compiled else _EAGER_S
        self.record.attempt(
            part, name, 0 if self.tiny else needs, lambda: self._timed(variant, shape)
        )

    def _timed(self, variant: Variant, shape: Shape) -> dict[str, Any]:
        step = Step(variant, self.config, shape, self.device)
        if variant.graph:
            step.capture()
        timing = time_calls(step, seconds=0.1 if self.tiny else 4.0)
        flops, executed = step_flops(self.config, shape)
        rate = flops / timing.milliseconds / 1e9
        return {
            "ms": round(timing.milliseconds, 2),
            "spread": f"{timing.spread:.1%}",
            "tokens/s": round(shape.num_tokens / timing.milliseconds * 1e3),
            "TFLOP/s": round(rate, 1),
            "MFU": f"{rate / PEAK_TFLOPS:.1%}",
            "executed": f"{executed / timing.milliseconds / 1e9 / PEAK_TFLOPS:.1%}",
            "peak GiB": round(timing.peak_gib, 1),
            "first call s": round(timing.first_s, 1),
            "loss": round(float(step.loss), 5),
        }

    def curves(self, fp8: bool, num_steps: int) -> None:
        """Losses on the same batches, one after another; the plain ones are the measure."""
        base: list[float] = []
        variants = [("plain", self.plain), ("fused", self.best)]
        recipes: list[Recipe] = ["tensorwise", "rowwise"] if fp8 else []
        variants += [(f"fp8 {recipe}", replace(self.best, fp8=recipe)) for recipe in recipes]
        for name, variant in variants:

            def run(variant: Variant = variant) -> dict[str, Any]:
                losses = self._losses(variant, num_steps)
                row: dict[str, Any] = {"first": losses[0], "last 20": _mean(losses[-20:])}
                if not base:
                    base.extend(losses)
                smooth = [_mean(losses[i : i + 10]) for i in range(0, num_steps, 10)]
                wanted = [_mean(base[i : i + 10]) for i in range(0, num_steps, 10)]
                apart = [abs(a / b - 1) for a, b in zip(smooth, wanted, strict=True)]
                row["largest difference of 10-step means"] = f"{max(apart):.3%}"
                row["last 20 against plain"] = f"{row['last 20'] / _mean(base[-20:]) - 1:+.3%}"
                return row | {"losses": losses}

            self.record.attempt("curves", name, 0 if self.tiny else 75.0, run)

    def _losses(self, variant: Variant, num_steps: int) -> list[float]:
        shape = self.shapes["small"]
        step = Step(variant, self.config, shape, self.device)
        batches = [
            {k: v.clone() for k, v in self._batch(shape, seed).items()} for seed in range(16)
        ]
        losses = torch.zeros(num_steps, device=self.device)
        for number in range(num_steps):
            for name, value in batches[number % len(batches)].items():
                step.fields[name].copy_(value)
            step()
            losses[number] = step.loss
        return [round(float(x), 6) for x in losses.tolist()]

    def _batch(self, shape: Shape, seed: int) -> dict[str, Tensor]:
        return inputs(self.config, shape, self.device, seed)

    def eager(self) -> None:
        """Relative errors of outputs and gradients; a network with values in every tensor."""
        shape = replace(self.shapes["medium"], batch=1)
        variants = {
            "plain, eager": replace(self.plain, compiled=False),
            "plain, compiled": self.plain,
            "fused, eager": replace(self.best, compiled=False),
            "fused, compiled": self.best,
        }
        reference: list[Tensor] = []

        def gradients(variant: Variant, *, exact: bool) -> list[Tensor]:
            step = Step(variant, self.config, shape, self.device)
            randomize(step.network)
            if exact:
                with torch.autocast(self.device.type, enabled=False):
                    out = self._exact(step)
            else:
                out = step.forward()
            torch.autograd.backward((out * step.fields["target_BCTHW"]).mean())
            grads = [p.grad.flatten() for p in step.network.parameters() if p.grad is not None]
            return [out.detach().flatten(), torch.cat(grads)]

        def run(variant: Variant) -> dict[str, Any]:
            if not reference:
                reference.extend(gradients(variants["plain, eager"], exact=True))
            found = gradients(variant, exact=False)
            pairs = zip(("output", "gradients"), found, reference, strict=True)
            return {what: f"{float((a - b).norm() / b.norm()):.2e}" for what, a, b in pairs}

        for name, variant in variants.items():
            self.record.attempt(
                "against float32", name, 0 if self.tiny else 40.0, partial(run, variant)
            )

    def _exact(self, step: Step) -> Tensor:
        f = step.fields
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        out: Tensor = step.network(
            f["latent_BCTHW"],
            f["sigma_B"],
            f["text_BLD"].float(),
            torch.full((len(f["sigma_B"]),), step.shape.num_text),
            f["pooled_BD"].float(),
        )
        torch.set_float32_matmul_precision(before)
        return out

    def machine(self) -> None:
        size = 64 if self.tiny else 8192
        seconds = 0.05 if self.tiny else 0.5
        a, b = (torch.randn(size, size, device=self.device).bfloat16() for _ in range(2))

        def rate(flops: float, call: Callable[[], object]) -> dict[str, Any]:
            timing = time_calls(call, seconds=seconds)
            per_s = flops / timing.milliseconds / 1e9
            return {"ms": round(timing.milliseconds, 3), "TFLOP/s": round(per_s, 1)}

        part = "machine"
        self.record.attempt(part, f"product {size}^3", 5, lambda: rate(2 * size**3, lambda: a @ b))

        def copied() -> dict[str, Any]:
            num = 2**14 if self.tiny else 2**30
            big = torch.ones(num, device=self.device, dtype=torch.bfloat16)
            other = torch.empty_like(big)
            timing = time_calls(lambda: other.copy_(big), seconds=seconds)
            per_s = 4 * big.numel() / timing.milliseconds / 1e9
            return {"ms": round(timing.milliseconds, 3), "TB/s": round(per_s, 2)}

        self.record.attempt(part, "copy, read + written", 5, copied)
        self._products(rate)
        for shape in self.shapes.values():
            self._attention(shape, rate)
        recipes: tuple[Recipe, ...] = ("tensorwise", "rowwise")
        for recipe in recipes:
            self.record.attempt(
                part,
                f"error of an fp8 layer, {recipe}",
                5,
                partial(self._error, recipe),
            )

    def _error(self, recipe: Recipe) -> dict[str, Any]:
        found = relative_error(recipe, self.device)
        return {name: f"{value:.3f}" for name, value in found.items()}

    def _products(self, rate: Callable[[float, Callable[[], object]], dict[str, Any]]) -> None:
        """The three products of each wide layer at the medium shape."""
        d, m = self.config.hidden_size, self.config.mlp_size
        n = self.shapes["medium"].num_tokens
        layers = {
            "qkv": (d, 3 * d),
            "fc1": (d, m),
            "linear1": (d, 3 * d + m),
            "linear2": (d + m, d),
        }
        for name, (k, out) in layers.items():
            x = torch.randn(n, k, device=self.device).bfloat16()
            g = torch.randn(n, out, device=self.device).bfloat16()
            w = torch.randn(out, k, device=self.device).bfloat16()
            for what, call in (
                ("forward", lambda x=x, w=w: x @ w.t()),
                ("of input", lambda g=g, w=w: g @ w),
                ("of weight", lambda g=g, x=x: g.t() @ x),
            ):
                self.record.attempt(
                    "machine", f"{name} {what}", 2, partial(rate, 2.0 * n * k * out, call)
                )

    def _attention(
        self, shape: Shape, rate: Callable[[float, Callable[[], object]], dict[str, Any]]
    ) -> None:
        """Forward and backward, in the layout of the fused blocks; TFLOP/s by the convention."""
        n, e = shape.num_image + shape.num_text, self.config.attention_head_dim
        size = (shape.batch, n, self.config.num_attention_heads, e)
        leaves = [
            torch.randn(size, device=self.device).bfloat16().requires_grad_() for _ in range(4)
        ]
        q, k, v, weight = (x.transpose(1, 2) for x in leaves)
        flops = 12.0 * shape.batch * n * n * self.config.hidden_size
        functions = {
            name: attend_by([each], [each])
            for name, each in BACKENDS.items()
            if name != "math" or self.tiny
        }
        for name, function in {"PyTorch's choice": attend, **functions}.items():

            def call(function: Any = function) -> object:
                return torch.autograd.grad(function(q, k, v, None), leaves[:3], weight)

            self.record.attempt("attention", f"{name}, {shape}", 3, partial(rate, flops, call))

    def kernels(self) -> None:
        """Forward and backward of each operation at the size of the medium shape."""
        shape = self.shapes["medium"]
        size = {
            "batch": shape.batch,
            "grid": shape.grid_THW,
            "num_text": shape.num_text,
            "num_heads": self.config.num_attention_heads,
            "axes": self.config.rope_axes_dim,
        }
        for name, run, tensors in cases(self.device, torch.bfloat16, **size):  # type: ignore[arg-type]
            leaves = [t.detach().requires_grad_() for t in tensors]

            def call(op: BlockOperations, run: Any = run, leaves: list[Tensor] = leaves) -> object:
                found = run(op, leaves)
                outs = [found] if isinstance(found, Tensor) else list(found)
                return torch.autograd.grad(outs, leaves, [torch.ones_like(o) for o in outs])

            def compiled(run: Any = run) -> Any:
                return torch.compile(
                    lambda ts: run(PLAIN, ts), backend=self.plain.backend, dynamic=False
                )

            def timed(run: Any = run, call: Any = call, compiled: Any = compiled) -> dict[str, Any]:
                seconds = 0.05 if self.tiny else 0.5
                made = compiled()
                plain = time_calls(lambda: call(PLAIN, lambda _, ts: made(ts)), seconds=seconds)
                fused = time_calls(lambda: call(self.fused, run), seconds=seconds)
                return {
                    "compiled plain ms": round(plain.milliseconds, 3),
                    "fused ms": round(fused.milliseconds, 3),
                }

            self.record.attempt("kernels, forward + backward", name, 15, timed)

    def profile(self) -> None:
        """The GPU's kernels of a step at the medium shape, by kind."""
        shape = self.shapes["medium"]
        part = f"profile {shape}"
        for name, variant in (("fused", self.best), ("diffusers, no mask", self.theirs_fast)):

            def run(variant: Variant = variant) -> dict[str, Any]:
                return profile_calls(Step(variant, self.config, shape, self.device))

            self.record.attempt(part, name, 0 if self.tiny else _VARIANT_S, run)


def _mean(values: list[float]) -> float:
    return round(sum(values) / len(values), 6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("train_step.json"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--ladder-shape", choices=list(SHAPES), default="medium")
    parser.add_argument("--seconds", type=float, default=560, help="bound of the whole run")
    parser.add_argument("--curve-steps", type=int, default=200)
    parser.add_argument("--no-fp8", action="store_true")
    parser.add_argument("--tiny", action="store_true", help="try the program, on a CPU too")
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not arguments.tiny:
        raise SystemExit("no CUDA device: only --tiny runs on a CPU")
    torch.set_float32_matmul_precision("high")
    torch._dynamo.config.cache_size_limit = 64
    record = Record(arguments.out, arguments.seconds)
    bench = Bench(record, device, tiny=arguments.tiny, backend=arguments.backend)
    fp8 = not arguments.no_fp8
    for part in arguments.parts:
        if part == "ladder":
            bench.ladder(arguments.ladder_shape, fp8)
        elif part == "shapes":
            bench.other_shapes(arguments.ladder_shape, fp8)
        elif part == "curves":
            bench.curves(fp8, arguments.curve_steps)
        else:
            getattr(bench, part)()
    text = record.markdown()
    arguments.out.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
