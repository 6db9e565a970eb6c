// Files in memory that write down what a program does to them, and every state that a power cut may
// leave of that: the proof, within bounds, that a format opens after a cut at any operation.
// SimDisk draws one such state a power loss; this enumerates them.
//
//   CrashFiles files;
//   Thing thing(files);
//   thing.put("a");                            // returned when files.operations() was n
//   for_each_crash_image(files, {}, [&](size_t operations, CrashFiles& image) -> std::string {
//       Thing again(image);                    // what was put is there if operations >= n
//       return "";                             // or what is broken, in words
//   });
//
// What is legal is as for SimDisk (docs/design/simulation.md §4): file data becomes durable with
// its file's sync, names with their directory's. Of what is not durable, any sectors of any writes,
// in the state of any moment since; sizes with or without the data; truncations in order; entry
// changes in any subset. An image is a CrashFiles itself, all of it durable: what a program does
// after the cut can be cut again.
//
// One thread. Bytes of all files are copied for every image: scenarios are short and files small.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/seams.h"
#include "sim/disk.h"

namespace farshore {

class CrashFiles final : public FileSystem {
  public:
    // Asked before each operation that changes something or makes it durable; may also throw
    // ProcessKilled, and then it does not happen.
    enum class Verdict : uint8_t {
        kHappens,
        kLeftOut,  // it reports success and does nothing: a program that forgot to call it
        kFails,    // kIo, without effect
    };
    struct Operation {
        DiskOp op = DiskOp::kWrite;
        std::string path;
        size_t file = 0;  // inode
        uint64_t offset_bytes = 0;
        Bytes data;
        uint64_t length_bytes = 0;  // of a hole; the new size of a truncation
        size_t directory = 0, to_directory = 0;
        std::string name, to_name;
    };

    CrashFiles();
    ~CrashFiles() override;

    // How many operations have happened. What a call promised when it returned holds for all cuts
    // at or behind the count of that moment.
    size_t operations() const { return log_.size(); }
    std::string describe(size_t operation) const;
    std::function<Verdict(DiskOp op, const std::string& path)> interfere;

    Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override;
    Status remove(const std::string& path) override;
    Status rename(const std::string& from, const std::string& to) override;
    Status link(const std::string& from, const std::string& to) override;
    Status make_directories(const std::string& path) override;
    Status sync_directory(const std::string& path) override;
    Result<std::vector<std::string>> list(const std::string& path) override;
    Result<bool> exists(const std::string& path) override;
    Result<uint64_t> free_bytes(const std::string& path) override;

  private:
    friend class CrashEnumeration;
    class Handle;
    struct Node {
        bool directory = false;
        Bytes bytes;
        std::map<std::string, size_t, std::less<>> entries;
    };
    static constexpr size_t kRoot = 0;

    explicit CrashFiles(std::vector<Node> nodes) : nodes_(std::move(nodes)), initial_(nodes_) {}
    Result<size_t> find(std::string_view path) const;
    struct Place {
        size_t directory = 0;
        std::string name;
    };
    Result<Place> place(std::string_view path) const;
    // Whether the operation is to happen; then it is in the log.
    Result<bool> begin(Operation operation);

    std::vector<Node> nodes_;  // an inode is an index
    std::vector<Node> initial_;
    std::vector<Operation> log_;
};

struct CrashBounds {
    size_t first_operation = 0;  // cuts before it are left out
    // Up to so many things that are not durable, every subset. Of up to `all_single`: none, all,
    // each alone, all but each, every beginning, and `samples` that are drawn. Of more: none, all
    // and the samples.
    size_t all_subsets = 8;
    size_t all_single = 64;
    size_t samples = 16;
    // Beside these, images in which each sector went its own way, some of them torn inside.
    size_t torn = 12;
    uint64_t seed = 1;
    bool whole_sectors = false;  // none is torn inside, for what relies on that
    size_t stop_after = 3;       // broken images
};

struct CrashReport {
    uint64_t cuts = 0;
    uint64_t images = 0;
    std::vector<std::string> broken;
    bool ok() const { return broken.empty(); }
    std::string text() const;
};

// `check` says what is broken in an image of a cut after that many operations; empty: nothing.
CrashReport for_each_crash_image(
    const CrashFiles& recorded, const CrashBounds& bounds,
    const std::function<std::string(size_t operations, CrashFiles& image)>& check);

}  // namespace farshore
