#include "agent/quiesce.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <sstream>

#include "os/real.h"
#include "os/test_directory.h"

namespace farshore {
namespace {

// A mirrored machine, of which a test says what could bring it to rest.
struct Machine {
    Machine() {
        ::mkdir((place / "scripts").c_str(), 0700);
        target.item_name = "web";
        target.mode = CaptureMode::kMirror;
        target.freeze_note = place / "freeze";
        target.script_note = place / "note";
    }
    // Each writes a line of what it was told; `pre` ends with `status`.
    void add_scripts(int status = 0) {
        target.scripts_directory = place / "scripts";
        for (const std::string name : {"pre", "post"}) {
            const std::string path = target.scripts_directory + "/" + name;
            std::ofstream(path) << "#!/bin/sh\necho " << name
                                << " \"$FARSHORE_POINT $FARSHORE_OUTCOME\" >> " << place / "said"
                                << "\nexit " << (name == "pre" ? status : 0) << "\n";
            ::chmod(path.c_str(), 0700);
        }
    }
    Result<std::unique_ptr<Quiesce>> begin() {
        return Quiesce::begin(target, "nightly", files, frozen);
    }
    std::string said() const {
        std::ifstream file(place / "said");
        std::stringstream all;
        all << file.rdbuf();
        return all.str();
    }
    bool noted() { return *files.exists(target.script_note); }

    TestDirectory place;
    PosixFileSystem files;
    QuiesceTarget target;
    std::atomic<bool> frozen{false};
};

// Broken if a point without anything that brings the machine to rest were called consistent.
TEST(Quiesce, ThereMustBeSomethingThatCan) {
    Machine m;
    const auto begun = m.begin();
    ASSERT_FALSE(begun);
    EXPECT_EQ(begun.error().code(), Code::kUnsupported);
    EXPECT_FALSE(m.noted());
}

// Broken if `post` did not run, ran twice, or were told another outcome; or if what says that it is
// due stayed behind.
TEST(Quiesce, PostFollowsPreOnce) {
    Machine m;
    m.add_scripts();
    {
        auto quiesce = m.begin();
        ASSERT_TRUE(quiesce) << quiesce.error().to_string();
        EXPECT_TRUE(m.noted());
        EXPECT_EQ(m.said(), "pre nightly \n");
        RealClock clock;
        EXPECT_TRUE((*quiesce)->freeze(clock)) << "scripts answer for it";
        EXPECT_EQ((*quiesce)->until_us(), INT64_MAX);
        EXPECT_TRUE((*quiesce)->thaw());
        (*quiesce)->finish(true);
        EXPECT_FALSE(m.noted());
    }
    EXPECT_EQ(m.said(), "pre nightly \npost nightly made\n");
    // One that nobody came to finish.
    ASSERT_TRUE(m.begin());
    EXPECT_EQ(m.said(), "pre nightly \npost nightly made\npre nightly \npost nightly failed\n");
}

// Broken if a `pre` that failed halfway were not undone.
TEST(Quiesce, AFailedPreIsUndone) {
    Machine m;
    m.add_scripts(3);
    const auto begun = m.begin();
    ASSERT_FALSE(begun);
    EXPECT_EQ(begun.error().code(), Code::kUnavailable);
    EXPECT_EQ(m.said(), "pre nightly \npost nightly failed\n");
    EXPECT_FALSE(m.noted());
}

// Broken if a script had another time than its agent was told.
TEST(Quiesce, AScriptHasItsTime) {
    Machine m;
    m.add_scripts();
    std::ofstream(m.target.scripts_directory + "/pre") << "#!/bin/sh\nexec sleep 1000\n";
    m.target.limits.script_us = 100'000;
    const auto begun = m.begin();
    ASSERT_FALSE(begun);
    EXPECT_EQ(begun.error().code(), Code::kTimeout);
    EXPECT_EQ(m.said(), "post nightly failed\n");
    EXPECT_FALSE(m.noted());
}

// Broken if a guest agent that is gone left a machine taken for frozen, or its application stopped.
TEST(Quiesce, AGuestAgentThatIsGoneCostsThePoint) {
    Machine m;
    m.add_scripts();
    m.target.guest_agent = m.place / "nobody";
    auto quiesce = m.begin();
    ASSERT_TRUE(quiesce) << quiesce.error().to_string();
    RealClock clock;
    EXPECT_FALSE((*quiesce)->freeze(clock));
    EXPECT_FALSE(m.frozen);
    (*quiesce)->finish(false);
    EXPECT_EQ(m.said(), "pre nightly \npost nightly failed\n");
}

// Broken if an agent that was killed in a point left the application stopped for ever.
TEST(Quiesce, WhatAKilledAgentBeganIsEnded) {
    Machine m;
    m.add_scripts();
    ASSERT_TRUE(write_file_durably(m.files, m.target.script_note, as_bytes("older")));
    Quiesce::finish_leftover(m.target, m.files);
    EXPECT_EQ(m.said(), "post older unknown\n");
    EXPECT_FALSE(m.noted());
    Quiesce::finish_leftover(m.target, m.files);
    EXPECT_EQ(m.said(), "post older unknown\n");
}

}  // namespace
}  // namespace farshore
