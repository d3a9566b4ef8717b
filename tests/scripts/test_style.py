"""The style checks find what they forbid, and nothing else."""

import style


def test_a_blank_line_between_imports_is_found():
    text = "//! A file.\n\nuse a::{\n    b,\n};\n\nuse c;\n\nmod d;\n"
    assert list(style.split_imports(text)) == [6]


def test_imports_of_another_scope_are_another_block():
    text = "use a;\n\nfn f() {\n    use b;\n\n    use c;\n}\n"
    assert list(style.split_imports(text)) == [5]
    assert list(style.split_imports("use a;\n\npub use b;\n")) == []


def test_a_doc_comment_that_says_nothing_is_found():
    assert list(style.filler_docs("struct S;\n/// The run.\npub run: RunId,\n")) == [2]


def test_a_short_doc_comment_may_name_unit_source_or_place():
    for comment in ["/// `StopReason`.", "/// See [`Probe`].", "/// ORA-00942.", "/// 1 to 12."]:
        assert list(style.filler_docs(f"{comment}\nfn f() {{}}\n")) == [], comment
    assert list(style.filler_docs("/// The run\n/// that it blocks.\nfn f() {}\n")) == []


def test_what_users_read_may_be_short():
    assert list(style.filler_docs("/// The plan.\n#[derive(clap::Args)]\nstruct S;\n")) == []
