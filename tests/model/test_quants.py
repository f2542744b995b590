"""Which file of a repository is meant."""

from __future__ import annotations

import pytest

from moestro.errors import ModelNotFound
from moestro.model.quants import candidates, choose, label_of

FILES = [
    "README.md",
    "Model-BF16-00001-of-00002.gguf",
    "Model-BF16-00002-of-00002.gguf",
    "Model-IQ4_XS.gguf",
    "Model-Q4_K_M.gguf",
    "Model-Q4_K_S.gguf",
    "Model-UD-Q4_K_XL.gguf",
    "Q8_0/Model-Q8_0-00001-of-00002.gguf",
    "Q8_0/Model-Q8_0-00002-of-00002.gguf",
    "imatrix.gguf",
    "mmproj-F16.gguf",
]


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("Qwen3.6-35B-A3B-Q4_K_M.gguf", "Q4_K_M"),
        ("x-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("x.IQ2_XXS.gguf", "IQ2_XXS"),
        ("x-q5_k_s.gguf", "Q5_K_S"),
        ("x-Q4_0_4_4.gguf", "Q4_0_4_4"),
        ("x-BF16-00001-of-00002.gguf", "BF16"),
        ("gpt-oss-20b-MXFP4.gguf", "MXFP4"),
        ("x-mxfp4_moe.gguf", "MXFP4_MOE"),
        ("Q6_K/model-00001-of-00003.gguf", "Q6_K"),
        ("TQ1_0/m.gguf", "TQ1_0"),
        ("ggml-model-f16.gguf", "F16"),
        ("Qwen3-30B.gguf", None),
        ("IQ4model.gguf", None),
    ],
)
def test_labels(path: str, label: str | None) -> None:
    assert label_of(path) == label


def test_candidates_count_split_models_once_and_no_side_files() -> None:
    assert [candidate.label for candidate in candidates(FILES)] == [
        "BF16",
        "IQ4_XS",
        "Q4_K_M",
        "Q4_K_S",
        "UD-Q4_K_XL",
        "Q8_0",
    ]


@pytest.mark.parametrize(
    ("quant", "path"),
    [
        ("Q4_K_M", "Model-Q4_K_M.gguf"),
        ("q4_k_m", "Model-Q4_K_M.gguf"),
        ("bf16", "Model-BF16-00001-of-00002.gguf"),
        ("q8_0", "Q8_0/Model-Q8_0-00001-of-00002.gguf"),
        ("Q4_K_XL", "Model-UD-Q4_K_XL.gguf"),
        ("IQ4", "Model-IQ4_XS.gguf"),
        (None, "Model-Q4_K_M.gguf"),
    ],
)
def test_choice(quant: str | None, path: str) -> None:
    chosen = choose(FILES, quant, "o/r")
    assert chosen.path == path
    assert chosen.because


def test_without_the_usual_one() -> None:
    assert choose(["a-Q3_K_M.gguf", "a-Q8_0.gguf"], None, "o/r").label == "Q8_0"
    only = choose(["a-IQ1_M.gguf"], None, "o/r")
    assert only.label == "IQ1_M"
    assert "only" in only.because


@pytest.mark.parametrize(
    ("files", "quant", "words", "hint"),
    [
        (["README.md"], None, "holds no GGUF", "repository"),
        (FILES, "Q2_K", "has no Q2_K", "Q4_K_S"),
        (FILES, "Q4_K", "fits 3 files", "Model-Q4_K_S.gguf"),
        (["a.gguf", "b.gguf"], None, "2 GGUF models", "a.gguf, b.gguf"),
        (["a-Q8_0.gguf", "b-Q8_0.gguf"], "q8_0", "fits 2 files", "b-Q8_0.gguf"),
    ],
)
def test_no_choice(files: list[str], quant: str | None, words: str, hint: str) -> None:
    with pytest.raises(ModelNotFound, match=words) as caught:
        choose(files, quant, "o/r")
    assert caught.value.hint is not None
    assert hint in caught.value.hint
