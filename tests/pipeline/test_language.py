"""Whatever an input calls a language, it has one name afterwards."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.pipeline.language import is_unknown, normalize_language

CODES = {
    "eng_Latn": "en eng en-US en_GB en_US.UTF-8 EN eng_Latn eng-Latn eng_Latn_removed simple",
    "deu_Latn": "de deu ger de-1996 de-AT",
    "fra_Latn": "fr fra fre",
    "cmn_Hani": "zh zho chi cmn cmn_Hani zh-Hani",
    "cmn_Hans": "zh-CN zh-cn zh_Hans zho_Hans cmn_Hans zh-SG",
    "cmn_Hant": "zh-TW zh-HK zh-Hant zho_Hant cmn_Hant",
    "yue_Hani": "yue zh-yue",
    "nan_Latn": "zh-min-nan nan_Latn",
    "jpn_Jpan": "ja jpn jpn_Jpan",
    "kor_Hang": "ko kor kor_Hang kor_Kore",
    "arb_Arab": "ar ara arb arb_Arab ar-EG",
    "swh_Latn": "sw swa swh_Latn sw-KE",
    "fas_Arab": "fa fas per pes pes_Arab",
    "prs_Arab": "prs fa-AF",
    "heb_Hebr": "he iw heb",
    "nob_Latn": "no nb nor nob",
    "por_Latn": "pt pt-BR pt_PT por",
    "srp_Cyrl": "sr srp sr-Cyrl",
    "srp_Latn": "sr-Latn srp_Latn",
    "azj_Latn": "az aze azj",
    "azb_Arab": "az-Arab azb",
    "kmr_Latn": "ku kur kmr",
    "ckb_Arab": "ckb ku-Arab",
    "zsm_Latn": "ms msa zsm",
    "fil_Latn": "tl tgl fil",
    "lvs_Latn": "lv lav lvs",
    "npi_Deva": "ne nep npi",
    "pan_Guru": "pa pan",
    "pnb_Arab": "pnb pa-PK",
    "twi_Latn": "twi twi_Latn_asan1239 ak-asante",
    "und_Zyyy": "gj xx xyz klingon x-klingon und none en/de 12 ---",
    "und_Cyrl": "und-Cyrl",
}


@pytest.mark.parametrize(("expected", "codes"), CODES.items())
def test_codes_of_one_language_get_one_name(expected: str, codes: str) -> None:
    assert {code: normalize_language(code) for code in codes.split()} == dict.fromkeys(
        codes.split(), expected
    )


def test_a_name_in_normal_form_stays_as_it_is() -> None:
    for name in CODES:
        assert normalize_language(name) == name


def test_only_a_stated_code_that_is_no_language_counts_as_unknown() -> None:
    assert is_unknown("gj")
    assert is_unknown("English")
    assert not any(map(is_unknown, ["", "und", "und-Latn", "en", "unknown", " "]))


@given(
    st.text(max_size=20) | st.from_regex(r"[a-z]{2,3}([-_][A-Za-z0-9]{2,8}){0,3}", fullmatch=True)
)
def test_any_string_gives_a_name_that_is_stable(code: str) -> None:
    name = normalize_language(code)
    assert re.fullmatch(r"[a-z]{3}_[A-Z][a-z]{3}", name)
    assert normalize_language(name) == name


def test_the_languages_of_the_human_rights_declaration_stay_apart(shared: Path) -> None:
    with pa.input_stream(str(shared / "corpora/dev/udhr.jsonl.zst"), compression="zstd") as file:
        tags = {json.loads(line)["lang"] for line in file.read().splitlines()}
    assert len(tags) == 427
    names = defaultdict(set)
    for tag in tags:
        names[normalize_language(tag)].add(tag)
    assert names.pop("und_Zyyy") == {"und"}

    merged = {name: tags for name, tags in names.items() if len(tags) > 1}

    # Regions and spellings of one language in one script are one language; nothing else is.
    assert merged == {
        "deu_Latn": {"de-1901", "de-1996"},
        "ell_Grek": {"el-monoton", "el-polyton"},
        "hau_Latn": {"ha-NE", "ha-NG"},
        "kon_Latn": {"kg", "kg-AO"},
        "por_Latn": {"pt-BR", "pt-PT"},
        "roh_Latn": {tag for tag in tags if tag.startswith("rm") and tag != "rmn"},
        "tam_Taml": {"ta", "ta-LK"},
        "twi_Latn": {"ak-akuapem", "ak-asante"},
    }
