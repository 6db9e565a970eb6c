#!/usr/bin/env python3
"""Which sources are compiled together (cmake/units.py)."""
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "cmake"))
import units  # noqa: E402


def anonymous(lines):
    return "namespace farshore {\nnamespace {\n\n" + lines + "\n\n}  // namespace\n}  // namespace farshore\n"


class Units(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = pathlib.Path(directory.name)

    def together(self, **texts):
        """Whether sources with these texts may share a unit; `h` is a header."""
        sources = []
        for name, text in texts.items():
            path = self.root / ("h.h" if name == "h" else f"{name}.cc")
            path.write_text(text)
            if name != "h":
                sources.append(path)
        units.given_names.cache_clear()
        return len(units.units_of(sources, self.root, 8)) == 1

    def test_strangers_share_a_unit(self):
        """Breaks when nothing is ever compiled together."""
        self.assertTrue(self.together(a=anonymous("int one() { return 1; }"), b=anonymous("int two() { return 1; }")))

    def test_the_same_name_keeps_them_apart(self):
        """Breaks when a file could call a function of another one that it does not know of."""
        for one, other in (("int f(int x) {\n    return x;\n}", "int f(long x) {\n    return 1;\n}"),
                           ("struct S {\n    int x;\n};", "enum class S : int { kA };"),
                           ("constexpr int kA = 1, kB = 2 * kA;", "const char* const kB[] = {\"x\"};"),
                           ("template <typename T>\nvoid g(const T& x) {\n}", "void g() {}"),
                           ("using J = int;", "using J = long;"),
                           ("using J = int;", "class J {\n};"),
                           ("std::string a_long_one(\n    int x) {\n}", "int a_long_one() { return 1; }")):
            self.assertFalse(self.together(a=anonymous(one), b=anonymous(other)), one)
            self.assertFalse(self.together(a=anonymous(other), b=anonymous(one)), one)
        self.assertFalse(self.together(a="namespace farshore {\nusing J = int;\n}  // namespace farshore\n",
                                       b=anonymous("using J = long;")))
        self.assertFalse(self.together(a="static int f() { return 1; }\n", b=anonymous("int f(int) { return 1; }")))

    def test_an_alias_of_the_same_type_may_be_there_twice(self):
        """Breaks when half the sources are compiled alone for nothing."""
        self.assertTrue(self.together(a=anonymous("using J = int;"), b=anonymous("using J = int;")))

    def test_a_name_of_a_header_of_another_keeps_them_apart(self):
        """Breaks when a file could call its neighbour's helper where it means what it includes."""
        header = "#pragma once\nnamespace farshore {\nint f(int x);\n}  // namespace farshore\n"
        self.assertFalse(self.together(h=header, a='#include "h.h"\n' + anonymous("int g() { return f(1); }"),
                                       b=anonymous("int f(long x) {\n    return 2;\n}")))
        self.assertTrue(self.together(h=header, a='#include "h.h"\n' + anonymous("int g() { return f(1); }"),
                                      b=anonymous("int i(long x) {\n    return 2;\n}")))

    def test_what_reaches_past_its_own_lines_does_not_meet_others(self):
        """Breaks when a macro or a used namespace of one file changes what another one means."""
        plain = anonymous("int g() { return 1; }")
        self.assertFalse(self.together(a="#define X 1\n", b=plain))
        self.assertFalse(self.together(a="using namespace other;\n", b=plain))
        self.assertTrue(self.together(a="using namespace other;\n", b="using namespace other;\n" + plain))

    def test_text_is_no_name(self):
        """Breaks when lines of a raw string are taken for declarations."""
        text = anonymous('constexpr const char* kText = R"(\nint f() {\n)";')
        self.assertTrue(self.together(a=text, b=anonymous("int f() { return 1; }")))

    def test_each_is_compiled_once(self):
        """Breaks when a source is left out, or compiled twice."""
        for number in range(40):
            (self.root / f"s{number}.cc").write_text(anonymous(f"int f{number % 7}() {{ return 1; }}"))
        files = list(self.root.glob("*.cc"))
        for each in (1, 3, 8):
            found = [file for unit in units.units_of(files, self.root, each) for file in unit]
            self.assertEqual(sorted(files), sorted(found))
        self.assertEqual(40, len(units.units_of(files, self.root, 1)))


if __name__ == "__main__":
    unittest.main()
