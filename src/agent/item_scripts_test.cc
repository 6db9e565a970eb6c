#include "agent/item_scripts.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "os/test_directory.h"

namespace farshore {
namespace {

struct Scripts {
    Scripts() { ::mkdir(directory.c_str(), 0700); }
    std::string write(const std::string& name, const std::string& text, mode_t mode = 0700) const {
        const std::string path = directory + "/" + name;
        std::ofstream(path) << text;
        ::chmod(path.c_str(), mode);
        return path;
    }
    std::string text(const std::string& name) const {
        std::ifstream file(place / name);
        std::stringstream all;
        all << file.rdbuf();
        return all.str();
    }
    TestDirectory place;
    std::string directory = place / "scripts";
};

// Broken if another item's script ran, or one that somebody else can have written.
TEST(ItemScripts, OnlyTheOwnersAreFound) {
    Scripts scripts;
    EXPECT_FALSE(find_scripts(scripts.directory, "web")->any());
    EXPECT_FALSE(find_scripts(scripts.place / "none", "web")->any());
    const std::string common = scripts.write("pre", "#!/bin/sh\n");
    EXPECT_EQ(find_scripts(scripts.directory, "web")->pre, common);
    ::mkdir((scripts.directory + "/web").c_str(), 0700);
    EXPECT_FALSE(find_scripts(scripts.directory, "web")->any()) << "it has a directory of its own";
    const std::string own = scripts.write("web/post", "#!/bin/sh\n");
    EXPECT_EQ(find_scripts(scripts.directory, "web")->post, own);
    EXPECT_EQ(find_scripts(scripts.directory, "db")->pre, common);
    // Names that lead elsewhere have no directory.
    ::mkdir((scripts.place / "other").c_str(), 0700);
    for (const char* name : {"../other", "..", ".", "", "web/../web"})
        EXPECT_EQ(find_scripts(scripts.directory, name)->pre, common) << name;
    for (const mode_t mode : {0720, 0702, 0600}) {
        ::chmod(own.c_str(), mode);
        EXPECT_EQ(find_scripts(scripts.directory, "web").error().code(), Code::kForbidden) << mode;
    }
    ::chmod(own.c_str(), 0700);
    ::chmod((scripts.directory + "/web").c_str(), 0770);
    EXPECT_EQ(find_scripts(scripts.directory, "web").error().code(), Code::kForbidden);
    ::chmod((scripts.directory + "/web").c_str(), 0700);
    ::unlink(own.c_str());
    ASSERT_EQ(::symlink("/bin/true", own.c_str()), 0);
    EXPECT_EQ(find_scripts(scripts.directory, "web").error().code(), Code::kForbidden) << "a link";
}

// Broken if a script hung us, filled our memory, left what it started, was not told what it is for,
// or its failure passed for success.
TEST(ItemScripts, RunWithinBounds) {
    Scripts scripts;
    ScriptCall call;
    call.item_name = "web";
    call.label = "a; touch /nowhere $(id)";
    call.outcome = "made";
    call.path = scripts.write("good",
                              "#!/bin/sh\necho \"$FARSHORE_ITEM|$FARSHORE_POINT|"
                              "$FARSHORE_OUTCOME|$FARSHORE_ITEM_ID\" > " +
                                  (scripts.place / "said") + "\n");
    ASSERT_TRUE(run_script(call));
    EXPECT_EQ(scripts.text("said"),
              "web|a; touch /nowhere $(id)|made|00000000000000000000000000000000\n");
    call.path = scripts.write("bad", "#!/bin/sh\necho no disk >&2\nexit 3\n");
    const Status bad = run_script(call);
    EXPECT_EQ(bad.error().code(), Code::kUnavailable);
    EXPECT_NE(bad.error().what().find("no disk"), std::string::npos) << bad.error().what();
    call.path = scripts.write("loud", "#!/bin/sh\nexec yes\n");
    EXPECT_EQ(run_script(call).error().code(), Code::kTooLarge);
    call.timeout_us = 200'000;
    call.path = scripts.write("hangs", "#!/bin/sh\nsleep 1000 &\necho $! > " +
                                           (scripts.place / "child") + "\nsleep 1000\n");
    EXPECT_EQ(run_script(call).error().code(), Code::kTimeout);
}

}  // namespace
}  // namespace farshore
