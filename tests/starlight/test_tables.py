"""Markdown tables and their place in a document."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starlight.tables import check_block, markdown_table, write_block

cell = st.text(st.characters(codec="ascii", exclude_characters="|", min_codepoint=32)).map(
    str.strip
)


def parse(table: str) -> list[list[str]]:
    """Cells of a Markdown table, the rule under the titles left out."""
    lines = [[part.strip() for part in line[1:-1].split("|")] for line in table.split("\n")]
    return [lines[0], *lines[2:]]


@given(
    st.integers(1, 5).flatmap(
        lambda n: st.lists(st.lists(cell, min_size=n, max_size=n), min_size=1, max_size=6)
    )
)
def test_a_table_reads_back_and_its_lines_are_equally_long(lines: list[list[str]]) -> None:
    table = markdown_table(lines[0], lines[1:])
    assert parse(table) == lines
    assert len({len(line) for line in table.split("\n")}) == 1


def test_the_first_column_stands_left_the_others_right() -> None:
    assert markdown_table(("name", "ms"), [("a", "1234.5")]).split("\n") == [
        "| name |     ms |",
        "| ---- | -----: |",
        "| a    | 1234.5 |",
    ]


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="row must have 2 cells, got"):
        markdown_table(("a", "b"), [("1",)])


def test_a_block_is_replaced_again_and_again_and_nothing_else(tmp_path: Path) -> None:
    document = tmp_path / "X.md"
    document.write_text("# X\n<!-- t:begin --><!-- t:end -->\nend <!-- u:begin --><!-- u:end -->\n")
    for text in ("| a |", "| b |\n| c |"):
        write_block(document, "t", text)
        assert document.read_text() == (
            f"# X\n<!-- t:begin -->\n{text}\n<!-- t:end -->\nend <!-- u:begin --><!-- u:end -->\n"
        )


@pytest.mark.parametrize(
    "document",
    [
        "",
        "<!-- t:begin -->",
        "<!-- t:end --><!-- t:begin -->",
        "<!-- t:begin --><!-- t:end --><!-- t:begin --><!-- t:end -->",
        "<!-- t:begin --><!-- t:begin --><!-- t:end -->",
    ],
)
def test_a_document_without_one_clear_place_is_refused_and_kept(
    tmp_path: Path, document: str
) -> None:
    path = tmp_path / "X.md"
    path.write_text(document)
    with pytest.raises(ValueError, match=r"<!-- t:begin --> then <!-- t:end -->"):
        write_block(path, "t", "text")
    assert path.read_text() == document


def test_a_missing_document_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="file must exist with <!-- t:begin --> in it"):
        check_block(tmp_path / "X.md", "t")
