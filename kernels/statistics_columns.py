"""The counts that text statistics consist of: names and meanings, nothing computed here."""

from __future__ import annotations

COLUMNS: dict[str, str] = {
    "characters": "code points",
    "words": "words; of scripts without spaces as much text as makes one",
    "word_characters": "code points of words",
    "tokens": "words and punctuation marks",
    "alphabetic_words": "words with a letter",
    "stop_words": "different stop words of the language that occur",
    "hashes": "number signs #",
    "ellipses": "occurrences of ... and of the character for it",
    "newlines": "line ends",
    "lines": "lines, empty ones too",
    "bullet_lines": "lines that begin with a bullet or a hyphen",
    "ellipsis_lines": "lines that end in an ellipsis",
    "text_lines": "lines that are not blank",
    "punctuated_lines": "text lines that end in a sentence's final mark",
    "short_lines": "text lines of at most 30 code points",
    "duplicate_lines": "text lines that are equal to an earlier one",
    "duplicate_line_characters": "their code points",
    "paragraphs": "runs of text lines",
    "duplicate_paragraphs": "paragraphs that are equal to an earlier one",
    "duplicate_paragraph_characters": "their code points",
    "repetition_characters": "code points that n-grams were looked for in",
    "top_2gram_characters": "occurrences of the commonest 2-gram times its length",
    "top_3gram_characters": "the same of 3-grams",
    "top_4gram_characters": "the same of 4-grams",
    "duplicate_5gram_characters": "code points of repeated 5-grams, without spaces",
    "duplicate_6gram_characters": "the same of 6-grams",
    "duplicate_7gram_characters": "the same of 7-grams",
    "duplicate_8gram_characters": "the same of 8-grams",
    "duplicate_9gram_characters": "the same of 9-grams",
    "duplicate_10gram_characters": "the same of 10-grams",
    "c4_sentences": "sentences of the lines that C4 keeps",
    "c4_lorem_ipsum": "lines with `lorem ipsum` that C4 looks at",
    "c4_curly_brackets": "lines with { that C4 looks at",
    "c4_sentences_any_ending": "as c4_sentences, of lines with any ending",
    "c4_lorem_ipsum_any_ending": "as c4_lorem_ipsum, of lines with any ending",
    "c4_curly_brackets_any_ending": "as c4_curly_brackets, of lines with any ending",
}
"""Name of each count, in the order of the kernel's columns, with what it counts."""

SHORT_LINE_CHARACTERS = 30
C4_MIN_LINE_WORDS = 3
C4_MAX_WORD_CHARACTERS = 1000
MAX_STOP_WORDS = 63

NUM_COLUMNS = len(COLUMNS)
(
    CHARACTERS,
    WORDS,
    CHARACTERS_OF_WORDS,
    TOKENS,
    ALPHABETIC_WORDS,
    STOP_WORDS,
    HASHES,
    ELLIPSES,
    NEWLINES,
    LINES,
    BULLET_LINES,
    ELLIPSIS_LINES,
    TEXT_LINES,
    PUNCTUATED_LINES,
    SHORT_LINES,
    DUPLICATE_LINES,
    DUPLICATE_LINE_CHARACTERS,
    PARAGRAPHS,
    DUPLICATE_PARAGRAPHS,
    DUPLICATE_PARAGRAPH_CHARACTERS,
    REPETITION_CHARACTERS,
    TOP_2GRAM_CHARACTERS,
) = range(22)
"""Numbers of columns; those of longer n-grams follow the 2-grams'."""

C4_SENTENCES = list(COLUMNS).index("c4_sentences")
C4_SENTENCES_ANY_ENDING = list(COLUMNS).index("c4_sentences_any_ending")
