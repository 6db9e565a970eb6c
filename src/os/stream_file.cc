#include "os/stream_file.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "os/file_calls.h"

namespace farshore {
namespace {

// What every device and file system takes as alignment of direct transfers.
constexpr size_t kBlockBytes = 4096;
// Less than this is not worth a direct write's wait for the device before the sync's own.
constexpr size_t kWorthDirectBytes = 64u << 10;

struct Free {
    void operator()(uint8_t* bytes) const { std::free(bytes); }
};
using AlignedBytes = std::unique_ptr<uint8_t, Free>;

AlignedBytes aligned_bytes(size_t bytes) {
    auto* got = static_cast<uint8_t*>(std::aligned_alloc(kBlockBytes, bytes));
    FS_CHECK(got != nullptr);
    return AlignedBytes(got);
}

class StreamFile final : public File {
  public:
    StreamFile(std::unique_ptr<File> plain, UniqueFd direct, uint64_t size_bytes, std::string path)
        : plain_(std::move(plain)),
          direct_(std::move(direct)),
          path_(std::move(path)),
          streaming_(size_bytes == 0) {}

    Result<size_t> read_at(uint64_t offset_bytes, MutableByteView out) override {
        size_t staged = 0;  // the last bytes of `out`, which are in the buffer still
        {
            std::lock_guard lock(mutex_);
            if (!streaming_) return plain_->read_at(offset_bytes, out);
            const uint64_t end = stage_at_ + staged_;
            if (offset_bytes >= end) return size_t{0};
            out = out.first(std::min<uint64_t>(out.size(), end - offset_bytes));
            const uint64_t out_end = offset_bytes + out.size();
            if (out_end > stage_at_) {
                const uint64_t from = std::max(offset_bytes, stage_at_);
                staged = out_end - from;
                std::memcpy(out.data() + (from - offset_bytes), stage_.get() + (from - stage_at_),
                            staged);
            }
        }
        FS_TRY(read_blocks(offset_bytes, out.first(out.size() - staged)));
        return out.size();
    }

    Status write_at(uint64_t offset_bytes, ByteView data) override {
        std::lock_guard lock(mutex_);
        if (streaming_ && offset_bytes != stage_at_ + staged_) FS_TRY(stop_streaming());
        if (!streaming_) return plain_->write_at(offset_bytes, data);
        if (!stage_) stage_ = aligned_bytes(kStreamStageBytes);
        while (!data.empty()) {
            const size_t part = std::min(data.size(), kStreamStageBytes - staged_);
            std::memcpy(stage_.get() + staged_, data.data(), part);
            staged_ += part;
            data = data.subspan(part);
            if (staged_ == kStreamStageBytes) FS_TRY(flush_blocks());
        }
        return {};
    }

    Status sync() override {
        std::lock_guard lock(mutex_);
        if (streaming_) FS_TRY(flush());
        return plain_->sync();
    }

    Status truncate(uint64_t size_bytes) override {
        std::lock_guard lock(mutex_);
        if (streaming_ && size_bytes != 0) {
            // What is cut off need not be written first, and perhaps cannot be: the disk is full.
            if (size_bytes < stage_at_ + staged_) {
                staged_ = size_bytes - std::min(size_bytes, stage_at_);
                tail_written_ = std::min(tail_written_, staged_);
            }
            FS_TRY(stop_streaming());
        }
        FS_TRY(plain_->truncate(size_bytes));
        if (size_bytes == 0) {
            streaming_ = true;
            stage_at_ = staged_ = tail_written_ = 0;
        }
        return {};
    }

    Result<uint64_t> size() override {
        std::lock_guard lock(mutex_);
        if (!streaming_) return plain_->size();
        return stage_at_ + staged_;
    }

    Status punch_hole(uint64_t offset_bytes, uint64_t length_bytes) override {
        std::lock_guard lock(mutex_);
        if (streaming_) FS_TRY(stop_streaming());
        return plain_->punch_hole(offset_bytes, length_bytes);
    }

  private:
    // Reads what has left the buffer, never a block that the buffer still holds a part of.
    Status read_blocks(uint64_t offset_bytes, MutableByteView out) {
        AlignedBytes block;
        while (!out.empty()) {
            const uint64_t from = offset_bytes / kBlockBytes * kBlockBytes;
            const size_t skip = offset_bytes - from;
            const size_t wanted =
                std::min((skip + out.size() + kBlockBytes - 1) / kBlockBytes * kBlockBytes,
                         kStreamStageBytes);
            if (!block) block = aligned_bytes(wanted);
            const MutableByteView into(block.get(), wanted);
            auto read = direct_works_ ? read_fully(direct_.get(), from, into, path_)
                                      : plain_->read_at(from, into);
            if (!read && read.error().error_number() == EINVAL) read = plain_->read_at(from, into);
            FS_ASSIGN(const size_t got, std::move(read));
            if (got <= skip) return fail(Code::kTruncated, "'" + path_ + "' became shorter");
            const size_t part = std::min(got - skip, out.size());
            std::memcpy(out.data(), block.get() + skip, part);
            out = out.subspan(part);
            offset_bytes += part;
        }
        return {};
    }

    Status flush_blocks() {
        const size_t whole = staged_ / kBlockBytes * kBlockBytes;
        if (whole == 0) return {};
        const ByteView blocks(stage_.get(), whole);
        bool direct = direct_works_ && whole >= kWorthDirectBytes;
        if (direct) {
            Status written = write_fully(direct_.get(), stage_at_, blocks, path_);
            // A file system may take O_DIRECT at open and refuse the write.
            direct = written || written.error().error_number() != EINVAL;
            if (direct) FS_TRY(written);
            direct_works_ = direct;
        }
        if (!direct) FS_TRY(plain_->write_at(stage_at_, blocks));
        stage_at_ += whole;
        staged_ -= whole;
        tail_written_ = 0;
        std::memmove(stage_.get(), stage_.get() + whole, staged_);
        return {};
    }

    Status flush() {
        FS_TRY(flush_blocks());
        if (staged_ == tail_written_) return {};
        FS_TRY(plain_->write_at(stage_at_ + tail_written_,
                                ByteView(stage_.get() + tail_written_, staged_ - tail_written_)));
        tail_written_ = staged_;
        return {};
    }

    Status stop_streaming() {
        FS_TRY(flush());
        streaming_ = false;
        stage_.reset();
        return {};
    }

    const std::unique_ptr<File> plain_;
    const UniqueFd direct_;
    const std::string path_;
    std::mutex mutex_;
    std::atomic<bool> direct_works_{true};
    bool streaming_;
    AlignedBytes stage_;       // made by the first write
    uint64_t stage_at_ = 0;    // where the buffer's first byte belongs; a multiple of a block
    size_t staged_ = 0;        // bytes in the buffer
    size_t tail_written_ = 0;  // of these, in the page cache too (less than a block)
};

}  // namespace

std::unique_ptr<File> make_stream_file(std::unique_ptr<File> plain, UniqueFd direct,
                                       uint64_t size_bytes, std::string path) {
    return std::make_unique<StreamFile>(std::move(plain), std::move(direct), size_bytes,
                                        std::move(path));
}

}  // namespace farshore
