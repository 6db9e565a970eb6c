#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "cli/config_file.h"
#include "cli/environment.h"
#include "os/test_paths.h"

namespace farshore {
namespace {

// The program with files that the test made up, and no server.
struct Program {
    std::map<std::string, std::string> files;
    std::ostringstream out, err;

    int run(std::vector<const char*> words) {
        words.insert(words.begin(), "farshore");
        out.str("");
        err.str("");
        CliEnvironment environment;
        environment.out = &out;
        environment.err = &err;
        environment.variable = [](const std::string&) { return std::string(); };
        environment.read_file = [this](const std::string& path) -> Result<std::string> {
            if (!files.contains(path)) return fail(Code::kNotFound, path);
            return files[path];
        };
        return run_cli(environment, static_cast<int>(words.size()), words.data());
    }
    // What `farshore vault serve --check` says of a file.
    std::string of(const std::string& text) {
        files["v.toml"] = text;
        const int code = run({"vault", "serve", "--config", "v.toml", "--check"});
        return std::to_string(code) + " " + out.str() + err.str();
    }
};

// Broken if a right file were refused, or a check started the server that it checks.
TEST(Config, ARightOneIsOk) {
    Program p;
    EXPECT_EQ(p.of("data = '/nowhere/v'\nlisten = '127.0.0.1:1'\ntake-over = false\n"
                   "server-name = ['a', 'b']\nlog-level = 'debug'\ntime-zone = ''\n"),
              "0 ok\n");
}

// Broken if an error had no place, another code, or were not told at all.
TEST(Config, WhatIsWrongIsNamedWithItsPlace) {
    Program p;
    const auto begins = [&](const std::string& text, const std::string& with) {
        const std::string said = p.of(text);
        EXPECT_TRUE(said.starts_with(with)) << said;
    };
    begins("data = 'x'\nlisten = \n", "65 farshore: malformed: v.toml:2:");
    begins("data = 'x'\ndata = 'y'\n", "65 farshore: malformed: v.toml:2:");
    // What toml++ asserts on.
    begins("data = 'x'\n\n[=]\nlisten = 'x'\n",
           "65 farshore: malformed: v.toml:3:1: this is not TOML");
    begins("data = 'x'\nlisten = \xef\xb0\xa6\n", "65 farshore: malformed: v.toml:2:");
    begins("[`", "65 farshore: malformed: v.toml:1:1: this is not TOML");
    begins("data = 'x'\n\n  lisen = ':1'\n",
           "64 farshore: invalid-argument: v.toml:3:11: there is no key 'lisen'");
    begins("data = 'x'\n[vault]\nlisten = 'x'\n",
           "64 farshore: invalid-argument: v.toml:2:1: 'vault' is a table");
    begins("data = 5\n", "64 farshore: invalid-argument: v.toml:1:8: 'data' has a value of");
    begins("data = 'x'\ntake-over = 'yes'\n",
           "64 farshore: invalid-argument: v.toml:2:13: 'take-over' has a value of");
    begins("data = 'x'\nserver-name = ['a',\n 7]\n",
           "64 farshore: invalid-argument: v.toml:3:2: 'server-name' is a list of texts");
    begins("data = 'x'\nlog-level = 'loud'\n",
           "64 farshore: invalid-argument: v.toml:2:13: 'log-level': ");
    begins("data = 'x'\nlisten = 'here'\n",
           "64 farshore: invalid-argument: v.toml:2:10: 'listen': ");
    begins("data = 'x'\nscrub-bandwidth = 'fast'\n",
           "64 farshore: invalid-argument: v.toml:2:19: 'scrub-bandwidth': ");
    begins("data = 'x'\ntime-zone = 'Mars/Olympus'\n",
           "64 farshore: invalid-argument: v.toml:2:13: 'time-zone': ");
    begins("data = 'x'\nconfig = 'other.toml'\n",
           "64 farshore: invalid-argument: v.toml:2:10: there is no key 'config'");
    begins("data = 1979-05-27\n", "64 farshore: invalid-argument: v.toml:1:8: 'data' is a value");
    begins("data = -1\n", "64 farshore: invalid-argument: v.toml:1:8: 'data' is -1");
    p.files["u.toml"] = "data = 'x'\nspool-mib = 1\n";
    EXPECT_EQ(p.run({"up", "--config", "u.toml", "--check"}), 64);
    EXPECT_TRUE(p.err.str().starts_with(
        "farshore: invalid-argument: u.toml:2:13: 'spool-mib': Value 1 not in range"))
        << p.err.str();
}

// Broken if a file that is missing were as if it had not been named.
TEST(Config, AFileThatIsMissingIsNamed) {
    Program p;
    EXPECT_EQ(p.run({"up", "--data", "x", "--config=none.toml", "--check"}), 66);
    EXPECT_EQ(p.err.str(), "farshore: not-found: none.toml\n");
}

// Broken if what a person types did not win over a file, or a file that is wrong went unnoticed
// because of it.
TEST(Config, TheCommandLineWins) {
    Program p;
    p.files["v.toml"] = "data = 'x'\nkey-source = 'env'\nlog-level = 'debug'\n";
    EXPECT_EQ(p.run({"vault", "serve", "--config", "v.toml", "--key", "k", "--check"}), 0)
        << p.err.str();
    EXPECT_EQ(p.run({"vault", "serve", "--log-level=info", "--config", "v.toml", "--check"}), 0);
    EXPECT_EQ(p.run({"vault", "serve", "--log-level=loud", "--config", "v.toml", "--check"}), 64);
    p.files["v.toml"] = "data = 'x'\nlog-level = 'loud'\n";
    EXPECT_EQ(p.run({"vault", "serve", "--log-level=info", "--config", "v.toml", "--check"}), 64);
}

// Broken if what the program needs could not come from the file, or were not asked for.
TEST(Config, RequiredOptionsMayStandInTheFile) {
    Program p;
    EXPECT_EQ(p.of("listen = '127.0.0.1:1'\n").substr(0, 3), "64 ");
    EXPECT_EQ(p.of("data = 'x'\n"), "0 ok\n");
    EXPECT_EQ(p.of("data = ''\n").substr(0, 3), "64 ");
}

// Broken if a check passed though a start would end for want of a file.
TEST(Config, ACheckReadsWhatIsNamed) {
    Program p;
    p.files["a.toml"] =
        "data = '/nowhere/a'\nvault = 'https://v:1'\nstore = '/s'\nca = '/nowhere/ca.crt'\n";
    EXPECT_EQ(p.run({"appliance", "serve", "--config", "a.toml", "--check"}), 66) << p.err.str();
    p.files["a.toml"] = "data = '/nowhere/a'\nvault = 'http://v:1'\nstore = '/s'\n";
    EXPECT_EQ(p.run({"appliance", "serve", "--config", "a.toml", "--check"}), 64);
    EXPECT_NE(p.err.str().find("a.toml:2:9: 'vault': "), std::string::npos) << p.err.str();
}

std::string text_of(const std::string& path) {
    std::ifstream file(path);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
}

// The long options of a verb's help, those of this run apart.
std::set<std::string> options_of(std::vector<const char*> verb) {
    Program p;
    verb.push_back("--help");
    EXPECT_EQ(p.run(verb), 0);
    std::set<std::string> names;
    const std::string help = p.out.str();
    for (size_t at = 0; (at = help.find("\n  --", at)) != std::string::npos;) {
        at += 5;
        const std::string name = help.substr(at, help.find_first_of(" ,\n", at) - at);
        if (name != "config" && name != "check" && name != "help") names.insert(name);
    }
    return names;
}

// Broken if a sample lacked an option that there is, named one that there is not, or its lines that
// are commented out were wrong.
TEST(Config, TheSamplesHaveEveryOption) {
    const std::vector<std::pair<std::string, std::vector<const char*>>> samples{
        {"vault", {"vault", "serve"}},
        {"appliance", {"appliance", "serve"}},
        {"agent", {"agent", "serve"}}};
    for (const auto& [name, verb] : samples) {
        const std::string text =
            text_of(test_source_directory() + "/packaging/config/" + name + ".toml");
        std::string all;
        std::stringstream lines(text);
        // A key that is commented out has no space behind its '#'.
        for (std::string line; std::getline(lines, line);)
            all += (line.size() > 1 && line[0] == '#' && line[1] != ' ' ? line.substr(1) : line) +
                   "\n";
        const auto settings = parse_config(all, name);
        ASSERT_TRUE(settings) << settings.error().to_string();
        std::set<std::string> keys;
        for (const ConfigSetting& setting : *settings) keys.insert(setting.key);
        EXPECT_EQ(keys, options_of(verb)) << name;
        Program p;
        p.files["sample"] = text;
        std::vector<const char*> words = verb;
        for (const char* word : {"--config", "sample", "--check"}) words.push_back(word);
        EXPECT_EQ(p.run(words), 0) << name << ": " << p.err.str();
    }
}

}  // namespace
}  // namespace farshore
