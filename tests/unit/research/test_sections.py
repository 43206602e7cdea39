"""Sections of a page stand by themselves, and name the commit of the code that made them."""

import subprocess

import pytest

from research import sections


def git(folder, *arguments):
    who = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    return subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A repository with code and a page, instead of this one."""
    code = tmp_path / "research" / "sections.py"
    code.parent.mkdir(parents=True)
    code.write_text("one\n")
    (tmp_path / "results.md").write_text("one\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "one")
    monkeypatch.setattr(sections, "__file__", str(code))
    return tmp_path


def test_pages_and_data_do_not_change_the_code(tree):
    named = git(tree, "rev-parse", "--short=12", "HEAD")
    sections.write_section(tree / "results.md", "name", "what was found")
    (tree / "new.md").write_text("a new page\n")
    (tree / "events.parquet").write_bytes(b"data")
    assert sections.commit() == named
    (tree / "research" / "sections.py").write_text("two\n")
    assert sections.commit() == f"{named} with changes"
    git(tree, "checkout", "--quiet", "research")
    assert sections.commit() == named
    (tree / "constraints.txt").write_text("numpy==1\n")
    assert sections.commit() == f"{named} with changes"


def test_outside_a_repository_it_is_unknown(tree):
    (tree / ".git").rename(tree / "not-git")
    assert sections.commit() == "unknown"


def test_a_name_cannot_break_the_page(tmp_path):
    page = tmp_path / "page.md"
    sections.write_section(page, "odd --> name\n", "one", "# Head\n")
    sections.write_section(page, "plain", "two")
    sections.write_section(page, "odd --> name\n", "three")
    assert page.read_text() == "# Head\n\n<!-- odd __ name_ -->\nthree\n<!-- /odd __ name_ -->\n\n<!-- plain -->\ntwo\n<!-- /plain -->\n"
