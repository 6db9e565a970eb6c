// write_file_durably() after a power cut at any operation: the old bytes or the new ones, and the
// new ones once it has returned. What agent, vault and recovery keep in documents rests on it.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <iostream>

#include "os/real.h"
#include "sim/crash_images.h"
#include "sim/world.h"

namespace farshore {
namespace {

constexpr char kPath[] = "d/state.json";

Bytes version(size_t number) {
    return number == 0 ? Bytes() : Bytes(700 * number, static_cast<uint8_t>('0' + number));
}

// 0: there is no file; nothing when it is none of the versions.
std::optional<size_t> version_in(CrashFiles& files) {
    auto bytes = read_whole_file(files, kPath);
    if (!bytes)
        return bytes.error().code() == Code::kNotFound ? std::optional<size_t>(0) : std::nullopt;
    for (size_t number = 1; number < 6; ++number)
        if (*bytes == version(number)) return number;
    return std::nullopt;
}

// A document with versions 1, 2 and 3. `returned`: the
// number of operations when each was written.
struct Document {
    explicit Document(
        const std::function<CrashFiles::Verdict(DiskOp, const std::string&)>& interfere = {}) {
        FS_CHECK(files.make_directories("d"));
        files.interfere = interfere;
        for (size_t number = 1; number <= 3; ++number) {
            begun.push_back(files.operations());
            FS_CHECK(write_file_durably(files, kPath, version(number)));
            returned.push_back(files.operations());
        }
    }
    std::string check(size_t operations, CrashFiles& image) const {
        size_t least = 0, most = 0;
        for (size_t i = 0; i < 3; ++i) {
            if (operations >= returned[i]) least = i + 1;
            if (operations > begun[i]) most = i + 1;
        }
        const auto found = version_in(image);
        if (!found) return "neither the old bytes nor the new ones";
        if (*found < least || *found > most)
            return fmt::format("version {}, not {} to {}", *found, least, most);
        return {};
    }
    CrashFiles files;
    std::vector<size_t> begun, returned;
};

// Broken: a document is half, or an old one comes back.
TEST(DurableFileCrash, EveryImageHasTheOldBytesOrTheNewOnes) {
    const Document document;
    uint64_t second = 0;
    const CrashReport report = for_each_crash_image(
        document.files, {.all_subsets = 12}, [&](size_t operations, CrashFiles& image) {
            std::string broken = document.check(operations, image);
            if (!broken.empty() || operations < 2) return broken;
            // What a cut left, the temporary file as well, does not spoil the next one.
            const size_t before = *version_in(image);
            if (!write_file_durably(image, kPath, version(5)))
                return std::string("cannot be written");
            const size_t end = image.operations();
            const CrashReport again = for_each_crash_image(
                image, {.all_subsets = 5, .samples = 4, .torn = 4},
                [&](size_t then, CrashFiles& left) -> std::string {
                    const auto found = version_in(left);
                    const bool old = found == before && then < end;
                    return old || found == 5 ? "" : "the next one is not right";
                });
            second += again.images;
            return again.ok() ? broken : "then " + again.broken.front();
        });
    EXPECT_TRUE(report.ok()) << report.text();
    std::cout << report.images << " images of " << report.cuts << " cuts, " << second
              << " of second cuts\n";
}

// Broken: the test does not see what it is there for.
TEST(DurableFileCrash, AMissingSyncIsFound) {
    for (const DiskOp missing : {DiskOp::kSync, DiskOp::kSyncDirectory}) {
        const Document document([&](DiskOp op, const std::string&) {
            return op == missing ? CrashFiles::Verdict::kLeftOut : CrashFiles::Verdict::kHappens;
        });
        EXPECT_FALSE(
            for_each_crash_image(document.files, {}, [&](size_t operations, CrashFiles& image) {
                return document.check(operations, image);
            }).ok());
    }
}

}  // namespace
}  // namespace farshore
