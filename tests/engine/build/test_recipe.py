"""What CMake is told on which host."""

from __future__ import annotations

import pytest

from moestro.engine.build.recipe import Host, parse_cpu_flags, recipe_for

AVX2 = {"sse4_2", "avx", "f16c", "fma", "avx2", "bmi2"}
AVX512 = {"avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw"}


def x86(*flags: str, cuda: bool = False, **more: object) -> Host:
    return Host("Linux", "x86_64", frozenset(AVX2 | {*flags}), cuda, **more)  # type: ignore[arg-type]


def on(host: Host, *, refused: str = "") -> set[str]:
    options = recipe_for("llama.cpp", host, lambda flag: flag != refused).options
    return {name.removeprefix("GGML_") for name, value in options.items()
            if name.startswith("GGML_") and value == "ON"}  # fmt: skip


PLAIN = {"SSE42", "AVX", "F16C", "FMA", "AVX2", "BMI2"}


@pytest.mark.parametrize(
    ("flags", "more"),
    [
        ((), set()),
        (("avx_vnni",), {"AVX_VNNI"}),
        (AVX512, {"AVX512"}),
        (AVX512 - {"avx512bw"}, set()),  # ggml's option means all five
        ((*AVX512, "avx512_vnni", "avx512vbmi", "avx512_bf16"),
         {"AVX512", "AVX512_VNNI", "AVX512_VBMI", "AVX512_BF16"}),
        (("avx512_vnni",), set()),
        (("amx_tile", "amx_int8", "amx_bf16"), set()),
    ],
)  # fmt: skip
def test_x86_gets_what_it_has_but_never_amx(flags: set[str], more: set[str]) -> None:
    assert on(x86(*flags)) == PLAIN | more


def test_every_set_is_named_so_that_no_default_decides() -> None:
    options = recipe_for("llama.cpp", Host("Linux", "x86_64", frozenset({"sse4_2"})), bool).options
    assert options["GGML_NATIVE"] == options["GGML_AVX2"] == options["GGML_AMX_INT8"] == "OFF"
    assert options["GGML_SSE42"] == "ON"


def test_what_the_compiler_does_not_know_is_left_out() -> None:
    assert on(x86("avx_vnni"), refused="-mavxvnni") == PLAIN


@pytest.mark.parametrize(
    "host",
    [
        Host("Linux", "aarch64", frozenset({"asimd", "asimddp", "i8mm"})),
        Host("Darwin", "x86_64", frozenset()),
    ],
)
def test_elsewhere_the_source_finds_out_itself(host: Host) -> None:
    assert recipe_for("llama.cpp", host, bool).options["GGML_NATIVE"] == "ON"


def test_ik_takes_all_of_the_host_and_has_its_server_among_examples() -> None:
    options = recipe_for("ik_llama.cpp", x86("amx_int8"), bool).options
    assert options["GGML_NATIVE"] == options["LLAMA_BUILD_EXAMPLES"] == "ON"
    assert not any("AMX" in name for name in options)


@pytest.mark.parametrize("family", ["llama.cpp", "ik_llama.cpp"])
def test_nothing_is_downloaded_and_nothing_shared(family: str) -> None:
    options = recipe_for(family, x86(), bool).options  # type: ignore[arg-type]
    assert options["BUILD_SHARED_LIBS"] == options["LLAMA_CURL"] == "OFF"
    assert options.get("LLAMA_USE_PREBUILT_UI", "OFF") == "OFF"
    assert options["GGML_CCACHE"] == options["LLAMA_BUILD_TESTS"] == "OFF"


def test_cuda_is_compiled_for_the_gpus_that_are_here() -> None:
    recipe = recipe_for("llama.cpp", x86(cuda=True, capabilities=((8, 9), (9, 0), (8, 9))), bool)
    assert recipe.options["CMAKE_CUDA_ARCHITECTURES"] == "89;90"
    assert recipe.devices == ("CUDA",)
    assert "-DGGML_CUDA=ON" in recipe.flags
    unknown = recipe_for("llama.cpp", x86(cuda=True), bool)
    assert "CMAKE_CUDA_ARCHITECTURES" not in unknown.options


def test_metal_on_apple_silicon_alone() -> None:
    assert recipe_for("llama.cpp", Host("Darwin", "arm64", frozenset()), bool).devices == ("Metal",)
    intel = recipe_for("llama.cpp", Host("Darwin", "x86_64", frozenset()), bool)
    assert (intel.options["GGML_METAL"], intel.devices) == ("OFF", ())


def test_the_kernels_words() -> None:
    assert parse_cpu_flags("model name: x\nflags\t\t: fpu avx2 fma\nflags : other\n") == {
        "fpu", "avx2", "fma",
    }  # fmt: skip
    assert parse_cpu_flags("Features : fp asimd i8mm\n") == {"fp", "asimd", "i8mm"}
    assert parse_cpu_flags("") == frozenset()
