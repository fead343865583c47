"""What `gristmill inspect` shows of a prefix and of a folder of prefixes."""

from pathlib import Path

from gristmill.indexed_dataset.describe import describe_folder, describe_prefix

ROW = {"documents": 2, "tokens": 5, "text_bytes": 9}


def test_a_prefix_is_described_with_its_lengths_tokenizer_and_languages(write_prefix):
    prefix = write_prefix(
        [[1, 2, 0], [3, 0]],
        text_bytes=9,
        languages={"eng_Latn": ROW},
        sources={"wiki": ROW},
        tokenizer={"path": "../tokenizer", "fingerprint": "abcd"},
        split="train",
    )

    assert describe_prefix(prefix).splitlines() == [
        f"{prefix}: 2 documents, 5 tokens, 9 bytes of text (uint16, documents shuffled)",
        "  2 sequences, documents of 2 to 3 tokens, half of them of 2 or more",
        "  vocabulary 60,000, end of document 0, largest id 3, tokenizer abcd",
        "  language eng_Latn: 2 documents, 5 tokens, 9 bytes of text",
        "  source wiki: 2 documents, 5 tokens, 9 bytes of text",
        "  written by gristmill 0.1.0, train split",
    ]


def test_a_foreign_and_an_empty_prefix_are_described_too(write_prefix):
    prefix = write_prefix([])
    assert "vocabulary 60,000, end of document 0, largest id unknown" in describe_prefix(prefix)
    Path(f"{prefix}.json").unlink()

    assert describe_prefix(prefix).splitlines() == [
        f"{prefix}: 0 documents, 0 tokens (uint16, no manifest)",
        "  0 sequences",
    ]


def test_a_folder_is_described_by_group_with_its_sum(write_prefix, tmp_path):
    write_prefix([[1, 2, 0]], "deu_Latn", text_bytes=5)
    for shard in range(2):
        write_prefix([[1, 0]] * 1000, f"eng_Latn-0000{shard}-of-00002", text_bytes=3000)

    assert [line.split() for line in describe_folder(tmp_path).splitlines()] == [
        ["group", "shards", "documents", "tokens", "text", "bytes"],
        ["deu_Latn", "1", "1", "3", "5"],
        ["eng_Latn", "2", "2,000", "4,000", "6,000"],
        ["all", "3", "2,001", "4,003", "6,005"],
    ]
