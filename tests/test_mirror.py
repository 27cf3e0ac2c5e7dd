"""Every source file has its test file."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent


def mirrored(source: Path) -> Path:
    """The test file of *source*, both relative to the checkout."""
    return Path("tests", *source.parts[1:-1], f"test_{source.name}")


class MirrorTests(SynchronousTestCase):
    """``tests/`` mirrors ``regproxy/`` file by file."""

    # All missing files are named, however many.
    maxDiff = None

    def test_every_source_file_has_a_test_file(self) -> None:
        sources = {
            path.relative_to(ROOT)
            for path in (ROOT / "regproxy").rglob("*.py")
            if path.name != "__init__.py"
        }
        self.assertIn(Path("regproxy/oci/names.py"), sources)
        missing = sorted(
            str(mirrored(source)) for source in sources if not (ROOT / mirrored(source)).is_file()
        )
        self.assertEqual(missing, [])

    def test_every_test_directory_is_a_package(self) -> None:
        """Trial finds no tests in a directory without ``__init__.py``."""
        directories = {path.parent for path in (ROOT / "tests").rglob("*.py")}
        bare = sorted(
            str(directory.relative_to(ROOT))
            for directory in directories
            if not (directory / "__init__.py").is_file()
        )
        self.assertEqual(bare, [])
