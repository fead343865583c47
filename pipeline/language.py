"""One normal form for language codes: whatever the input calls a language in, `eng_Latn` out.

The form is ISO 639-3, underscore, ISO 15924 script, as in FineWeb2 and FLORES+:

    en, eng, en-US, en_GB.UTF-8, eng_Latn -> eng_Latn      (regions and variants are dropped)
    ar -> arb_Arab   sw -> swh_Latn   no -> nob_Latn       (macrolanguage: the member meant by it)
    sr -> srp_Cyrl   sr-Latn -> srp_Latn   fa-AF -> prs_Arab
    zh, cmn, zh-Hani -> cmn_Hani   zh-CN, zh-Hans -> cmn_Hans   zh-TW, zh-Hant -> cmn_Hant
    gj, klingon, "" -> und_Zyyy

A script (or a region that implies one) that the input states is kept; where none is stated the
usual one is taken. Chinese without a script is `Hani`, because such text mixes both. So `zh` and
`zh-CN` are two languages here: give `language = "zh"` to a source to make them one.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from .documents import UNKNOWN_LANGUAGE

# Tags that are no BCP 47, or mean something else there: names of Wikipedias and old habits.
_ALIASES = {
    "be-x-old": "be",
    "bat-smg": "sgs",
    "cbk-zam": "cbk",
    "fiu-vro": "vro",
    "map-bms": "jv",
    "nds-nl": "nds",
    "roa-rup": "rup",
    "roa-tara": "nap",
    "simple": "en",
    "zh-classical": "lzh",
    "zh-min-nan": "nan-Latn",
    "zh-yue": "yue",
}

# ISO 639-3 macrolanguages (and a few doublets) -> the language that corpora mean by them.
# Members follow FineWeb2 and FLORES+; macrolanguages without such a member stay (que, aka, ful).
_MEMBERS = {
    "ara": "arb",
    "aym": "ayr",
    "aze": "azj",
    "bih": "bho",
    "bua": "bxr",
    "chm": "mhr",
    "cre": "crk",
    "din": "dik",
    "est": "ekk",
    "grn": "gug",
    "iku": "ike",
    "kau": "knc",
    "kok": "gom",
    "kom": "kpv",
    "kur": "kmr",
    "lav": "lvs",
    "mlg": "plt",
    "mon": "khk",
    "msa": "zsm",
    "nep": "npi",
    "nor": "nob",
    "ori": "ory",
    "orm": "gaz",
    "pes": "fas",
    "pus": "pbt",
    "sqi": "als",
    "swa": "swh",
    "tgl": "fil",
    "uzb": "uzn",
    "yid": "ydd",
    "zho": "cmn",
}

# A macrolanguage in one of its other scripts is another member.
_MEMBERS_BY_SCRIPT = {
    ("aze", "Arab"): "azb",
    ("kur", "Arab"): "ckb",
    ("mon", "Mong"): "mvf",
    ("pan", "Arab"): "pnb",
    ("uzb", "Arab"): "uzs",
}

_MEMBERS_BY_REGION = {
    ("fas", "AF"): "prs",
    ("aka", "akuapem"): "twi",
    ("aka", "asante"): "twi",
}

# Codes that ISO withdrew. CLDR's own list of replacements also maps languages to their
# macrolanguages (cmn -> zh, swh -> sw), which is the wrong way round for us.
_REPLACED = {"in": "id", "iw": "he", "ji": "yi", "jw": "jv", "mo": "ro"}

_SCRIPTS = {  # fonts and mixtures -> the script as corpora name it
    "Aran": "Arab",
    "Cyrs": "Cyrl",
    "Hrkt": "Jpan",
    "Kore": "Hang",
    "Latf": "Latn",
    "Latg": "Latn",
    "Syre": "Syrc",
    "Syrj": "Syrc",
    "Syrn": "Syrc",
}

# Usual scripts that CLDR's likely subtags (as langcodes has them) lack or give otherwise. Other
# languages that it lacks are written in Latin letters almost without exception.
_USUAL_SCRIPTS = {
    "aii": "Syrc",
    "bax": "Latn",
    "cjs": "Cyrl",
    "crh": "Latn",
    "ctd": "Latn",
    "eve": "Cyrl",
    "evn": "Cyrl",
    "gld": "Cyrl",
    "hnj": "Latn",
    "kjh": "Cyrl",
    "lad": "Latn",
    "mis": "Zyyy",
    "mul": "Zyyy",
    "nio": "Cyrl",
    "oaa": "Cyrl",
    "ojb": "Cans",
    "sdh": "Arab",
    "swb": "Latn",
    "ykg": "Cyrl",
    "zdj": "Latn",
    "zxx": "Zxxx",
    **{member: script for (_, script), member in _MEMBERS_BY_SCRIPT.items()},
}

_TAG = re.compile(r"[A-Za-z]{1,8}(?:[-_][A-Za-z0-9]{1,8})*")


@functools.lru_cache(maxsize=65_536)
def normalize_language(code: str) -> str:
    """Return `code` (BCP 47, ISO 639-1, -2 or -3, a locale, a Wikipedia's name) as `eng_Latn`.

    What is no language code gives `und_Zyyy`: documents are never lost to a bad tag.
    """
    import langcodes
    from langcodes import tag_parser

    tag = code.strip().split(".")[0].split("@")[0].replace("_", "-")
    tag = _ALIASES.get(tag.lower(), tag)
    if not _TAG.fullmatch(tag):
        return UNKNOWN_LANGUAGE
    try:
        parsed = langcodes.Language.get(tag, normalize=False)
    except (tag_parser.LanguageTagError, ValueError):
        # FLORES+ and others hang more on than BCP 47 allows: twi_Latn_asan1239, eng_Latn_removed
        try:
            parsed = langcodes.Language.get("-".join(tag.split("-")[:2]), normalize=False)
        except (tag_parser.LanguageTagError, ValueError):
            return UNKNOWN_LANGUAGE
    subtag = _language_subtag(parsed)
    if not subtag:
        return f"und_{parsed.script}" if parsed.script else UNKNOWN_LANGUAGE
    language = _iso_639_3(subtag)
    if not language:
        return UNKNOWN_LANGUAGE
    script = parsed.script or _usual_script(language, parsed.territory)
    script = _SCRIPTS.get(script, script)
    for detail in (parsed.territory, *(parsed.variants or ())):
        language = _MEMBERS_BY_REGION.get((language, detail or ""), language)
    language = _MEMBERS_BY_SCRIPT.get((language, script)) or _MEMBERS.get(language, language)
    return f"{language}_{script}"


def is_unknown(code: str) -> bool:
    """Say whether `code` claims to be a language and is none (an absent one claims nothing)."""
    stated = code.strip().lower()
    if stated.split("-")[0].split("_")[0] in ("", "und", "unk", "unknown", "none", "null"):
        return False
    return normalize_language(code) == UNKNOWN_LANGUAGE


def _language_subtag(parsed: Any) -> str:
    """Return the subtag that names the language, shortest form: `zh-yue` means yue, `eng` en."""
    language = parsed.extlangs[0] if parsed.extlangs else parsed.language
    if not language or language == "und":
        return ""
    language = _REPLACED.get(language, language)
    return str(_two_letters().get(language, language))


def _iso_639_3(subtag: str) -> str:
    """Return the three-letter code of a language subtag, "" if there is no such language."""
    import langcodes
    from langcodes import data_dicts

    if len(subtag) == 2:
        return str(data_dicts.LANGUAGE_ALPHA3.get(subtag, ""))
    if len(subtag) != 3:
        return ""
    is_known = (
        subtag in _two_letters()
        or subtag in data_dicts.MACROLANGUAGES
        or langcodes.Language.make(language=subtag).is_valid()
    )
    return subtag if is_known else ""


@functools.cache
def _two_letters() -> dict[str, str]:
    """Return the two-letter code of three-letter codes, bibliographic ones too: eng, ger."""
    from langcodes import data_dicts

    tables = (data_dicts.LANGUAGE_ALPHA3, data_dicts.LANGUAGE_ALPHA3_BIBLIOGRAPHIC)
    return {three: two for table in tables for two, three in table.items() if len(two) == 2}


def _usual_script(language: str, territory: str | None) -> str:
    """Return the script that a language is usually written in (in that region, if given)."""
    import langcodes
    from langcodes import data_dicts

    if language in _USUAL_SCRIPTS:
        return _USUAL_SCRIPTS[language]
    subtag = _two_letters().get(language, language)
    if subtag not in data_dicts.LIKELY_SUBTAGS:
        subtag = data_dicts.MACROLANGUAGES.get(subtag, subtag)  # prs is written as fa is
    if subtag not in data_dicts.LIKELY_SUBTAGS:
        return "Latn"
    script = str(langcodes.Language.make(language=subtag, territory=territory).maximize().script)
    states_no_script = territory is None or subtag != "zh"
    return "Hani" if script in ("Hans", "Hant") and states_no_script else script
