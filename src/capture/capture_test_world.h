// What the tests of this folder share: memory that outlives a tap, files and a disk that can lose
// what was not synced, a clock that stands still, and a model to compare the record stream with.
// Thread-safe unless said otherwise.
#pragma once

#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>

#include "block/block_device.h"
#include "capture/tap.h"

namespace farshore::capture_test {

// Thrown where a test wants the tap to die. No code of ours catches anything, so shared memory and
// files stay as they were at that instant.
struct Killed {};

class StillClock final : public Clock {
  public:
    TimePoint now() const override { return {1'700'000'000'000'000 + us_.load()}; }
    int64_t steady_us() const override { return 1'000'000 + us_.load(); }
    void advance_us(int64_t us) { us_ += us; }

  private:
    std::atomic<int64_t> us_{0};
};

class SeededKeys final : public Random {
  public:
    void fill(MutableByteView out) override {
        for (uint8_t& byte : out) byte = static_cast<uint8_t>(draw_());
    }

  private:
    std::mt19937_64 draw_{7};
};

// Files with a cached and a durable content; power_loss() leaves the durable one. Entries are
// durable at once. Handles stay valid.
class TestFiles final : public FileSystem {
  public:
    struct Node {
        Bytes cached;
        Bytes durable;
    };

    Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override {
        std::lock_guard lock(mutex_);
        auto& node = nodes_[path];
        if (!node && mode != OpenMode::kCreate && mode != OpenMode::kCreateNew) {
            nodes_.erase(path);
            return fail(Code::kNotFound, path);
        }
        if (!node) node = std::make_shared<Node>();
        return std::unique_ptr<File>(new Handle(*this, path, node));
    }
    Status remove(const std::string& path) override {
        std::lock_guard lock(mutex_);
        if (nodes_.erase(path) == 0) return fail(Code::kNotFound, path);
        return {};
    }
    Status rename(const std::string& from, const std::string& to) override {
        std::lock_guard lock(mutex_);
        const auto at = nodes_.find(from);
        if (at == nodes_.end()) return fail(Code::kNotFound, from);
        nodes_[to] = at->second;
        nodes_.erase(from);
        return {};
    }
    Status link(const std::string&, const std::string&) override { return {}; }
    Status make_directories(const std::string&) override { return {}; }
    Status sync_directory(const std::string&) override { return {}; }
    Result<std::vector<std::string>> list(const std::string&) override {
        return std::vector<std::string>();
    }
    Result<bool> exists(const std::string& path) override {
        std::lock_guard lock(mutex_);
        return nodes_.contains(path);
    }
    Result<uint64_t> free_bytes(const std::string&) override { return 1ull << 40; }

    void power_loss() {
        std::lock_guard lock(mutex_);
        for (auto& [path, node] : nodes_) node->cached = node->durable;
    }
    Bytes durable(const std::string& path) {
        std::lock_guard lock(mutex_);
        const auto at = nodes_.find(path);
        return at == nodes_.end() ? Bytes() : at->second->durable;
    }
    void set(const std::string& path, const Bytes& content) {
        std::lock_guard lock(mutex_);
        nodes_[path] = std::make_shared<Node>(Node{content, content});
    }
    // Called before each write or sync, with "write PATH" or "sync PATH"; may throw Killed or
    // return an error.
    std::function<Status(const std::string&)> before;

  private:
    class Handle final : public File {
      public:
        Handle(TestFiles& files, std::string path, std::shared_ptr<Node> node)
            : files_(files), path_(std::move(path)), node_(std::move(node)) {}
        Result<size_t> read_at(uint64_t offset, MutableByteView out) override {
            std::lock_guard lock(files_.mutex_);
            const Bytes& from = node_->cached;
            if (offset >= from.size()) return size_t{0};
            const size_t n = std::min<size_t>(out.size(), from.size() - offset);
            std::memcpy(out.data(), from.data() + offset, n);
            return n;
        }
        Status write_at(uint64_t offset, ByteView data) override {
            if (const auto before = files_.before) FS_TRY(before("write " + path_));
            std::lock_guard lock(files_.mutex_);
            if (node_->cached.size() < offset + data.size())
                node_->cached.resize(offset + data.size());
            std::memcpy(node_->cached.data() + offset, data.data(), data.size());
            return {};
        }
        Status sync() override {
            if (const auto before = files_.before) FS_TRY(before("sync " + path_));
            std::lock_guard lock(files_.mutex_);
            node_->durable = node_->cached;
            return {};
        }
        Status truncate(uint64_t size) override {
            std::lock_guard lock(files_.mutex_);
            node_->cached.resize(size);
            return {};
        }
        Result<uint64_t> size() override {
            std::lock_guard lock(files_.mutex_);
            return node_->cached.size();
        }
        Status punch_hole(uint64_t offset, uint64_t length) override {
            std::lock_guard lock(files_.mutex_);
            for (uint64_t i = offset; i < std::min<uint64_t>(offset + length, node_->cached.size());
                 ++i)
                node_->cached[i] = 0;
            return {};
        }

      private:
        TestFiles& files_;
        const std::string path_;
        const std::shared_ptr<Node> node_;
    };
    std::mutex mutex_;
    std::map<std::string, std::shared_ptr<Node>> nodes_;
};

// The content of a disk; MemoryDevice objects are views of it, so that it outlives taps.
struct DiskContent {
    explicit DiskContent(uint64_t size) : now(size), durable(size) {}
    std::mutex mutex;
    Bytes now;
    Bytes durable;
    struct Unsynced {
        uint64_t offset;
        Bytes bytes;
    };
    std::vector<Unsynced> unsynced;
    // Before the change; may throw Killed or return an error. `part`: how many bytes to change
    // first.
    std::function<Status(uint64_t offset, uint64_t length, uint64_t& part)> before_change;
    // After a read, before its caller goes on; may throw Killed.
    std::function<void(uint64_t offset, uint64_t length)> after_read;

    void put(uint64_t offset, ByteView bytes) {
        std::lock_guard lock(mutex);
        std::memcpy(now.data() + offset, bytes.data(), bytes.size());
        unsynced.push_back({offset, to_bytes(bytes)});
    }
    // Each unsynced change is there or not.
    void power_loss(std::mt19937_64& random) {
        for (const Unsynced& change : unsynced)
            if (random() % 2 == 0)
                std::memcpy(durable.data() + change.offset, change.bytes.data(),
                            change.bytes.size());
        unsynced.clear();
        now = durable;
    }
};

class MemoryDevice final : public BlockDevice {
  public:
    explicit MemoryDevice(DiskContent& content) : content_(content) {}
    uint64_t size_bytes() const override { return content_.now.size(); }
    bool read_only() const override { return false; }
    Status read(uint64_t offset, MutableByteView out) override {
        {
            std::lock_guard lock(content_.mutex);
            std::memcpy(out.data(), content_.now.data() + offset, out.size());
        }
        if (const auto after_read = content_.after_read) after_read(offset, out.size());
        return {};
    }
    Status write(uint64_t offset, ByteView data) override {
        uint64_t part = 0;
        // A copy: hooks take themselves away while they run.
        if (const auto before_change = content_.before_change) {
            Status status;
            try {
                status = before_change(offset, data.size(), part);
            } catch (const Killed&) {
                content_.put(offset, data.first(part));
                throw;
            }
            if (!status) {
                content_.put(offset, data.first(part));
                return status;
            }
        }
        content_.put(offset, data);
        return {};
    }
    Status zero(uint64_t offset, uint64_t length, bool) override {
        return write(offset, Bytes(length));
    }
    Status discard(uint64_t offset, uint64_t length) override {
        return write(offset, Bytes(length));
    }
    Status flush() override {
        std::lock_guard lock(content_.mutex);
        content_.durable = content_.now;
        content_.unsynced.clear();
        return {};
    }
    // Aligned 32 KiB pieces of zeroes are holes.
    Result<std::vector<BlockExtent>> extents(uint64_t offset, uint64_t length) override {
        std::lock_guard lock(content_.mutex);
        std::vector<BlockExtent> out;
        for (uint64_t at = offset; at < offset + length;) {
            const uint64_t n = std::min<uint64_t>(32768 - at % 32768, offset + length - at);
            const bool zero = all_zero(ByteView(content_.now).subspan(at, n));
            if (!out.empty() && out.back().zero == zero)
                out.back().length_bytes += n;
            else
                out.push_back({at, n, zero, zero});
            at += n;
        }
        return out;
    }

  private:
    DiskContent& content_;
};

// Memory for a log, and the log's geometry.
class TestMemory {
  public:
    explicit TestMemory(LogGeometry geometry)
        : geometry_(std::move(geometry)),
          control_(control_bytes(geometry_) / 8),
          ring_(geometry_.ring_bytes) {}
    LogMemory memory() {
        return {{reinterpret_cast<uint8_t*>(control_.data()), control_.size() * 8}, ring_, false};
    }
    const LogGeometry& geometry() const { return geometry_; }

  private:
    LogGeometry geometry_;
    std::vector<uint64_t> control_;
    Bytes ring_;
};

inline uint64_t base_seed() {
    const char* text = std::getenv("FARSHORE_SEED");
    return text != nullptr ? std::strtoull(text, nullptr, 10) : 1;
}

}  // namespace farshore::capture_test
