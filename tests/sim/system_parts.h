// Small parts of the simulated system: a disk of the machine as a file, and the object store as an
// oracle sees it.
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/seams.h"
#include "block/block_device.h"
#include "sim/object_store.h"
#include "store/object_store.h"

namespace farshore::system_sim {

// A raw file of fixed size. Aligned pieces of zeroes are reported as holes, as a file system may.
class FileDisk final : public BlockDevice {
  public:
    FileDisk(std::unique_ptr<File> file, uint64_t size_bytes)
        : file_(std::move(file)), size_bytes_(size_bytes) {}
    uint64_t size_bytes() const override { return size_bytes_; }
    bool read_only() const override { return false; }
    Status read(uint64_t offset, MutableByteView out) override {
        FS_ASSIGN(const size_t got, file_->read_at(offset, out));
        std::fill(out.begin() + static_cast<ptrdiff_t>(got), out.end(), uint8_t{0});
        return {};
    }
    Status write(uint64_t offset, ByteView data) override { return file_->write_at(offset, data); }
    Status zero(uint64_t offset, uint64_t length, bool may_unmap) override {
        if (may_unmap) return file_->punch_hole(offset, length);
        return file_->write_at(offset, Bytes(length));
    }
    Status discard(uint64_t offset, uint64_t length) override {
        return file_->punch_hole(offset, length);
    }
    Status flush() override { return file_->sync(); }
    Result<std::vector<BlockExtent>> extents(uint64_t offset, uint64_t length) override {
        constexpr uint64_t kPieceBytes = 32 << 10;
        Bytes content(length);
        FS_TRY(read(offset, content));
        std::vector<BlockExtent> out;
        for (uint64_t at = 0; at < length;) {
            const uint64_t n = std::min(kPieceBytes - (offset + at) % kPieceBytes, length - at);
            const bool zero = all_zero(ByteView(content).subspan(at, n));
            if (!out.empty() && out.back().zero == zero)
                out.back().length_bytes += n;
            else
                out.push_back({offset + at, n, zero, zero});
            at += n;
        }
        return out;
    }

  private:
    const std::unique_ptr<File> file_;
    const uint64_t size_bytes_;
};

// Reads without faults, time or trace; changes nothing.
class PeekStore final : public ObjectStore {
  public:
    explicit PeekStore(const SimObjectStore& store) : store_(store) {}
    Status put(const std::string&, ByteView) override { return refuse(); }
    Status remove(const std::string&) override { return refuse(); }
    Result<Bytes> get(const std::string& name) override { return store_.peek(name); }
    Result<Bytes> get_range(const std::string& name, uint64_t offset, uint64_t length) override {
        FS_ASSIGN(const ByteView all, store_.peek_view(name));
        const uint64_t from = std::min<uint64_t>(offset, all.size());
        return to_bytes(all.subspan(from, std::min<uint64_t>(length, all.size() - from)));
    }
    Result<ObjectInfo> head(const std::string& name) override {
        FS_ASSIGN(const ByteView all, store_.peek_view(name));
        return ObjectInfo{name, all.size()};
    }
    Result<std::vector<ObjectInfo>> list(const std::string& prefix, const std::string& after,
                                         size_t limit) override {
        std::vector<ObjectInfo> out;
        for (const std::string& name : store_.names(prefix)) {
            if (name <= after) continue;
            if (out.size() == limit) break;
            FS_ASSIGN(const ObjectInfo info, head(name));
            out.push_back(info);
        }
        return out;
    }

  private:
    static Status refuse() { return fail(Code::kForbidden, "the oracle only looks"); }
    const SimObjectStore& store_;
};

}  // namespace farshore::system_sim
