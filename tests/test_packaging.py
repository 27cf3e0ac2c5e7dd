"""What gets installed: the package, and the plugin in Twisted's own."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_namespace_packages
from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.plugins import regproxy_plugin
from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent


def packages() -> list[str]:
    """The packages that setup.cfg selects."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    include = setup["options.packages.find"]["include"].split()
    return find_namespace_packages(str(ROOT), include=include)


class PackagingTests(SynchronousTestCase):
    """The selection of setup.cfg."""

    def test_plugin_is_packaged(self) -> None:
        self.assertIn("twisted.plugins", packages())
        self.assertTrue((ROOT / "twisted/plugins/regproxy_plugin.py").is_file())

    def test_twisted_is_not_replaced(self) -> None:
        """An ``__init__.py`` here would hide Twisted itself, or overwrite its file."""
        self.assertEqual(list((ROOT / "twisted").rglob("__init__.py")), [])
        self.assertNotIn("twisted", packages())

    def test_every_package_is_packaged(self) -> None:
        expected = {
            ".".join(path.parent.relative_to(ROOT).parts)
            for path in (ROOT / "regproxy").rglob("__init__.py")
        }
        self.assertEqual(expected - set(packages()), set())

    def test_nothing_else_is_packaged(self) -> None:
        others = [name for name in packages() if name.partition(".")[0] != "regproxy"]
        self.assertEqual(others, ["twisted.plugins"])

    def test_data_is_packaged(self) -> None:
        """Everything that is no module is named in setup.cfg: the pages need it."""
        setup = ConfigParser()
        setup.read(ROOT / "setup.cfg")
        package = ROOT / "regproxy"
        named = {
            file
            for pattern in setup["options.package_data"]["regproxy"].split()
            for file in package.glob(pattern)
            if file.is_file()
        }
        others = {
            file
            for file in package.rglob("*")
            if file.is_file() and file.suffix not in (".py", ".pyc")
        }
        self.assertIn(package / "management/static/live.js", others)
        self.assertEqual(others - named, set())


class PluginTests(SynchronousTestCase):
    """What ``twistd`` sees."""

    def test_twistd_finds_it_once(self) -> None:
        found = [maker for maker in getPlugins(IServiceMaker) if maker.tapname == "regproxy"]
        self.assertEqual(found, [regproxy_plugin.regproxy])
        self.assertEqual(regproxy_plugin.regproxy.module, "regproxy.tap")
